//! Flow key and hash against the vectors of `abi`, and the key of every kind of packet.

use crate::support::*;
use dynencap_abi::{FLOW_HASH_VECTORS, FlowKey};
use dynencap_model::flow;
use proptest::prelude::*;

#[test]
fn the_hash_equals_the_vectors() {
    assert!(!FLOW_HASH_VECTORS.is_empty());
    for vector in FLOW_HASH_VECTORS {
        let hash = flow::hash(&vector.key);
        assert_eq!(hash, vector.hash, "{:?}", vector.key);
        assert_eq!(flow::flow_label(hash), vector.flow_label);
        assert_eq!(flow::udp_source_port(hash), vector.udp_source_port);
    }
}

#[test]
fn the_key_reads_addresses_protocol_and_ports() {
    let v6 = flow::key(&packet(V6, &ipv6_packet(TCP, &tcp_segment(0, &[], b"x")))).unwrap();
    assert_eq!((v6.source, v6.destination), (SOURCE, DESTINATION));
    assert_eq!((v6.source_port, v6.destination_port), ([4, 0], [1, 0xbb]));
    assert_eq!((v6.protocol, v6.version), (TCP, 6));

    let options = [1; 8];
    let v4 = flow::key(&packet(
        V4,
        &ipv4_packet(&options, UDP, &udp_datagram(b"x")),
    ))
    .unwrap();
    let mapped = |[a, b, c, d]: [u8; 4]| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, a, b, c, d];
    assert_eq!(v4.source, mapped(SOURCE4));
    assert_eq!(v4.destination, mapped(DESTINATION4));
    assert_eq!((v4.source_port, v4.destination_port), ([4, 0], [1, 0xbb]));
    assert_eq!((v4.protocol, v4.version), (UDP, 4));
}

/// Protocol and whether ports were read.
fn seen(ethertype: u16, bytes: &[u8]) -> (u8, bool) {
    let key = flow::key(&packet(ethertype, bytes)).unwrap();
    (key.protocol, key.source_port != [0; 2])
}

/// `count` destination options and then `next`.
fn chain(count: usize, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for index in 1..=count {
        bytes.extend(extension(if index == count { next } else { 60 }, 8));
    }
    bytes.extend(payload);
    ipv6_packet(if count == 0 { next } else { 60 }, &bytes)
}

#[test]
fn extension_headers_are_walked_up_to_the_limit() {
    let tcp = tcp_segment(0, &[], b"payload");
    for count in 0..=8 {
        assert_eq!(seen(V6, &chain(count, TCP, &tcp)), (TCP, true), "{count}");
    }
    assert_eq!(seen(V6, &chain(9, TCP, &tcp)), (60, false));
    // A fragment header is none of those that are walked and counted.
    let fragment = [vec![TCP, 0, 0, 0, 0, 0, 0, 1], tcp.clone()].concat();
    assert_eq!(seen(V6, &chain(8, 44, &fragment)), (TCP, false));
    assert_eq!(seen(V6, &chain(9, 44, &fragment)), (60, false));

    let mixed = [
        extension(43, 16),
        extension(51, 8),
        vec![
            60, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
        extension(UDP, 24),
        udp_datagram(b"x"),
    ]
    .concat();
    assert_eq!(seen(V6, &ipv6_packet(0, &mixed)), (UDP, true));
}

#[test]
fn what_cannot_be_walked_has_no_ports() {
    let tcp = tcp_segment(0, &[], b"payload");
    let cases: [(&str, Vec<u8>, u8); 8] = [
        (
            "extension cut off",
            ipv6_packet(0, &[TCP, 1, 0, 0, 0, 0, 0, 0]),
            0,
        ),
        ("extension of one byte", ipv6_packet(43, &[TCP]), 43),
        ("no extension where announced", ipv6_packet(60, &[]), 60),
        ("second extension absent", chain(1, 43, &[]), 43),
        (
            "fragment header cut off",
            ipv6_packet(44, &[TCP, 0, 0, 0]),
            44,
        ),
        (
            "atomic fragment",
            ipv6_packet(44, &[&[TCP, 0, 0, 0, 0, 0, 0, 1], &tcp[..]].concat()),
            TCP,
        ),
        ("ports cut off", ipv6_packet(TCP, &tcp[..3]), TCP),
        ("no ports in ICMPv6", ipv6_packet(58, &tcp), 58),
    ];
    for (name, bytes, protocol) in cases {
        assert_eq!(seen(V6, &bytes), (protocol, false), "{name}");
    }
    assert_eq!(seen(V6, &ipv6_packet(TCP, &tcp[..4])), (TCP, true));
    assert_eq!(seen(V6, &ipv6_packet(132, &tcp)), (132, true));
}

#[test]
fn fragments_of_ipv4_have_no_ports() {
    let tcp = tcp_segment(0, &[], b"payload");
    for (field, ports) in [
        ([0x00, 0], true),
        ([0x40, 0], true),
        ([0x80, 0], true),
        ([0x20, 0], false),
        ([0x00, 1], false),
        ([0x1f, 0xff], false),
    ] {
        let mut bytes = ipv4_packet(&[], TCP, &tcp);
        bytes[6..8].copy_from_slice(&field);
        assert_eq!(seen(V4, &bytes), (TCP, ports), "{field:02x?}");
    }
}

#[test]
fn malformed_headers_have_no_key() {
    let v6 = ipv6_packet(TCP, &[]);
    let v4 = ipv4_packet(&[], TCP, &[]);
    assert_eq!(flow::key(&packet(V6, &v6[..39])), None);
    assert_eq!(flow::key(&packet(V4, &v6)), None);
    assert_eq!(flow::key(&packet(V6, &v4)), None);
    assert_eq!(flow::key(&packet(V4, &v4[..19])), None);
    assert_eq!(flow::key(&packet(0x0806, &v4)), None);
}

prop_compose! {
    fn any_key()(
        source: [u8; 16], destination: [u8; 16], source_port: [u8; 2],
        destination_port: [u8; 2], protocol: u8,
    ) -> FlowKey {
        FlowKey { source, destination, source_port, destination_port, protocol, version: 6,
            reserved: [0; 2] }
    }
}

proptest! {
    #[test]
    fn both_directions_hash_alike(key in any_key()) {
        prop_assert_eq!(flow::hash(&key), flow::hash(&key.reversed()));
        let label = flow::flow_label(flow::hash(&key));
        prop_assert!((1..1 << 20).contains(&label));
        prop_assert!(flow::udp_source_port(flow::hash(&key)) >= 49152);
    }

    #[test]
    fn a_difference_moved_to_the_other_end_changes_the_hash(key in any_key(), bit in 0u32..16) {
        let flip = |port: [u8; 2]| (u16::from_be_bytes(port) ^ (1u16 << bit)).to_be_bytes();
        let a = FlowKey { source_port: flip(key.source_port), ..key };
        let b = FlowKey { destination_port: flip(key.destination_port), ..key };
        prop_assume!(a != b.reversed());
        prop_assert_ne!(flow::hash(&a), flow::hash(&b));
    }
}

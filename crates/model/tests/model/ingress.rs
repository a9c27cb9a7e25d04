//! Section 4: what arrives through a tunnel, and what ECN becomes.

use crate::support::*;
use dynencap_abi::{Reason, Verdict};
use dynencap_model::{Frame, Host, Packet, Port};
use pnet_packet::ipv4::{self, Ipv4Packet};

fn deliver(host: &mut Host, packet: Packet<'_>) -> (Reason, Vec<Frame>) {
    let mut frames = Vec::new();
    let reason = host.ingress(packet, &mut frames);
    (reason, frames)
}

fn outer(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ipv6_packet(next_header, payload);
    bytes[24..40].copy_from_slice(&GATEWAY);
    bytes
}

fn outer_udp(header: &[u8], inner: &[u8]) -> Vec<u8> {
    let mut udp = udp_datagram(&[header, inner].concat());
    udp[2..4].copy_from_slice(&[0x17, 0xc0]);
    outer(UDP, &udp)
}

#[test]
fn what_is_for_no_tunnel_passes_untouched() {
    let inner = ipv6_packet(58, b"ping");
    let tunnelled = outer(41, &inner);
    let udp = outer_udp(&[], &inner);
    let mut host = receiver(0);
    let cases = [
        ("ARP", 0x0806, tunnelled.clone(), Reason::NotIp),
        ("IPv4", V4, tunnelled.clone(), Reason::NotTunnel),
        ("short", V6, tunnelled[..39].to_vec(), Reason::NotTunnel),
        (
            "version 4",
            V6,
            changed(&tunnelled, 0, 0x40),
            Reason::NotTunnel,
        ),
        ("TCP", V6, changed(&tunnelled, 6, TCP), Reason::NotTunnel),
        ("UDP header cut", V6, udp[..47].to_vec(), Reason::NotTunnel),
        (
            "another address",
            V6,
            changed(&tunnelled, 39, 0),
            Reason::NotTunnel,
        ),
        ("another port", V6, changed(&udp, 43, 0), Reason::NotTunnel),
        (
            "wrong length to another address",
            V6,
            changed(&changed(&udp, 39, 0), 5, 0),
            Reason::NotTunnel,
        ),
        ("empty", V6, vec![], Reason::NotTunnel),
    ];
    for (name, ethertype, bytes, expected) in cases {
        let (reason, frames) = deliver(&mut host, packet(ethertype, &bytes));
        assert_eq!(reason, expected, "{name}");
        assert_eq!(
            frames,
            [Frame {
                port: Port::Delivered,
                ethertype,
                bytes
            }],
            "{name}"
        );
    }
}

#[test]
fn a_removed_tunnel_ends_nowhere() {
    let bytes = outer(41, &ipv6_packet(58, b"ping"));
    let mut host = receiver(0);
    assert_eq!(
        deliver(&mut host, packet(V6, &bytes)).0,
        Reason::Decapsulated
    );
    host.remove_tunnel(&tunnel(41).0);
    assert_eq!(deliver(&mut host, packet(V6, &bytes)).0, Reason::NotTunnel);
    assert_eq!(host.counters()[Reason::Decapsulated as usize], 1);
    assert_eq!(host.counters()[Reason::NotTunnel as usize], 1);
}

#[test]
fn contradictions_are_dropped_outer_first() {
    let six = ipv6_packet(58, b"12345678");
    let four = ipv4_packet(&[], 1, b"12345678");
    let udp = outer_udp(b"head", &six);
    let in_six = |inner: &[u8]| outer(41, inner);
    let in_four = |inner: &[u8]| outer(4, inner);
    let cases = [
        (
            "outer longer than frame",
            changed(&in_six(&six), 5, 49),
            Reason::BadOuter,
        ),
        (
            "outer shorter than frame",
            changed(&in_six(&six), 5, 47),
            Reason::BadOuter,
        ),
        ("UDP length", changed(&udp, 45, 8), Reason::BadOuter),
        (
            "custom header cut",
            outer_udp(b"hea", &[]),
            Reason::BadOuter,
        ),
        (
            "bad outer and bad inner",
            changed(&in_six(&four), 5, 0),
            Reason::BadOuter,
        ),
        (
            "nothing behind the custom header",
            outer_udp(b"head", &[]),
            Reason::BadInner,
        ),
        ("nothing inside", in_six(&[]), Reason::BadInner),
        (
            "version 5",
            in_six(&changed(&six, 0, 0x50)),
            Reason::BadInner,
        ),
        (
            "version 5 in UDP",
            outer_udp(b"head", &changed(&six, 0, 0x50)),
            Reason::BadInner,
        ),
        ("IPv4 announced as IPv6", in_six(&four), Reason::BadInner),
        ("IPv6 announced as IPv4", in_four(&six), Reason::BadInner),
        ("IPv6 cut", in_six(&six[..39]), Reason::BadInner),
        (
            "IPv6 longer than its frame",
            in_six(&changed(&six, 5, 9)),
            Reason::BadInner,
        ),
        (
            "IPv6 shorter than its frame",
            in_six(&changed(&six, 5, 7)),
            Reason::BadInner,
        ),
        ("IPv4 cut", in_four(&four[..19]), Reason::BadInner),
        ("IHL 4", in_four(&changed(&four, 0, 0x44)), Reason::BadInner),
        (
            "total below header",
            in_four(&changed(&four, 3, 19)),
            Reason::BadInner,
        ),
        (
            "IPv4 longer than its frame",
            in_four(&changed(&four, 3, 29)),
            Reason::BadInner,
        ),
        (
            "IPv4 shorter than its frame",
            in_four(&changed(&four, 3, 27)),
            Reason::BadInner,
        ),
        ("IPv6 in IPv6", in_six(&six), Reason::Decapsulated),
        ("IPv4 in IPv6", in_four(&four), Reason::Decapsulated),
        ("IPv6 in UDP", udp.clone(), Reason::Decapsulated),
        (
            "IPv4 in UDP",
            outer_udp(b"head", &four),
            Reason::Decapsulated,
        ),
        (
            "an outer UDP checksum is not verified",
            changed(&udp, 46, 1),
            Reason::Decapsulated,
        ),
    ];
    for (name, bytes, expected) in cases {
        let (reason, frames) = deliver(&mut receiver(4), packet(V6, &bytes));
        assert_eq!(reason, expected, "{name}");
        assert_eq!(
            frames.is_empty(),
            reason.verdict() == Verdict::Dropped,
            "{name}"
        );
    }
}

#[test]
fn one_layer_is_taken_off_at_a_time() {
    let inner = ipv6_packet(58, b"ping");
    let nested = outer(41, &outer(41, &inner));
    let mut host = receiver(0);
    let (reason, once) = deliver(&mut host, packet(V6, &nested));
    assert_eq!(
        (reason, &once[0].bytes),
        (Reason::Decapsulated, &outer(41, &inner))
    );
    let (reason, twice) = deliver(&mut host, frame_packet(&once[0]));
    assert_eq!((reason, &twice[0].bytes), (Reason::Decapsulated, &inner));
}

#[test]
fn ecn_is_combined_and_ipv4_checksums_follow() {
    const NOT_ECT: u8 = 0;
    const ECT1: u8 = 1;
    const ECT0: u8 = 2;
    const CE: u8 = 3;
    #[rustfmt::skip]
    let table = [
        (NOT_ECT, NOT_ECT, Some(NOT_ECT)), (NOT_ECT, ECT0, Some(NOT_ECT)),
        (NOT_ECT, ECT1, Some(NOT_ECT)),    (NOT_ECT, CE, None),
        (ECT0, NOT_ECT, Some(ECT0)),       (ECT0, ECT0, Some(ECT0)),
        (ECT0, ECT1, Some(ECT1)),          (ECT0, CE, Some(CE)),
        (ECT1, NOT_ECT, Some(ECT1)),       (ECT1, ECT0, Some(ECT1)),
        (ECT1, ECT1, Some(ECT1)),          (ECT1, CE, Some(CE)),
        (CE, NOT_ECT, Some(CE)),           (CE, ECT0, Some(CE)),
        (CE, ECT1, Some(CE)),              (CE, CE, Some(CE)),
    ];
    for (inner_ecn, outer_ecn, delivered) in table {
        for dscp in [0, 0x2e] {
            let six = |ecn: u8| {
                let class = dscp << 2 | ecn;
                let bytes = changed(&ipv6_packet(58, b"ping"), 0, 0x60 | class >> 4);
                changed(&bytes, 1, class << 4 | 1)
            };
            let four = |ecn: u8| {
                let mut bytes = changed(&ipv4_packet(&[1; 4], 1, b"ping"), 1, dscp << 2 | ecn);
                let sum = ipv4::checksum(&Ipv4Packet::new(&bytes).unwrap());
                bytes[10..12].copy_from_slice(&sum.to_be_bytes());
                bytes
            };
            for (protocol, inner, expected) in [
                (41, six(inner_ecn), delivered.map(six)),
                (4, four(inner_ecn), delivered.map(four)),
            ] {
                // The outer DSCP differs: only its ECN may matter.
                let mut bytes = outer(protocol, &inner);
                bytes[..2].copy_from_slice(&[0x60, 0x40 | outer_ecn << 4]);
                let (reason, frames) = deliver(&mut receiver(0), packet(V6, &bytes));
                let case = format!("{protocol}: {inner_ecn} in {outer_ecn}");
                match expected {
                    Some(expected) => {
                        assert_eq!(reason, Reason::Decapsulated, "{case}");
                        assert_eq!(frames[0].bytes, expected, "{case}");
                    }
                    None => assert_eq!((reason, frames.len()), (Reason::EcnDrop, 0), "{case}"),
                }
            }
        }
    }
}

#[test]
fn a_wrong_ipv4_checksum_stays_wrong() {
    let mut inner = ipv4_packet(&[], 1, b"ping");
    inner[10] ^= 0x40;
    let mut bytes = outer(4, &inner);
    bytes[1] |= 0x30;
    let (reason, frames) = deliver(&mut receiver(0), packet(V6, &bytes));
    assert_eq!(reason, Reason::Decapsulated);
    let ip = Ipv4Packet::new(&frames[0].bytes).unwrap();
    assert_eq!(ip.get_ecn(), 3);
    assert_ne!(ip.get_checksum(), ipv4::checksum(&ip));
}

fn outer4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ipv4_packet(&[], protocol, payload);
    bytes[16..20].copy_from_slice(&GATEWAY4);
    rewrite_checksum(&mut bytes);
    bytes
}

/// With a right header checksum.
fn altered(bytes: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut bytes = changed(bytes, at, value);
    rewrite_checksum(&mut bytes);
    bytes
}

#[test]
fn ipv4_outer_headers_are_judged_in_order() {
    let six = ipv6_packet(58, b"12345678");
    let four = ipv4_packet(&[], 1, b"12345678");
    let in_four = |protocol, inner: &[u8]| outer4(protocol, inner);
    let mut datagram = udp_datagram(&[b"head", &six[..]].concat());
    datagram[2..4].copy_from_slice(&[0x17, 0xc0]);
    let udp = outer4(UDP, &datagram);
    let plain = in_four(41, &six);
    let with_options = |protocol, payload: &[u8]| {
        let mut bytes = ipv4_packet(&[1; 4], protocol, payload);
        bytes[16..20].copy_from_slice(&GATEWAY4);
        rewrite_checksum(&mut bytes);
        bytes
    };
    let (not, bad) = (Reason::NotTunnel, Reason::BadOuter);
    #[rustfmt::skip]
    let cases = [
        ("IPv6 in IPv4", plain.clone(), Reason::Decapsulated),
        ("IPv4 in IPv4", in_four(4, &four), Reason::Decapsulated),
        ("UDP", udp.clone(), Reason::Decapsulated),
        ("short", plain[..19].to_vec(), not),
        ("version 6", altered(&plain, 0, 0x65), not),
        ("more fragments", altered(&plain, 6, 0x20), not),
        ("offset", altered(&plain, 7, 1), not),
        ("without DF", altered(&plain, 6, 0), Reason::Decapsulated),
        ("TCP", altered(&plain, 9, TCP), not),
        ("another address", altered(&plain, 19, 0), not),
        ("another port", changed(&udp, 23, 0), not),
        ("UDP header cut", udp[..27].to_vec(), not),
        ("UDP with IHL 4", altered(&udp, 0, 0x44), not),
        ("IHL 4 of another protocol", altered(&plain, 0, 0x44), bad),
        ("options", with_options(41, &six), bad),
        ("options before UDP", with_options(UDP, &datagram), bad),
        ("options before cut UDP", with_options(UDP, &datagram[..7]), not),
        ("header checksum", changed(&plain, 10, plain[10] ^ 1), bad),
        ("longer than frame", altered(&plain, 3, plain[3] + 1), bad),
        ("shorter than frame", altered(&plain, 3, plain[3] - 1), bad),
        ("UDP length", changed(&udp, 25, udp[25] - 1), bad),
        ("no custom header", outer4(UDP, &{
            let mut short = udp_datagram(b"hea");
            short[2..4].copy_from_slice(&[0x17, 0xc0]);
            short
        }), bad),
        ("checksum before what is inside", changed(&in_four(41, &four), 8, 0), bad),
        ("IPv4 announced as IPv6", in_four(41, &four), Reason::BadInner),
        ("IPv6 announced as IPv4", in_four(4, &six), Reason::BadInner),
        ("nothing inside", in_four(4, &[]), Reason::BadInner),
    ];
    for (name, bytes, expected) in cases {
        let (reason, frames) = deliver(&mut receiver(4), packet(V4, &bytes));
        assert_eq!(reason, expected, "{name}");
        let dropped = reason.verdict() == Verdict::Dropped;
        assert_eq!(frames.is_empty(), dropped, "{name}");
    }
}

#[test]
fn ecn_of_an_ipv4_outer_header_is_heeded() {
    let ect = changed(&ipv6_packet(58, b"ping"), 1, 0x20);
    let (_, frames) = deliver(
        &mut receiver(0),
        packet(V4, &altered(&outer4(41, &ect), 1, 3)),
    );
    assert_eq!(frames[0].bytes[1] & 0x30, 0x30, "CE");
    let not_ect = changed(&ipv6_packet(58, b"ping"), 1, 0);
    let (reason, _) = deliver(
        &mut receiver(0),
        packet(V4, &altered(&outer4(41, &not_ect), 1, 3)),
    );
    assert_eq!(reason, Reason::EcnDrop);
}

#[test]
fn an_ihl_below_5_is_no_udp_tunnel_even_where_a_port_seems_to_fit() {
    // Behind 16 bytes, the destination's last two bytes would be the port.
    let mut host = host();
    let mut key = tunnel(UDP).0;
    key.address = mapped(GATEWAY4);
    key.port = [GATEWAY4[2], GATEWAY4[3]];
    host.add_tunnel(key, spec(0));
    let bytes = altered(&outer4(UDP, &udp_datagram(b"data")), 0, 0x44);
    assert_eq!(deliver(&mut host, packet(V4, &bytes)).0, Reason::NotTunnel);
}

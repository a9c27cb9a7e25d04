//! Decapsulation on the real kernel.

use crate::{
    assert_counted, captured, frame,
    frame::{IPV4, IPV6},
    replay,
    require::require,
};
use dynencap_abi::{Reason, TunnelKey, TunnelSpec};
use dynencap_kernel::{Feature, Port, Replay};

const TUNNEL: &str = "2001:db8:7::7";

fn add_tunnel(replay: &mut Replay, protocol: u8, port: u16, header_len: u8) {
    let key = TunnelKey {
        address: frame::address(TUNNEL),
        protocol,
        reserved: 0,
        port: port.to_be_bytes(),
    };
    let spec = TunnelSpec {
        header_len,
        flags: 0,
        format: TunnelSpec::FIXED,
        reserved: 0,
    };
    replay.add_tunnel(key, spec).unwrap();
}

/// An outer header with ECN bits 01, like the inner one's.
fn outer(next_header: u8, payload: &[u8]) -> Vec<u8> {
    frame::ipv6(next_header, "2001:db8:9::9", TUNNEL, payload)
}

/// A UDP header to port 6080, 8 bytes of custom header, the packet.
fn in_udp(inner: &[u8]) -> Vec<u8> {
    let length = u16::try_from(16 + inner.len()).unwrap().to_be_bytes();
    let header = [0xc0, 1, 0x17, 0xc0, length[0], length[1], 0, 0];
    [&header[..], &[9; 8], inner].concat()
}

#[test]
fn ipv6_is_delivered_as_it_was_before_encapsulation() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    add_tunnel(&mut replay, 41, 0, 0);
    add_tunnel(&mut replay, 17, 6080, 8);
    let six = frame::tcp_in_ipv6(0x18, &frame::pattern(1300));
    replay.inject(IPV6, &outer(41, &six)).unwrap();
    replay.inject(IPV6, &outer(17, &in_udp(&six))).unwrap();
    assert_eq!(
        captured(&mut replay),
        [
            (Port::Delivered, IPV6, six.clone()),
            (Port::Delivered, IPV6, six),
        ]
    );
    assert_counted(&replay, &[(Reason::Decapsulated, 2)]);
}

#[test]
fn ipv4_is_delivered_as_it_was_before_encapsulation() {
    if !require(&[Feature::DecapsulateIpv4]) {
        return;
    }
    let mut replay = replay();
    add_tunnel(&mut replay, 4, 0, 0);
    add_tunnel(&mut replay, 17, 6080, 8);
    let mut four = frame::tcp_in_ipv4(b"hello");
    // ECT(0) inside, ECT(1) outside would change it: take ECT(1) inside.
    four[1] = 0x2d;
    four[10..12].copy_from_slice(&[0, 0]);
    replay.inject(IPV6, &outer(4, &four)).unwrap();
    replay.inject(IPV6, &outer(17, &in_udp(&four))).unwrap();
    assert_eq!(
        captured(&mut replay),
        [
            (Port::Delivered, IPV4, four.clone()),
            (Port::Delivered, IPV4, four),
        ]
    );
    assert_counted(&replay, &[(Reason::Decapsulated, 2)]);
}

#[test]
fn what_no_tunnel_takes_is_delivered_unchanged() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let frames = [
        (IPV6, outer(41, &frame::tcp_in_ipv6(0x10, b"abc"))),
        (IPV6, vec![0x60; 1]),
        (IPV4, frame::tcp_in_ipv4(&frame::pattern(60_000))),
        (0x0806, frame::pattern(28)),
        (0x88b5, frame::pattern(16)),
        (
            0x88a8,
            [&[0, 9, 0x88, 0xcc], &frame::pattern(50)[..]].concat(),
        ),
    ];
    for (ethertype, bytes) in &frames {
        replay.inject(*ethertype, bytes).unwrap();
    }
    let expected = frames.map(|(ethertype, bytes)| (Port::Delivered, ethertype, bytes));
    assert_eq!(captured(&mut replay), expected);
    assert_counted(&replay, &[(Reason::NotIp, 3), (Reason::NotTunnel, 3)]);
}

#[test]
fn what_contradicts_itself_is_dropped_and_counted() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    add_tunnel(&mut replay, 41, 0, 0);
    let mut short = outer(41, &frame::tcp_in_ipv6(0x10, b"abc"));
    short.truncate(90);
    let not_ipv6 = outer(41, &frame::tcp_in_ipv4(b"abc"));
    let mut congested = outer(41, &frame::ipv6(59, "::1", "::2", &[]));
    congested[1] |= 0x30;
    congested[41] &= 0xcf;
    for frame in [short, not_ipv6, congested] {
        replay.inject(IPV6, &frame).unwrap();
    }
    assert_eq!(captured(&mut replay), []);
    assert_counted(
        &replay,
        &[
            (Reason::BadOuter, 1),
            (Reason::BadInner, 1),
            (Reason::EcnDrop, 1),
        ],
    );
}

#[test]
fn frames_with_less_than_an_ip_header_are_delivered() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let frames = [Vec::new(), vec![0x60], frame::pattern(39)];
    for bytes in &frames {
        replay.inject(IPV6, bytes).unwrap();
    }
    let expected = frames.map(|bytes| (Port::Delivered, IPV6, bytes));
    assert_eq!(captured(&mut replay), expected);
    assert_counted(&replay, &[(Reason::NotTunnel, 3)]);
}

#[test]
fn a_vlan_tag_is_gone_before_ingress_and_the_packet_inside_is_decapsulated() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    add_tunnel(&mut replay, 41, 0, 0);
    let inner = frame::tcp_in_ipv6(0x10, b"abc");
    let tag = [0x20, 5, 0x86, 0xdd];
    let tagged = [&tag[..], &outer(41, &inner)].concat();
    replay.inject(0x8100, &tagged).unwrap();
    let expected = [&tag[..], &inner].concat();
    assert_eq!(captured(&mut replay), [(Port::Delivered, 0x8100, expected)]);
    assert_counted(&replay, &[(Reason::Decapsulated, 1)]);
}

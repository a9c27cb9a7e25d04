//! The auditor goes red for each fault that it is there to find.

use super::{Audit, Plain, Rules, Segment, packet::Ip};
use crate::{
    capture::Observer,
    exit::Shape,
    reference::{Reference, config},
};
use dynencap_abi::Config;
use std::net::{IpAddr, Ipv6Addr};

const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xc, 0, 0, 0, 0, 0, 1);
const SERVER: Ipv6Addr = Ipv6Addr::new(0xfd00, 5, 0, 0, 0, 0, 0, 1);
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xe, 0, 0, 0, 0, 0, 1);

fn audit() -> Audit {
    Audit::new(Rules {
        mtu: 1500,
        source: CLIENT,
        gateways: vec![GATEWAY.into()],
        shapes: vec![Shape::Ip, Shape::udp(8)],
        plain: Plain::Leak,
        flags: 0,
    })
}

/// A TCP segment from the client to the server; its checksum is nobody's business here.
fn segment(flags: u8, payload: usize) -> Vec<u8> {
    let length = ((20 + payload) as u16).to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], 6, 64];
    packet.extend(CLIENT.octets());
    packet.extend(SERVER.octets());
    packet.extend([
        0x9c, 0x40, 0x23, 0x28, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0,
    ]);
    packet.resize(60 + payload, 7);
    packet
}

fn tunnelled(shape: &Shape, inner: &[u8]) -> Vec<u8> {
    let mut reference = Reference::new(config(CLIENT, 65_000));
    let gateway = IpAddr::from(GATEWAY);
    reference
        .encapsulated(gateway, shape, 0x86dd, inner)
        .unwrap()
        .to_vec()
}

fn frame(packet: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &[0x86, 0xdd], packet].concat()
}

#[test]
fn what_is_as_it_should_be_is_counted_and_no_fault() {
    let mut audit = audit();
    for (flags, payload) in [(2, 0), (0x10, 0), (0x18, 100), (0x11, 0), (0x14, 0)] {
        audit.frame(&frame(&tunnelled(&Shape::Ip, &segment(flags, payload))));
        audit.frame(&frame(&tunnelled(&Shape::udp(8), &segment(flags, payload))));
    }
    audit.frame(&[&[2; 12][..], &[8, 6], &[0; 28]].concat());
    audit.assert_clean();
    assert_eq!((audit.frames, audit.link, audit.tunnelled()), (11, 1, 10));
    for kind in [
        Segment::Syn,
        Segment::Ack,
        Segment::Data,
        Segment::Fin,
        Segment::Rst,
    ] {
        assert_eq!(audit.segments(kind), 2, "{kind:?}");
    }
    assert_eq!(audit.through(GATEWAY.into()), 10);
}

#[test]
fn a_packet_outside_of_the_tunnel_is_a_leak() {
    let mut audit = audit();
    audit.frame(&frame(&segment(2, 0)));
    assert_eq!(audit.leaks.count, 1);
    assert!(std::panic::catch_unwind(move || audit.assert_clean()).is_err());
}

#[test]
fn a_frame_over_the_mtu_is_seen() {
    let mut audit = audit();
    audit.frame(&frame(&tunnelled(&Shape::Ip, &segment(0x10, 1400))));
    assert_eq!(audit.oversize.count, 0, "1500 bytes fit");
    audit.frame(&frame(&tunnelled(&Shape::Ip, &segment(0x10, 1401))));
    assert_eq!(audit.oversize.count, 1);
}

#[test]
fn every_flipped_bit_of_the_outer_headers_is_seen() {
    for shape in [Shape::Ip, Shape::udp(8)] {
        let packet = tunnelled(&shape, &segment(0x18, 10));
        for bit in 0..8 * (packet.len() - 70) {
            let mut flipped = packet.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut audit = audit();
            audit.frame(&frame(&flipped));
            assert!(audit.faults() > 0, "bit {bit} of {shape}");
        }
    }
}

#[test]
fn outer_udp_checksums_are_summed_in_full() {
    let config = Config {
        flags: Config::UDP_CHECKSUM,
        ..config(CLIENT, 1500)
    };
    // The model's checksum follows from the inner one, which has to be right.
    let mut inner = segment(0x18, 101);
    let sum = !sum(&[&inner[8..40], &[0, 6, 0, 121], &inner[40..]].concat());
    inner[56..58].copy_from_slice(&sum.to_be_bytes());
    let mut reference = Reference::new(config);
    let made = reference.encapsulated(GATEWAY.into(), &Shape::udp(8), 0x86dd, &inner);
    let packet = made.unwrap().to_vec();
    let is_valid = |packet: &[u8]| {
        let ip = Ip::parse(0x86dd, packet).unwrap();
        ip.udp_checksum_is_valid()
    };
    assert!(is_valid(&packet));
    for at in [46, 60, packet.len() - 1] {
        let mut wrong = packet.clone();
        wrong[at] ^= 1;
        assert!(!is_valid(&wrong), "{at}");
    }
    let mut none = packet;
    none[46..48].fill(0);
    assert!(!is_valid(&none));
}

fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

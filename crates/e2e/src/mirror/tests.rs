//! The auditor goes red for what is wrong, and only for that.

use super::*;
use crate::tunnel::Kind;
use std::net::Ipv6Addr;

const HOST: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xc, 0, 0, 0, 0, 0, 1);
const PEER: Ipv6Addr = Ipv6Addr::new(0xfd00, 5, 0, 0, 0, 0, 0, 1);

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 64];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&source.to_be_bytes());
    segment[2..4].copy_from_slice(&destination.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = flags;
    segment
}

fn in_udp(source: Ipv6Addr, destination: Ipv6Addr, vni: u8, inner: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 9];
    payload.extend(4790_u16.to_be_bytes());
    payload.extend((16 + inner.len() as u16).to_be_bytes());
    payload.extend([0, 0, 0x0c, 0, 0, 2, 0, 0, vni, 0]);
    payload.extend(inner);
    ipv6(source, destination, 17, &payload)
}

fn mirror() -> Mirror {
    Mirror::new(Rules {
        host: vec![HOST.into()],
        tunnels: vec![Tunnel::reflected(HOST, Kind::Fixed(4790, 8))],
        mtu: 1500,
        forged: vec![[0x0c, 0, 0, 2, 0, 0, 9, 0]],
    })
}

fn show(mirror: &mut Mirror, packet: &[u8]) {
    let frame = [&[0; 12], &[0x86, 0xdd][..], packet].concat();
    mirror.frame(&frame);
}

fn comes(mirror: &mut Mirror, vni: Option<u8>) {
    let inner = ipv6(PEER, HOST, 6, &tcp(5, 80, 2));
    match vni {
        Some(vni) => show(mirror, &in_udp(PEER, HOST, vni, &inner)),
        None => show(mirror, &inner),
    }
}

fn leaves(mirror: &mut Mirror, vni: Option<u8>) {
    let inner = ipv6(HOST, PEER, 6, &tcp(80, 5, 18));
    match vni {
        Some(vni) => show(mirror, &in_udp(HOST, PEER, vni, &inner)),
        None => show(mirror, &inner),
    }
}

#[test]
fn a_reply_by_the_same_header_is_mirrored() {
    let mut mirror = mirror();
    comes(&mut mirror, Some(42));
    leaves(&mut mirror, Some(42));
    mirror.assert_mirrored();
    assert_eq!(mirror.count(Segment::SynAck), 1);
    assert_eq!(mirror.replies(5).0, 1);
    assert!(mirror.last(5).is_some() && mirror.last(6).is_none());
}

#[test]
fn a_reply_outside_or_in_another_network_is_astray() {
    for vni in [None, Some(43)] {
        let mut mirror = mirror();
        comes(&mut mirror, Some(42));
        leaves(&mut mirror, vni);
        assert_eq!(mirror.astray.0, 1, "{mirror}");
    }
    let mut unasked = mirror();
    leaves(&mut unasked, Some(42));
    assert_eq!(unasked.astray.0, 1, "{unasked}");
}

#[test]
fn a_reply_to_who_came_outside_is_plain() {
    let mut mirror = mirror();
    comes(&mut mirror, None);
    leaves(&mut mirror, None);
    mirror.assert_clean();
    assert_eq!((mirror.plain, mirror.mirrored), (1, 0));
}

#[test]
fn an_earlier_path_is_behind_and_a_forgers_is_astray() {
    let mut mirror = mirror();
    comes(&mut mirror, Some(42));
    comes(&mut mirror, Some(43));
    leaves(&mut mirror, Some(42));
    leaves(&mut mirror, Some(43));
    comes(&mut mirror, Some(9));
    leaves(&mut mirror, Some(43));
    mirror.assert_clean();
    assert_eq!((mirror.behind, mirror.mirrored, mirror.forged), (1, 2, 1));
    leaves(&mut mirror, Some(9));
    assert_eq!(mirror.astray.0, 1);
}

#[test]
fn a_reply_over_the_mtu_is_seen() {
    let mut mirror = mirror();
    mirror.rules.mtu = 60;
    comes(&mut mirror, Some(42));
    leaves(&mut mirror, Some(42));
    assert_eq!(mirror.oversize.0, 1);
}

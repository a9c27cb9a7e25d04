//! The invariants of the design that hold for every packet: `transparent`, `fits`, `total`.

use crate::support::*;
use dynencap_abi::option::{AF_INET6, AF_PACKET, ENCAP_GW, ENCAP_UDP};
use dynencap_abi::{Config, Exit, Reason, Verdict};
use dynencap_model::{Errno, Host, Socket, SocketKind, reflection, segment};
use pnet_packet::ipv4::{self, Ipv4Packet};
use proptest::prelude::*;

fn socket_with(header: Option<&[u8]>) -> Socket {
    header.map_or_else(ip_exit, udp_exit)
}

prop_compose! {
    /// A sound packet of either version: protocol, traffic class and payload are arbitrary.
    fn sound(longest: usize)(
        v4: bool, class: u8, protocol: u8, hops: u8, words in 0usize..=10,
        payload in prop::collection::vec(any::<u8>(), 0..longest),
    ) -> (u16, Vec<u8>) {
        if v4 {
            let mut bytes = ipv4_packet(&vec![1; 4 * words], protocol, &payload);
            (bytes[1], bytes[8]) = (class, hops);
            let sum = ipv4::checksum(&Ipv4Packet::new(&bytes).unwrap());
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            (V4, bytes)
        } else {
            let mut bytes = ipv6_packet(protocol, &payload);
            bytes[0] = 0x60 | class >> 4;
            bytes[1] = class << 4 | 5;
            bytes[7] = hops;
            (V6, bytes)
        }
    }
}

fn custom_header() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..=32))
}

/// Arbitrary bytes, and sound packets in which a few bytes are changed or the end is cut.
fn hostile() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let ethertype = prop_oneof![Just(V4), Just(V6), any::<u16>()];
    let noise = (ethertype, prop::collection::vec(any::<u8>(), 0..200));
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let chained = prop::collection::vec(
        prop_oneof![
            Just(0u8),
            Just(43),
            Just(44),
            Just(51),
            Just(60),
            Just(TCP),
            Just(UDP),
            any::<u8>()
        ],
        0..12,
    );
    let damaged = (
        sound(3000),
        chained,
        changes,
        any::<prop::sample::Index>(),
        any::<bool>(),
    );
    let damaged = damaged.prop_map(|((ethertype, bytes), chain, changes, cut, keep)| {
        let mut bytes = bytes;
        if ethertype == V6 {
            // Each header announces the next: every walk from no step to too many.
            for (index, next) in chain.iter().enumerate() {
                let at = if index == 0 { 6 } else { 40 + 8 * (index - 1) };
                if let Some(field) = bytes.get_mut(at..at + 2) {
                    field[0] = *next;
                    if index > 0 {
                        field[1] &= 1;
                    }
                }
            }
        }
        for (at, value) in changes {
            let at = at.index(bytes.len().min(80));
            bytes[at] = value;
        }
        if !keep {
            bytes.truncate(cut.index(bytes.len()));
        }
        (ethertype, bytes)
    });
    prop_oneof![1 => noise, 4 => damaged]
}

proptest! {
    /// The longest IPv4 header, payload and overhead stay within the uplink's 1500 bytes.
    #[test]
    fn transparent((ethertype, bytes) in sound(1360), header in custom_header(), ecn in 0u8..4) {
        let mut wire = Vec::new();
        let socket = socket_with(header.as_deref());
        let egress = host().egress(Some(&socket), packet(ethertype, &bytes), &mut wire);
        prop_assert_eq!(egress.reason, Reason::Encapsulated);
        let mut receiver = receiver(header.map_or(0, |header| header.len() as u8));

        let mut delivered = Vec::new();
        let reason = receiver.ingress(frame_packet(&wire[0]), &mut delivered);
        prop_assert_eq!(reason, Reason::Decapsulated);
        prop_assert_eq!(delivered[0].ethertype, ethertype);
        prop_assert_eq!(&delivered[0].bytes, &bytes);

        // With any ECN that the way put on the outer header, ECN apart.
        wire[0].bytes[1] = wire[0].bytes[1] & !0x30 | ecn << 4;
        delivered.clear();
        if receiver.ingress(frame_packet(&wire[0]), &mut delivered) == Reason::Decapsulated {
            let mut apart = delivered[0].bytes.clone();
            if ethertype == V4 {
                let ip = Ipv4Packet::new(&delivered[0].bytes).unwrap();
                prop_assert_eq!(ip.get_checksum(), ipv4::checksum(&ip));
                apart[1] = apart[1] & !3 | bytes[1] & 3;
                apart[10..12].copy_from_slice(&bytes[10..12]);
            } else {
                apart[1] = apart[1] & !0x30 | bytes[1] & 0x30;
            }
            prop_assert_eq!(apart, bytes);
        } else {
            prop_assert_eq!(ecn, 3);
        }
    }

    #[test]
    fn fits(
        packets in prop::collection::vec((sound(12_000), any::<u16>(), 0u8..3), 1..8),
        header in custom_header(), uplink_mtu in 1280u32..=9216,
    ) {
        let mut host = Host::new(Config { uplink_mtu, ..config() });
        let socket = socket_with(header.as_deref());
        for ((ethertype, mut bytes), gso_size, transport) in packets {
            // Random protocols are seldom TCP or UDP.
            let at = if ethertype == V4 { 9 } else { 6 };
            bytes[at] = [TCP, UDP, bytes[at]][usize::from(transport)];
            let gso_size = gso_size % 2048;
            let mut frames = Vec::new();
            host.egress(Some(&socket), super_packet(ethertype, &bytes, gso_size), &mut frames);
            for frame in frames {
                prop_assert!(frame.bytes.len() <= uplink_mtu as usize);
            }
        }
    }

    #[test]
    fn total(
        steps in prop::collection::vec((
            hostile(), prop_oneof![Just(0u16), 1u16..2000, any::<u16>()], 0u8..3, any::<u32>(),
        ), 1..20),
        options in prop::collection::vec((
            prop_oneof![Just(ENCAP_GW), Just(ENCAP_UDP), any::<i32>()],
            prop_oneof![
                Just(vec![]), Just(GATEWAY.to_vec()),
                prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 16),
            ],
        ), 0..8),
        family in prop_oneof![4 => Just(AF_INET6), 1 => Just(AF_PACKET), 1 => any::<u32>()],
        ty in 1u32..4, protocol: u32, source: bool, uplink_mtu: u32, flags: u32,
    ) {
        let source = if source { CONFIGURED } else { [0; 16] };
        let config = Config { source, uplink_mtu, flags, ..Config::default() };
        let mut host = Host::new(config);
        for protocol in [4, 41, UDP] {
            host.add_tunnel(tunnel(protocol).0, spec(uplink_mtu as u8));
        }
        let mut socket = Socket::new(SocketKind { family, ty, protocol });
        for (name, value) in &options {
            let before = (socket.exit().copied(), socket.mark());
            if let Err(Errno(errno)) = socket.set_option(&config, *name, value) {
                prop_assert!(errno > 0);
                prop_assert_eq!((socket.exit().copied(), socket.mark()), before);
            }
            let read = socket.option(&config, *name, value.len());
            prop_assert!(read.is_err() || read.unwrap().len() <= value.len());
        }

        for (index, ((ethertype, mut bytes), gso_size, way, mark)) in steps.into_iter().enumerate() {
            let mut frames = Vec::new();
            if way == 0 {
                if let Some(address) = bytes.get_mut(24..40) {
                    address.copy_from_slice(&GATEWAY);
                }
                if let Some(next) = bytes.get_mut(6) {
                    *next = [4, 41, UDP][usize::from(*next) % 3];
                }
            }
            let packet = super_packet(ethertype, &bytes, gso_size);
            let reason = if way == 0 {
                let reflected = reflection::parse(&packet, host.tunnels());
                let reason = host.ingress(packet, &mut frames);
                prop_assert!(reflected.is_err() || reason.verdict() != Verdict::Passed);
                reason
            } else {
                let exit = Exit { header: [mark as u8; 32], header_len: mark as u8,
                    flags: (mark >> 8) as u8, gateway: GATEWAY, ..Exit::NONE };
                if way == 2 {
                    socket.set_exit(exit);
                }
                let gateway = socket.exit().map_or(&[][..], |exit| &exit.gateway[..]);
                let egress = host.egress_marked(Some(&socket), mark, packet, &mut frames);
                if egress.segments > 0 {
                    prop_assert_eq!(egress.segments as usize, frames.len());
                } else {
                    prop_assert!(frames.len() <= 1);
                }
                match egress.verdict() {
                    Verdict::Encapsulated => prop_assert!(
                        frames.iter().all(|frame| frame.bytes.get(24..40) == Some(gateway))
                    ),
                    Verdict::Passed if egress.segments == 0 => {
                        prop_assert_eq!(&frames[0].bytes, &bytes);
                    }
                    verdict => prop_assert_ne!(verdict, Verdict::Decapsulated),
                }
                egress.reason
            };
            prop_assert_eq!(reason.verdict() == Verdict::Dropped, frames.is_empty());
            prop_assert_eq!(host.counters().iter().sum::<u64>(), index as u64 + 1);
            let _ = segment::layout(&packet);
        }
    }
}

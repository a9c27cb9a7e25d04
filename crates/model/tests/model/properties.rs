//! The invariants of the design that hold for every packet: `transparent`, `fits`, `total`.

use crate::outer::udp_checksums;
use crate::support::*;
use dynencap_abi::option::{AF_INET6, AF_PACKET, ENCAP_GW, ENCAP_UDP};
use dynencap_abi::{Config, Exit, FlowKey, Reason, TunnelKey, Verdict};
use dynencap_model::{
    Errno, Frame, Host, Origin, Port, Socket, SocketKind, flow, reflection, segment,
};
use pnet_packet::ipv4::{self, Ipv4Packet};
use pnet_packet::ipv6::Ipv6Packet;
use pnet_packet::udp::UdpPacket;
use proptest::prelude::*;

const NO_FLOW: FlowKey = FlowKey {
    source: [0; 16],
    destination: [0; 16],
    source_port: [0; 2],
    destination_port: [0; 2],
    protocol: 0,
    version: 0,
    reserved: [0; 2],
};

fn socket_with(v4: bool, header: Option<&[u8]>) -> Socket {
    match (v4, header) {
        (false, header) => header.map_or_else(ip_exit, udp_exit),
        (true, None) => ip4_exit(),
        (true, Some(header)) => udp4_exit(header),
    }
}

/// What the outer headers say of their own lengths and checksums.
fn assert_outer(frame: &Frame, overhead: usize) {
    let len = frame.bytes.len();
    let (ip_len, protocol) = if frame.ethertype == V4 {
        let ip = Ipv4Packet::new(&frame.bytes).unwrap();
        assert_eq!(usize::from(ip.get_total_length()), len);
        assert_eq!(ip.get_checksum(), ipv4::checksum(&ip));
        (20, ip.get_next_level_protocol().0)
    } else {
        let ip = Ipv6Packet::new(&frame.bytes).unwrap();
        assert_eq!(usize::from(ip.get_payload_length()), len - 40);
        (40, ip.get_next_header().0)
    };
    assert_eq!(protocol == UDP, overhead > ip_len);
    if protocol == UDP {
        let udp = UdpPacket::new(&frame.bytes[ip_len..]).unwrap();
        assert_eq!(usize::from(udp.get_length()), len - ip_len);
    }
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
    fn transparent(
        (ethertype, bytes) in sound(1360), v4: bool, header in custom_header(), ecn in 0u8..4,
    ) {
        let mut wire = Vec::new();
        let socket = socket_with(v4, header.as_deref());
        let egress = host().egress(Some(&socket), packet(ethertype, &bytes), &mut wire);
        prop_assert_eq!(egress.reason, Reason::Encapsulated);
        prop_assert_eq!(wire[0].ethertype, if v4 { V4 } else { V6 });
        assert_outer(&wire[0], wire[0].bytes.len() - bytes.len());
        let mut receiver = receiver(header.map_or(0, |header| header.len() as u8));

        let mut delivered = Vec::new();
        let reason = receiver.ingress(frame_packet(&wire[0]), &mut delivered);
        prop_assert_eq!(reason, Reason::Decapsulated);
        prop_assert_eq!((delivered[0].port, delivered[0].ethertype), (Port::Delivered, ethertype));
        prop_assert_eq!(&delivered[0].bytes, &bytes);

        // With any ECN that the way put on the outer header, ECN apart.
        if v4 {
            wire[0].bytes[1] = wire[0].bytes[1] & !3 | ecn;
            rewrite_checksum(&mut wire[0].bytes);
        } else {
            wire[0].bytes[1] = wire[0].bytes[1] & !0x30 | ecn << 4;
        }
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

    /// On both ways to the wire, all four combinations of families, with and without sums.
    #[test]
    fn super_packets_are_transparent(
        v6_inside: bool, v4: bool, udp: bool, header in custom_header(), first: bool,
        payload in prop::collection::vec(any::<u8>(), 0..6000), gso_size in 1u16..1350,
        whole: bool,
    ) {
        let ethertype = if v6_inside { V6 } else { V4 };
        let bytes = sound_transport(ethertype, if udp { UDP } else { TCP }, &payload);
        let gso_size = if whole && payload.len() < 1300 { 0 } else { gso_size };
        let mut config = Config { flags: Config::UDP_CHECKSUM, ..config() };
        if first {
            config.flags |= Config::SEGMENT_FIRST;
            config.segmenter = 1;
        } else if gso_size > 0 {
            config.flags = 0;
        }
        let leaving = super_packet(ethertype, &bytes, gso_size);
        let mut plain: Vec<Frame> = Vec::new();
        if segment::segment(&leaving, &mut plain).is_none() {
            plain.push(Frame { port: Port::Wire, ethertype, bytes: bytes.clone() });
        }
        let socket = socket_with(v4, header.as_deref());
        let mut wire: Vec<Frame> = Vec::new();
        let origin = Origin::Socket(&socket);
        Host::new(config).transmit(origin, socket.mark(), &(), leaving, &mut wire);
        prop_assert_eq!(wire.len(), plain.len());
        let mut receiver = receiver(header.as_ref().map_or(0, |header| header.len() as u8));
        for (frame, plain) in wire.iter().zip(&plain) {
            assert_outer(frame, frame.bytes.len() - plain.bytes.len());
            if header.is_some() && config.flags & Config::UDP_CHECKSUM != 0 {
                let (stated, computed) = udp_checksums(frame);
                prop_assert_eq!(stated, computed);
            }
            let mut delivered = Vec::new();
            receiver.ingress(frame_packet(frame), &mut delivered);
            prop_assert_eq!(&delivered[0].bytes, &plain.bytes);
        }
    }

    #[test]
    fn fits(
        packets in prop::collection::vec((sound(12_000), any::<u16>(), 0u8..3), 1..8),
        v4: bool, header in custom_header(), uplink_mtu in 1280u32..=9216,
    ) {
        let mut host = Host::new(Config { uplink_mtu, ..config() });
        let socket = socket_with(v4, header.as_deref());
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
        ty in 1u32..4, protocol: u32, source: bool, flags: u32, segmenter in 0u32..2,
        uplink_mtu in prop_oneof![any::<u32>(), 0u32..2000],
    ) {
        let source = if source { CONFIGURED } else { [0; 16] };
        let source4 = if source[0] == 0 { [0; 4] } else { CONFIGURED4 };
        let config = Config {
            source, source4, uplink_mtu, flags, segmenter, hop_limit: flags >> 8, ..Config::default()
        };
        let mut host = Host::new(config);
        let mut runs = 0;
        for protocol in [4, 41, UDP] {
            let key = tunnel(protocol).0;
            host.add_tunnel(key, spec(uplink_mtu as u8));
            let address = mapped(GATEWAY4);
            host.add_tunnel(TunnelKey { address, ..key }, spec(uplink_mtu as u8));
        }
        let mut socket = Socket::new(SocketKind { family, ty, protocol });
        for (name, value) in &options {
            let before = (socket.exit().copied(), socket.mark());
            if let Err(Errno(errno)) = host.set_option(&mut socket, &[1], *name, value) {
                prop_assert!(errno > 0);
                prop_assert_eq!((socket.exit().copied(), socket.mark()), before);
            }
            let read = host.option(&socket, *name, value.len());
            prop_assert!(read.is_err() || read.unwrap().len() <= value.len());
        }

        prop_assert_eq!(host.events().iter().sum::<u64>(), options.len() as u64);

        for ((ethertype, mut bytes), gso_size, way, mark) in steps {
            runs += 1;
            let mut frames = Vec::new();
            if way == 0 {
                let (next, at, address) = match ethertype {
                    V4 => (9, 16, &GATEWAY4[..]),
                    _ => (6, 24, &GATEWAY[..]),
                };
                if let Some(place) = bytes.get_mut(at..at + address.len()) {
                    place.copy_from_slice(address);
                }
                if let Some(next) = bytes.get_mut(next) {
                    *next = [4, 41, UDP][usize::from(*next) % 3];
                }
                if ethertype == V4 && bytes.len() > 20 && mark & 1 == 0 {
                    rewrite_checksum(&mut bytes);
                }
            }
            let packet = super_packet(ethertype, &bytes, gso_size);
            let reason = if way == 0 {
                let reflected = reflection::parse(&packet, host.tunnels());
                let reason = host.ingress(packet, &mut frames);
                let learned = [Reason::PathMtuLearned, Reason::PathMtuRefused].contains(&reason);
                prop_assert!(reflected.is_err() || learned || reason.verdict() != Verdict::Passed);
                reason
            } else {
                let exit = Exit { header: [mark as u8; 32], header_len: mark as u8,
                    flags: (mark >> 8) as u8, gateway: GATEWAY, ..Exit::NONE };
                if way == 2 {
                    socket.set_exit(exit);
                }
                let origin = match mark >> 30 {
                    0 => Origin::None,
                    1 => Origin::TimeWait,
                    2 => Origin::Request(&socket),
                    _ => Origin::Socket(&socket),
                };
                if mark & 1 << 29 == 0 && let Some(flow) = flow::key(&packet) {
                    host.closed(&socket, flow);
                }
                let gateway = host.kept(&flow::key(&packet).unwrap_or(NO_FLOW)).copied();
                let gateways = [gateway, socket.exit().copied()].map(|exit| exit.map(|e| e.gateway));
                let egress = if mark & 1 << 28 == 0 {
                    host.segmented(origin, mark, &(), packet, &mut frames)
                } else {
                    host.egress_from(origin, mark, &(), packet, &mut frames)
                };
                if egress.segments > 0 {
                    prop_assert_eq!(egress.segments as usize, frames.len());
                } else {
                    prop_assert!(frames.len() <= 1);
                }
                let port = match egress.reason {
                    Reason::Segmenting => Port::Segmenter,
                    Reason::TooBigTold => Port::Delivered,
                    _ => Port::Wire,
                };
                prop_assert!(frames.iter().all(|frame| frame.port == port));
                match egress.verdict() {
                    Verdict::Encapsulated => for frame in &frames {
                        let to = match frame.ethertype {
                            V4 => mapped(frame.bytes[16..20].try_into().unwrap()),
                            _ => frame.bytes[24..40].try_into().unwrap(),
                        };
                        let same = |gateway: [u8; 16]| match frame.ethertype {
                            V4 => gateway[12..] == to[12..],
                            _ => gateway == to,
                        };
                        prop_assert!(gateways.into_iter().flatten().any(same));
                    },
                    Verdict::Passed if egress.segments == 0 => {
                        prop_assert_eq!(&frames[0].bytes, &bytes);
                    }
                    verdict => prop_assert_ne!(verdict, Verdict::Decapsulated),
                }
                if egress.reason == Reason::TooBigTold {
                    frames.clear();
                }
                egress.reason
            };
            prop_assert_eq!(reason.verdict() == Verdict::Dropped, frames.is_empty());
            prop_assert_eq!(host.counters().iter().sum::<u64>(), runs);
            let _ = segment::layout(&packet);
        }
    }
}

//! IPv4 outer headers, valid UDP checksums and what a sender is told, on the real kernel.

use crate::{
    Frame, assert_counted, captured, config, frame,
    frame::{IPV4, IPV6},
    object,
    require::require,
    sent,
};
use dynencap_abi::{
    Config, Reason, TunnelKey, TunnelSpec,
    option::{ENCAP_GW, ENCAP_UDP},
};
use dynencap_kernel::{Feature, FlowId, Gso, Packet, Port, Replay, Transport};

const GATEWAY: [u8; 4] = [203, 0, 113, 9];
const SOURCE: [u8; 4] = [198, 18, 0, 5];
/// Source port 0, destination port 6080, three bytes of custom header.
const UDP: [u8; 7] = [0, 0, 0x17, 0xc0, 1, 2, 3];

fn start(flags: u32) -> Replay {
    let config = Config {
        source4: SOURCE,
        flags: Config::ALLOW_PACKET_SOCKETS | flags,
        ..config()
    };
    Replay::start(object(), config).unwrap()
}

fn flow(replay: &mut Replay, gateway: &[u8], udp: &[u8]) -> FlowId {
    let flow = replay.open_flow().unwrap();
    replay.set_option(flow, ENCAP_UDP, udp).unwrap().unwrap();
    replay.set_option(flow, ENCAP_GW, gateway).unwrap().unwrap();
    flow
}

/// An IPv4 header with a right checksum.
fn header(start: [u8; 10], source: [u8; 4]) -> Vec<u8> {
    let mut header = [&start[..], &[0, 0], &source, &GATEWAY].concat();
    let checksum = !frame::sum(&[&header]);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

#[track_caller]
fn only(frames: Vec<Frame>) -> Vec<u8> {
    let [(Port::Wire, IPV4, bytes)] = &frames[..] else {
        panic!("{frames:?}");
    };
    bytes.clone()
}

#[test]
fn both_versions_leave_inside_ipv4() {
    if !require(&[]) {
        return;
    }
    let mut replay = start(0);
    let flow = flow(&mut replay, &GATEWAY, &[]);
    // TOS of the inner packet, 20 more bytes, identification of IPv4 inside, DF, TTL.
    let inner = frame::tcp_in_ipv6(0x18, b"hello");
    let outer = header([0x45, 0xb9, 0, 85, 0, 0, 0x40, 0, 61, 41], SOURCE);
    let got = only(sent(&mut replay, flow, IPV6, &inner));
    assert_eq!(got, [outer, inner].concat());
    let inner = frame::tcp_in_ipv4(b"hello");
    let outer = header(
        [0x45, 0x2e, 0, 65, 0x12, 0x34, 0x40, 0, 57, 4],
        [192, 0, 2, 1],
    );
    let got = only(sent(&mut replay, flow, IPV4, &inner));
    assert_eq!(got, [outer, inner].concat());
    assert_counted(&replay, &[(Reason::Encapsulated, 2)]);
}

#[test]
fn a_valid_udp_checksum_follows_from_the_headers() {
    if !require(&[]) {
        return;
    }
    let mut replay = start(Config::UDP_CHECKSUM);
    let gateway6 = frame::address("2001:db8:9::9");
    let gateways: [&[u8]; 2] = [&GATEWAY, &gateway6];
    let mut count = 0;
    for udp in [&UDP[..], &UDP[..6], &UDP[..4]] {
        for gateway in gateways {
            let flow = flow(&mut replay, gateway, udp);
            for (ethertype, inner) in [
                (IPV6, frame::tcp_in_ipv6(0x18, b"hello")),
                (IPV6, frame::udp_in_ipv6(b"hello you")),
                (IPV4, frame::tcp_in_ipv4(b"hello")),
            ] {
                let frames = sent(&mut replay, flow, ethertype, &inner);
                let [(Port::Wire, _, bytes)] = &frames[..] else {
                    panic!("{frames:?}");
                };
                let (addresses, payload) = if gateway.len() == 4 {
                    (&bytes[12..20], &bytes[20..])
                } else {
                    (&bytes[8..40], &bytes[40..])
                };
                let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
                let sum = frame::sum(&[addresses, &length, &[0, 0, 0, 17], payload]);
                assert_ne!(payload[6..8], [0, 0]);
                assert_eq!(sum, 0xffff, "{} {} bytes", gateway.len(), udp.len());
                count += 1;
            }
        }
    }
    assert_counted(&replay, &[(Reason::Encapsulated, count)]);
}

#[test]
fn the_segments_of_a_super_packet_leave_inside_ipv4() {
    if !require(&[]) {
        return;
    }
    let mut replay = start(0);
    let payload = frame::pattern(30_123);
    let bytes = frame::tcp_in_ipv6(0x18, &payload);
    for (udp, outer_len) in [(&[][..], 20), (&UDP[..], 31)] {
        let flow = flow(&mut replay, &GATEWAY, udp);
        let packet = Packet {
            ethertype: IPV6,
            bytes: &bytes,
            gso: Some(Gso {
                size: 1000,
                transport: Transport::Tcp,
                transport_offset: 40,
            }),
        };
        replay.send(flow, &packet).unwrap();
        let segments = captured(&mut replay);
        assert_eq!(segments.len(), 31);
        for (index, (port, ethertype, segment)) in segments.iter().enumerate() {
            assert_eq!((*port, *ethertype), (Port::Wire, IPV4));
            let total = u16::from_be_bytes([segment[2], segment[3]]);
            assert_eq!(usize::from(total), segment.len());
            assert_eq!(usize::from(segment[5]), index, "identification");
            assert_eq!(frame::sum(&[&segment[..20]]), 0xffff);
            assert!(frame::checksum_is_valid(&segment[outer_len..]));
            let chunk = payload.chunks(1000).nth(index).unwrap();
            assert_eq!(&segment[outer_len + 60..], chunk);
        }
    }
    assert_counted(&replay, &[(Reason::Encapsulated, 2)]);
}

#[test]
fn what_stands_inside_ipv4_is_delivered_as_it_was() {
    if !require(&[Feature::DecapsulateIpv4]) {
        return;
    }
    let mut replay = start(0);
    for protocol in [4, 41] {
        let key = TunnelKey {
            address: std::net::Ipv4Addr::from(GATEWAY).to_ipv6_mapped().octets(),
            protocol,
            reserved: 0,
            port: [0; 2],
        };
        let spec = TunnelSpec {
            header_len: 0,
            flags: 0,
            format: TunnelSpec::FIXED,
            reserved: 0,
        };
        replay.add_tunnel(key, spec).unwrap();
    }
    let inner6 = frame::tcp_in_ipv6(0x18, b"hello");
    let outer = header([0x45, 0xb9, 0, 85, 0, 0, 0x40, 0, 61, 41], SOURCE);
    let whole = [&outer[..], &inner6].concat();
    let mut wrong = whole.clone();
    wrong[11] ^= 1;
    replay.inject(IPV4, &whole).unwrap();
    replay.inject(IPV4, &wrong).unwrap();
    let inner4 = frame::tcp_in_ipv4(b"hello");
    let outer = header([0x45, 0x2e, 0, 65, 0, 0, 0x40, 0, 61, 4], SOURCE);
    replay
        .inject(IPV4, &[&outer[..], &inner4].concat())
        .unwrap();
    let expected = [
        (Port::Delivered, IPV6, inner6),
        (Port::Delivered, IPV4, inner4),
    ];
    assert_eq!(captured(&mut replay), expected);
    assert_counted(&replay, &[(Reason::Decapsulated, 2), (Reason::BadOuter, 1)]);
}

#[test]
fn the_sender_of_a_packet_that_is_too_big_is_told() {
    if !require(&[]) {
        return;
    }
    let mut replay = start(Config::TELL_TOO_BIG);
    let flow = flow(&mut replay, &GATEWAY, &[]);
    let packet = frame::tcp_in_ipv6(0x10, &frame::pattern(1421));
    let mut told = vec![0x60, 0, 0, 0, 0, 104, 58, 64];
    told.extend(&packet[24..40]);
    told.extend(&packet[8..24]);
    told.extend([2, 0, 0, 0, 0, 0, 0x05, 0xc8]);
    told.extend(&packet[..96]);
    let pseudo = [&told[8..40], &[0, 0, 0, 104, 0, 0, 0, 58]].concat();
    let checksum = !frame::sum(&[&pseudo, &told[40..]]);
    told[42..44].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(
        sent(&mut replay, flow, IPV6, &packet),
        [(Port::Delivered, IPV6, told)]
    );
    let packet = {
        let mut packet = frame::tcp_in_ipv4(&frame::pattern(1441));
        packet[10..12].copy_from_slice(&[0, 0]);
        let checksum = !frame::sum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet
    };
    let frames = sent(&mut replay, flow, IPV4, &packet);
    let [(Port::Delivered, IPV4, told)] = &frames[..] else {
        panic!("{frames:?}");
    };
    assert_eq!(told[..10], [0x45, 0, 0, 124, 0, 0, 0x40, 0, 64, 1]);
    assert_eq!(told[12..20], [198, 51, 100, 7, 192, 0, 2, 1]);
    assert_eq!(frame::sum(&[&told[..20]]), 0xffff);
    assert_eq!(told[20..22], [3, 4]);
    assert_eq!(told[24..28], [0, 0, 0x05, 0xc8]);
    assert_eq!(frame::sum(&[&told[20..]]), 0xffff);
    assert_eq!(told[28..], packet[..96]);
    assert_eq!(replay.counters().unwrap()[Reason::TooBigTold as usize], 2);
}

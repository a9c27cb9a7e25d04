//! Section 2.2: who is told that a packet is too big, and in which words.

use crate::support::*;
use dynencap_abi::{Config, MARK_SENTINEL, QUOTE_LEN, Reason};
use dynencap_model::{Egress, Frame, Host, Origin, Packet, Port, Socket, flow};
use pnet_packet::Packet as _;
use pnet_packet::icmp::{self, IcmpPacket};
use pnet_packet::icmpv6::{self, Icmpv6Packet};
use pnet_packet::ipv4::{self, Ipv4Packet};
use pnet_packet::ipv6::Ipv6Packet;

fn telling(uplink_mtu: u32) -> Config {
    Config {
        flags: Config::TELL_TOO_BIG,
        uplink_mtu,
        ..config()
    }
}

fn send(config: Config, socket: &Socket, packet: Packet<'_>) -> (Egress, Vec<Frame>) {
    let mut frames = Vec::new();
    let egress = Host::new(config).egress(Some(socket), packet, &mut frames);
    (egress, frames)
}

#[test]
fn the_sender_of_an_ipv6_packet_gets_a_packet_too_big() {
    let bytes = sound_transport(V6, TCP, &pattern(1500));
    let (egress, frames) = send(telling(1500), &udp_exit(b"12345678"), packet(V6, &bytes));
    assert_eq!(egress.reason, Reason::TooBigTold);
    assert_eq!((egress.segments, frames.len()), (0, 1));
    assert_eq!((frames[0].port, frames[0].ethertype), (Port::Delivered, V6));
    let ip = Ipv6Packet::new(&frames[0].bytes).unwrap();
    assert_eq!(ip.get_version(), 6);
    assert_eq!((ip.get_traffic_class(), ip.get_flow_label()), (0, 0));
    assert_eq!(ip.get_hop_limit(), 64);
    assert_eq!(ip.get_next_header().0, 58);
    assert_eq!(ip.get_source().octets(), DESTINATION);
    assert_eq!(ip.get_destination().octets(), SOURCE);
    assert_eq!(usize::from(ip.get_payload_length()), 8 + QUOTE_LEN);
    let icmp = Icmpv6Packet::new(ip.payload()).unwrap();
    assert_eq!((icmp.get_icmpv6_type().0, icmp.get_icmpv6_code().0), (2, 0));
    assert_eq!(
        icmp.get_checksum(),
        icmpv6::checksum(&icmp, &ip.get_source(), &ip.get_destination())
    );
    assert_eq!(ip.payload()[4..8], 1444u32.to_be_bytes());
    assert_eq!(ip.payload()[8..], bytes[..QUOTE_LEN]);
}

#[test]
fn the_sender_of_an_ipv4_packet_gets_fragmentation_needed() {
    let bytes = sound_transport(V4, UDP, &pattern(1500));
    let (egress, frames) = send(telling(1500), &ip4_exit(), packet(V4, &bytes));
    assert_eq!(egress.reason, Reason::TooBigTold);
    assert_eq!((frames[0].port, frames[0].ethertype), (Port::Delivered, V4));
    let ip = Ipv4Packet::new(&frames[0].bytes).unwrap();
    assert_eq!((ip.get_version(), ip.get_header_length()), (4, 5));
    assert_eq!((ip.get_dscp(), ip.get_ecn()), (0, 0));
    assert_eq!((ip.get_identification(), ip.get_flags()), (0, 2));
    assert_eq!((ip.get_ttl(), ip.get_next_level_protocol().0), (64, 1));
    assert_eq!(ip.get_checksum(), ipv4::checksum(&ip));
    assert_eq!(ip.get_source().octets(), DESTINATION4);
    assert_eq!(ip.get_destination().octets(), SOURCE4);
    assert_eq!(usize::from(ip.get_total_length()), frames[0].bytes.len());
    let icmp = IcmpPacket::new(ip.payload()).unwrap();
    assert_eq!((icmp.get_icmp_type().0, icmp.get_icmp_code().0), (3, 4));
    assert_eq!(icmp.get_checksum(), icmp::checksum(&icmp));
    assert_eq!(ip.payload()[4..8], [0, 0, 5, 200], "1480");
    assert_eq!(ip.payload()[8..], bytes[..QUOTE_LEN]);
}

#[test]
fn who_cannot_be_told_is_not() {
    let long = pattern(1500);
    let tcp = tcp_segment(0, &[], &long);
    let df = |bytes: &[u8], flags: u8| changed(bytes, 6, flags);
    let v4 = ipv4_packet(&[], TCP, &tcp);
    let fragment = ipv6_packet(44, &[&[TCP, 0, 0, 0, 0, 0, 0, 1], &tcp[..]].concat());
    let chained = ipv6_packet(60, &[&extension(TCP, 8)[..], &tcp].concat());
    let nine = [vec![60; 1], vec![0; 7]].concat().repeat(9);
    let not_walked = ipv6_packet(60, &[&nine[..], &tcp].concat());
    let behind = |len: usize, next: u8| {
        let header = extension(next, len);
        ipv6_packet(60, &[&header[..], &tcp].concat())
    };
    let (told, not) = (Reason::TooBigTold, Reason::TooBig);
    let cases = [
        ("TCP", V6, ipv6_packet(TCP, &tcp), told),
        ("UDP", V6, ipv6_packet(UDP, &udp_datagram(&long)), told),
        ("ICMPv6", V6, ipv6_packet(58, &long), not),
        ("SCTP", V6, ipv6_packet(132, &long), not),
        ("fragment", V6, fragment, not),
        ("behind an extension header", V6, chained, told),
        ("chain not walked", V6, not_walked, not),
        ("TCP header in the quote", V6, behind(32, TCP), told),
        ("TCP header not wholly", V6, behind(40, TCP), not),
        ("UDP header in the quote", V6, behind(48, UDP), told),
        ("UDP header behind it", V6, behind(56, UDP), not),
        ("IPv4 with DF", V4, v4.clone(), told),
        ("IPv4 without", V4, df(&v4, 0), not),
        ("first IPv4 fragment", V4, df(&v4, 0x60), not),
    ];
    for (name, ethertype, bytes, expected) in cases {
        let (egress, frames) = send(telling(1500), &ip_exit(), packet(ethertype, &bytes));
        assert_eq!(egress.reason, expected, "{name}");
        assert_eq!(frames.len(), usize::from(expected == told), "{name}");
        let silent = Config {
            flags: 0,
            ..telling(1500)
        };
        let (egress, frames) = send(silent, &ip_exit(), packet(ethertype, &bytes));
        assert_eq!((egress.reason, frames.len()), (not, 0), "{name}");
    }
}

#[test]
fn a_packet_shorter_than_its_quote_is_not_told_of() {
    for (len, expected) in [(95, Reason::TooBig), (96, Reason::PathTooSmall)] {
        let bytes = sound_transport(V6, UDP, &pattern(len - 48));
        let (egress, _) = send(telling(100), &ip_exit(), packet(V6, &bytes));
        assert_eq!(egress.reason, expected);
    }
}

#[test]
fn an_exit_that_was_kept_tells_nobody() {
    let bytes = sound_transport(V6, TCP, &pattern(1500));
    let mut host = Host::new(telling(1500));
    host.closed(&ip_exit(), flow::key(&packet(V6, &bytes)).unwrap());
    let mut frames: Vec<Frame> = Vec::new();
    let packet = packet(V6, &bytes);
    let egress = host.egress_from(Origin::TimeWait, MARK_SENTINEL, &(), packet, &mut frames);
    assert_eq!((egress.reason, frames.len()), (Reason::TooBig, 0));
}

#[test]
fn nobody_is_told_less_than_the_least_mtu() {
    use Reason::{Encapsulated, PathTooSmall, TooBigTold};
    // Family, uplink, length of the packet, reason, told; the overhead is 40.
    let cases = [
        (V6, 1320, 1280, Encapsulated, 0),
        (V6, 1320, 1281, TooBigTold, 1280),
        (V6, 1319, 1280, PathTooSmall, 0),
        (V6, 1319, 1281, TooBigTold, 1280),
        (V6, 20, 1280, PathTooSmall, 0),
        (V4, 616, 577, TooBigTold, 576),
        (V4, 615, 576, PathTooSmall, 0),
        (V4, 615, 577, TooBigTold, 576),
        (V4, 1000, 961, TooBigTold, 960),
        (V4, 0, 576, PathTooSmall, 0),
    ];
    for (ethertype, uplink_mtu, len, reason, told) in cases {
        let headers = if ethertype == V6 { 60 } else { 40 };
        let bytes = sound_transport(ethertype, TCP, &pattern(len - headers));
        let (egress, frames) = send(telling(uplink_mtu), &ip_exit(), packet(ethertype, &bytes));
        let case = format!("{ethertype:x} {uplink_mtu} {len}");
        assert_eq!(egress.reason, reason, "{case}");
        if reason == TooBigTold {
            let at = headers - 20 + 4;
            let mtu = &frames[0].bytes[at..at + 4];
            assert_eq!(mtu, u32::to_be_bytes(told), "{case}");
        }
    }
}

#[test]
fn of_a_super_packet_the_segments_count() {
    let bytes = sound_transport(V6, TCP, &pattern(5000));
    let run = |uplink_mtu, gso_size| {
        let packet = super_packet(V6, &bytes, gso_size);
        let (egress, frames) = send(telling(uplink_mtu), &ip_exit(), packet);
        (egress.reason, frames.len())
    };
    assert_eq!(run(1500, 1400), (Reason::Encapsulated, 4));
    assert_eq!(run(1500, 1401), (Reason::TooBigTold, 1));
    // What would be told, 1280, is what the segments have already.
    assert_eq!(run(1300, 1220), (Reason::PathTooSmall, 0));
    assert_eq!(run(1300, 1221), (Reason::TooBigTold, 1));
}

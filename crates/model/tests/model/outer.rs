//! Section 2: IPv4 outer headers, valid UDP checksums, the configured hop limit.

use crate::support::*;
use dynencap_abi::{Config, Exit, Reason};
use dynencap_model::{Frame, Host, Packet, Socket, flow};
use pnet_packet::Packet as _;
use pnet_packet::ipv4::{self, Ipv4Packet};
use pnet_packet::udp::{self, UdpPacket};

fn send(config: Config, socket: &Socket, packet: Packet<'_>) -> (Reason, Vec<Frame>) {
    let mut frames = Vec::new();
    let egress = Host::new(config).egress(Some(socket), packet, &mut frames);
    (egress.reason, frames)
}

fn with_flags(flags: u32) -> Config {
    Config { flags, ..config() }
}

/// The UDP checksum of an encapsulated frame, and what pnet computes over all of its payload.
pub(crate) fn udp_checksums(frame: &Frame) -> (u16, u16) {
    let offset = if frame.ethertype == V4 { 20 } else { 40 };
    let udp = UdpPacket::new(&frame.bytes[offset..]).unwrap();
    let sum = if frame.ethertype == V4 {
        let ip = Ipv4Packet::new(&frame.bytes).unwrap();
        udp::ipv4_checksum(&udp, &ip.get_source(), &ip.get_destination())
    } else {
        let ip = pnet_packet::ipv6::Ipv6Packet::new(&frame.bytes).unwrap();
        udp::ipv6_checksum(&udp, &ip.get_source(), &ip.get_destination())
    };
    (udp.get_checksum(), if sum == 0 { 0xffff } else { sum })
}

#[test]
fn an_ipv4_outer_header_around_both_versions() {
    let six = ipv6_packet(TCP, &tcp_segment(PSH, &[], b"hello"));
    let four = ipv4_packet(&[1; 4], 1, b"ping");
    // Outer source, identification, protocol.
    let cases = [
        (V6, &six, CONFIGURED4, 0, 41, 0xb9, 61),
        (V4, &four, SOURCE4, 0xfffe, 4, 0x2a, 57),
    ];
    for (ethertype, inner, source, identification, protocol, class, ttl) in cases {
        let (reason, frames) = send(config(), &ip4_exit(), packet(ethertype, inner));
        assert_eq!((reason, frames.len()), (Reason::Encapsulated, 1));
        assert_eq!(frames[0].ethertype, V4);
        let outer = Ipv4Packet::new(&frames[0].bytes).unwrap();
        assert_eq!((outer.get_version(), outer.get_header_length()), (4, 5));
        assert_eq!(outer.get_dscp() << 2 | outer.get_ecn(), class);
        assert_eq!(usize::from(outer.get_total_length()), 20 + inner.len());
        assert_eq!(outer.get_identification(), identification);
        assert_eq!((outer.get_flags(), outer.get_fragment_offset()), (2, 0));
        assert_eq!(outer.get_ttl(), ttl);
        assert_eq!(outer.get_next_level_protocol().0, protocol);
        assert_eq!(outer.get_checksum(), ipv4::checksum(&outer));
        assert_eq!(outer.get_source().octets(), source);
        assert_eq!(outer.get_destination().octets(), GATEWAY4);
        assert_eq!(frames[0].bytes[20..], inner[..]);
    }
}

#[test]
fn udp_in_ipv4_carries_the_custom_header() {
    let inner = ipv6_packet(TCP, &tcp_segment(PSH, &[], b"hello"));
    let (_, frames) = send(config(), &udp4_exit(b"network"), packet(V6, &inner));
    let hash = flow::hash(&flow::key(&packet(V6, &inner)).unwrap());
    let outer = Ipv4Packet::new(&frames[0].bytes).unwrap();
    assert_eq!(outer.get_next_level_protocol().0, UDP);
    assert_eq!(outer.get_checksum(), ipv4::checksum(&outer));
    let udp = UdpPacket::new(outer.payload()).unwrap();
    assert_eq!(udp.get_source(), flow::udp_source_port(hash));
    assert_eq!(udp.get_destination(), 6080);
    assert_eq!(usize::from(udp.get_length()), 8 + 7 + inner.len());
    assert_eq!(udp.get_checksum(), 0);
    assert_eq!(outer.payload()[8..], [b"network", &inner[..]].concat());
}

#[test]
fn the_outer_source_depends_on_both_families() {
    let inner = [(V6, ipv6_packet(58, &[])), (V4, ipv4_packet(&[], 1, &[]))];
    let none = Config {
        source: [0; 16],
        source4: [0; 4],
        ..config()
    };
    let sources = |config: Config, socket: &Socket| {
        inner.each_ref().map(|(ethertype, bytes)| {
            let (reason, frames) = send(config, socket, packet(*ethertype, bytes));
            match frames.first() {
                None => {
                    assert_eq!(reason, Reason::NoSource);
                    None
                }
                Some(frame) if frame.ethertype == V4 => Some(frame.bytes[12..16].to_vec()),
                Some(frame) => Some(frame.bytes[8..24].to_vec()),
            }
        })
    };
    let all = [Some(SOURCE.to_vec()), Some(CONFIGURED.to_vec())];
    assert_eq!(sources(config(), &ip_exit()), all);
    assert_eq!(sources(none, &ip_exit()), [Some(SOURCE.to_vec()), None]);
    let all = [Some(CONFIGURED4.to_vec()), Some(SOURCE4.to_vec())];
    assert_eq!(sources(config(), &ip4_exit()), all);
    assert_eq!(sources(none, &ip4_exit()), [None, Some(SOURCE4.to_vec())]);
}

#[test]
fn a_configured_hop_limit_wins() {
    let inner = ipv6_packet(58, &[]);
    for (configured, expected) in [(0, 61), (1, 1), (200, 200)] {
        let config = Config {
            hop_limit: configured,
            ..config()
        };
        let (_, frames) = send(config, &ip_exit(), packet(V6, &inner));
        assert_eq!(frames[0].bytes[7], expected);
        let (_, frames) = send(config, &ip4_exit(), packet(V6, &inner));
        assert_eq!(frames[0].bytes[8], expected);
    }
}

#[test]
fn udp_checksums_are_valid_on_demand() {
    let summing = with_flags(Config::UDP_CHECKSUM);
    for header in [&b""[..], b"h", b"head", b"header!", &[0xff; 32]] {
        for socket in [udp_exit(header), udp4_exit(header)] {
            for ethertype in [V4, V6] {
                for protocol in [TCP, UDP] {
                    for len in [0, 1, 2, 999] {
                        let inner = sound_transport(ethertype, protocol, &pattern(len));
                        let (reason, frames) = send(summing, &socket, packet(ethertype, &inner));
                        assert_eq!(reason, Reason::Encapsulated);
                        let (stated, computed) = udp_checksums(&frames[0]);
                        assert_eq!(stated, computed, "{header:?} {protocol} {len}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_partial_sum_of_an_offload_does_not_matter_and_an_error_shows() {
    let summing = with_flags(Config::UDP_CHECKSUM);
    let sound = sound_transport(V6, TCP, b"hello");
    let partial = changed(&changed(&sound, 56, 0x12), 57, 0x34);
    let (_, sound) = send(summing, &udp_exit(b""), packet(V6, &sound));
    let (_, partial) = send(summing, &udp_exit(b""), packet(V6, &partial));
    assert_eq!(sound[0].bytes[..48], partial[0].bytes[..48]);
    let (stated, computed) = udp_checksums(&partial[0]);
    assert_ne!(stated, computed);
}

#[test]
fn a_sum_that_comes_out_as_zero_is_written_as_all_ones() {
    let summing = with_flags(Config::UDP_CHECKSUM);
    let inner = sound_transport(V6, TCP, b"hello");
    let (_, frames) = send(summing, &udp_exit(&[0, 0]), packet(V6, &inner));
    let (stated, _) = udp_checksums(&frames[0]);
    // What the checksum was is what the custom header has to add.
    let (_, frames) = send(
        summing,
        &udp_exit(&stated.to_be_bytes()),
        packet(V6, &inner),
    );
    assert_eq!(frames[0].bytes[46..48], [0xff, 0xff]);
}

#[test]
fn packets_whose_sum_does_not_follow_from_headers_are_dropped() {
    let tcp = tcp_segment(0, &[], b"data");
    let udp = udp_datagram(b"data");
    let fragment = ipv6_packet(44, &[&[UDP, 0, 0, 0, 0, 0, 0, 1], &udp[..]].concat());
    let chained = ipv6_packet(60, &[&extension(UDP, 8)[..], &udp].concat());
    let more = changed(&ipv4_packet(&[], UDP, &udp), 6, 0x20);
    let no_sum = [&udp[..6], &[0, 0], &udp[8..]].concat();
    let cases = [
        ("TCP", V6, ipv6_packet(TCP, &tcp), Reason::Encapsulated),
        ("UDP", V6, ipv6_packet(UDP, &udp), Reason::Encapsulated),
        (
            "options",
            V4,
            ipv4_packet(&[1; 8], UDP, &udp),
            Reason::Encapsulated,
        ),
        (
            "cut TCP",
            V6,
            ipv6_packet(TCP, &tcp[..7]),
            Reason::Encapsulated,
        ),
        (
            "ICMPv6",
            V6,
            ipv6_packet(58, b"12345678"),
            Reason::NoChecksum,
        ),
        ("SCTP", V4, ipv4_packet(&[], 132, &udp), Reason::NoChecksum),
        ("fragment", V6, fragment, Reason::NoChecksum),
        ("IPv4 fragment", V4, more, Reason::NoChecksum),
        ("extension header", V6, chained, Reason::NoChecksum),
        (
            "cut UDP",
            V6,
            ipv6_packet(UDP, &udp[..7]),
            Reason::NoChecksum,
        ),
        (
            "no checksum",
            V6,
            ipv6_packet(UDP, &no_sum),
            Reason::NoChecksum,
        ),
        (
            "the same in IPv4",
            V4,
            ipv4_packet(&[], UDP, &no_sum),
            Reason::NoChecksum,
        ),
    ];
    for (name, ethertype, bytes, expected) in cases {
        let summing = with_flags(Config::UDP_CHECKSUM);
        for socket in [udp_exit(b""), udp4_exit(b"")] {
            let (reason, _) = send(summing, &socket, packet(ethertype, &bytes));
            assert_eq!(reason, expected, "{name}");
        }
        for (flags, socket) in [
            (Config::UDP_CHECKSUM, ip_exit()),
            (Config::UDP_CHECKSUM, ip4_exit()),
            (0, udp_exit(b"")),
        ] {
            let (reason, frames) = send(with_flags(flags), &socket, packet(ethertype, &bytes));
            assert_eq!(reason, Reason::Encapsulated, "{name}");
            assert!(
                socket.exit().unwrap().flags & Exit::UDP == 0 || frames[0].bytes[46..48] == [0, 0]
            );
        }
    }
    let whole = sound_transport(V6, TCP, &pattern(3000));
    let (reason, _) = send(
        with_flags(Config::UDP_CHECKSUM),
        &udp_exit(b""),
        super_packet(V6, &whole, 1000),
    );
    assert_eq!(reason, Reason::NoChecksum, "a super-packet");
}

#[test]
fn segments_count_their_outer_identification_on() {
    let six = sound_transport(V6, TCP, &pattern(3000));
    let four = sound_transport(V4, TCP, &pattern(3000));
    for (ethertype, bytes, first) in [(V6, six, 0u16), (V4, four, 0xfffe)] {
        for socket in [ip4_exit(), udp4_exit(b"head")] {
            let (_, frames) = send(config(), &socket, super_packet(ethertype, &bytes, 800));
            assert_eq!(frames.len(), 4);
            for (index, frame) in frames.iter().enumerate() {
                let outer = Ipv4Packet::new(&frame.bytes).unwrap();
                assert_eq!(outer.get_identification(), first.wrapping_add(index as u16));
                assert_eq!(outer.get_checksum(), ipv4::checksum(&outer));
                assert_eq!(usize::from(outer.get_total_length()), frame.bytes.len());
            }
        }
    }
}

//! Section 2: the outer header on the wire, and the first line that applies decides.

use crate::support::*;
use dynencap_abi::{Config, Exit, MARK_SENTINEL, Policy, Reason, Verdict};
use dynencap_model::{Egress, Frame, Packet, Port, Socket, flow};
use pnet_packet::Packet as _;
use pnet_packet::ipv6::Ipv6Packet;
use pnet_packet::udp::UdpPacket;

fn send(config: Config, socket: Option<&Socket>, packet: Packet<'_>) -> (Egress, Vec<Frame>) {
    let mut frames = Vec::new();
    let egress = dynencap_model::Host::new(config).egress(socket, packet, &mut frames);
    (egress, frames)
}

fn reason(socket: &Socket, packet: Packet<'_>) -> Reason {
    let (egress, frames) = send(config(), Some(socket), packet);
    assert_eq!(egress.verdict() == Verdict::Dropped, frames.is_empty());
    egress.reason
}

#[test]
fn ipv6_in_ipv6_reuses_most_fields() {
    let inner = ipv6_packet(TCP, &tcp_segment(PSH, &[], b"hello"));
    let (egress, frames) = send(config(), Some(&ip_exit()), packet(V6, &inner));
    assert_eq!((egress.reason, egress.segments), (Reason::Encapsulated, 0));
    assert_eq!((frames.len(), frames[0].ethertype), (1, V6));

    let hash = flow::hash(&flow::key(&packet(V6, &inner)).unwrap());
    let outer = Ipv6Packet::new(&frames[0].bytes).unwrap();
    assert_eq!(outer.get_version(), 6);
    assert_eq!(outer.get_traffic_class(), 0xb9);
    assert_eq!(outer.get_flow_label(), flow::flow_label(hash));
    assert_eq!(usize::from(outer.get_payload_length()), inner.len());
    assert_eq!(outer.get_next_header().0, 41);
    assert_eq!(outer.get_hop_limit(), 61);
    assert_eq!(outer.get_source().octets(), SOURCE);
    assert_eq!(outer.get_destination().octets(), GATEWAY);
    assert_eq!(outer.payload(), inner);
}

#[test]
fn ipv4_in_udp_carries_the_custom_header() {
    let inner = ipv4_packet(&[1; 4], 1, b"ping");
    let (_, frames) = send(config(), Some(&udp_exit(b"network")), packet(V4, &inner));
    assert_eq!((frames.len(), frames[0].ethertype), (1, V6));

    let hash = flow::hash(&flow::key(&packet(V4, &inner)).unwrap());
    let outer = Ipv6Packet::new(&frames[0].bytes).unwrap();
    assert_eq!(outer.get_traffic_class(), 0x2a);
    assert_eq!(outer.get_next_header().0, UDP);
    assert_eq!(outer.get_hop_limit(), 57);
    assert_eq!(outer.get_source().octets(), CONFIGURED);
    let udp = UdpPacket::new(outer.payload()).unwrap();
    assert_eq!(udp.get_source(), flow::udp_source_port(hash));
    assert_eq!(udp.get_destination(), 6080);
    assert_eq!(usize::from(udp.get_length()), 8 + 7 + inner.len());
    assert_eq!(udp.get_length(), outer.get_payload_length());
    assert_eq!(udp.get_checksum(), 0);
    assert_eq!(outer.payload()[8..], [b"network", &inner[..]].concat());
}

#[test]
fn the_exits_own_source_and_port_win() {
    let mut socket = Socket::in_cgroup(STREAM, &CGROUP);
    socket.set_exit(Exit {
        source: address(0x77),
        source_port: [0x12, 0x34],
        ..*udp_exit(&[]).exit().unwrap()
    });
    let mut host = host();
    allow_gateways(&mut host, 7);
    host.set_policy(
        300,
        Policy {
            source: address(0x77),
            ..policy(7)
        },
    );
    for (ethertype, inner) in [(V6, ipv6_packet(58, &[])), (V4, ipv4_packet(&[], 1, &[]))] {
        let mut frames: Vec<Frame> = Vec::new();
        host.egress(Some(&socket), packet(ethertype, &inner), &mut frames);
        let outer = Ipv6Packet::new(&frames[0].bytes).unwrap();
        assert_eq!(outer.get_source().octets(), address(0x77));
        assert_eq!(
            UdpPacket::new(outer.payload()).unwrap().get_source(),
            0x1234
        );
    }
    let (_, frames) = send(
        config(),
        Some(&ip_exit()),
        packet(V4, &ipv4_packet(&[], 1, &[])),
    );
    assert_eq!(
        Ipv6Packet::new(&frames[0].bytes)
            .unwrap()
            .get_next_header()
            .0,
        4
    );
}

#[test]
fn without_an_exit_packets_pass_unless_marked() {
    let inner = ipv6_packet(58, b"ping");
    let bare = socket();
    let mut marked = socket();
    marked.set_mark(MARK_SENTINEL | 1);
    let mut unset = ip_exit();
    unset
        .set_option(&config(), dynencap_abi::option::ENCAP_GW, &[])
        .unwrap();
    let cases = [
        ("no socket", V6, None, Reason::NoSocket),
        ("no storage", V6, Some(&bare), Reason::NoExit),
        (
            "marked, no storage",
            V6,
            Some(&marked),
            Reason::MarkedWithoutExit,
        ),
        ("cleared", V6, Some(&unset), Reason::NoGateway),
        ("ARP", 0x0806, Some(&bare), Reason::NotIp),
        ("ARP without socket", 0x0806, None, Reason::NotIp),
        ("marked ARP", 0x0806, Some(&marked), Reason::MarkedNotIp),
        (
            "VLAN of an exit's socket",
            0x8100,
            Some(&ip_exit()),
            Reason::MarkedNotIp,
        ),
    ];
    for (name, ethertype, socket, reason) in cases {
        let (egress, frames) = send(config(), socket, packet(ethertype, &inner));
        assert_eq!(
            egress,
            Egress {
                reason,
                segments: 0
            },
            "{name}"
        );
        let passed = (reason.verdict() == Verdict::Passed).then(|| Frame {
            port: Port::Wire,
            ethertype,
            bytes: inner.clone(),
        });
        assert_eq!(frames, Vec::from_iter(passed), "{name}");
    }
    let mut frames = Vec::new();
    let forwarded = host().egress_marked(None, MARK_SENTINEL, packet(V6, &inner), &mut frames);
    assert_eq!(forwarded.reason, Reason::MarkedWithoutExit);
    assert!(frames.is_empty());
}

#[test]
fn headers_that_contradict_themselves_are_dropped() {
    let v6 = ipv6_packet(58, b"12345678");
    let v4 = ipv4_packet(&[], 1, b"12345678");
    let changed = |bytes: &[u8], at: usize, value: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = value;
        bytes
    };
    let cases = [
        ("empty IPv6", V6, vec![], Reason::Malformed),
        ("short IPv6", V6, v6[..39].to_vec(), Reason::Malformed),
        ("IPv4 as IPv6", V6, changed(&v6, 0, 0x45), Reason::Malformed),
        ("cut IPv6", V6, v6[..47].to_vec(), Reason::BadLength),
        (
            "padded IPv6",
            V6,
            [&v6[..], &[0]].concat(),
            Reason::BadLength,
        ),
        ("empty IPv4", V4, vec![], Reason::Malformed),
        ("short IPv4", V4, v4[..19].to_vec(), Reason::Malformed),
        ("IPv6 as IPv4", V4, changed(&v4, 0, 0x65), Reason::Malformed),
        ("IHL 4", V4, changed(&v4, 0, 0x44), Reason::Malformed),
        (
            "total below header",
            V4,
            changed(&v4, 3, 19),
            Reason::Malformed,
        ),
        (
            "total below options",
            V4,
            changed(&v4, 0, 0x48),
            Reason::Malformed,
        ),
        (
            "options to the end",
            V4,
            changed(&v4, 0, 0x47),
            Reason::Encapsulated,
        ),
        (
            "total below length",
            V4,
            changed(&v4, 3, 27),
            Reason::BadLength,
        ),
        ("cut IPv4", V4, v4[..27].to_vec(), Reason::BadLength),
        ("sound IPv4", V4, v4.clone(), Reason::Encapsulated),
        ("sound IPv6", V6, v6.clone(), Reason::Encapsulated),
    ];
    for (name, ethertype, bytes, expected) in cases {
        assert_eq!(
            reason(&ip_exit(), packet(ethertype, &bytes)),
            expected,
            "{name}"
        );
    }
}

#[test]
fn ipv4_without_any_source_is_dropped_after_its_length_is_checked() {
    let unset = Config {
        source: [0; 16],
        ..config()
    };
    let mut inner = ipv4_packet(&[], 1, b"ping");
    let (egress, _) = send(unset, Some(&ip_exit()), packet(V4, &inner));
    assert_eq!(egress.reason, Reason::NoSource);
    let (egress, _) = send(unset, Some(&ip_exit()), packet(V6, &ipv6_packet(58, &[])));
    assert_eq!(egress.reason, Reason::Encapsulated);
    inner.push(0);
    let (egress, _) = send(unset, Some(&ip_exit()), packet(V4, &inner));
    assert_eq!(egress.reason, Reason::BadLength);
}

#[test]
fn size_limits_stand_where_the_contract_puts_them() {
    let v6 = |len: usize| ipv6_packet(58, &pattern(len - 40));
    let sixteen = udp_exit(&[0; 8]);
    for (socket, longest) in [(&ip_exit(), 1460), (&sixteen, 1444)] {
        assert_eq!(
            reason(socket, packet(V6, &v6(longest))),
            Reason::Encapsulated
        );
        assert_eq!(reason(socket, packet(V6, &v6(longest + 1))), Reason::TooBig);
    }
    // 16 bits of outer payload length: what is longer is not even looked at.
    assert_eq!(
        reason(&ip_exit(), packet(V6, &[0; 65_535])),
        Reason::Malformed
    );
    assert_eq!(
        reason(&ip_exit(), packet(V6, &[0; 65_536])),
        Reason::TooLong
    );
    assert_eq!(
        reason(&sixteen, packet(V6, &[0; 65_519])),
        Reason::Malformed
    );
    assert_eq!(reason(&sixteen, packet(V6, &[0; 65_520])), Reason::TooLong);
}

#[test]
fn super_packets_of_shapes_that_gso_cannot_carry_are_dropped() {
    let payload = pattern(3000);
    let tcp = tcp_segment(0, &[], &payload);
    let offset = |words: u8| {
        let mut tcp = tcp.clone();
        tcp[12] = words << 4;
        ipv6_packet(TCP, &tcp)
    };
    let nine = [vec![60; 1], vec![0; 7]].concat().repeat(9);
    let long = extension(TCP, 2040);
    let fragment = [&[TCP, 0, 0, 1, 0, 0, 0, 1], &tcp[..]].concat();
    let mut more = ipv4_packet(&[], TCP, &tcp);
    more[6] = 0x20;
    let udp = udp_datagram(&payload);
    let cases = [
        ("ICMPv6", V6, ipv6_packet(58, &payload), Reason::GsoShape),
        ("SCTP", V6, ipv6_packet(132, &payload), Reason::GsoShape),
        ("fragment", V6, ipv6_packet(44, &fragment), Reason::GsoShape),
        ("IPv4 fragment", V4, more, Reason::GsoShape),
        (
            "authenticated",
            V6,
            ipv6_packet(51, &[&[TCP, 1], &[0; 10][..], &tcp].concat()),
            Reason::GsoShape,
        ),
        (
            "long chain",
            V6,
            ipv6_packet(60, &[&nine[..], &tcp].concat()),
            Reason::GsoShape,
        ),
        (
            "cut chain",
            V6,
            ipv6_packet(0, &extension(TCP, 2048)[..2040]),
            Reason::GsoShape,
        ),
        (
            "no TCP header",
            V6,
            ipv6_packet(0, &long),
            Reason::Malformed,
        ),
        (
            "TCP header cut",
            V6,
            ipv6_packet(0, &[&long[..], &tcp[..19]].concat()),
            Reason::Malformed,
        ),
        ("data offset 4", V6, offset(4), Reason::Malformed),
        (
            "data offset past the end",
            V6,
            ipv6_packet(0, &[&long[..], &tcp[..12], &[0x60], &[0; 10]].concat()),
            Reason::Malformed,
        ),
        (
            "UDP header cut",
            V6,
            ipv6_packet(0, &[&extension(UDP, 2040), &udp[..7]].concat()),
            Reason::Malformed,
        ),
        ("TCP", V6, offset(5), Reason::Encapsulated),
        ("UDP", V4, ipv4_packet(&[], UDP, &udp), Reason::Encapsulated),
    ];
    for (name, ethertype, bytes, expected) in cases {
        let packet = super_packet(ethertype, &bytes, 1000);
        assert_eq!(reason(&ip_exit(), packet), expected, "{name}");
    }
}

#[test]
fn the_shape_of_a_super_packet_matters_where_it_fits_too() {
    let tcp = tcp_segment(0, &[], &pattern(100));
    let mut short = tcp.clone();
    short[12] = 0x40;
    let cases = [
        ("ICMPv6", ipv6_packet(58, &tcp), Reason::GsoShape),
        (
            "fragment",
            ipv6_packet(44, &[&[TCP, 0, 0, 0, 0, 0, 0, 1], &tcp[..]].concat()),
            Reason::GsoShape,
        ),
        (
            "authenticated",
            ipv6_packet(51, &[&[TCP, 1], &[0; 10][..], &tcp].concat()),
            Reason::GsoShape,
        ),
        ("data offset 4", ipv6_packet(TCP, &short), Reason::Malformed),
        ("TCP", ipv6_packet(TCP, &tcp), Reason::Encapsulated),
    ];
    for (name, bytes, expected) in cases {
        let packet = super_packet(V6, &bytes, 50);
        assert_eq!(reason(&ip_exit(), packet), expected, "{name}");
    }
}

#[test]
fn segments_must_fit_the_uplink() {
    let bytes = ipv6_packet(TCP, &tcp_segment(0, &[1; 12], &pattern(20_000)));
    let fits = 1500 - 40 - 40 - 32;
    let (egress, frames) = send(config(), Some(&ip_exit()), super_packet(V6, &bytes, fits));
    assert_eq!(egress.reason, Reason::Encapsulated);
    assert_eq!(egress.segments as usize, frames.len());
    assert_eq!(frames[0].bytes.len(), 1500);
    let (egress, frames) = send(
        config(),
        Some(&ip_exit()),
        super_packet(V6, &bytes, fits + 1),
    );
    assert_eq!((egress.reason, frames.len()), (Reason::TooBig, 0));
}

//! Section 2: of several reasons that apply to a packet, the first line's is given. Each case
//! has all defects from its own line on.

use crate::support::*;
use dynencap_abi::option::ENCAP_UDP;
use dynencap_abi::{Config, Exit, MARK_DONE, MARK_SENTINEL, Policy, Reason};
use dynencap_model::{Frame, Host, Origin, Socket};

/// What is wrong, by the numbers of the steps.
struct Wrong {
    host: Host,
    socket: Socket,
    mark: u32,
    ethertype: u16,
    bytes: Vec<u8>,
    gso_size: u16,
}

/// The steps that can be wrong at once with a packet of a later one: each takes one defect away.
fn wrong_from(step: u32) -> Wrong {
    let mut config = Config {
        source: [0; 16],
        source4: [0; 4],
        flags: Config::UDP_CHECKSUM,
        segmenter: u32::from(step <= 6),
        ..config()
    };
    let mut socket = Socket::in_cgroup(STREAM, &CGROUP);
    if step > 2 {
        socket.set_exit(Exit::NONE);
    }
    if step > 4 {
        let exit = if step == 10 { ip_exit() } else { udp_exit(b"") };
        socket.set_exit(*exit.exit().unwrap());
    }
    let mut host = Host::new(config);
    let allowed = Policy {
        port_count: u32::from(step > 5),
        ..policy(7)
    };
    allow_gateways(&mut host, 7);
    host.set_policy(300, allowed);
    // ICMP: no shape for GSO, and no checksum.
    let payload = pattern(if step <= 7 { 65_600 } else { 2000 });
    let mut bytes = ipv4_packet(&[], 1, &payload);
    if step <= 8 {
        bytes[0] = 0x44;
    } else if step == 9 {
        bytes.push(0);
    }
    if step > 10 {
        config.source = CONFIGURED;
    }
    config.segmenter = u32::from(step <= 6);
    host.set_config(config);
    Wrong {
        host,
        socket,
        mark: match step {
            0 => MARK_DONE,
            _ => MARK_SENTINEL,
        },
        ethertype: if step <= 1 { 0x0806 } else { V4 },
        bytes,
        gso_size: if step <= 11 { 3000 } else { 0 },
    }
}

#[test]
fn the_first_line_that_applies_decides() {
    let expected = [
        (0, Reason::AlreadyEncapsulated),
        (1, Reason::MarkedNotIp),
        (2, Reason::MarkedWithoutExit),
        (4, Reason::NoGateway),
        (5, Reason::PolicyDenied),
        (6, Reason::Segmenting),
        (7, Reason::TooLong),
        (8, Reason::Malformed),
        (9, Reason::BadLength),
        (10, Reason::NoSource),
        (11, Reason::GsoShape),
        (12, Reason::TooBig),
    ];
    for (step, reason) in expected {
        let mut wrong = wrong_from(step);
        let packet = super_packet(wrong.ethertype, &wrong.bytes, wrong.gso_size);
        let mut frames: Vec<Frame> = Vec::new();
        let egress = wrong
            .host
            .egress_marked(Some(&wrong.socket), wrong.mark, packet, &mut frames);
        assert_eq!(egress.reason, reason, "step {step}");
        assert_eq!(wrong.host.counters()[reason as usize], 1);
    }
}

#[test]
fn each_line_comes_before_the_next() {
    let run = |host: &mut Host, socket: &Socket, bytes: &[u8], gso_size| {
        let mut frames: Vec<Frame> = Vec::new();
        host.egress(Some(socket), super_packet(V6, bytes, gso_size), &mut frames)
            .reason
    };
    let summing = Config {
        flags: Config::UDP_CHECKSUM,
        ..config()
    };
    let icmp = ipv6_packet(58, &pattern(1500));
    let mut host = Host::new(summing);
    assert_eq!(run(&mut host, &udp_exit(b""), &icmp, 0), Reason::TooBig);
    assert_eq!(
        run(&mut host, &udp_exit(b""), &icmp[..], 100),
        Reason::GsoShape
    );
    let cut = ipv6_packet(TCP, &tcp_segment(0, &[], &[])[..19]);
    assert_eq!(
        run(&mut host, &udp_exit(b""), &cut, 9000),
        Reason::Malformed
    );
    let small = ipv6_packet(58, &pattern(100));
    assert_eq!(
        run(&mut host, &udp_exit(b""), &small, 0),
        Reason::NoChecksum
    );
}

#[test]
fn lengths_are_limited_by_the_outer_family() {
    let reason = |socket: &Socket, len: usize| {
        let mut frames: Vec<Frame> = Vec::new();
        let bytes = vec![0; len];
        host()
            .egress(Some(socket), packet(V6, &bytes), &mut frames)
            .reason
    };
    // The longest that is looked at at all.
    for (socket, longest) in [
        (ip_exit(), 65_535),
        (udp_exit(b"head"), 65_523),
        (ip4_exit(), 65_515),
        (udp4_exit(b"head"), 65_503),
    ] {
        assert_eq!(reason(&socket, longest), Reason::Malformed);
        assert_eq!(reason(&socket, longest + 1), Reason::TooLong);
    }
}

#[test]
fn segmenting_depends_on_flags_shape_and_program() {
    const FIRST: u32 = Config::SEGMENT_FIRST;
    const SUMS: u32 = Config::UDP_CHECKSUM;
    use Reason::{Encapsulated, GsoShape, NoChecksum, Segmenting};
    let tcp = sound_transport(V6, TCP, &pattern(3000));
    let icmp = ipv6_packet(58, &pattern(3000));
    let (ip, udp) = (ip_exit(), udp_exit(b""));
    #[rustfmt::skip]
    let cases = [
        // flags, segmenter, exit, packet, gso_size, egress, behind the segmenter
        (0, 0, &ip, &tcp, 1000, Encapsulated, Encapsulated),
        (0, 1, &ip, &tcp, 1000, Encapsulated, Encapsulated),
        (FIRST, 0, &ip, &tcp, 1000, Encapsulated, Encapsulated),
        (FIRST, 1, &ip, &tcp, 1000, Segmenting, Encapsulated),
        (SUMS, 1, &ip, &tcp, 1000, Encapsulated, Encapsulated),
        (SUMS, 1, &udp, &tcp, 1000, Segmenting, NoChecksum),
        (SUMS, 0, &udp, &tcp, 1000, NoChecksum, NoChecksum),
        (0, 0, &ip, &icmp, 1000, GsoShape, GsoShape),
        (0, 1, &ip, &icmp, 1000, Segmenting, GsoShape),
        (FIRST, 1, &ip, &icmp, 1000, Segmenting, GsoShape),
        (FIRST, 0, &ip, &icmp, 1000, GsoShape, GsoShape),
        (FIRST, 1, &ip, &tcp, 0, Reason::TooBig, Reason::TooBig),
    ];
    for (index, (flags, segmenter, socket, bytes, gso_size, egress, segmented)) in
        cases.into_iter().enumerate()
    {
        let config = Config {
            flags,
            segmenter,
            ..config()
        };
        let packet = super_packet(V6, bytes, gso_size);
        let origin = Origin::Socket(socket);
        let mut frames: Vec<Frame> = Vec::new();
        let mut host = Host::new(config);
        let first = host.egress_from(origin, socket.mark(), &(), packet, &mut frames);
        assert_eq!(first.reason, egress, "egress, case {index}");
        let behind = host.segmented(origin, socket.mark(), &(), packet, &mut frames);
        assert_eq!(behind.reason, segmented, "segmented, case {index}");
    }
}

#[test]
fn segmenting_counts_in_no_storage() {
    let config = Config {
        flags: Config::SEGMENT_FIRST,
        segmenter: 1,
        ..config()
    };
    let mut host = Host::new(config);
    let mut socket = ip_exit();
    socket
        .set_option(&config, ENCAP_UDP, &[0, 0, 0, 1])
        .unwrap();
    let bytes = sound_transport(V6, TCP, &pattern(3000));
    let mut frames: Vec<Frame> = Vec::new();
    let egress = host.egress(Some(&socket), super_packet(V6, &bytes, 1000), &mut frames);
    assert_eq!((egress.reason, egress.segments), (Reason::Segmenting, 3));
    let info = host
        .option(&socket, dynencap_abi::option::ENCAP_INFO, 32)
        .unwrap();
    assert_eq!(info[..20], [0; 20]);
}

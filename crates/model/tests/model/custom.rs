//! Section 4: custom headers that say their own length, and 5.1: each is reflected as it came.

use crate::support::*;
use dynencap_abi::{MAX_HEADER_LEN, Reason, TunnelSpec};
use dynencap_model::{Frame, Host, reflection};

fn host_with(format: u8, header_len: u8) -> Host {
    let mut host = host();
    let (key, spec) = tunnel(UDP);
    host.add_tunnel(
        key,
        TunnelSpec {
            format,
            header_len,
            ..spec
        },
    );
    host
}

fn arriving(header: &[u8], inner: &[u8]) -> Vec<u8> {
    let mut udp = udp_datagram(&[header, inner].concat());
    udp[2..4].copy_from_slice(&[0x17, 0xc0]);
    let mut bytes = ipv6_packet(UDP, &udp);
    // Not-ECT, so that what is inside stays as it is.
    bytes[1] &= 0xcf;
    bytes[24..40].copy_from_slice(&GATEWAY);
    bytes
}

/// A header of `len` bytes that begins so, the rest of which tells where it is from.
fn header(len: usize, first: &[u8]) -> Vec<u8> {
    let mut bytes = pattern(len);
    bytes[..first.len()].copy_from_slice(first);
    bytes
}

#[test]
fn what_a_header_says_is_heeded() {
    const FIXED: u8 = TunnelSpec::FIXED;
    const GUE: u8 = TunnelSpec::GUE;
    const GENEVE: u8 = TunnelSpec::GENEVE;
    let inner6 = ipv6_packet(58, b"12345678");
    let inner4 = ipv4_packet(&[], 1, b"12345678");
    let taken = Reason::Decapsulated;
    let (outer, inner) = (Reason::BadOuter, Reason::BadInner);
    type Case<'a> = (&'a str, u8, Vec<u8>, &'a [u8], Reason);
    let cases: Vec<Case<'_>> = vec![
        ("GUE", GUE, header(4, &[0, 41]), &inner6, taken),
        ("GUE of IPv4", GUE, header(4, &[0, 4]), &inner4, taken),
        ("GUE with 4 bytes", GUE, header(8, &[1, 41]), &inner6, taken),
        ("GUE, longest", GUE, header(32, &[7, 41]), &inner6, taken),
        ("GUE, too long", GUE, header(36, &[8, 41]), &inner6, outer),
        (
            "GUE, longest of all",
            GUE,
            header(128, &[31, 41]),
            &inner6,
            outer,
        ),
        (
            "GUE flags do not matter",
            GUE,
            header(4, &[0, 41, 0xff, 0xff]),
            &inner6,
            taken,
        ),
        ("GUE control", GUE, header(4, &[0x20, 41]), &inner6, outer),
        (
            "GUE of another version",
            GUE,
            header(4, &[0, 4]),
            &inner6,
            inner,
        ),
        (
            "GUE of IPv6, IPv4 inside",
            GUE,
            header(4, &[0, 41]),
            &inner4,
            inner,
        ),
        ("GUE of Ethernet", GUE, header(4, &[0, 97]), &inner6, inner),
        ("GUE of nothing", GUE, header(4, &[0, 59]), &inner6, inner),
        ("GUE version 1 is none", GUE, vec![], &inner6, taken),
        ("the same, IPv4", GUE, vec![], &inner4, taken),
        ("version 1, no IP", GUE, vec![0x7f], &inner6, inner),
        ("GUE version 2", GUE, header(4, &[0x80, 41]), &inner6, outer),
        ("GUE version 3", GUE, header(4, &[0xc0, 41]), &inner6, outer),
        ("GUE, no byte", GUE, vec![], &[], outer),
        ("GUE, one byte", GUE, vec![0], &[], outer),
        ("GUE, cut", GUE, header(7, &[1, 41]), &[], outer),
        ("GUE, nothing inside", GUE, header(8, &[1, 41]), &[], inner),
        (
            "Geneve",
            GENEVE,
            header(8, &[0, 0, 0x86, 0xdd]),
            &inner6,
            taken,
        ),
        (
            "Geneve of IPv4",
            GENEVE,
            header(8, &[0, 0, 8, 0]),
            &inner4,
            taken,
        ),
        (
            "Geneve, options",
            GENEVE,
            header(16, &[2, 0, 0x86, 0xdd]),
            &inner6,
            taken,
        ),
        (
            "Geneve, longest",
            GENEVE,
            header(32, &[6, 0, 0x86, 0xdd]),
            &inner6,
            taken,
        ),
        (
            "Geneve, too long",
            GENEVE,
            header(36, &[7, 0, 0x86, 0xdd]),
            &inner6,
            outer,
        ),
        (
            "Geneve, 63 words",
            GENEVE,
            header(260, &[63, 0, 0x86, 0xdd]),
            &inner6,
            outer,
        ),
        (
            "Geneve reserved bits",
            GENEVE,
            header(8, &[0, 0x3f, 0x86, 0xdd]),
            &inner6,
            taken,
        ),
        (
            "Geneve control",
            GENEVE,
            header(8, &[0, 0x80, 0x86, 0xdd]),
            &inner6,
            outer,
        ),
        (
            "Geneve critical",
            GENEVE,
            header(8, &[0, 0x40, 0x86, 0xdd]),
            &inner6,
            outer,
        ),
        (
            "Geneve version 1",
            GENEVE,
            header(8, &[0x40, 0, 0x86, 0xdd]),
            &inner6,
            outer,
        ),
        (
            "Geneve version 2",
            GENEVE,
            header(8, &[0x80, 0, 0x86, 0xdd]),
            &inner6,
            outer,
        ),
        (
            "Geneve of Ethernet",
            GENEVE,
            header(8, &[0, 0, 0x65, 0x58]),
            &inner6,
            inner,
        ),
        (
            "Geneve says IPv4",
            GENEVE,
            header(8, &[0, 0, 8, 0]),
            &inner6,
            inner,
        ),
        (
            "Geneve says IPv6",
            GENEVE,
            header(8, &[0, 0, 0x86, 0xdd]),
            &inner4,
            inner,
        ),
        (
            "Geneve, 7 bytes",
            GENEVE,
            header(7, &[0, 0, 0x86, 0xdd]),
            &[],
            outer,
        ),
        (
            "Geneve options cut",
            GENEVE,
            header(11, &[1, 0, 0x86, 0xdd]),
            &[],
            outer,
        ),
        (
            "Geneve, nothing inside",
            GENEVE,
            header(8, &[0, 0, 0x86, 0xdd]),
            &[],
            inner,
        ),
        ("fixed, 5 bytes", FIXED, header(5, &[]), &inner6, taken),
        ("fixed, cut", FIXED, header(4, &[]), &[], outer),
        ("unknown format", 3, header(5, &[]), &inner6, outer),
        ("another", 255, header(5, &[]), &inner6, outer),
    ];
    for (name, format, header, inside, expected) in cases {
        let mut host = host_with(format, 5);
        let bytes = arriving(&header, inside);
        let exit = reflection::parse(&packet(V6, &bytes), host.tunnels());
        let mut frames: Vec<Frame> = Vec::new();
        let reason = host.ingress(packet(V6, &bytes), &mut frames);
        assert_eq!(reason, expected, "{name}");
        match exit {
            Ok(exit) => {
                assert_eq!(reason, taken, "{name}");
                let len = usize::from(exit.header_len);
                assert_eq!(exit.header[..len], header, "{name}");
                assert_eq!(exit.destination_port, [0x17, 0xc0]);
                assert_eq!(exit.source_port, [0, 0]);
                assert_eq!(frames[0].bytes, inside, "{name}");
            }
            Err(refused) => assert_eq!(refused, expected, "{name}"),
        }
    }
}

#[test]
fn a_header_longer_than_an_exit_holds_ends_here_for_no_tunnel() {
    let inner = ipv6_packet(58, &[]);
    for len in [32, 33] {
        let mut host = host_with(TunnelSpec::FIXED, len);
        let bytes = arriving(&pattern(usize::from(len)), &inner);
        let reason = host.ingress(packet(V6, &bytes), &mut Vec::new());
        let fits = usize::from(len) <= MAX_HEADER_LEN;
        assert_eq!(reason == Reason::Decapsulated, fits, "{len}: {reason:?}");
        assert!(fits || reason == Reason::BadOuter);
    }
}

#[test]
fn the_kernels_own_tunnels_pass() {
    let inner = ipv6_packet(58, b"12345678");
    for format in [TunnelSpec::FIXED, TunnelSpec::GUE, 77] {
        let mut host = host();
        let (key, spec) = tunnel(UDP);
        for flags in [TunnelSpec::KERNEL, TunnelSpec::KERNEL | TunnelSpec::REFLECT] {
            host.add_tunnel(
                key,
                TunnelSpec {
                    flags,
                    format,
                    ..spec
                },
            );
            let bytes = arriving(&[0, 41, 0, 0], &inner);
            let mut frames = Vec::new();
            let reason = host.ingress(packet(V6, &bytes), &mut frames);
            assert_eq!(reason, Reason::NotTunnel);
            assert_eq!(frames[0].bytes, bytes);
            // What their devices would not take off either gives no exit.
            let parsed = reflection::parse(&packet(V6, &bytes), host.tunnels());
            let refused = (format != TunnelSpec::GUE).then_some(Reason::NotTunnel);
            assert_eq!(parsed.err(), refused, "{format}");
        }
    }
}

//! Section 5: the outer header becomes the exit of the replies.

use crate::support::*;
use dynencap_abi::{Exit, Reason};
use dynencap_model::{Frame, Socket, reflection};

/// The frame that a client at [`SOURCE`] sends through `socket` to [`GATEWAY`].
fn arriving(socket: &Socket, ethertype: u16, inner: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    host().egress(Some(socket), packet(ethertype, inner), &mut frames);
    frames.remove(0).bytes
}

#[test]
fn replies_go_back_in_the_headers_that_the_packet_came_in() {
    let inner = ipv6_packet(TCP, &tcp_segment(2, &[], &[]));
    let plain = reflection::parse(
        &packet(V6, &arriving(&ip_exit(), V6, &inner)),
        receiver(0).tunnels(),
    );
    let expected = Exit {
        gateway: SOURCE,
        source: GATEWAY,
        flags: Exit::GATEWAY | Exit::REFLECTED,
        ..Exit::NONE
    };
    assert_eq!(plain, Ok(expected));

    let mut header = [0; 32];
    header[..5].copy_from_slice(b"vnet7");
    let udp = reflection::parse(
        &packet(V6, &arriving(&udp_exit(b"vnet7"), V6, &inner)),
        receiver(5).tunnels(),
    );
    assert_eq!(
        udp,
        Ok(Exit {
            header,
            header_len: 5,
            destination_port: [0x17, 0xc0],
            flags: Exit::GATEWAY | Exit::UDP | Exit::REFLECTED,
            ..expected
        })
    );
}

#[test]
fn a_reply_through_the_reflected_exit_shares_the_outer_label_and_port() {
    let request = ipv6_packet(TCP, &tcp_segment(2, &[], &[]));
    let mut reply = request.clone();
    reply[8..24].copy_from_slice(&DESTINATION);
    reply[24..40].copy_from_slice(&SOURCE);
    reply[40..44].copy_from_slice(&[1, 0xbb, 4, 0]);

    let there = arriving(&udp_exit(b"vnet7"), V6, &request);
    let exit = reflection::parse(&packet(V6, &there), receiver(5).tunnels()).unwrap();
    let mut accepted = Socket::in_cgroup(STREAM, &CGROUP);
    accepted.set_exit(exit);
    let mut server = host();
    let mut frames: Vec<Frame> = Vec::new();
    server.egress(Some(&accepted), packet(V6, &reply), &mut frames);
    let back = &frames[0].bytes;
    assert_eq!(back[1..4], there[1..4], "flow label");
    assert_eq!(back[8..24], there[24..40]);
    assert_eq!(back[24..40], there[8..24]);
    assert_eq!(back[40..44], there[40..44], "ports");
    assert_eq!(back[48..53], *b"vnet7");
}

#[test]
fn what_is_not_accepted_is_not_reflected() {
    let inner = ipv6_packet(58, b"12345678");
    let sound = arriving(&ip_exit(), V6, &inner);
    let udp = arriving(&udp_exit(b"head"), V6, &inner);
    let changed = |bytes: &[u8], at: usize, value: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = value;
        bytes
    };
    let with_source = |source: [u8; 16]| {
        let mut bytes = sound.clone();
        bytes[8..24].copy_from_slice(&source);
        bytes
    };
    let mut multicast = [0; 16];
    multicast[0] = 0xff;
    let extended = {
        let mut payload = extension(41, 8);
        payload.extend(&inner);
        let mut bytes = ipv6_packet(60, &payload);
        bytes[24..40].copy_from_slice(&GATEWAY);
        bytes
    };
    let nested_short = changed(&arriving(&ip_exit(), V6, &sound), 45, 200);
    let cases = [
        ("sound", sound.clone(), None),
        ("sound in UDP", udp.clone(), None),
        ("nested", arriving(&ip_exit(), V6, &sound), None),
        (
            "truncated outer",
            sound[..39].to_vec(),
            Some(Reason::NotTunnel),
        ),
        ("truncated UDP", udp[..47].to_vec(), Some(Reason::NotTunnel)),
        (
            "truncated custom header",
            udp[..50].to_vec(),
            Some(Reason::BadOuter),
        ),
        (
            "truncated inner",
            sound[..60].to_vec(),
            Some(Reason::BadOuter),
        ),
        (
            "inner longer than outer",
            changed(&sound, 45, 9),
            Some(Reason::BadInner),
        ),
        (
            "inner shorter than outer",
            changed(&sound, 45, 7),
            Some(Reason::BadInner),
        ),
        (
            "nested, middle too long",
            nested_short,
            Some(Reason::BadInner),
        ),
        (
            "extension header before the inner",
            extended,
            Some(Reason::NotTunnel),
        ),
        (
            "unspecified source",
            with_source([0; 16]),
            Some(Reason::BadOuter),
        ),
        (
            "multicast source",
            with_source(multicast),
            Some(Reason::BadOuter),
        ),
        (
            "IPv4-mapped source",
            with_source(mapped(SOURCE4)),
            Some(Reason::BadOuter),
        ),
        ("no bytes", vec![], Some(Reason::NotTunnel)),
    ];
    for (name, bytes, refused) in cases {
        let parsed = reflection::parse(&packet(V6, &bytes), receiver(4).tunnels());
        assert_eq!(parsed.err(), refused, "{name}");
    }
    let other = |ethertype| reflection::parse(&packet(ethertype, &sound), receiver(4).tunnels());
    assert_eq!(other(V4), Err(Reason::NotTunnel));
    assert_eq!(other(0x0806), Err(Reason::NotIp));
}

#[test]
fn an_ipv4_outer_header_gives_an_ipv4_exit() {
    let inner = ipv6_packet(TCP, &tcp_segment(2, &[], &[]));
    let sound = arriving(&udp4_exit(b"vnet7"), V6, &inner);
    let parse = |bytes: &[u8]| reflection::parse(&packet(V4, bytes), receiver(5).tunnels());
    let mut header = [0; 32];
    header[..5].copy_from_slice(b"vnet7");
    assert_eq!(
        parse(&sound),
        Ok(Exit {
            gateway: mapped(CONFIGURED4),
            source: mapped(GATEWAY4),
            header,
            header_len: 5,
            destination_port: [0x17, 0xc0],
            flags: Exit::GATEWAY | Exit::UDP | Exit::IPV4 | Exit::REFLECTED,
            ..Exit::NONE
        })
    );
    for source in [[0; 4], [224, 0, 0, 1], [239, 1, 1, 1], [255; 4]] {
        let mut bytes = sound.clone();
        bytes[12..16].copy_from_slice(&source);
        rewrite_checksum(&mut bytes);
        assert_eq!(parse(&bytes), Err(Reason::BadOuter), "{source:?}");
    }
}

#[test]
fn a_custom_header_that_no_exit_holds_is_not_reflected() {
    let mut host = host();
    host.add_tunnel(tunnel(UDP).0, spec(33));
    let mut udp = udp_datagram(&[&[0; 33], &ipv6_packet(58, &[])[..]].concat());
    udp[2..4].copy_from_slice(&[0x17, 0xc0]);
    let mut bytes = ipv6_packet(UDP, &udp);
    bytes[24..40].copy_from_slice(&GATEWAY);
    let parsed = reflection::parse(&packet(V6, &bytes), host.tunnels());
    assert_eq!(parsed, Err(Reason::BadOuter));
}

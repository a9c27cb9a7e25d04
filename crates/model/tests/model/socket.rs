//! Section 1: which call is refused with what, and what an accepted one changes.

use crate::support::*;
use dynencap_abi::option::*;
use dynencap_abi::{Config, Exit, Info, MARK_MASK, MARK_SENTINEL, Reason};
use dynencap_model::{Errno, Frame, Host, Socket, SocketKind};

const UDP_VALUE: [u8; 6] = [0x12, 0x34, 0x17, 0xc0, 0xaa, 0xbb];

fn open(family: u32, ty: u32, protocol: u32) -> Socket {
    Socket::new(SocketKind {
        family,
        ty,
        protocol,
    })
}

fn lab() -> Config {
    Config {
        flags: Config::ALLOW_PACKET_SOCKETS,
        ..config()
    }
}

fn read(socket: &Socket, name: i32) -> Vec<u8> {
    socket.option(&lab(), name, 4096).unwrap().to_vec()
}

#[test]
fn sockets_of_other_kinds_are_refused_for_both_calls() {
    let (inet, inet6, packet, unix) = (AF_INET, AF_INET6, AF_PACKET, 1);
    #[rustfmt::skip]
    let cases = [
        // family, type, protocol, name, production, lab
        (inet6, 1, 6, ENCAP_GW, None, None),
        (inet, 2, 17, ENCAP_UDP, None, None),
        (inet6, 1, 6, ENCAP_REFLECT, None, None),
        (unix, 1, 0, ENCAP_REFLECT, Some(EAFNOSUPPORT), Some(EAFNOSUPPORT)),
        (packet, 3, 0, ENCAP_REFLECT, Some(EAFNOSUPPORT), None),
        (inet6, 1, IPPROTO_MPTCP, ENCAP_REFLECT, Some(EOPNOTSUPP), Some(EOPNOTSUPP)),
        (inet6, 1, 6, 0, Some(ENOPROTOOPT), Some(ENOPROTOOPT)),
        (unix, 1, 0, -1, Some(ENOPROTOOPT), Some(ENOPROTOOPT)),
        (unix, 1, 0, ENCAP_GW, Some(EAFNOSUPPORT), Some(EAFNOSUPPORT)),
        (packet, 3, 0, ENCAP_GW, Some(EAFNOSUPPORT), None),
        (packet, 2, 262, ENCAP_UDP, Some(EAFNOSUPPORT), None),
        (inet6, SOCK_RAW, 58, ENCAP_GW, Some(EOPNOTSUPP), None),
        (inet, SOCK_RAW, 255, ENCAP_UDP, Some(EOPNOTSUPP), None),
        (inet, 1, IPPROTO_MPTCP, ENCAP_GW, Some(EOPNOTSUPP), Some(EOPNOTSUPP)),
        (inet6, 1, IPPROTO_MPTCP, ENCAP_UDP, Some(EOPNOTSUPP), Some(EOPNOTSUPP)),
        (unix, SOCK_RAW, IPPROTO_MPTCP, ENCAP_GW, Some(EAFNOSUPPORT), Some(EAFNOSUPPORT)),
    ];
    for (family, ty, protocol, name, production, in_lab) in cases {
        for (config, expected) in [(config(), production), (lab(), in_lab)] {
            let mut socket = open(family, ty, protocol);
            let case = format!(
                "{family} {ty} {protocol} option {name} flags {}",
                config.flags
            );
            // Refused for the socket before the value is looked at; accepted with a sound one.
            let value: &[u8] = match (expected, name) {
                (Some(_), _) => &[1, 2, 3],
                (None, ENCAP_GW) => &GATEWAY,
                (None, ENCAP_REFLECT) => &[0; 4],
                (None, _) => &UDP_VALUE,
            };
            let set = socket.set_option(&config, name, value);
            assert_eq!(set.err(), expected.map(Errno), "{case}");
            let read = socket.option(&config, name, 64);
            assert_eq!(read.err(), expected.map(Errno), "{case}");
        }
    }
}

#[test]
fn values_are_checked_before_anything_changes() {
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1];
    let mut multicast = GATEWAY;
    multicast[0] = 0xff;
    let long = [1; 37];
    let cases: [(&str, i32, &[u8], i32); 20] = [
        ("IPv4 unspecified", ENCAP_GW, &[0; 4], EINVAL),
        ("IPv4 multicast", ENCAP_GW, &[224, 0, 0, 1], EINVAL),
        (
            "IPv4 multicast's end",
            ENCAP_GW,
            &[239, 255, 255, 255],
            EINVAL,
        ),
        ("IPv4 broadcast", ENCAP_GW, &[255; 4], EINVAL),
        ("3 bytes", ENCAP_GW, &[1; 3], EINVAL),
        ("5 bytes", ENCAP_GW, &[1; 5], EINVAL),
        ("information", ENCAP_INFO, &[0; 32], ENOPROTOOPT),
        ("one byte", ENCAP_GW, &[1], EINVAL),
        ("15 bytes", ENCAP_GW, &GATEWAY[..15], EINVAL),
        ("17 bytes", ENCAP_GW, &[1; 17], EINVAL),
        ("4096 bytes", ENCAP_GW, &[1; 4096], EINVAL),
        ("unspecified", ENCAP_GW, &[0; 16], EINVAL),
        ("multicast", ENCAP_GW, &multicast, EINVAL),
        ("IPv4-mapped", ENCAP_GW, &mapped, EINVAL),
        ("beyond the hook", ENCAP_GW, &[1; 4097], EINVAL),
        ("UDP of one byte", ENCAP_UDP, &[1], EINVAL),
        ("UDP of 3 bytes", ENCAP_UDP, &[1; 3], EINVAL),
        ("header of 33", ENCAP_UDP, &long, EINVAL),
        ("port 0", ENCAP_UDP, &[1, 2, 0, 0, 5], EINVAL),
        ("UDP beyond the hook", ENCAP_UDP, &[1; 4097], EINVAL),
    ];
    for (name, option, value, errno) in cases {
        let mut fresh = socket();
        assert_eq!(
            fresh.set_option(&config(), option, value),
            Err(Errno(errno)),
            "{name}"
        );
        assert_eq!((fresh.exit(), fresh.mark()), (None, 0), "{name}");

        let mut used = udp_exit(b"head");
        let before = (*used.exit().unwrap(), used.mark());
        assert_eq!(
            used.set_option(&config(), option, value),
            Err(Errno(errno)),
            "{name}"
        );
        assert_eq!((*used.exit().unwrap(), used.mark()), before, "{name}");
    }
    let mut address = [0; 16];
    address[15] = 1;
    assert_eq!(socket().set_option(&config(), ENCAP_GW, &address), Ok(()));
    assert_eq!(
        socket().set_option(&config(), ENCAP_UDP, &long[..36]),
        Ok(())
    );
    assert_eq!(
        socket().set_option(&config(), ENCAP_UDP, &[0, 0, 0, 1]),
        Ok(())
    );
}

#[test]
fn both_orders_give_the_same_exit_and_mark() {
    let mut gateway_first = socket();
    gateway_first
        .set_option(&config(), ENCAP_GW, &GATEWAY)
        .unwrap();
    assert_eq!(gateway_first.mark(), 0x00a8_0000);
    gateway_first
        .set_option(&config(), ENCAP_UDP, &UDP_VALUE)
        .unwrap();

    let mut udp_first = socket();
    udp_first
        .set_option(&config(), ENCAP_UDP, &UDP_VALUE)
        .unwrap();
    assert_eq!(udp_first.mark(), 0);
    assert_eq!(udp_first.exit().unwrap().flags, Exit::UDP);
    udp_first.set_option(&config(), ENCAP_GW, &GATEWAY).unwrap();

    assert_eq!(gateway_first.exit(), udp_first.exit());
    assert_eq!(gateway_first.mark(), MARK_SENTINEL | 50 << 16);
    assert_eq!(udp_first.mark(), MARK_SENTINEL | 50 << 16);
    let mut header = [0; 32];
    header[..2].copy_from_slice(&[0xaa, 0xbb]);
    assert_eq!(
        *udp_first.exit().unwrap(),
        Exit {
            gateway: GATEWAY,
            source: [0; 16],
            header,
            source_port: [0x12, 0x34],
            destination_port: [0x17, 0xc0],
            flags: Exit::GATEWAY | Exit::UDP,
            header_len: 2,
            reserved: [0; 2],
        }
    );
}

#[test]
fn options_read_back_as_they_were_set() {
    let mut socket = socket();
    assert_eq!(read(&socket, ENCAP_GW), [0; 16]);
    assert_eq!(read(&socket, ENCAP_UDP), [0; 4]);
    socket.set_option(&config(), ENCAP_UDP, &UDP_VALUE).unwrap();
    assert_eq!(read(&socket, ENCAP_GW), [0; 16]);
    assert_eq!(read(&socket, ENCAP_UDP), UDP_VALUE);
    socket.set_option(&config(), ENCAP_GW, &GATEWAY).unwrap();
    assert_eq!(read(&socket, ENCAP_GW), GATEWAY);

    for (name, len) in [(ENCAP_GW, 16), (ENCAP_UDP, 6)] {
        assert!(socket.option(&config(), name, len).is_ok());
        assert_eq!(
            socket.option(&config(), name, len - 1).err(),
            Some(Errno(EINVAL))
        );
    }
    assert_eq!(
        open(AF_INET, 1, 6).option(&config(), ENCAP_UDP, 3).err(),
        Some(Errno(EINVAL))
    );
}

#[test]
fn a_shorter_header_leaves_nothing_of_the_longer_one() {
    let mut socket = udp_exit(&[0xff; 32]);
    socket.set_option(&config(), ENCAP_UDP, &UDP_VALUE).unwrap();
    assert_eq!(socket.exit().unwrap().header[2..], [0; 30]);
    assert_eq!(socket.exit().unwrap().header_len, 2);
}

#[test]
fn clearing_takes_back_its_own_fields_and_the_mark() {
    let mut socket = udp_exit(b"head");
    socket.set_option(&config(), ENCAP_GW, &[]).unwrap();
    assert_eq!(socket.mark(), 52 << 16, "planned still");
    assert_eq!(read(&socket, ENCAP_GW), [0; 16]);
    assert_eq!(
        read(&socket, ENCAP_UDP),
        [0, 0, 0x17, 0xc0, b'h', b'e', b'a', b'd']
    );
    socket.set_option(&config(), ENCAP_GW, &GATEWAY).unwrap();
    assert_eq!(socket.mark(), MARK_SENTINEL | 52 << 16);
    socket.set_option(&config(), ENCAP_UDP, &[]).unwrap();
    assert_eq!(socket.mark(), MARK_SENTINEL | 52 << 16, "the larger one");
    assert_eq!(socket.exit(), ip_exit().exit());
    socket.set_option(&config(), ENCAP_GW, &[]).unwrap();
    assert_eq!(socket.exit(), Some(&Exit::NONE));
}

#[test]
fn clearing_without_storage_succeeds_and_makes_none() {
    for name in [ENCAP_GW, ENCAP_UDP] {
        let mut socket = socket();
        assert_eq!(socket.set_option(&config(), name, &[]), Ok(()));
        assert_eq!(socket.exit(), None);
    }
}

#[test]
fn clearing_without_storage_takes_a_stale_mark_away() {
    for name in [ENCAP_GW, ENCAP_UDP] {
        let mut socket = Socket::new(SocketKind {
            family: AF_INET6,
            ty: 1,
            protocol: 6,
        });
        socket.set_mark(0xa5a8_1234);
        assert_eq!(socket.set_option(&lab(), name, &[]), Ok(()));
        assert_eq!(socket.mark(), 0xa528_1234);
        assert!(socket.exit().is_none());
    }
}

#[test]
fn the_applications_bits_of_the_mark_survive() {
    let mut socket = socket();
    socket.set_mark(0xa55a_1234);
    socket.set_option(&config(), ENCAP_GW, &GATEWAY).unwrap();
    // 0x5a bytes were planned for: more than this exit needs.
    assert_eq!(socket.mark(), 0xa5da_1234);
    assert_eq!(socket.mark() & !MARK_MASK, 0xa500_1234);
    socket.set_option(&config(), ENCAP_GW, &[]).unwrap();
    assert_eq!(socket.mark(), 0xa55a_1234);
}

#[test]
fn an_accepted_socket_has_a_copy_of_its_own() {
    let mut listener = udp_exit(b"head");
    let child = listener.accept();
    assert_eq!(
        (child.exit(), child.mark()),
        (listener.exit(), listener.mark())
    );
    listener.set_option(&config(), ENCAP_GW, &[]).unwrap();
    assert_eq!(child.exit(), udp_exit(b"head").exit());
}

#[test]
fn an_ipv4_gateway_reads_back_as_four_bytes() {
    let mut socket = udp4_exit(b"head");
    let exit = socket.exit().unwrap();
    assert_eq!(exit.gateway, mapped(GATEWAY4));
    assert_eq!(exit.flags, Exit::GATEWAY | Exit::UDP | Exit::IPV4);
    assert_eq!(read(&socket, ENCAP_GW), GATEWAY4);
    assert!(socket.option(&config(), ENCAP_GW, 4).is_ok());
    assert_eq!(
        socket.option(&config(), ENCAP_GW, 3).err(),
        Some(Errno(EINVAL))
    );
    socket.set_option(&config(), ENCAP_GW, &GATEWAY).unwrap();
    assert_eq!(read(&socket, ENCAP_GW), GATEWAY);
    assert_eq!(socket.exit(), udp_exit(b"head").exit());
    socket.set_option(&config(), ENCAP_GW, &GATEWAY4).unwrap();
    socket.set_option(&config(), ENCAP_GW, &[]).unwrap();
    assert_eq!(socket.exit().unwrap().flags, Exit::UDP);
    assert_eq!(read(&socket, ENCAP_GW), [0; 16]);
}

#[test]
fn the_mark_plans_for_the_largest_overhead_so_far() {
    let mut socket = ip4_exit();
    assert_eq!(socket.mark(), MARK_SENTINEL | 20 << 16);
    socket.set_option(&config(), ENCAP_UDP, &UDP_VALUE).unwrap();
    assert_eq!(socket.mark(), MARK_SENTINEL | 30 << 16);
    socket.set_option(&config(), ENCAP_GW, &GATEWAY).unwrap();
    assert_eq!(socket.mark(), MARK_SENTINEL | 50 << 16);
    socket.set_option(&config(), ENCAP_GW, &GATEWAY4).unwrap();
    assert_eq!(socket.mark(), MARK_SENTINEL | 50 << 16);
    socket.set_option(&config(), ENCAP_GW, &[]).unwrap();
    assert_eq!(socket.mark(), 50 << 16);

    // The segmenter's word is no overhead.
    socket.set_mark(0x127f_0001);
    socket.set_option(&config(), ENCAP_GW, &GATEWAY).unwrap();
    assert_eq!(socket.mark(), 0x1200_0001 | MARK_SENTINEL | 50 << 16);
    socket.set_mark(0x127f_0001);
    socket.set_option(&config(), ENCAP_GW, &[]).unwrap();
    assert_eq!(socket.mark(), 0x1200_0001);
}

#[test]
fn information_tells_counts_overhead_and_what_fits() {
    let info = |host: &Host, socket: &Socket| {
        Info::from_bytes(&host.option(socket, ENCAP_INFO, 32).unwrap()).unwrap()
    };
    let mut host = host();
    let zero = Info {
        encapsulated: 0,
        dropped: 0,
        last_drop: 0,
        overhead: 0,
        mtu: 0,
        reserved: 0,
    };
    assert_eq!(info(&host, &socket()), zero);
    assert_eq!(host.option(&socket(), ENCAP_INFO, 31), Err(Errno(EINVAL)));

    let socket = udp_exit(b"12345678");
    let mut frames: Vec<Frame> = Vec::new();
    let mut send = |host: &mut Host, len: usize, gso_size| {
        let bytes = ipv6_packet(TCP, &tcp_segment(0, &[], &pattern(len - 60)));
        host.egress(
            Some(&socket),
            super_packet(V6, &bytes, gso_size),
            &mut frames,
        );
    };
    send(&mut host, 1444, 0);
    send(&mut host, 5000, 1000);
    send(&mut host, 1445, 0);
    let expected = Info {
        encapsulated: 2,
        dropped: 1,
        last_drop: Reason::TooBig as u32,
        overhead: 56,
        mtu: 1444,
        ..zero
    };
    assert_eq!(info(&host, &socket), expected);
    host.set_config(Config {
        uplink_mtu: 50,
        ..config()
    });
    assert_eq!(info(&host, &socket).mtu, 0, "floored");

    let mut cleared = socket.clone();
    cleared.set_option(&config(), ENCAP_GW, &[]).unwrap();
    let counts = Info {
        overhead: 0,
        mtu: 0,
        ..expected
    };
    assert_eq!(info(&host, &cleared), counts);
}

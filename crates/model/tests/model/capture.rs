//! Sections 5.2 and 5.3: what is captured where, and what is not.

use crate::reflecting::*;
use crate::support::*;
use dynencap_abi::option::REFLECT_PATH;
use dynencap_abi::{Config, Event, Exit, FlowKey, Reason, Reflected, TunnelKey, TunnelSpec};
use dynencap_model::{Found, Host, Incoming, Ingress, Receiver, Sequence, Socket, Sockets};

/// The frame that [`SOURCE`]'s router sends to [`GATEWAY`].
fn outer(protocol: u8, inner: &[u8]) -> Vec<u8> {
    let mut bytes = ipv6_packet(protocol, inner);
    bytes[8..24].copy_from_slice(&address(0x31));
    bytes[24..40].copy_from_slice(&GATEWAY);
    bytes
}

fn receive(host: &mut Host, sockets: &impl Sockets, bytes: &[u8]) -> Ingress {
    host.receive(sockets, packet(V6, bytes), &mut Vec::new())
}

/// One socket for everything, whose packets have this flow.
struct Everyone(Socket, FlowKey);

impl Sockets for Everyone {
    fn tcp(&self, flow: &FlowKey) -> Option<Found<'_>> {
        assert_eq!(flow, &self.1);
        Some(Found {
            socket: &self.0,
            snd_una: 0,
            snd_nxt: 0,
        })
    }

    fn udp(&self, flow: &FlowKey) -> Option<Found<'_>> {
        self.tcp(flow)
    }
}

/// A host whose tunnels end in devices of the kernel.
fn behind_devices() -> Host {
    let mut host = reflecting();
    for protocol in [4, 41, UDP] {
        let spec = TunnelSpec {
            flags: TunnelSpec::KERNEL | TunnelSpec::REFLECT,
            ..spec(0)
        };
        host.add_tunnel(tunnel(protocol).0, spec);
    }
    host
}

#[test]
fn only_transport_that_is_taken_off_here_is_captured() {
    let tcp = from_client(SYN, 0, 0, &[]);
    let udp = ipv6_packet(UDP, &udp_datagram(b"ask"));
    let fragment = ipv6_packet(44, &[&[TCP, 0, 0, 0, 0, 0, 0, 1], &tcp[40..]].concat());
    let chained = ipv6_packet(60, &[&extension(TCP, 8)[..], &tcp[40..]].concat());
    let nested = outer(41, &tcp);
    let mut multicast = outer(41, &tcp);
    multicast[8] = 0xff;
    let mut mapped_source = outer(41, &tcp);
    mapped_source[8..24].copy_from_slice(&mapped(SOURCE4));
    let congested = {
        let mut inner = tcp.clone();
        inner[1] &= 0xcf;
        let mut bytes = outer(41, &inner);
        bytes[1] |= 0x30;
        bytes
    };
    let taken = Reason::Decapsulated;
    let cases = [
        ("TCP", outer(41, &tcp), taken, true),
        ("UDP", outer(41, &udp), taken, true),
        ("behind an extension", outer(41, &chained), taken, true),
        ("a fragment", outer(41, &fragment), taken, false),
        (
            "ICMP",
            outer(41, &ipv6_packet(58, b"12345678")),
            taken,
            false,
        ),
        ("nested", outer(41, &nested), taken, false),
        (
            "TCP header cut",
            outer(41, &ipv6_packet(TCP, &tcp[40..59])),
            taken,
            false,
        ),
        (
            "UDP header cut",
            outer(41, &ipv6_packet(UDP, &udp[40..47])),
            taken,
            false,
        ),
        (
            "TCP's first 20 bytes",
            outer(41, &ipv6_packet(TCP, &[0xff; 20])),
            taken,
            true,
        ),
        (
            "UDP's first 8",
            outer(41, &ipv6_packet(UDP, &udp[40..48])),
            taken,
            true,
        ),
        ("multicast source", multicast, taken, false),
        ("IPv4-mapped source", mapped_source, taken, false),
        ("dropped for ECN", congested, Reason::EcnDrop, false),
        ("for no tunnel", tcp.clone(), Reason::NotTunnel, false),
    ];
    for (name, bytes, reason, captured) in cases {
        let got = receive(&mut reflecting(), &(), &bytes);
        assert_eq!(
            (got.reason, got.captured.is_some()),
            (reason, captured),
            "{name}"
        );
        if let Some(exit) = got.captured {
            assert_eq!(exit, via(0x31), "{name}");
        }
        // A device of the kernel takes the same off, and judges ECN itself.
        let mut frames = Vec::new();
        let got = behind_devices().receive(&(), packet(V6, &bytes), &mut frames);
        assert_eq!(got.reason, Reason::NotTunnel, "{name}");
        assert_eq!((frames.len(), &frames[0].bytes), (1, &bytes), "{name}");
        let captured = captured || reason == Reason::EcnDrop;
        assert_eq!(got.captured, captured.then(|| via(0x31)), "{name}");
    }
}

#[test]
fn nothing_is_captured_unless_reflection_and_its_tunnel_say_so() {
    let syn = outer(41, &from_client(SYN, 0, 0, &[]));
    let mut off = reflecting();
    off.set_config(config());
    let mut without = receiver(0);
    without.set_config(*reflecting().config());
    for mut host in [off, without] {
        let got = receive(&mut host, &(), &syn);
        assert_eq!((got.reason, got.captured), (Reason::Decapsulated, None));
        assert_eq!(host.reflected(&replies(&syn[40..])), None);
    }
}

#[test]
fn the_kernels_own_answers_have_an_entry_where_no_socket_answers() {
    let syn = from_client(SYN, 0, 0, &[]);
    let syn_ack = from_client(SYN | ACK, 0, 0, &[]);
    let data = from_client(ACK, 0, 0, b"data");
    let udp = ipv6_packet(UDP, &udp_datagram(b"ask"));
    let lab = Config::ALLOW_PACKET_SOCKETS;
    #[rustfmt::skip]
    let cases = [
        ("a SYN nobody waits for", &syn, 0, false, true),
        ("one with a socket", &syn, 0, true, false),
        ("a SYN-ACK", &syn_ack, 0, false, false),
        ("data", &data, 0, false, false),
        ("UDP", &udp, 0, false, false),
        ("a SYN in the lab", &syn, lab, false, true),
        ("data in the lab", &data, lab, false, true),
        ("UDP in the lab", &udp, lab, false, true),
        ("UDP with a socket", &udp, lab, true, false),
    ];
    for (name, inner, flags, answered, entered) in cases {
        let mut host = reflecting();
        let config = *host.config();
        host.set_config(Config {
            flags: config.flags | flags,
            ..config
        });
        let flow = replies(inner);
        let bytes = outer(41, inner);
        let got = if answered {
            receive(&mut host, &Everyone(socket(), flow), &bytes)
        } else {
            receive(&mut host, &(), &bytes)
        };
        assert_eq!(got.captured, Some(via(0x31)), "{name}");
        let entry = Reflected {
            exit: via(0x31),
            cgroup: 0,
            mark: 0,
            flags: REFLECT_PATH,
            class: 0,
            reserved: [0; 7],
        };
        assert_eq!(host.reflected(&flow), entered.then_some(&entry), "{name}");
        assert_eq!(happened(&host, &[0; Event::COUNT]), [], "{name}");
    }
}

#[test]
fn the_roots_policy_judges_what_the_kernel_answers() {
    let syn = from_client(SYN, 0, 0, &[]);
    let bytes = outer(41, &syn);
    let entered = |host: &mut Host| {
        let before = *host.events();
        receive(host, &(), &bytes);
        let entered = host.reflected(&replies(&syn)).is_some();
        assert_eq!(
            happened(host, &before),
            if entered {
                vec![]
            } else {
                vec![Event::ReflectRefused]
            }
        );
        entered
    };
    let mut host = reflecting();
    let config = *host.config();
    host.set_config(Config {
        flags: config.flags | Config::DENY_BY_DEFAULT,
        ..config
    });
    assert!(!entered(&mut host));
    trust(&mut host, true);
    assert!(!entered(&mut host), "another cgroup's policy");
    host.set_policy(1, policy(9));
    grant(&mut host, 9, 32, GATEWAY, 1);
    assert!(!entered(&mut host), "chosen, not reflected");
    grant(&mut host, 9, 32, GATEWAY, 2);
    assert!(entered(&mut host));
}

/// What a listener captures of a packet behind these headers.
fn left_in_front(front: &[u8], inner: &[u8], change: impl Fn(&mut Host)) -> Option<Exit> {
    let mut host = reflecting();
    let config = *host.config();
    host.set_config(Config {
        flags: config.flags | Config::CAPTURE_OUTER,
        ..config
    });
    for protocol in [4, 41, UDP] {
        let key = tunnel(protocol).0;
        for address in [GATEWAY, mapped(GATEWAY4)] {
            let spec = TunnelSpec {
                flags: TunnelSpec::KERNEL | TunnelSpec::REFLECT,
                format: TunnelSpec::GUE,
                ..spec(0)
            };
            host.add_tunnel(TunnelKey { address, ..key }, spec);
        }
    }
    change(&mut host);
    let mut listener = listener(&mut host, &CGROUP);
    let mut receiver = Receiver {
        socket: &mut listener,
        sequence: Sequence::default(),
        connected: false,
    };
    let ethertype = if inner[0] >> 4 == 4 { V4 } else { V6 };
    let incoming = Incoming {
        packet: packet(ethertype, inner),
        mark: 0,
        captured: None,
        front: &[front, inner].concat(),
    };
    host.reflect(&mut receiver, &incoming);
    let flow = dynencap_model::flow::key(&packet(ethertype, inner)).unwrap();
    host.reflected(&flow.reversed()).map(|entry| entry.exit)
}

fn outer4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ipv4_packet(&[], protocol, payload);
    bytes[12..16].copy_from_slice(&CONFIGURED4);
    bytes[16..20].copy_from_slice(&GATEWAY4);
    rewrite_checksum(&mut bytes);
    bytes
}

#[test]
fn outer_headers_that_the_kernel_left_in_front_are_captured() {
    let inner = from_client(SYN, 0, 0, &[]);
    let inner4 = ipv4_packet(&[], TCP, &inner[40..]);
    let front = |whole: Vec<u8>, inner: &[u8]| whole[..whole.len() - inner.len()].to_vec();
    let ethernet = [0xee; 14];
    let with_mac = |front: &[u8]| [&ethernet[..], front].concat();
    let gue = |header: &[u8], inner: &[u8]| {
        let mut udp = udp_datagram(&[header, inner].concat());
        udp[2..4].copy_from_slice(&[0x17, 0xc0]);
        udp
    };
    let v6 = front(outer(41, &inner), &inner);
    let v4 = front(outer4(41, &inner), &inner);
    let in_gue = front(outer(UDP, &gue(&[1, 41, 0, 0, 9, 9, 9, 9], &inner)), &inner);
    // As FOU leaves it: total length and checksum are those of before.
    let mut in_gue4 = front(outer4(UDP, &gue(&[0, 41, 0, 0], &inner)), &inner);
    in_gue4[3] -= 12;
    let wrong4 = front(outer(UDP, &gue(&[0, 4, 0, 0], &inner)), &inner);
    let changed = |bytes: &[u8], at: usize, value: u8| changed(bytes, at, value);
    let fragment = {
        let mut bytes = v4.clone();
        bytes[6] = 0x20;
        rewrite_checksum(&mut bytes);
        bytes
    };
    let options = {
        let mut bytes = ipv4_packet(&[1; 4], 41, &inner);
        bytes[16..20].copy_from_slice(&GATEWAY4);
        rewrite_checksum(&mut bytes);
        front(bytes, &inner)
    };
    let longer = {
        let mut bytes = v6.clone();
        bytes[5] += 9;
        bytes
    };
    let cases = [
        ("behind Ethernet", with_mac(&v6), true),
        ("at the MAC header", v6.clone(), true),
        ("behind anything else", [&[0; 13][..], &v6].concat(), false),
        ("IPv4", with_mac(&v4), true),
        ("GUE", with_mac(&in_gue), true),
        ("GUE over IPv4, checksum stale", with_mac(&in_gue4), true),
        (
            "a stale checksum without UDP",
            with_mac(&changed(&v4, 1, 7)),
            false,
        ),
        ("GUE that announces IPv4", with_mac(&wrong4), false),
        (
            "a GUE control message",
            with_mac(&changed(&in_gue, 48, 0x21)),
            false,
        ),
        ("outer longer", with_mac(&longer), true),
        (
            "inner longer than outer",
            with_mac(&changed(&v6, 5, v6[5] - 1)),
            false,
        ),
        ("IPv4 fragment", with_mac(&fragment), false),
        ("IPv4 options", with_mac(&options), false),
        ("announces IPv4", with_mac(&changed(&v6, 6, 4)), false),
        ("another protocol", with_mac(&changed(&v6, 6, 47)), false),
        ("for no tunnel", with_mac(&changed(&v6, 39, 1)), false),
        ("multicast source", with_mac(&changed(&v6, 8, 0xff)), false),
        ("an extension header", with_mac(&changed(&v6, 6, 60)), false),
        ("cut", with_mac(&v6[..20]), false),
        ("nothing", vec![], false),
    ];
    for (name, front, captured) in cases {
        let got = left_in_front(&front, &inner, |_| ());
        assert_eq!(got.is_some(), captured, "{name}: {got:?}");
    }
    // The packet itself differs from what its headers brought.
    let brought = with_mac(&front(outer(41, &[]), &[]));
    for (name, at, same) in [
        ("source", 15, false),
        ("destination", 39, false),
        ("length", 5, false),
        ("hop limit", 7, true),
        ("traffic class", 1, true),
    ] {
        let other = changed(&inner, at, inner[at] ^ 1);
        let mut front = brought.clone();
        front[14 + 4..14 + 6].copy_from_slice(&(inner.len() as u16).to_be_bytes());
        let got = left_in_front(&[front, other].concat(), &inner, |_| ());
        // What follows in memory is `other`, and the packet as the kernel has it is `inner`.
        assert_eq!(got.is_some(), same, "{name}");
    }
    let four = with_mac(&front(outer(4, &inner4), &inner4));
    assert!(left_in_front(&four, &inner4, |_| ()).is_some());
    let exit = left_in_front(&with_mac(&in_gue), &inner, |_| ()).unwrap();
    assert_eq!(exit.header[..8], [1, 41, 0, 0, 9, 9, 9, 9]);
    assert_eq!((exit.gateway, exit.source), (address(0x31), GATEWAY));
}

#[test]
fn only_what_the_operator_leaves_to_the_kernel_is_looked_for_in_front() {
    let inner = from_client(SYN, 0, 0, &[]);
    let whole = [&[0; 14][..], &outer(41, &inner)].concat();
    let front = &whole[..54];
    let flags = |flags: u8| {
        move |host: &mut Host| {
            host.add_tunnel(tunnel(41).0, TunnelSpec { flags, ..spec(0) });
        }
    };
    assert!(left_in_front(front, &inner, |_| ()).is_some());
    assert!(left_in_front(front, &inner, flags(TunnelSpec::KERNEL)).is_none());
    assert!(left_in_front(front, &inner, flags(TunnelSpec::REFLECT)).is_none());
    let off = |host: &mut Host| host.set_config(*reflecting().config());
    assert!(left_in_front(front, &inner, off).is_none());
}

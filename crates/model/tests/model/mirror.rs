//! The invariants of reflection, for all packets: the reply's outer header mirrors what came, no
//! cgroup's exit serves another, and nothing panics.

use crate::reflecting::*;
use crate::support::*;
use dynencap_abi::option::{AF_PACKET, ENCAP_REFLECT, REFLECT_PATH, SOCK_RAW};
use dynencap_abi::{Config, Exit, Reason, TunnelKey, TunnelSpec};
use dynencap_model::{Frame, Incoming, Receiver, Sequence, Socket, SocketKind, TcpState};
use pnet_packet::Packet as _;
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::ipv6::Ipv6Packet;
use pnet_packet::udp::UdpPacket;
use proptest::prelude::*;

/// Destination port, and what is behind the header.
type Udp = (u16, Vec<u8>);

/// Outer source and destination, UDP destination port and what follows, as pnet reads them.
fn outer_of(frame: &Frame) -> (Vec<u8>, Vec<u8>, Option<Udp>) {
    let udp = |payload: &[u8]| {
        let udp = UdpPacket::new(payload).unwrap();
        (udp.get_destination(), udp.payload().to_vec())
    };
    if frame.ethertype == V4 {
        let ip = Ipv4Packet::new(&frame.bytes).unwrap();
        let with_udp = ip.get_next_level_protocol().0 == UDP;
        (
            ip.get_source().octets().to_vec(),
            ip.get_destination().octets().to_vec(),
            with_udp.then(|| udp(ip.payload())),
        )
    } else {
        let ip = Ipv6Packet::new(&frame.bytes).unwrap();
        let with_udp = ip.get_next_header().0 == UDP;
        (
            ip.get_source().octets().to_vec(),
            ip.get_destination().octets().to_vec(),
            with_udp.then(|| udp(ip.payload())),
        )
    }
}

prop_compose! {
    /// A custom header of any format, sound: the format, and its bytes.
    fn custom()(
        format in 0u8..3, words in 0usize..=7, bytes in prop::collection::vec(any::<u8>(), 32),
        v4: bool,
    ) -> (u8, Vec<u8>) {
        let mut header = bytes;
        match format {
            TunnelSpec::GUE => {
                header[..2].copy_from_slice(&[words as u8, if v4 { 4 } else { 41 }]);
                header.truncate(4 + 4 * words);
            }
            TunnelSpec::GENEVE => {
                let words = words.min(6);
                header[0] = words as u8;
                header[1] &= 0x3f;
                header[2..4].copy_from_slice(if v4 { &[8, 0] } else { &[0x86, 0xdd] });
                header.truncate(8 + 4 * words);
            }
            _ => header.truncate(4 * words),
        }
        (format, header)
    }
}

proptest! {
    #[test]
    fn replies_mirror_what_came(
        (format, header) in custom(), outer4: bool, with_udp: bool, payload: Vec<u8>,
        source: [u8; 16],
    ) {
        // What the header announces, or IPv6.
        let inner4 = match format {
            TunnelSpec::GUE => header[1] == 4,
            TunnelSpec::GENEVE => header[2] == 8,
            _ => false,
        } && with_udp;
        let inner = |reply: bool| {
            let mut bytes = sound_transport(if inner4 { V4 } else { V6 }, UDP, &payload);
            let (a, b, at) = if inner4 { (12, 16, 20) } else { (8, 24, 40) };
            if reply {
                let len = b - a;
                let (from, to) = (bytes[a..b].to_vec(), bytes[b..b + len].to_vec());
                bytes[a..b].copy_from_slice(&to);
                bytes[b..b + len].copy_from_slice(&from);
                bytes[at..at + 4].copy_from_slice(&[1, 0xbb, 4, 0]);
            }
            bytes
        };
        let body = if with_udp {
            let mut udp = udp_datagram(&[&header[..], &inner(false)].concat());
            udp[2..4].copy_from_slice(&[0x17, 0xc0]);
            udp
        } else {
            inner(false)
        };
        let protocol = match (with_udp, inner4) {
            (true, _) => UDP,
            (false, true) => 4,
            (false, false) => 41,
        };
        let mut source = source;
        (source[0], source[12]) = (0x20, 10);
        let (ethertype, bytes) = if outer4 {
            let mut bytes = ipv4_packet(&[], protocol, &body);
            bytes[12..16].copy_from_slice(&source[12..]);
            bytes[16..20].copy_from_slice(&GATEWAY4);
            rewrite_checksum(&mut bytes);
            (V4, bytes)
        } else {
            let mut bytes = ipv6_packet(protocol, &body);
            bytes[8..24].copy_from_slice(&source);
            bytes[24..40].copy_from_slice(&GATEWAY);
            (V6, bytes)
        };
        let mut host = reflecting();
        let config = *host.config();
        let flags = config.flags | Config::ALLOW_PACKET_SOCKETS;
        host.set_config(Config { flags, ..config });
        for address in [GATEWAY, mapped(GATEWAY4)] {
            let spec = TunnelSpec { header_len: header.len() as u8, ..mirrored(format) };
            host.add_tunnel(TunnelKey { address, ..tunnel(UDP).0 }, spec);
        }
        let came = Frame { port: dynencap_model::Port::Wire, ethertype, bytes };
        let reason = host.ingress(frame_packet(&came), &mut Vec::new());
        prop_assert_eq!(reason, Reason::Decapsulated);
        let mut lab = Socket::new(SocketKind { family: AF_PACKET, ty: SOCK_RAW, protocol: 0 });
        set_reflection(&mut host, &mut lab, REFLECT_PATH);
        let mut frames: Vec<Frame> = Vec::new();
        let reply = inner(true);
        let sent = host.egress(
            Some(&lab), packet(if inner4 { V4 } else { V6 }, &reply), &mut frames,
        );
        prop_assert_eq!(sent.reason, Reason::Encapsulated);
        let (came_from, came_to, came_in) = outer_of(&came);
        let (from, to, through) = outer_of(&frames[0]);
        prop_assert_eq!((&from, &to), (&came_to, &came_from));
        prop_assert_eq!(through.is_some(), with_udp);
        if let (Some((came_to, came_in)), Some((to, through))) = (came_in, through) {
            prop_assert_eq!(to, came_to);
            prop_assert_eq!(&through[..header.len()], &came_in[..header.len()]);
            prop_assert_eq!(&through[header.len()..], &reply);
        }
    }

    /// Two cgroups whose peers come from even and odd addresses, in any order.
    #[test]
    fn isolated(steps in prop::collection::vec((0u8..4, 0u8..2, 0u8..3, 0u8..8), 1..60)) {
        let mut host = reflecting();
        let mut sockets = [&CGROUP, &OTHER].map(|cgroup| {
            let mut udp = Socket::in_cgroup(DATAGRAMS, cgroup);
            set_reflection(&mut host, &mut udp, REFLECT_PATH);
            (udp, listener(&mut host, cgroup))
        });
        for (what, who, peer, path) in steps {
            let gateway = 2 * path + who;
            let (udp, listener) = &mut sockets[usize::from(who)];
            let mut ask = ipv6_packet(UDP, &udp_datagram(b"ask"));
            ask[23] = peer;
            let mut syn = from_client(SYN, 0, 0, &[]);
            syn[23] = peer;
            let turned = |bytes: &[u8]| {
                let mut reply = from_server(bytes[6], &bytes[40..]);
                reply[39] = peer;
                reply
            };
            let mut frames: Vec<Frame> = Vec::new();
            match what {
                0 => { get(&mut host, udp, Some(via(gateway)), &ask); }
                1 => { get(&mut host, listener, Some(via(gateway)), &syn); }
                2 => { host.egress(Some(udp), packet(V6, &turned(&ask)), &mut frames); }
                _ => {
                    let request = dynencap_model::Origin::Request(listener);
                    host.egress_from(request, 0, &(), packet(V6, &turned(&syn)), &mut frames);
                    let mut child = listener.accept();
                    let mut entries = host.clone();
                    entries.accepted(&mut child, &replies(&syn));
                    let exit = child.exit().unwrap();
                    prop_assert!(*exit == Exit::NONE || exit.gateway[15] % 2 == who);
                }
            }
            for frame in frames.iter().filter(|frame| frame.bytes[6] == 41) {
                prop_assert_eq!(frame.bytes[39] % 2, who);
            }
        }
    }

    #[test]
    fn reflecting_is_total(
        steps in prop::collection::vec((
            prop::collection::vec(any::<u8>(), 0..120), prop::collection::vec(any::<u8>(), 0..160),
            any::<[u8; 4]>(), any::<[u32; 4]>(), 0u8..5,
        ), 1..20),
        flags: u32,
    ) {
        let mut host = reflecting();
        host.set_config(Config { flags, ..*host.config() });
        let mut socket = Socket::in_cgroup(STREAM, &CGROUP);
        for (noise, front, [a, b, c, state], [x, y, z, mark], shape) in steps {
            let bytes = match shape {
                0 => noise.clone(),
                1 => ipv6_packet(a, &noise),
                2 => ipv4_packet(&[], a, &noise),
                3 => from_client(a, x, y, &noise),
                _ => ipv6_packet(UDP, &udp_datagram(&noise)),
            };
            socket.set_state(match state % 4 {
                0 => TcpState::Listen,
                1 => TcpState::Close,
                2 => TcpState::Connecting,
                _ => TcpState::Open,
            });
            let ethertype = if shape == 2 { V4 } else { V6 };
            let front = if shape == 1 {
                let outer = ipv6_packet(b, &[&front[..front.len().min(8)], &bytes].concat());
                [&outer[..24], &GATEWAY, &outer[40..]].concat()
            } else {
                front
            };
            let reflects = host.config().flags & Config::REFLECT != 0;
            let before: u64 = host.events().iter().sum();
            let mut receiver = Receiver {
                socket: &mut socket,
                sequence: Sequence { rcv_nxt: x, snd_una: y, snd_nxt: z },
                connected: c & 1 == 1,
            };
            let incoming = Incoming {
                packet: packet(ethertype, &bytes),
                mark,
                captured: (b & 1 == 0).then(|| via(b)),
                front: &front,
            };
            let after = host.reflect(&mut receiver, &incoming);
            let listens = socket.state() == TcpState::Listen;
            prop_assert!(after == mark || reflects && listens);
            let happened = host.events().iter().sum::<u64>() - before;
            prop_assert!(happened <= 1 + u64::from(listens));
            if c & 6 == 0 {
                let bits = u32::from(c >> 5).to_ne_bytes();
                let _ = host.set_option(&mut socket, &CGROUP, ENCAP_REFLECT, &bits);
            } else if c & 6 == 2 {
                let mut child = socket.accept();
                host.accepted(&mut child, &replies(&from_client(0, 0, 0, &[])));
                socket = child;
            }
        }
    }
}

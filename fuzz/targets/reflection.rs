//! Any bytes from the uplink: reflection and ingress each come to one answer, reflection answers
//! with an exit only where ingress accepts, and what answers leaves in that exit's headers.
//! What is captured and what leaves is the same in the model and in the vm.

#![no_main]

use arbitrary::Arbitrary;
use dynencap_fuzz::{Hosting, Kind, Shape, frame, plant, split};
use dynencap_model::abi::option::{AF_INET6, AF_PACKET, ENCAP_REFLECT, REFLECT_PATH, SOCK_RAW};
use dynencap_model::abi::{Config, Exit, MARK_MASK, MAX_HEADER_LEN, Reason, Verdict};
use dynencap_model::{
    Frame, Host, Incoming, Packet, Port, Receiver, Sequence, Socket, SocketKind, TcpState,
    reflection,
};
use libfuzzer_sys::fuzz_target;
use std::net::Ipv6Addr;

/// A head of zeros: tunnels of which the seeds' frames come out, and a connection that expects
/// sequence number 0.
#[derive(Arbitrary, Debug)]
struct Head {
    hosting: Hosting,
    shape: Shape,
    sequence: [u32; 3],
    mark: u32,
    /// Which bits sockets reflect, whether they are connected, their state.
    how: [u8; 3],
    /// Where the packet begins behind what is left in front of it.
    front: u8,
}

fuzz_target!(
    init: plant("reflection", Kind::Tunnelled(Head::size_hint(0).0)),
    |data: &[u8]| {
        let Some((head, rest)) = split::<Head>(data) else {
            return;
        };
        let config = head.hosting.valid_config();
        let flags = config.flags ^ Config::REFLECT ^ Config::CAPTURE_OUTER;
        let mut host = Host::new(Config { flags, ..config });
        for (key, spec) in head.hosting.reflecting() {
            host.add_tunnel(key, spec);
        }
        let frame = frame(&head.shape, rest);
        let packet = head.shape.packet(&frame);
        let exit = reflection::parse(&packet, host.tunnels());
        let mut frames: Vec<Frame> = Vec::new();
        let received = host.receive(&(), packet, &mut frames);

        assert_eq!(host.counters().iter().sum::<u64>(), 1);
        assert_eq!(host.counters()[received.reason as usize], 1);
        one_answer(&frame, received.reason, &frames);
        agree(&frame, exit, received.reason);
        if let Some(captured) = received.captured {
            assert_eq!((exit, flags & Config::REFLECT), (Ok(captured), Config::REFLECT));
            for inner in &frames {
                answer(&mut host, captured, inner);
                get(&mut host, &head, Some(captured), inner, &[]);
            }
        }
        // Whatever stands in front of whatever packet.
        let front = [&[0; 14][..], &frame.bytes].concat();
        let at = usize::from(head.front).min(frame.bytes.len());
        let left = Frame {
            ethertype: frame.ethertype,
            bytes: frame.bytes.get(at..).unwrap_or_default().to_vec(),
            port: Port::Delivered,
        };
        get(&mut host, &head, None, &left, &front);
    }
);

fn one_answer(frame: &Frame, reason: Reason, frames: &[Frame]) {
    match reason.verdict() {
        Verdict::Dropped => assert!(frames.is_empty()),
        Verdict::Passed => {
            let delivered = Frame {
                port: Port::Delivered,
                ..frame.clone()
            };
            assert_eq!(frames, [delivered]);
        }
        Verdict::Decapsulated => assert!(frames.len() == 1 && frames[0] != *frame),
        Verdict::Encapsulated => panic!("at ingress"),
    }
}

fn agree(frame: &Frame, exit: Result<Exit, Reason>, reason: Reason) {
    match exit {
        // Section 5 reads what steps 3 to 7 accept; ECN (step 8) is decided behind them.
        Ok(exit) => {
            assert!(
                matches!(reason, Reason::Decapsulated | Reason::EcnDrop),
                "reflected, and {reason:?} at ingress"
            );
            assert_eq!(exit.flags & (Exit::GATEWAY | Exit::REFLECTED), 9);
            let [source, destination] = addresses(frame);
            assert_eq!([exit.gateway, exit.source], [source, destination]);
            assert_eq!(exit.flags & Exit::IPV4 != 0, frame.ethertype == 0x0800);
            let len = usize::from(exit.header_len);
            assert!(len <= MAX_HEADER_LEN);
            assert!(exit.header[len..].iter().all(|byte| *byte == 0));
        }
        Err(Reason::BadOuter) if reason != Reason::BadOuter => {
            let source = Ipv6Addr::from(addresses(frame)[0]);
            let mapped = source.to_ipv4_mapped();
            let nobody = match mapped.filter(|_| frame.ethertype == 0x0800) {
                Some(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
                None => source.is_unspecified() || source.is_multicast() || mapped.is_some(),
            };
            assert!(nobody, "BadOuter, and {reason:?} at ingress");
        }
        // An ICMP error is ingress's affair, and no tunnel's.
        Err(refused) if reason == Reason::PathMtuRefused => {
            assert!(matches!(
                refused,
                Reason::NotTunnel | Reason::BadOuter | Reason::BadInner
            ));
        }
        Err(refused) => assert_eq!(refused, reason),
    }
}

/// A packet socket of the lab answers with the packet turned round.
fn answer(host: &mut Host, captured: Exit, inner: &Frame) {
    let mut bytes = inner.bytes.clone();
    let (source, destination, len) = match inner.ethertype {
        0x0800 => (12, 16, 4),
        _ => (8, 24, 16),
    };
    for at in 0..len {
        bytes.swap(source + at, destination + at);
    }
    // Ports where they stand without extension headers.
    let ports = match inner.ethertype {
        0x0800 => 4 * usize::from(bytes[0] & 0xf),
        _ => 40,
    };
    if let Some(ports) = bytes.get_mut(ports..ports + 4) {
        ports.rotate_left(2);
    }
    let lab = host.config().flags & Config::ALLOW_PACKET_SOCKETS != 0;
    let mut socket = Socket::new(SocketKind {
        family: AF_PACKET,
        ty: SOCK_RAW,
        protocol: 0,
    });
    let config = *host.config();
    let set = host.set_option(
        &mut socket,
        &[1],
        ENCAP_REFLECT,
        &REFLECT_PATH.to_ne_bytes(),
    );
    let denied = config.flags & Config::DENY_BY_DEFAULT != 0;
    assert_eq!(set.is_ok(), lab && !denied);
    let reply = Packet {
        ethertype: inner.ethertype,
        bytes: &bytes,
        gso_size: 0,
    };
    // Behind an extension header, that was something else.
    let flow = dynencap_model::flow::key(&reply);
    let known = flow.and_then(|flow| host.reflected(&flow)).is_some();
    let mut frames: Vec<Frame> = Vec::new();
    let sent = host.egress(Some(&socket), reply, &mut frames);
    if set.is_ok() && known && sent.reason == Reason::Encapsulated {
        assert_eq!(addresses(&frames[0]), [captured.source, captured.gateway]);
        let header = &captured.header[..usize::from(captured.header_len)];
        let at = frames[0].bytes.len() - bytes.len() - header.len();
        assert_eq!(frames[0].bytes[at..at + header.len()], *header);
    }
    if set.is_ok() {
        assert_eq!(
            sent.reason == Reason::NoGateway,
            !known,
            "{:?}",
            sent.reason
        );
    }
}

/// A socket gets the packet.
fn get(host: &mut Host, head: &Head, captured: Option<Exit>, inner: &Frame, front: &[u8]) {
    for (ty, protocol) in [(1, 6), (2, 17)] {
        let mut socket = Socket::in_cgroup(
            SocketKind {
                family: AF_INET6,
                ty,
                protocol,
            },
            &[1, 2],
        );
        let bits = u32::from(head.how[0] & 7 ^ 1).to_ne_bytes();
        let _ = host.set_option(&mut socket, &[1, 2], ENCAP_REFLECT, &bits);
        let states = [
            TcpState::Listen,
            TcpState::Open,
            TcpState::Connecting,
            TcpState::Close,
        ];
        for turn in 0..2 {
            let state = states[usize::from(head.how[1].wrapping_add(turn) & 3)];
            socket.set_state(state);
            let [rcv_nxt, snd_una, snd_nxt] = head.sequence;
            let mut receiver = Receiver {
                socket: &mut socket,
                sequence: Sequence {
                    rcv_nxt,
                    snd_una,
                    snd_nxt,
                },
                connected: head.how[2] & 1 == 1,
            };
            let incoming = Incoming {
                packet: Packet {
                    ethertype: inner.ethertype,
                    bytes: &inner.bytes,
                    gso_size: 0,
                },
                mark: head.mark,
                captured,
                front,
            };
            let before: u64 = host.events().iter().sum();
            let mark = host.reflect(&mut receiver, &incoming);
            let listens = state == TcpState::Listen && protocol == 6;
            assert!(mark == head.mark || listens);
            assert_eq!(mark & !MARK_MASK, head.mark & !MARK_MASK);
            let happened = host.events().iter().sum::<u64>() - before;
            assert!(happened <= 1 + u64::from(listens));
            if let Some(exit) = socket.exit() {
                assert!(*exit == Exit::NONE || exit.flags & Exit::REFLECTED != 0);
            }
        }
    }
}

/// Source and destination of the outer header, IPv4 as IPv4-mapped.
fn addresses(frame: &Frame) -> [[u8; 16]; 2] {
    let field = |at: usize, len: usize| {
        let mut address = [0; 16];
        if len == 4 {
            address[10..12].fill(0xff);
        }
        address[16 - len..].copy_from_slice(&frame.bytes[at..at + len]);
        address
    };
    match frame.ethertype {
        0x0800 => [field(12, 4), field(16, 4)],
        _ => [field(8, 16), field(24, 16)],
    }
}

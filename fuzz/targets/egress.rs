//! Any options on a socket, then any packet through the model: one verdict, one count, frames
//! that fit, and decapsulation gives the packet back.

#![no_main]

use arbitrary::Arbitrary;
use dynencap_fuzz::{Call, Hosting, Kind, Shape, frame, plant, split};
use dynencap_model::abi::{Exit, MARK_MASK, MAX_OVERHEAD, Reason, TunnelKey, TunnelSpec, Verdict};
use dynencap_model::{Frame, Host, Packet, Port, Socket, SocketKind, mtu, segment};
use libfuzzer_sys::fuzz_target;

/// A head of zeros: a socket of family 10, type 1, protocol 6, with a gateway and UDP.
#[derive(Arbitrary, Debug)]
struct Head {
    kind: [u8; 3],
    mark: u32,
    hosting: Hosting,
    calls: [Call; 4],
    shape: Shape,
}

fuzz_target!(
    init: plant("egress", Kind::Leaving(Head::size_hint(0).0)),
    |data: &[u8]| {
        let Some((head, rest)) = split::<Head>(data) else {
            return;
        };
        let mut socket = Socket::new(SocketKind {
            family: u32::from(10 ^ head.kind[0]),
            ty: u32::from(1 ^ head.kind[1]),
            protocol: u32::from(6 ^ head.kind[2]),
        });
        socket.set_mark(head.mark);
        set_options(&mut socket, &head);

        let mut host = Host::new(head.hosting.config());
        let frame = frame(&head.shape, rest);
        let packet = head.shape.packet(&frame);
        let mut frames: Vec<Frame> = Vec::new();
        let egress = host.egress(Some(&socket), packet, &mut frames);
        counted_once(&host, egress.reason);
        match egress.verdict() {
            Verdict::Dropped if egress.reason == Reason::TooBigTold => {
                assert_eq!(frames.len(), 1, "one error for one packet");
                assert_eq!(frames[0].port, Port::Delivered);
            }
            Verdict::Dropped => assert!(frames.is_empty(), "{:?} lets frames out", egress.reason),
            // Each segment is judged on its own then.
            Verdict::Passed if egress.reason == Reason::Segmenting => {
                assert!(frames.iter().all(|frame| frame.port == Port::Segmenter));
            }
            Verdict::Passed => assert_eq!(frames, plain(&packet), "a passed packet is changed"),
            Verdict::Encapsulated => {
                let fits = |frame: &Frame| frame.bytes.len() <= host.config().uplink_mtu as usize;
                assert!(frames.iter().all(fits), "a frame is over the MTU");
                assert_eq!(
                    decapsulated(&socket, &head, &frames),
                    plain(&packet),
                    "decapsulation does not give the packet back"
                );
            }
            Verdict::Decapsulated => panic!("at egress"),
        }
    }
);

fn set_options(socket: &mut Socket, head: &Head) {
    let config = head.hosting.config();
    for (index, call) in head.calls.iter().enumerate() {
        let before = socket.clone();
        let (name, value) = (call.name(index), call.value(index));
        match socket.set_option(&config, name, &value) {
            Ok(()) => {
                assert_eq!(socket.mark() & !MARK_MASK, before.mark() & !MARK_MASK);
                let read = socket.option(&config, name, value.len());
                if !value.is_empty() {
                    assert_eq!(read.as_deref(), Ok(&value[..]), "reads back as it was set");
                }
            }
            Err(_) => {
                assert_eq!(
                    socket.exit(),
                    before.exit(),
                    "a refused call changes the exit"
                );
                assert_eq!(
                    socket.mark(),
                    before.mark(),
                    "a refused call changes the mark"
                );
            }
        }
        // Any capacity: an answer, never a panic.
        let _ = socket.option(&config, name, call.capacity());
        if let Some(exit) = socket.exit() {
            assert!(mtu::overhead(exit) <= MAX_OVERHEAD);
        }
    }
}

fn counted_once(host: &Host, reason: Reason) {
    assert_eq!(host.counters().iter().sum::<u64>(), 1);
    assert_eq!(host.counters()[reason as usize], 1);
}

/// What leaves without us: the packet or its segments.
fn plain(packet: &Packet<'_>) -> Vec<Frame> {
    let mut frames = Vec::new();
    if segment::segment(packet, &mut frames).is_none() {
        frames.push(Frame {
            port: Port::Wire,
            ethertype: packet.ethertype,
            bytes: packet.bytes.to_vec(),
        });
    }
    frames
}

/// What the exit's host makes of the frames.
fn decapsulated(socket: &Socket, head: &Head, frames: &[Frame]) -> Vec<Frame> {
    let exit = socket.exit().expect("encapsulated without an exit");
    let has_udp = exit.flags & Exit::UDP != 0;
    let mut far = Host::new(head.hosting.config());
    let protocols: &[u8] = if has_udp { &[17] } else { &[4, 41] };
    for protocol in protocols {
        let key = TunnelKey {
            address: exit.gateway,
            protocol: *protocol,
            reserved: 0,
            port: exit.destination_port,
        };
        let key = if has_udp {
            key
        } else {
            TunnelKey {
                port: [0; 2],
                ..key
            }
        };
        let header_len = if has_udp { exit.header_len } else { 0 };
        let spec = TunnelSpec {
            header_len,
            flags: 0,
            format: TunnelSpec::FIXED,
            reserved: 0,
        };
        far.add_tunnel(key, spec);
    }
    let mut inner: Vec<Frame> = Vec::new();
    for frame in frames {
        let packet = Packet {
            ethertype: frame.ethertype,
            bytes: &frame.bytes,
            gso_size: 0,
        };
        let reason = far.ingress(packet, &mut inner);
        assert_eq!(reason, Reason::Decapsulated);
    }
    // As they were when they left.
    for frame in &mut inner {
        frame.port = Port::Wire;
    }
    inner
}

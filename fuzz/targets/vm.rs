//! Any options and any frame through the committed object in the vm and through the model:
//! the same errno, verdict and bytes.

#![no_main]

use arbitrary::Arbitrary;
use dynencap_fuzz::{Call, Hosting, Kind, Shape, frame, plant, split};
use dynencap_model::abi::option::{ENCAP_REFLECT, ENOPROTOOPT, SOL_DYNENCAP};
use dynencap_model::abi::{Config, Reason, object};
use dynencap_model::{self as model, Frame, Host, Packet, Port, Socket, segment};
use dynencap_vm::{self as vm, GetOption, Gso, GsoKind, Machine, SetOption, Skb, SocketId};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const ETHERNET_ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
const ETHERNET_LEN: usize = 14;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;

/// A head of zeros: a socket of family 10, type 1, protocol 6, with a gateway and UDP, all of
/// the frame linear.
#[derive(Arbitrary, Debug)]
struct Head {
    kind: [u8; 3],
    mark: u32,
    linear_less: u8,
    hosting: Hosting,
    calls: [Call; 3],
    shape: Shape,
}

/// Loaded once: a machine's clone is cheaper than reading the object again.
static MACHINE: LazyLock<Machine> = LazyLock::new(|| {
    Machine::load(&dynencap_sim::built_in_object()).expect("the committed object loads")
});

/// Whether its programs reflect.
static REFLECTS: LazyLock<bool> =
    LazyLock::new(|| MACHINE.programs().any(|program| program == object::REFLECT));

fuzz_target!(
    init: plant("vm", Kind::Leaving(Head::size_hint(0).0)),
    |data: &[u8]| {
        let Some((head, rest)) = split::<Head>(data) else {
            return;
        };
        let mut both = Both::new(&head);
        for (index, call) in head.calls.iter().enumerate() {
            if call.name(index) == ENCAP_REFLECT && !*REFLECTS {
                continue;
            }
            both.set_option(call.name(index), &call.value(index));
            both.option(call.name(index), call.capacity());
        }
        let frame = frame(&head.shape, rest);
        let packet = head.shape.packet(&frame);
        let sent = both.egress(&packet, usize::from(head.linear_less));
        for frame in sent.iter().take(2).chain([&frame]) {
            both.ingress(frame);
        }
    }
);

/// The two engines, in the same state.
struct Both {
    host: Host,
    socket: Socket,
    machine: Machine,
    id: SocketId,
}

impl Both {
    fn new(head: &Head) -> Self {
        let config = head.hosting.valid_config();
        let off = if *REFLECTS { 0 } else { Config::REFLECT };
        let config = Config {
            flags: config.flags & !off,
            ..config
        };
        let mut host = Host::new(config);
        let mut machine = MACHINE.clone();
        update(&mut machine, object::CONFIG, &[0; 4], &config.to_bytes());
        for (key, spec) in head.hosting.tunnels() {
            host.add_tunnel(key, spec);
            update(
                &mut machine,
                object::TUNNELS,
                &key.to_bytes(),
                &spec.to_bytes(),
            );
        }
        let [family, ty, protocol] = [10 ^ head.kind[0], 1 ^ head.kind[1], 6 ^ head.kind[2]];
        let [family, ty, protocol] = [family, ty, protocol].map(u32::from);
        let mut socket = Socket::new(model::SocketKind {
            family,
            ty,
            protocol,
        });
        let id = machine.open_socket(vm::SocketKind {
            family,
            ty,
            protocol,
        });
        // Bits of ours that the application set itself: section 1 does not tell whether a
        // clearing call without storage takes them away.
        let mark = head.mark;
        socket.set_mark(mark);
        machine.set_mark(id, mark);
        Self {
            host,
            socket,
            machine,
            id,
        }
    }

    fn set_option(&mut self, name: i32, value: &[u8]) {
        let config = *self.host.config();
        let ours = self.socket.set_option(&config, name, value);
        let theirs = self
            .machine
            .set_option(object::SET_OPTION, self.id, SOL_DYNENCAP, name, value)
            .unwrap_or_else(|fault| panic!("{fault}"));
        let theirs = match theirs {
            SetOption::Consumed => Ok(()),
            SetOption::PassedOn { .. } => Err(ENOPROTOOPT),
            SetOption::Refused(errno) => Err(errno),
        };
        assert_eq!(
            ours.map_err(|errno| errno.0),
            theirs,
            "setsockopt {name}: model, vm"
        );
        let marks = [self.socket.mark(), self.machine.mark(self.id)];
        assert_eq!(
            marks[0], marks[1],
            "mark after setsockopt {name}: model, vm"
        );
    }

    fn option(&mut self, name: i32, capacity: usize) {
        let config = *self.host.config();
        let ours = self.socket.option(&config, name, capacity);
        let mut buffer = vec![0; capacity];
        let theirs = self
            .machine
            .get_option(
                object::GET_OPTION,
                self.id,
                SOL_DYNENCAP,
                name,
                -ENOPROTOOPT,
                &mut buffer,
            )
            .unwrap_or_else(|fault| panic!("{fault}"));
        let theirs = match theirs {
            GetOption::Ok(len) => Ok(&buffer[..len]),
            GetOption::Refused(errno) => Err(errno),
        };
        assert_eq!(
            ours.as_deref().map_err(|errno| errno.0),
            theirs,
            "getsockopt {name} with {capacity} bytes: model, vm"
        );
    }

    /// What both let out.
    fn egress(&mut self, packet: &Packet<'_>, linear_less: usize) -> Vec<Frame> {
        let mut ours: Vec<Frame> = Vec::new();
        let egress = self.host.egress(Some(&self.socket), *packet, &mut ours);

        let mut skb = skb(packet);
        skb.set_linear_len(skb.len().saturating_sub(linear_less));
        skb.socket = Some(self.id);
        skb.mark = self.machine.mark(self.id);
        skb.gso = gso(packet);
        let (action, reason) = self.run(object::EGRESS, &mut skb);
        assert_eq!(
            Some(egress.reason),
            reason,
            "egress: model, vm; {} bytes of {:04x}, segments of {}, {:?}",
            packet.bytes.len(),
            packet.ethertype,
            packet.gso_size,
            self.host.config()
        );
        // The kernel makes no such super-packet, and what its GSO would do is not told.
        if packet.gso_size > 0 && segment::layout(packet).is_none() {
            return Vec::new();
        }
        let mut theirs = Vec::new();
        // Sent to the segmenter, which is no affair of this program any more.
        if egress.reason == Reason::Segmenting {
            assert_eq!(action, TC_ACT_REDIRECT);
            return Vec::new();
        }
        if action == TC_ACT_REDIRECT {
            theirs.push(parsed(Port::Delivered, skb.data()));
        } else if action != TC_ACT_SHOT {
            vm::gso::segment(&skb, &mut |frame: &[u8]| {
                theirs.push(parsed(Port::Wire, frame))
            })
            .unwrap_or_else(|error| panic!("{error}"));
        }
        assert_eq!(ours, theirs, "egress ({:?}): model, vm", egress.reason);
        ours
    }

    fn ingress(&mut self, frame: &Frame) {
        let packet = Packet {
            ethertype: frame.ethertype,
            bytes: &frame.bytes,
            gso_size: 0,
        };
        let mut ours: Vec<Frame> = Vec::new();
        let reason = self.host.ingress(packet, &mut ours);
        let mut skb = skb(&packet);
        let (action, theirs_reason) = self.run(object::INGRESS, &mut skb);
        assert_eq!(Some(reason), theirs_reason, "ingress: model, vm");
        let mut theirs = Vec::new();
        if action != TC_ACT_SHOT {
            theirs.push(parsed(Port::Delivered, skb.data()));
        }
        assert_eq!(ours, theirs, "ingress ({reason:?}): model, vm");
    }

    /// Runs a program; its action, and the reason by the one counter that it raised.
    fn run(&mut self, program: &str, skb: &mut Skb) -> (i32, Option<Reason>) {
        let before = self.counters();
        let run = self
            .machine
            .run_tc(program, skb)
            .unwrap_or_else(|fault| panic!("{fault}"));
        let mut raised = None;
        for (reason, (before, after)) in Reason::ALL
            .into_iter()
            .zip(before.iter().zip(self.counters()))
        {
            if *before != after {
                assert_eq!((before + 1, raised), (after, None), "one frame, one count");
                raised = Some(reason);
            }
        }
        (run.action, raised)
    }

    fn counters(&self) -> Vec<u64> {
        self.machine.counters(object::COUNTERS).unwrap_or_default()
    }
}

fn update(machine: &mut Machine, map: &str, key: &[u8], value: &[u8]) {
    machine
        .update_map(map, key, value)
        .unwrap_or_else(|error| panic!("{error}"));
}

fn skb(packet: &Packet<'_>) -> Skb {
    let frame = [
        &ETHERNET_ADDRESSES,
        &packet.ethertype.to_be_bytes()[..],
        packet.bytes,
    ]
    .concat();
    Skb::new(&frame, packet.ethertype)
}

fn gso(packet: &Packet<'_>) -> Option<Gso> {
    let transport = segment::layout(packet).map(|layout| layout.transport);
    let kind = match (transport, packet.ethertype) {
        (Some(segment::Transport::Udp), _) => GsoKind::Udp,
        (_, 0x0800) => GsoKind::Tcp4,
        _ => GsoKind::Tcp6,
    };
    (packet.gso_size > 0).then_some(Gso {
        size: packet.gso_size,
        kind,
    })
}

fn parsed(port: Port, frame: &[u8]) -> Frame {
    Frame {
        port,
        ethertype: u16::from_be_bytes([frame[12], frame[13]]),
        bytes: frame[ETHERNET_LEN..].to_vec(),
    }
}

//! Every program of the committed object, in any order, on any host: none faults, each frame is
//! counted once, each call that sets is an event. What the verdicts must be is for the
//! differential suite to say.

#![cfg(test)]
mod packet;

use dynencap_abi::{
    Config, Exit, Policy, PolicyExitKey, PortRange, TunnelKey, TunnelSpec, object, option,
};
use dynencap_vm::{
    CreateSocket, Endpoints, Gso, GsoKind, Machine, Skb, SocketId, SocketKind, TcpState, gso,
};
use packet::{any_arrival, any_packet, inner, packet, tunnelled};
use proptest::prelude::*;
use std::net::SocketAddr;
use std::sync::LazyLock;

const OBJECT: &[u8] = include_bytes!("../../../bpf/dynencap.bpf.o");
const GATEWAY: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const GATEWAY4: [u8; 4] = [203, 0, 113, 9];
/// A tunnel's end whose outer headers a device of the kernel takes off.
const KERNELS: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
const UPLINK: u32 = 5;
const SEGMENTER: u32 = 6;
/// Sockets' ports and addresses; frames have the same.
const LOCAL: ([u8; 4], u16) = ([192, 0, 2, 1], 4000);
const REMOTE: ([u8; 4], u16) = ([198, 51, 100, 7], 443);

/// One thing that happens to the host.
#[derive(Clone, Debug)]
enum Step {
    Cgroup(usize),
    Create {
        family: u32,
        ty: u32,
        protocol: u32,
    },
    Set {
        name: i32,
        value: Vec<u8>,
    },
    Get {
        name: i32,
        capacity: usize,
    },
    Ops {
        op: u32,
        args: [u32; 4],
    },
    State(TcpState),
    Request,
    TimeWait,
    Policies(u32),
    Clock(u64),
    /// Where the socket stands: what it expects next.
    Expects(u32),
    /// A listener whose policy lets it reflect and follow gets a SYN, and the connection comes to
    /// be.
    Handshake,
    /// The connection comes to be, with what its listener has.
    Accept,
    /// The socket gets a peer, or lets it go.
    Connect(bool),
    /// A frame comes in at the uplink and, if it passes, reaches the socket.
    Arrive {
        packet: Vec<u8>,
        /// Behind a device of the kernel: with this many bytes of link-layer header.
        link: Option<usize>,
    },
    /// A frame, through one of the TC programs.
    Frame {
        program: &'static str,
        packet: Vec<u8>,
        protocol: u16,
        gso: Option<u16>,
        mark: u32,
        with_socket: bool,
        linear: usize,
    },
}

fn v4(address: [u8; 4]) -> [u8; 16] {
    let mut mapped = [0; 16];
    mapped[10..12].fill(0xff);
    mapped[12..].copy_from_slice(&address);
    mapped
}

fn any_state() -> impl Strategy<Value = TcpState> {
    use TcpState::*;
    prop::sample::select(vec![Established, SynSent, FinWait1, Close, Listen, Closing])
}

fn any_value() -> impl Strategy<Value = (i32, Vec<u8>)> {
    let udp = [0, 0, 0x12, 0x34];
    prop_oneof![
        Just((option::ENCAP_GW, GATEWAY.to_vec())),
        Just((option::ENCAP_GW, GATEWAY4.to_vec())),
        Just((option::ENCAP_GW, Vec::new())),
        Just((option::ENCAP_UDP, udp.to_vec())),
        Just((option::ENCAP_UDP, [&udp[..], &[7; 8]].concat())),
        (0..9u32).prop_map(|bits| (option::ENCAP_REFLECT, bits.to_ne_bytes().to_vec())),
        Just((option::ENCAP_REFLECT, Vec::new())),
        (0..6i32, prop::collection::vec(any::<u8>(), 0..40)),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    use object::{EGRESS, INGRESS, SEGMENTED};
    let mark = prop_oneof![
        Just(0u32),
        Just(dynencap_abi::MARK_SENTINEL),
        Just(dynencap_abi::MARK_DONE),
        any::<u32>()
    ];
    let frame = (
        prop::sample::select(vec![EGRESS, EGRESS, INGRESS, SEGMENTED]),
        any_packet(),
        prop_oneof![4 => Just(None), 1 => any::<u16>().prop_map(Some)],
        prop::option::weighted(0.3, 0..1500u16),
        mark,
        any::<bool>(),
        prop_oneof![Just(usize::MAX), 14..120usize],
    )
        .prop_map(
            |(program, packet, protocol, gso, mark, with_socket, linear)| {
                let protocol = protocol.unwrap_or(match packet.first().map(|byte| byte >> 4) {
                    Some(4) => 0x0800,
                    _ => 0x86dd,
                });
                Step::Frame {
                    program,
                    packet,
                    protocol,
                    gso,
                    mark,
                    with_socket,
                    linear,
                }
            },
        );
    prop_oneof![
        1 => (0..3usize).prop_map(Step::Cgroup),
        2 => (prop::sample::select(vec![2u32, 10, 17]), 1..4u32, prop::sample::select(vec![0u32, 6, 17, 262]))
            .prop_map(|(family, ty, protocol)| Step::Create { family, ty, protocol }),
        4 => any_value().prop_map(|(name, value)| Step::Set { name, value }),
        2 => (0..6i32, 0..50usize).prop_map(|(name, capacity)| Step::Get { name, capacity }),
        2 => (0..16u32, any::<[u32; 4]>()).prop_map(|(op, args)| Step::Ops { op, args }),
        2 => any_state().prop_map(Step::State),
        1 => Just(Step::Request),
        1 => Just(Step::TimeWait),
        1 => (0..512u32).prop_map(Step::Policies),
        1 => any::<u64>().prop_map(Step::Clock),
        1 => (90..110u32).prop_map(Step::Expects),
        1 => Just(Step::Accept),
        1 => Just(Step::Handshake),
        1 => any::<bool>().prop_map(Step::Connect),
        10 => (any_arrival(), prop::option::weighted(0.3, prop::sample::select(vec![0, 14])))
            .prop_map(|(packet, link)| Step::Arrive { packet, link }),
        10 => frame,
    ]
}

struct Host {
    machine: Machine,
    config: Config,
    socket: SocketId,
    frames: u64,
}

const CGROUPS: [&[u64]; 3] = [&[1], &[1, 20], &[1, 20, 300]];

fn host(config: Config) -> Host {
    static LOADED: LazyLock<Machine> = LazyLock::new(|| Machine::load(OBJECT).unwrap());
    let mut machine = LOADED.clone();
    let reflect = TunnelSpec::REFLECT;
    for (address, protocol, port, flags) in [
        (GATEWAY, 4, [0; 2], reflect),
        (GATEWAY, 41, [0; 2], reflect),
        (GATEWAY, 17, [0x12, 0x34], 0),
        (v4(GATEWAY4), 4, [0; 2], reflect),
        (v4(GATEWAY4), 17, [0x12, 0x34], reflect),
        (KERNELS, 4, [0; 2], reflect | TunnelSpec::KERNEL),
        (KERNELS, 41, [0; 2], reflect | TunnelSpec::KERNEL),
        (KERNELS, 17, [0x12, 0x34], reflect | TunnelSpec::KERNEL),
    ] {
        let key = TunnelKey {
            address,
            protocol,
            reserved: 0,
            port,
        };
        let spec = TunnelSpec {
            header_len: 0,
            flags,
            format: TunnelSpec::FIXED,
            reserved: 0,
        };
        machine
            .update_map(object::TUNNELS, &key.to_bytes(), &spec.to_bytes())
            .unwrap();
    }
    let socket = machine.open_socket(SocketKind {
        family: 10,
        ty: 1,
        protocol: 6,
    });
    let mut host = Host {
        machine,
        config,
        socket,
        frames: 0,
    };
    host.configure();
    host.connect();
    host
}

impl Host {
    fn configure(&mut self) {
        let bytes = self.config.to_bytes();
        self.machine
            .update_map(object::CONFIG, &[0; 4], &bytes)
            .unwrap();
    }

    fn connect(&mut self) {
        let ends = Endpoints {
            local: SocketAddr::from(LOCAL),
            remote: Some(SocketAddr::from(REMOTE)),
        };
        self.machine.set_endpoints(self.socket, Some(ends));
        self.machine.set_sequence(self.socket, 50, 5000);
    }

    /// A policy for the middle cgroup.
    fn policy(&mut self, flags: u32) {
        let default_exit = Exit {
            gateway: GATEWAY,
            flags: Exit::GATEWAY,
            ..Exit::NONE
        };
        let policy = Policy {
            source: [0xfe; 16],
            source4: [10, 0, 0, 7],
            id: 3,
            flags: flags & 7,
            reserve: if flags & 8 == 0 { 0 } else { 40 },
            port_count: 1,
            reflect: flags >> 4 & 7,
            ports: [PortRange {
                first: 0x1000,
                last: 0x2000,
            }; Policy::MAX_PORTS],
            default_exit,
        };
        let prefix = PolicyExitKey {
            prefix_len: 32 + 32,
            policy: 3,
            address: GATEWAY,
        };
        let allows = (flags & 1 | flags >> 6 & 6).to_ne_bytes();
        self.machine
            .update_map(object::POLICIES, &20u64.to_ne_bytes(), &policy.to_bytes())
            .unwrap();
        self.machine
            .update_map(object::POLICY_EXITS, &prefix.to_bytes(), &allows)
            .unwrap();
        self.config.policy_generation += 1;
        self.configure();
    }

    /// Takes a step; a fault is what the test fails by.
    fn step(&mut self, step: &Step) -> Result<(), dynencap_vm::Fault> {
        let (machine, socket) = (&mut self.machine, self.socket);
        match step {
            Step::Cgroup(index) => machine.set_task_cgroup(CGROUPS[*index]),
            Step::Create {
                family,
                ty,
                protocol,
            } => {
                let kind = SocketKind {
                    family: *family,
                    ty: *ty,
                    protocol: *protocol,
                };
                let made = machine.create_socket(object::SOCKET_CREATE, kind)?;
                if let CreateSocket::Created(made) = made {
                    machine.close_socket(socket);
                    self.socket = made;
                    self.connect();
                }
            }
            Step::Set { name, value } => {
                let level = option::SOL_DYNENCAP;
                machine.set_option(object::SET_OPTION, socket, level, *name, value)?;
            }
            Step::Get { name, capacity } => {
                let level = option::SOL_DYNENCAP;
                let mut buffer = vec![0; *capacity];
                machine.get_option(object::GET_OPTION, socket, level, *name, -92, &mut buffer)?;
            }
            Step::Ops { op, args } => {
                machine.run_sock_ops(object::TRACK, *op, *args, socket)?;
            }
            Step::State(state) => {
                machine.change_state(object::TRACK, socket, *state)?;
            }
            Step::Request => {
                machine.set_state(socket, TcpState::Listen);
                let ends = Endpoints {
                    local: SocketAddr::from(LOCAL),
                    remote: Some(SocketAddr::from(REMOTE)),
                };
                let request = machine.open_request(socket, ends);
                machine.run_sock_ops(object::TRACK, 2, [0; 4], request)?;
                self.transmit(Some(request))?;
                self.machine.close_socket(request);
            }
            Step::TimeWait => {
                machine.change_state(object::TRACK, socket, TcpState::Close)?;
                let successor = machine.open_time_wait(socket);
                self.transmit(Some(successor))?;
                self.machine.close_socket(successor);
            }
            Step::Policies(flags) => self.policy(*flags),
            Step::Clock(clock) => machine.set_clock(*clock),
            Step::Expects(sequence) => {
                machine.set_expected(socket, *sequence);
                machine.set_sequence(socket, 5, 50);
            }
            Step::Accept => self.accept()?,
            Step::Handshake => {
                let reflects = option::REFLECT_PATH | option::REFLECT_DSCP;
                self.policy(1 | reflects << 4 | 3 << 7);
                self.machine.close_socket(socket);
                self.machine.set_task_cgroup(CGROUPS[1]);
                self.socket = self.machine.open_socket(SocketKind {
                    family: 10,
                    ty: 1,
                    protocol: 6,
                });
                self.connect();
                self.machine.set_state(self.socket, TcpState::Listen);
                let mut syn = packet(false, 6, false, &[], &[]);
                syn[33] = 2;
                self.arrive(&tunnelled(true, false, false, &syn), None)?;
                self.accept()?;
            }
            Step::Connect(is_connected) => {
                let ends = Endpoints {
                    local: SocketAddr::from(LOCAL),
                    remote: is_connected.then(|| SocketAddr::from(REMOTE)),
                };
                machine.set_endpoints(socket, Some(ends));
            }
            Step::Arrive { packet, link } => self.arrive(packet, *link)?,
            Step::Frame {
                program,
                packet,
                protocol,
                gso,
                mark,
                with_socket,
                linear,
            } => {
                let mut skb = skb(packet, *protocol);
                let kind = match packet.get(if *protocol == 0x0800 { 9 } else { 6 }) {
                    Some(17) => GsoKind::Udp,
                    _ if *protocol == 0x0800 => GsoKind::Tcp4,
                    _ => GsoKind::Tcp6,
                };
                skb.gso = gso.map(|size| Gso { size, kind });
                skb.set_linear_len(*linear);
                skb.mark = *mark;
                if *with_socket {
                    skb.socket = Some(socket);
                    skb.mark |= machine.mark(socket);
                }
                self.run(program, skb)?;
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<(), dynencap_vm::Fault> {
        let child = self.machine.clone_socket(self.socket);
        self.machine.close_socket(self.socket);
        self.socket = child;
        self.connect();
        self.machine.set_expected(child, 95);
        self.machine.set_sequence(child, 5, 50);
        self.machine.run_sock_ops(object::TRACK, 5, [0; 4], child)?;
        self.machine.set_state(child, TcpState::Established);
        Ok(())
    }

    fn arrive(&mut self, packet: &[u8], link: Option<usize>) -> Result<(), dynencap_vm::Fault> {
        let protocol = |packet: &[u8]| match packet.first().map(|byte| byte >> 4) {
            Some(4) => 0x0800,
            _ => 0x86dd,
        };
        let mut skb = match link {
            Some(link) => {
                let inner = inner(packet);
                let (outer, inner) = packet.split_at(packet.len() - inner.len());
                let front = [&vec![2; link][..], outer].concat();
                Skb::arrived(&front, inner, protocol(inner))
            }
            None => {
                let mut skb = skb(packet, protocol(packet));
                skb.ifindex = UPLINK;
                let run = self.machine.run_tc(object::INGRESS, &mut skb)?;
                self.frames += 1;
                if run.action == 2 {
                    return Ok(());
                }
                skb.arrive();
                skb
            }
        };
        skb.socket = Some(self.socket);
        let run = self.machine.run_arrival(object::REFLECT, &mut skb)?;
        assert!(run.passes, "every packet passes");
        Ok(())
    }

    /// What the kernel sends for a socket that is none.
    fn transmit(&mut self, socket: Option<SocketId>) -> Result<(), dynencap_vm::Fault> {
        for is_v6 in [false, true] {
            let protocol = if is_v6 { 0x86dd } else { 0x0800 };
            let mut skb = skb(&packet(is_v6, 6, true, &[], &[]), protocol);
            skb.socket = socket;
            skb.mark = dynencap_abi::MARK_SENTINEL;
            self.run(object::EGRESS, skb)?;
        }
        Ok(())
    }

    fn run(&mut self, program: &str, mut skb: Skb) -> Result<(), dynencap_vm::Fault> {
        skb.ifindex = UPLINK;
        let run = self.machine.run_tc(program, &mut skb)?;
        self.frames += 1;
        match (run.action, run.redirect) {
            (-1 | 0 | 2, None) => {}
            (7, Some(to)) => assert!([UPLINK, SEGMENTER].contains(&to.ifindex), "{to:?}"),
            other => panic!("{program}: {other:?}"),
        }
        let _ = gso::segment(&skb, &mut |_| {});
        Ok(())
    }
}

fn skb(packet: &[u8], protocol: u16) -> Skb {
    let mut frame = vec![2; 12];
    frame.extend(protocol.to_be_bytes());
    frame.extend(packet);
    Skb::new(&frame, protocol)
}

fn any_config() -> impl Strategy<Value = Config> {
    let segmenter = prop::sample::select(vec![0, SEGMENTER]);
    (0..128u32, 1280..2000u32, segmenter, any::<bool>()).prop_map(
        |(flags, uplink_mtu, segmenter, sources)| Config {
            source: if sources { [0xfd; 16] } else { [0; 16] },
            source4: if sources { [10, 0, 0, 1] } else { [0; 4] },
            uplink_mtu,
            flags,
            segmenter,
            uplink: UPLINK,
            ..Config::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_order_of_steps_makes_a_program_fault(
        config in any_config(),
        steps in prop::collection::vec(any_step(), 1..30),
    ) {
        let mut host = host(config);
        for (at, step) in steps.iter().enumerate() {
            let outcome = host.step(step);
            prop_assert!(outcome.is_ok(), "step {at}: {}", outcome.unwrap_err());
        }
        let counters = host.machine.counters(object::COUNTERS).unwrap();
        prop_assert_eq!(counters.iter().sum::<u64>(), host.frames);
        let sets = steps.iter().filter(|step| matches!(step, Step::Set { .. })).count();
        let events = host.machine.counters(object::EVENTS).unwrap();
        prop_assert_eq!(events[..3].iter().sum::<u64>(), sets as u64);
    }
}

#[test]
fn no_program_of_the_object_is_left_out() {
    let known = [
        object::EGRESS,
        object::INGRESS,
        object::SEGMENTED,
        object::SET_OPTION,
        object::GET_OPTION,
        object::SOCKET_CREATE,
        object::TRACK,
        object::REFLECT,
        // Redirects whatever comes: tests/object.rs.
        object::LAB_DELIVER,
    ];
    let machine = Machine::load(OBJECT).unwrap();
    let unknown: Vec<_> = machine
        .programs()
        .filter(|name| !known.contains(name))
        .collect();
    assert_eq!(unknown, [""; 0]);
}

/// The steps reach what they are for: each reason and each event that frames, options and orders
/// alone bring about.
#[test]
fn the_steps_reach_most_of_the_programs() {
    use dynencap_abi::{Event, Reason};
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let strategy = (any_config(), prop::collection::vec(any_step(), 1..30));
    let (mut reasons, mut events) = ([0; Reason::COUNT], [0; Event::COUNT]);
    for _ in 0..1500 {
        let (config, steps) = strategy.new_tree(&mut runner).unwrap().current();
        let mut host = host(config);
        for step in &steps {
            host.step(step).unwrap();
        }
        for (map, sums) in [
            (object::COUNTERS, &mut reasons[..]),
            (object::EVENTS, &mut events),
        ] {
            let counters = host.machine.counters(map).unwrap();
            for (sum, count) in sums.iter_mut().zip(counters) {
                *sum += count;
            }
        }
    }
    // What takes several steps in a row, or 64 KB: the simulator's histories get there.
    let rare = [
        Reason::TooLong,
        Reason::PathTooSmall,
        Reason::PathMtuLearned,
    ];
    let missed: Vec<_> = Reason::ALL
        .into_iter()
        .filter(|reason| reasons[*reason as usize] == 0 && !rare.contains(reason))
        // Torn exits need another CPU, refused headers a kernel without memory.
        .filter(|reason| !matches!(reason, Reason::ExitBusy | Reason::NoRoom))
        .collect();
    let reached = missed;
    let missed: Vec<_> = Event::ALL
        .into_iter()
        .filter(|event| events[*event as usize] == 0 && *event != Event::PathMtuLearned)
        // Needs a map that refuses.
        .filter(|event| *event != Event::ReflectFull)
        .collect();
    assert_eq!((reached, missed), (vec![], vec![]));
}

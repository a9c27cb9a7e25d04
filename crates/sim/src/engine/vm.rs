//! The bytecode in the vm as an engine: a host's sockets, its uplink's TC hooks and the
//! kernel's software GSO behind them.

use super::{Attribution, Engine, EngineError, EngineKind, Fault, Outcome, Outcomes, Port};
use crate::event::{Batch, Event, FlowId, Gso, Transport};
use crate::scenario::{CgroupId, HostSpec, PolicySpec, Segmentation};
use dynencap_abi::option::{AF_PACKET, ENOPROTOOPT, SOCK_RAW, SOL_DYNENCAP};
use dynencap_abi::{Config, Policy, Reason, object};
use dynencap_vm::{self as vm, Machine, gso};

const ETHERNET_LEN: usize = 14;
/// The uplink's addresses: any, the comparison begins behind them.
const ETHERNET_ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
const TC_ACT_SHOT: i32 = 2;

/// See the module.
pub struct VmEngine {
    machine: Machine,
    /// With the cgroup in which each was made.
    sockets: Vec<Option<(vm::SocketId, CgroupId)>>,
    spec: HostSpec,
    /// How many policies have taken effect: the next one's id, and their generation.
    policies: u32,
    frame: Vec<u8>,
    segments: Vec<Vec<u8>>,
    counted: [u64; Reason::COUNT],
}

/// What replay opens for each flow, in every engine.
const REPLAY_SOCKET: vm::SocketKind = vm::SocketKind {
    family: AF_PACKET,
    ty: SOCK_RAW,
    protocol: 0,
};

impl VmEngine {
    /// Loads the object and configures it as this host.
    ///
    /// # Errors
    /// The object does not load, or lacks a map.
    pub fn new(spec: &HostSpec, object: &[u8]) -> Result<Self, EngineError> {
        let failed = |error: &dyn std::error::Error| EngineError::failed(EngineKind::Vm, error);
        let mut machine = Machine::load(object).map_err(|error| failed(&error))?;
        machine
            .update_map(object::CONFIG, &0u32.to_ne_bytes(), &spec.config.to_bytes())
            .map_err(|error| failed(&error))?;
        for (key, tunnel) in &spec.tunnels {
            machine
                .update_map(object::TUNNELS, &key.to_bytes(), &tunnel.to_bytes())
                .map_err(|error| failed(&error))?;
        }
        let own = CgroupId::default();
        machine.set_task_cgroup(&spec.cgroup_path(own));
        let bare = machine.open_socket(REPLAY_SOCKET);
        let mut engine = Self {
            machine,
            sockets: vec![Some((bare, own))],
            spec: spec.clone(),
            policies: 0,
            frame: Vec::new(),
            segments: Vec::new(),
            counted: [0; Reason::COUNT],
        };
        let (machine, counted) = (&mut engine.machine, &mut engine.counted);
        machine
            .read_counters(object::COUNTERS, counted)
            .and_then(|()| machine.watch_counters(object::COUNTERS))
            .map_err(|error| failed(&error))?;
        Ok(engine)
    }

    fn set_policy(&mut self, spec: &PolicySpec) -> Result<(), vm::MapError> {
        self.policies += 1;
        let path = self.spec.cgroup_path(spec.cgroup);
        let cgroup = path.last().copied().unwrap_or_default().to_ne_bytes();
        match spec.policy {
            Some(policy) => {
                let id = self.policies;
                for (key, value) in spec.keys(id) {
                    let (key, value) = (key.to_bytes(), value.to_ne_bytes());
                    self.machine
                        .update_map(object::POLICY_EXITS, &key, &value)?;
                }
                let policy = Policy { id, ..policy };
                self.machine
                    .update_map(object::POLICIES, &cgroup, &policy.to_bytes())?;
            }
            None if self.machine.map_value(object::POLICIES, &cgroup)?.is_some() => {
                self.machine.delete_map_entry(object::POLICIES, &cgroup)?;
            }
            None => {}
        }
        let config = Config {
            policy_generation: self.policies,
            ..self.spec.config
        };
        self.machine
            .update_map(object::CONFIG, &0u32.to_ne_bytes(), &config.to_bytes())
    }

    /// The reason of the run just made, by the counter that it raised, in `raised`.
    fn reason(&mut self, raised: &mut [u64; Reason::COUNT]) -> Option<Reason> {
        let mut reason: Option<usize> = None;
        while let Some((at, now)) = self.machine.take_written() {
            let (Some(counted), Some(raised)) = (self.counted.get_mut(at), raised.get_mut(at))
            else {
                continue;
            };
            let by = now.wrapping_sub(*counted);
            (*counted, *raised) = (now, raised.wrapping_add(by));
            if by == 1 {
                reason = Some(reason.map_or(at, |first| first.min(at)));
            }
        }
        reason.and_then(|at| Reason::ALL.get(at).copied())
    }

    /// Makes the skb of a packet.
    fn load_packet(&mut self, ethertype: u16, packet: &[u8], flow: Option<FlowId>) {
        let mut header = [0; ETHERNET_LEN];
        if let Some((addresses, place)) = header.split_last_chunk_mut() {
            addresses.copy_from_slice(&ETHERNET_ADDRESSES);
            *place = ethertype.to_be_bytes();
        }
        self.machine
            .skb_mut()
            .reset_parts(&[&header, packet], ethertype);
        self.dress(flow);
    }

    /// Makes the skb of the frame in hand.
    fn load_frame(&mut self, ethertype: u16, flow: Option<FlowId>) {
        self.machine.skb_mut().reset(&self.frame, ethertype);
        self.dress(flow);
    }

    /// Gives the skb a flow's socket.
    fn dress(&mut self, flow: Option<FlowId>) {
        let socket = flow.and_then(|flow| self.sockets.get(flow.index()).copied().flatten());
        let socket = socket.map(|(socket, _)| socket);
        let mark = socket.map_or(0, |socket| self.machine.mark(socket));
        let skb = self.machine.skb_mut();
        (skb.socket, skb.mark) = (socket, mark);
    }

    /// Runs the egress program on the skb in hand and puts out what the device would.
    fn transmit(&mut self, outcomes: &mut Outcomes) -> Result<Transmitted, Trouble> {
        let run = self.machine.run_tc_here(object::EGRESS).map_err(trouble)?;
        let reason = self.reason(&mut outcomes.counters);
        let mut made = 0;
        if let Some(redirect) = run.redirect {
            if redirect.direction == vm::Direction::Ingress {
                self.told(outcomes)?;
            }
        } else if run.action != TC_ACT_SHOT {
            let frames = &mut outcomes.frames;
            if self.machine.skb().is_gso() {
                made = gso::segment(self.machine.skb(), &mut |frame: &[u8]| {
                    emit(frames, Port::Wire, frame)
                })
                .map_err(|error| Trouble(super::chain(&error)))?;
            } else {
                emit(frames, Port::Wire, self.machine.skb().data());
            }
        }
        Ok(Transmitted {
            reason,
            segments: made,
        })
    }

    /// What a sender is told comes in at the uplink, past the programs there.
    fn told(&mut self, outcomes: &mut Outcomes) -> Result<(), Trouble> {
        self.frame.clear();
        self.frame.extend_from_slice(self.machine.skb().data());
        self.load_frame(ethertype_of(&self.frame), None);
        let run = self.machine.run_tc_here(object::INGRESS).map_err(trouble)?;
        self.reason(&mut outcomes.counters);
        if run.action != TC_ACT_SHOT {
            emit(
                &mut outcomes.frames,
                Port::Delivered,
                self.machine.skb().data(),
            );
        }
        Ok(())
    }

    fn egress(
        &mut self,
        flow: FlowId,
        ethertype: u16,
        packet: &[u8],
        gso: Option<&Gso>,
        outcomes: &mut Outcomes,
    ) -> Result<Outcome, Trouble> {
        self.load_packet(ethertype, packet, Some(flow));
        self.machine.skb_mut().gso = gso.map(|gso| translate(gso, ethertype));
        let mut outcome = Outcome::default();
        if gso.is_none() || self.spec.segmentation == Segmentation::GsoAware {
            let done = self.transmit(outcomes)?;
            (outcome.reason, outcome.segments) = (done.reason, done.segments);
            return Ok(outcome);
        }
        let mut segments = std::mem::take(&mut self.segments);
        segments.clear();
        let cut = gso::segment(self.machine.skb(), &mut |frame: &[u8]| {
            segments.push(frame.to_vec())
        });
        outcome.segments = cut.map_err(|error| Trouble(super::chain(&error)))?;
        for segment in &segments {
            self.frame.clear();
            self.frame.extend_from_slice(segment);
            self.load_frame(ethertype, Some(flow));
            let done = self.transmit(outcomes)?;
            outcome.reason = outcome.reason.or(done.reason);
        }
        self.segments = segments;
        Ok(outcome)
    }

    fn event(
        &mut self,
        batch: &Batch,
        event: &Event,
        outcomes: &mut Outcomes,
    ) -> Result<Outcome, Trouble> {
        let mut outcome = Outcome::default();
        match event {
            Event::Open { flow, cgroup } => {
                self.machine
                    .set_task_cgroup(&self.spec.cgroup_path(*cgroup));
                let socket = self.machine.open_socket(REPLAY_SOCKET);
                if self.sockets.len() <= flow.index() {
                    self.sockets.resize(flow.index() + 1, None);
                }
                if let Some(slot) = self.sockets.get_mut(flow.index())
                    && let Some((old, _)) = slot.replace((socket, *cgroup))
                {
                    self.machine.close_socket(old);
                }
            }
            Event::Close(flow) => {
                let slot = self.sockets.get_mut(flow.index());
                if let Some((socket, _)) = slot.and_then(Option::take) {
                    self.machine.close_socket(socket);
                }
            }
            Event::SetOption { flow, name, value } => {
                let socket = self.socket(*flow)?;
                // The caller is in the socket's own cgroup.
                let cgroup = self.cgroup(*flow);
                self.machine.set_task_cgroup(&self.spec.cgroup_path(cgroup));
                let (program, value) = (object::SET_OPTION, batch.bytes(value));
                let set = self
                    .machine
                    .set_option(program, socket, SOL_DYNENCAP, *name, value);
                outcome.errno = Some(match set.map_err(trouble)? {
                    vm::SetOption::Consumed => 0,
                    // The kernel's own handler knows nothing of our level.
                    vm::SetOption::PassedOn { .. } => ENOPROTOOPT,
                    vm::SetOption::Refused(errno) => errno,
                });
            }
            Event::GetOption {
                flow,
                name,
                capacity,
            } => {
                let socket = self.socket(*flow)?;
                let mut buffer = vec![0; *capacity];
                let program = object::GET_OPTION;
                let read = self.machine.get_option(
                    program,
                    socket,
                    SOL_DYNENCAP,
                    *name,
                    -ENOPROTOOPT,
                    &mut buffer,
                );
                match read.map_err(trouble)? {
                    vm::GetOption::Ok(len) => {
                        buffer.truncate(len);
                        (outcome.errno, outcome.value) = (Some(0), Some(buffer));
                    }
                    vm::GetOption::Refused(errno) => outcome.errno = Some(errno),
                }
            }
            Event::Egress {
                flow,
                ethertype,
                packet,
                gso,
            } => {
                let bytes = batch.bytes(packet);
                return self.egress(*flow, *ethertype, bytes, gso.as_ref(), outcomes);
            }
            Event::Policy(at) => {
                if let Some(policy) = self.spec.policies.get(*at).cloned() {
                    self.set_policy(&policy)
                        .map_err(|error| Trouble(super::chain(&error)))?;
                }
            }
            Event::Ingress { ethertype, packet } => {
                self.load_packet(*ethertype, batch.bytes(packet), None);
                let run = self.machine.run_tc_here(object::INGRESS).map_err(trouble)?;
                outcome.reason = self.reason(&mut outcomes.counters);
                if run.action != TC_ACT_SHOT {
                    emit(
                        &mut outcomes.frames,
                        Port::Delivered,
                        self.machine.skb().data(),
                    );
                }
            }
        }
        Ok(outcome)
    }

    fn socket(&self, flow: FlowId) -> Result<vm::SocketId, Trouble> {
        let socket = self.sockets.get(flow.index()).copied().flatten();
        let socket = socket.map(|(socket, _)| socket);
        socket.ok_or_else(|| Trouble(format!("flow {} has no socket", flow.0)))
    }

    fn cgroup(&self, flow: FlowId) -> CgroupId {
        let socket = self.sockets.get(flow.index()).copied().flatten();
        socket.map_or(CgroupId::default(), |(_, cgroup)| cgroup)
    }
}

struct Transmitted {
    reason: Option<Reason>,
    segments: u32,
}

/// What an event met.
struct Trouble(String);

fn trouble(fault: vm::Fault) -> Trouble {
    Trouble(super::chain(&fault))
}

fn translate(gso: &Gso, ethertype: u16) -> vm::Gso {
    let kind = match (gso.transport, ethertype) {
        (Transport::Udp, _) => vm::GsoKind::Udp,
        (Transport::Tcp, 0x0800) => vm::GsoKind::Tcp4,
        (Transport::Tcp, _) => vm::GsoKind::Tcp6,
    };
    vm::Gso {
        size: gso.size,
        kind,
    }
}

fn emit(frames: &mut super::Frames, port: Port, frame: &[u8]) {
    let Some((_, packet)) = frame.split_at_checked(ETHERNET_LEN) else {
        return;
    };
    frames.push(port, ethertype_of(frame), &[packet]);
}

fn ethertype_of(frame: &[u8]) -> u16 {
    let field = frame.get(ETHERNET_LEN - 2..ETHERNET_LEN);
    let field = field.and_then(|field| field.first_chunk());
    field.copied().map_or(0, u16::from_be_bytes)
}

impl Engine for VmEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Vm
    }

    fn attribution(&self) -> Attribution {
        Attribution::PerEvent
    }

    fn run(&mut self, batch: &Batch, outcomes: &mut Outcomes) -> Result<(), EngineError> {
        for (at, event) in batch.events().iter().enumerate() {
            let first = outcomes.frames.len();
            match self.event(batch, event, outcomes) {
                Ok(mut outcome) => {
                    outcome.frames = first..outcomes.frames.len();
                    outcomes.push(outcome);
                }
                Err(Trouble(what)) => {
                    outcomes.faults.push(Fault { event: at, what });
                    outcomes.push(Outcome::default());
                }
            }
        }
        Ok(())
    }
}

//! The running kernel as an engine: the lab of `dynencap-kernel`, fed with a batch.
//!
//! By default a batch is sent in one go and what came out of it is compared in order; where
//! outcomes are asked for per event, and for super-packets, it waits for each.

use super::{
    Attribution, Engine, EngineError, EngineKind, Fault, Frames, Outcome, Outcomes, Port, quote,
};
use crate::event::{Batch, Event, FlowId, Gso, Transport};
use crate::scenario::{CgroupId, HostSpec, PolicySpec, Segmentation};
use dynencap_abi::{Policy, Reason};
use dynencap_kernel as kernel;

type Counters = [u64; Reason::COUNT];

/// See the module.
pub struct KernelEngine {
    replay: kernel::Replay,
    /// With the cgroup in which each was made.
    sockets: Vec<Option<(kernel::FlowId, CgroupId)>>,
    spec: HostSpec,
    /// The ids of the cgroups.
    cgroups: Vec<u64>,
    /// How many policies have taken effect: the next one's id.
    policies: u32,
    attribution: Attribution,
    /// The counters when they were last looked at.
    counted: Counters,
}

/// What a step of the engine ran into.
enum Trouble {
    /// This event alone could not be carried out.
    Event(String),
    /// The engine cannot go on.
    Engine(EngineError),
}

impl From<kernel::Error> for Trouble {
    fn from(error: kernel::Error) -> Self {
        match error {
            kernel::Error::Refused { .. } | kernel::Error::TooManySegments { .. } => {
                Self::Event(super::chain(&error))
            }
            error => Self::Engine(EngineError::failed(EngineKind::Kernel, &error)),
        }
    }
}

impl KernelEngine {
    /// Builds the lab and attaches the programs.
    ///
    /// # Errors
    /// The process may not, the kernel cannot, or something failed on the way.
    pub fn new(
        spec: &HostSpec,
        object: &[u8],
        attribution: Attribution,
    ) -> Result<Self, EngineError> {
        kernel::probe().map_err(|missing| EngineError::Unavailable {
            engine: EngineKind::Kernel.name(),
            reason: missing.to_string(),
        })?;
        let failed = |error: kernel::Error| EngineError::failed(EngineKind::Kernel, &error);
        let mut replay = kernel::Replay::start(object, spec.config).map_err(failed)?;
        for (key, tunnel) in &spec.tunnels {
            replay.add_tunnel(*key, *tunnel).map_err(failed)?;
        }
        let cgroups = spec.cgroups.iter().map(|name| replay.make_cgroup(name));
        let cgroups = cgroups.collect::<Result<_, _>>().map_err(failed)?;
        let bare = replay.open_flow().map_err(failed)?;
        let counted = replay.counters().map_err(failed)?;
        Ok(Self {
            replay,
            sockets: vec![Some((bare, CgroupId::default()))],
            spec: spec.clone(),
            cgroups,
            policies: 0,
            attribution,
            counted,
        })
    }

    fn set_policy(&mut self, spec: &PolicySpec) -> Result<(), kernel::Error> {
        self.policies += 1;
        let Some(cgroup) = self.cgroups.get(spec.cgroup.0).copied() else {
            return Ok(());
        };
        let loaded = self.replay.loaded_mut()?;
        match spec.policy {
            Some(policy) => {
                let id = self.policies;
                for (key, value) in spec.keys(id) {
                    loaded.set_policy_exit(&key, value)?;
                }
                loaded.set_policy(cgroup, &Policy { id, ..policy })?;
            }
            None => loaded.remove_policy(cgroup)?,
        }
        loaded.raise_policy_generation().map(drop)
    }

    /// Moves to a cgroup, so that the next socket is made or the next option set there.
    fn enter(&mut self, cgroup: CgroupId) -> Result<(), Trouble> {
        if let Some(name) = self.spec.cgroups.get(cgroup.0) {
            self.replay.enter_cgroup(name)?;
        }
        Ok(())
    }

    fn socket(&self, flow: FlowId) -> Result<kernel::FlowId, Trouble> {
        let socket = self.sockets.get(flow.index()).copied().flatten();
        let socket = socket.map(|(socket, _)| socket);
        socket.ok_or_else(|| Trouble::Event(format!("flow {} has no socket", flow.0)))
    }

    /// Waits for everything that is under way and returns what the counters grew by.
    fn settle(&mut self, frames: &mut Frames) -> Result<Counters, Trouble> {
        self.replay.barrier(&mut |port, ethertype, bytes| {
            let port = match port {
                kernel::Port::Wire => Port::Wire,
                kernel::Port::Delivered => Port::Delivered,
            };
            frames.push(port, ethertype, &[bytes]);
        })?;
        let now = self.replay.counters()?;
        let before = std::mem::replace(&mut self.counted, now);
        let mut grown = now;
        for (count, before) in grown.iter_mut().zip(before) {
            *count = count.saturating_sub(before);
        }
        Ok(grown)
    }

    /// Carries out what has no frames; `None` for an event that has.
    fn call(&mut self, batch: &Batch, event: &Event) -> Result<Option<Outcome>, Trouble> {
        let mut outcome = Outcome::default();
        match event {
            Event::Open { flow, cgroup } => {
                self.enter(*cgroup)?;
                let socket = self.replay.open_flow()?;
                if let Ok(old) = self.socket(*flow) {
                    self.replay.close_flow(old)?;
                }
                if self.sockets.len() <= flow.index() {
                    self.sockets.resize(flow.index() + 1, None);
                }
                if let Some(slot) = self.sockets.get_mut(flow.index()) {
                    *slot = Some((socket, *cgroup));
                }
            }
            Event::Close(flow) => {
                let socket = self.socket(*flow)?;
                self.replay.close_flow(socket)?;
                if let Some(slot) = self.sockets.get_mut(flow.index()) {
                    *slot = None;
                }
            }
            Event::SetOption { flow, name, value } => {
                let socket = self.socket(*flow)?;
                // The caller is in the socket's own cgroup.
                let cgroup = self.sockets.get(flow.index()).copied().flatten();
                self.enter(cgroup.map_or(CgroupId::default(), |(_, cgroup)| cgroup))?;
                let result = self.replay.set_option(socket, *name, batch.bytes(value))?;
                outcome.errno = Some(result.err().unwrap_or(0));
            }
            Event::GetOption {
                flow,
                name,
                capacity,
            } => {
                let socket = self.socket(*flow)?;
                match self.replay.option(socket, *name, *capacity)? {
                    Ok(value) => (outcome.errno, outcome.value) = (Some(0), Some(value)),
                    Err(errno) => outcome.errno = Some(errno),
                }
            }
            Event::Policy(at) => {
                if let Some(policy) = self.spec.policies.get(*at).cloned() {
                    self.set_policy(&policy)?;
                }
            }
            Event::Egress { .. } | Event::Ingress { .. } => return Ok(None),
        }
        Ok(Some(outcome))
    }

    fn send(&mut self, batch: &Batch, event: &Event) -> Result<(), Trouble> {
        match event {
            Event::Egress {
                flow,
                ethertype,
                packet,
                gso,
            } => {
                let socket = self.socket(*flow)?;
                let bytes = batch.bytes(packet);
                let gso = gso.as_ref().map(translate);
                let packet = kernel::Packet {
                    ethertype: *ethertype,
                    bytes,
                    gso,
                };
                self.replay.send(socket, &packet)?;
            }
            Event::Ingress { ethertype, packet } => {
                self.replay.inject(*ethertype, batch.bytes(packet))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends a frame by itself and waits for what comes of it.
    fn send_alone(
        &mut self,
        batch: &Batch,
        event: &Event,
        outcomes: &mut Outcomes,
    ) -> Result<Outcome, Trouble> {
        let first = outcomes.frames.len();
        let mut outcome = Outcome::default();
        let mut grown;
        match event {
            Event::Egress {
                flow,
                ethertype,
                packet,
                gso: Some(gso),
            } if self.spec.segmentation == Segmentation::SegmentFirst => {
                let socket = self.socket(*flow)?;
                let bytes = batch.bytes(packet);
                let whole = kernel::Packet {
                    ethertype: *ethertype,
                    bytes,
                    gso: Some(translate(gso)),
                };
                let mut segments = Vec::new();
                self.replay
                    .segment(&whole, &mut |segment| segments.push(segment.to_vec()))?;
                outcome.segments = u32::try_from(segments.len()).unwrap_or(u32::MAX);
                grown = [0; Reason::COUNT];
                // The first one's reason is the frame's: it is waited for, then the others.
                for (nth, segment) in segments.iter().enumerate() {
                    let packet = kernel::Packet {
                        ethertype: *ethertype,
                        bytes: segment,
                        gso: None,
                    };
                    self.replay.send(socket, &packet)?;
                    if nth == 0 {
                        grown = self.settle(&mut outcomes.frames)?;
                        outcome.reason = only(&grown);
                    }
                }
                let rest = self.settle(&mut outcomes.frames)?;
                add(&mut grown, &rest);
            }
            Event::Egress { gso, packet, .. } => {
                self.send(batch, event)?;
                grown = self.settle(&mut outcomes.frames)?;
                outcome.reason = only(&grown);
                if let Some(gso) = gso {
                    let made = first..outcomes.frames.len();
                    let sent = made.clone().filter_map(|at| outcomes.frames.length(at));
                    let sent = sent.filter(|(port, _)| *port == Port::Wire).count();
                    outcome.segments = u32::try_from(sent).unwrap_or(u32::MAX);
                    quote::restore(&mut outcomes.frames, made, batch.bytes(packet), gso);
                }
            }
            _ => {
                self.send(batch, event)?;
                grown = self.settle(&mut outcomes.frames)?;
                outcome.reason = only(&grown);
            }
        }
        add(&mut outcomes.counters, &grown);
        outcome.frames = first..outcomes.frames.len();
        Ok(outcome)
    }

    /// Takes what was sent in one go into the tally.
    fn settle_batch(&mut self, outcomes: &mut Outcomes) -> Result<(), Trouble> {
        let grown = self.settle(&mut outcomes.frames)?;
        add(&mut outcomes.counters, &grown);
        add(&mut outcomes.verdicts, &without_told(&grown));
        Ok(())
    }

    fn event(
        &mut self,
        batch: &Batch,
        event: &Event,
        outcomes: &mut Outcomes,
    ) -> Result<Outcome, Trouble> {
        if let Some(outcome) = self.call(batch, event)? {
            return Ok(outcome);
        }
        let alone = self.attribution == Attribution::PerEvent
            || matches!(event, Event::Egress { gso: Some(_), .. });
        if alone {
            self.settle_batch(outcomes)?;
            return self.send_alone(batch, event, outcomes);
        }
        self.send(batch, event)?;
        Ok(Outcome::default())
    }
}

impl Engine for KernelEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Kernel
    }

    fn attribution(&self) -> Attribution {
        self.attribution
    }

    fn run(&mut self, batch: &Batch, outcomes: &mut Outcomes) -> Result<(), EngineError> {
        for (at, event) in batch.events().iter().enumerate() {
            match self.event(batch, event, outcomes) {
                Ok(outcome) => outcomes.push(outcome),
                Err(Trouble::Engine(error)) => return Err(error),
                Err(Trouble::Event(what)) => {
                    outcomes.faults.push(Fault { event: at, what });
                    outcomes.push(Outcome::default());
                }
            }
        }
        match self.settle_batch(outcomes) {
            Ok(()) => Ok(()),
            Err(Trouble::Engine(error)) => Err(error),
            Err(Trouble::Event(what)) => {
                let reason = what;
                Err(EngineError::Failed {
                    engine: EngineKind::Kernel.name(),
                    reason,
                })
            }
        }
    }
}

fn translate(gso: &Gso) -> kernel::Gso {
    kernel::Gso {
        size: gso.size,
        transport: match gso.transport {
            Transport::Tcp => kernel::Transport::Tcp,
            Transport::Udp => kernel::Transport::Udp,
        },
        transport_offset: gso.transport_offset,
    }
}

/// Without what the ICMP errors to senders counted as when they came in.
fn without_told(grown: &Counters) -> Counters {
    let mut frames = *grown;
    let told = grown[Reason::TooBigTold as usize];
    let errors = &mut frames[Reason::NotTunnel as usize];
    *errors = errors.saturating_sub(told);
    frames
}

/// The one reason that was counted once; `None` where it was not exactly one.
fn only(grown: &Counters) -> Option<Reason> {
    let grown = without_told(grown);
    let counted = Reason::ALL
        .iter()
        .zip(grown)
        .filter(|(_, count)| *count > 0);
    match counted.collect::<Vec<_>>()[..] {
        [(reason, 1)] => Some(*reason),
        _ => None,
    }
}

fn add(sum: &mut Counters, more: &Counters) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

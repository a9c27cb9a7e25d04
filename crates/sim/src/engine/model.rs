//! The reference model as an engine.

use super::{Attribution, Engine, EngineError, EngineKind, Frames, Outcome, Outcomes, Port};
use crate::event::{Batch, Event, FlowId, Gso};
use crate::scenario::{CgroupId, HostSpec, PolicySpec, Segmentation};
use dynencap_abi::option::{AF_PACKET, SOCK_RAW};
use dynencap_abi::{Config, Policy};
use dynencap_model::{self as model, Host, Packet, Sink, Socket, SocketKind, segment};
use std::ops::Range;

/// What replay opens for each flow, in every engine.
const REPLAY_SOCKET: SocketKind = SocketKind {
    family: AF_PACKET,
    ty: SOCK_RAW,
    protocol: 0,
};

/// See the module.
pub struct ModelEngine {
    host: Host,
    sockets: Vec<Option<Socket>>,
    spec: HostSpec,
    /// How many policies have taken effect: the next one's id.
    policies: u32,
    segments: Vec<model::Frame>,
    /// ICMP errors to senders, on their way to ingress.
    told: Vec<model::Frame>,
}

/// Takes what the model puts out.
struct Into<'a> {
    frames: &'a mut Frames,
    /// What is delivered goes here, where there is such a place.
    told: Option<&'a mut Vec<model::Frame>>,
    /// The packet that went in, and its place in the batch's bytes.
    packet: (&'a [u8], usize),
}

impl Into<'_> {
    /// The place in the batch's bytes of a slice of the packet.
    #[inline]
    fn place(&self, part: &[u8]) -> Option<Range<usize>> {
        let (packet, start) = self.packet;
        // Of two slices that do not overlap the difference is no offset within the packet.
        let offset = part.as_ptr().addr().checked_sub(packet.as_ptr().addr())?;
        let start = start + offset;
        (packet.len().checked_sub(offset)? >= part.len()).then_some(start..start + part.len())
    }
}

impl Sink for Into<'_> {
    #[inline]
    fn frame(&mut self, port: model::Port, ethertype: u16, parts: &[&[u8]]) {
        let port = match (port, &mut self.told) {
            (model::Port::Delivered, Some(told)) => return told.frame(port, ethertype, parts),
            (model::Port::Delivered, None) => Port::Delivered,
            // Nothing is sent to a segmenter: the batch says where packets are cut.
            (model::Port::Wire | model::Port::Segmenter, _) => Port::Wire,
        };
        match parts
            .split_last()
            .and_then(|(last, head)| Some((head, self.place(last)?)))
        {
            Some((head, tail)) => self.frames.push_on(port, ethertype, head, tail),
            None => self.frames.push(port, ethertype, parts),
        }
    }
}

impl ModelEngine {
    /// A model of this host.
    #[must_use]
    pub fn new(spec: &HostSpec) -> Self {
        let mut host = Host::new(spec.config);
        for (key, tunnel) in &spec.tunnels {
            host.add_tunnel(*key, *tunnel);
        }
        let own = spec.cgroup_path(CgroupId::default());
        Self {
            host,
            sockets: vec![Some(Socket::in_cgroup(REPLAY_SOCKET, &own))],
            spec: spec.clone(),
            policies: 0,
            segments: Vec::new(),
            told: Vec::new(),
        }
    }

    fn set_policy(&mut self, spec: &PolicySpec) {
        self.policies += 1;
        let path = self.spec.cgroup_path(spec.cgroup);
        let cgroup = path.last().copied().unwrap_or_default();
        match spec.policy {
            Some(policy) => {
                let id = self.policies;
                for (key, value) in spec.keys(id) {
                    // A prefix of the scenario is never too long.
                    let _ = self.host.set_policy_exit(&key, value);
                }
                self.host.set_policy(cgroup, Policy { id, ..policy });
            }
            None => drop(self.host.remove_policy(cgroup)),
        }
        let config = *self.host.config();
        self.host.set_config(Config {
            policy_generation: config.policy_generation.wrapping_add(1),
            ..config
        });
    }

    fn egress(
        &mut self,
        flow: FlowId,
        packet: Packet<'_>,
        place: usize,
        gso: Option<&Gso>,
        frames: &mut Frames,
    ) -> Outcome {
        let socket = self.sockets.get(flow.index()).and_then(Option::as_ref);
        let sink = &mut Into {
            frames,
            told: Some(&mut self.told),
            packet: (packet.bytes, place),
        };
        let mut outcome = Outcome::default();
        let gso_size = gso.map_or(0, |gso| gso.size);
        let whole = Packet { gso_size, ..packet };
        self.segments.clear();
        if gso_size > 0 && self.spec.segmentation == Segmentation::SegmentFirst {
            outcome.segments = segment::segment(&whole, &mut self.segments).unwrap_or(0);
        }
        if self.segments.is_empty() {
            let egress = self.host.egress(socket, whole, sink);
            outcome.reason = Some(egress.reason);
            outcome.segments = egress.segments;
        }
        for segment in &self.segments {
            let egress = self.host.egress(socket, as_packet(segment), sink);
            outcome.reason = Some(outcome.reason.unwrap_or(egress.reason));
        }
        // What a sender is told comes in at the uplink, past the programs there.
        for told in self.told.drain(..) {
            let sink = &mut Into {
                frames,
                told: None,
                packet: Default::default(),
            };
            self.host.ingress(as_packet(&told), sink);
        }
        outcome
    }

    fn event(&mut self, batch: &Batch, event: &Event, frames: &mut Frames) -> Outcome {
        let mut outcome = Outcome::default();
        match event {
            Event::Open { flow, cgroup } => {
                if self.sockets.len() <= flow.index() {
                    self.sockets.resize(flow.index() + 1, None);
                }
                let path = self.spec.cgroup_path(*cgroup);
                if let Some(slot) = self.sockets.get_mut(flow.index()) {
                    *slot = Some(Socket::in_cgroup(REPLAY_SOCKET, &path));
                }
            }
            Event::Close(flow) => {
                if let Some(slot) = self.sockets.get_mut(flow.index()) {
                    *slot = None;
                }
            }
            Event::SetOption { flow, name, value } => {
                // The caller is in the socket's own cgroup.
                if let Some(socket) = self.sockets.get_mut(flow.index()).and_then(Option::as_mut) {
                    let caller = socket.cgroup().to_vec();
                    let value = batch.bytes(value);
                    let result = self.host.set_option(socket, &caller, *name, value);
                    outcome.errno = Some(result.map_or_else(|errno| errno.0, |()| 0));
                }
            }
            Event::GetOption {
                flow,
                name,
                capacity,
            } => {
                let socket = self.sockets.get(flow.index()).and_then(Option::as_ref);
                match socket.map(|socket| self.host.option(socket, *name, *capacity)) {
                    Some(Ok(value)) => {
                        outcome.errno = Some(0);
                        outcome.value = Some(value.to_vec());
                    }
                    Some(Err(errno)) => outcome.errno = Some(errno.0),
                    None => {}
                }
            }
            Event::Policy(at) => {
                if let Some(policy) = self.spec.policies.get(*at).cloned() {
                    self.set_policy(&policy);
                }
            }
            Event::Egress {
                flow,
                ethertype,
                packet,
                gso,
            } => {
                let (bytes, place) = (batch.bytes(packet), packet.start);
                let packet = Packet {
                    ethertype: *ethertype,
                    bytes,
                    gso_size: 0,
                };
                return self.egress(*flow, packet, place, gso.as_ref(), frames);
            }
            Event::Ingress { ethertype, packet } => {
                let (bytes, place) = (batch.bytes(packet), packet.start);
                let packet = Packet {
                    ethertype: *ethertype,
                    bytes,
                    gso_size: 0,
                };
                let sink = &mut Into {
                    frames,
                    told: None,
                    packet: (bytes, place),
                };
                outcome.reason = Some(self.host.ingress(packet, sink));
            }
        }
        outcome
    }
}

fn as_packet(frame: &model::Frame) -> Packet<'_> {
    Packet {
        ethertype: frame.ethertype,
        bytes: &frame.bytes,
        gso_size: 0,
    }
}

impl Engine for ModelEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Model
    }

    fn attribution(&self) -> Attribution {
        Attribution::PerEvent
    }

    fn run(&mut self, batch: &Batch, outcomes: &mut Outcomes) -> Result<(), EngineError> {
        let before = *self.host.counters();
        for event in batch.events() {
            let first = outcomes.frames.len();
            let mut outcome = self.event(batch, event, &mut outcomes.frames);
            outcome.frames = first..outcomes.frames.len();
            outcomes.push(outcome);
        }
        let counters = outcomes
            .counters
            .iter_mut()
            .zip(self.host.counters().iter().zip(before));
        for (count, (after, before)) in counters {
            *count = after - before;
        }
        Ok(())
    }
}

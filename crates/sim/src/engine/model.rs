//! The reference model as an engine.

use super::{Attribution, Engine, EngineError, EngineKind, Frames, Outcome, Outcomes, Port};
use crate::event::{Batch, Event, FlowId, Gso};
use crate::scenario::{HostSpec, Segmentation};
use dynencap_abi::option::{AF_PACKET, SOCK_RAW};
use dynencap_model::{self as model, Host, Packet, Sink, Socket, SocketKind, segment};

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
    segmentation: Segmentation,
    segments: Vec<dynencap_model::Frame>,
}

struct Into<'a>(&'a mut Frames);

impl Sink for Into<'_> {
    fn frame(&mut self, port: model::Port, ethertype: u16, parts: &[&[u8]]) {
        let port = match port {
            // Nothing is sent to a segmenter: the batch says where packets are cut.
            model::Port::Wire | model::Port::Segmenter => Port::Wire,
            model::Port::Delivered => Port::Delivered,
        };
        self.0.push(port, ethertype, parts);
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
        Self {
            host,
            sockets: vec![Some(Socket::new(REPLAY_SOCKET))],
            segmentation: spec.segmentation,
            segments: Vec::new(),
        }
    }

    fn socket(&mut self, flow: FlowId) -> Option<&mut Socket> {
        self.sockets.get_mut(flow.index())?.as_mut()
    }

    fn egress(
        &mut self,
        flow: FlowId,
        packet: Packet<'_>,
        gso: Option<&Gso>,
        frames: &mut Frames,
    ) -> Outcome {
        let socket = self.sockets.get(flow.index()).and_then(Option::as_ref);
        let sink = &mut Into(frames);
        let mut outcome = Outcome::default();
        let gso_size = gso.map_or(0, |gso| gso.size);
        let whole = Packet { gso_size, ..packet };
        if gso_size == 0 || self.segmentation == Segmentation::GsoAware {
            let egress = self.host.egress(socket, whole, sink);
            outcome.reason = Some(egress.reason);
            outcome.segments = egress.segments;
            return outcome;
        }
        self.segments.clear();
        let Some(count) = segment::segment(&whole, &mut self.segments) else {
            outcome.reason = Some(self.host.egress(socket, whole, sink).reason);
            return outcome;
        };
        outcome.segments = count;
        for segment in &self.segments {
            let packet = Packet {
                ethertype: segment.ethertype,
                bytes: &segment.bytes,
                gso_size: 0,
            };
            let egress = self.host.egress(socket, packet, sink);
            outcome.reason = Some(outcome.reason.unwrap_or(egress.reason));
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
                if let Some(slot) = self.sockets.get_mut(flow.index()) {
                    *slot = Some(Socket::new(REPLAY_SOCKET));
                }
            }
            Event::Close(flow) => {
                if let Some(slot) = self.sockets.get_mut(flow.index()) {
                    *slot = None;
                }
            }
            Event::SetOption { flow, name, value } => {
                let config = *self.host.config();
                let result = self
                    .socket(*flow)
                    .map(|socket| socket.set_option(&config, *name, batch.bytes(value)));
                outcome.errno = result.map(|r| r.map_or_else(|errno| errno.0, |()| 0));
            }
            Event::GetOption {
                flow,
                name,
                capacity,
            } => {
                let config = *self.host.config();
                let result = self
                    .socket(*flow)
                    .map(|socket| socket.option(&config, *name, *capacity));
                match result {
                    Some(Ok(value)) => {
                        outcome.errno = Some(0);
                        outcome.value = Some(value.to_vec());
                    }
                    Some(Err(errno)) => outcome.errno = Some(errno.0),
                    None => {}
                }
            }
            Event::Egress {
                flow,
                ethertype,
                packet,
                gso,
            } => {
                let bytes = batch.bytes(packet);
                let packet = Packet {
                    ethertype: *ethertype,
                    bytes,
                    gso_size: 0,
                };
                return self.egress(*flow, packet, gso.as_ref(), frames);
            }
            Event::Ingress { ethertype, packet } => {
                let bytes = batch.bytes(packet);
                let packet = Packet {
                    ethertype: *ethertype,
                    bytes,
                    gso_size: 0,
                };
                let sink = &mut Into(frames);
                outcome.reason = Some(self.host.ingress(packet, sink));
            }
        }
        outcome
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

//! The director: turns the frames of a trace into the events of a scenario.
//!
//! It owns the flow table (bounded), who counts as a flow's initiator, which exit a flow gets
//! and when it changes, and which captured packets were super-packets. What becomes of an event
//! is the engines' affair; the model's parser serves here only to find a flow's key and where
//! its payload begins.

use crate::event::{Batch, Event, FlowId};
use crate::scenario::{CgroupId, Scenario, Side};
use crate::trace::{self, Link, LinkDefect, LinkType, Timestamp};
use arrival::transport;
use dynencap_abi::{Exit, FlowKey, MAX_OVERHEAD, MAX_PAYLOAD_LEN, TunnelSpec};
use dynencap_model::flow::key as flow_key;
use dynencap_model::{Packet, Tunnels};
use flow::{End, Flow, due};
pub(crate) use glance::Glance;
use glance::Seen;
use key::TableKey;
use offload::super_packet;
use std::ops::Range;
use table::Table;

mod arrival;
mod flow;
mod glance;
mod key;
mod offload;
mod open;
mod table;
mod tcp;

/// How many flows are remembered; the one idle longest makes room. A flow that comes back
/// starts anew: its first packet then names the initiator, and switches count from there.
pub const MAX_FLOWS: usize = 4096;

const FIRST_FLOW: u32 = 1;

/// What the director did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The frame's number in the trace.
    pub number: u64,
    /// When it was captured.
    pub time: Timestamp,
    /// What its link header is.
    pub link_type: LinkType,
    /// Its link header's place in the batch's bytes.
    pub header: Range<usize>,
    /// Place of what the link put behind the packet, in the batch's bytes.
    pub trailer: Range<usize>,
    /// Its length on the wire when it was captured.
    pub original_len: u32,
    /// What it became.
    pub fate: Fate,
}

/// What a frame became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The event at this place of the batch.
    Event(usize),
    /// None: its link layer could not be taken apart.
    Defect(LinkDefect),
    /// None: longer than any IP packet and no super-packet that leaves. Receive offload made
    /// it in the capturing host; no wire carries it and no socket sends it.
    Jumbogram,
}

impl Fate {
    /// Under which reason of dynsim's own a frame is counted as passed that no engine saw.
    #[must_use]
    pub fn unseen(self) -> Option<&'static str> {
        match self {
            Self::Event(_) => None,
            Self::Defect(_) => Some("link_defect"),
            Self::Jumbogram => Some("jumbogram"),
        }
    }
}

/// A flow, whichever direction it is seen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowName(FlowKey);

/// Turns frames into events.
pub struct Director {
    scenario: Scenario,
    flows: Table<Flow>,
    free: Vec<FlowId>,
    next: u32,
    stray: Option<FlowId>,
    start: Option<Timestamp>,
    seen: u64,
    /// How many of the policies have been looked at.
    policies: usize,
    /// The tunnels that reflect, where there is one.
    reflecting: Option<Tunnels>,
}

impl Director {
    /// Starts with no flow.
    #[must_use]
    pub fn new(scenario: Scenario) -> Self {
        let mut reflecting = None;
        for (key, spec) in &scenario.host.tunnels {
            if spec.flags & TunnelSpec::REFLECT != 0 {
                let tunnels = reflecting.get_or_insert_with(Tunnels::default);
                tunnels.insert(*key, *spec);
            }
        }
        Self {
            scenario,
            reflecting,
            flows: Table::new(MAX_FLOWS),
            free: Vec::new(),
            next: FIRST_FLOW,
            stray: None,
            start: None,
            seen: 0,
            policies: 0,
        }
    }

    /// How many flows there were so far.
    #[must_use]
    pub fn flows(&self) -> u64 {
        self.seen
    }

    /// The exit that a frame's flow has now; `None` where it belongs to none.
    #[must_use]
    pub fn exit_of(&self, frame: &trace::Frame<'_>) -> Option<Exit> {
        let FlowName(key) = self.flow_name(frame)?;
        let (key, _) = TableKey::of(&key);
        self.flows.peek(&key).map(|flow| flow.exit)
    }

    /// The cgroup of a frame's flow; the host's own where it belongs to none.
    #[must_use]
    pub fn cgroup_of(&self, frame: &trace::Frame<'_>) -> CgroupId {
        let flow = self
            .flow_name(frame)
            .and_then(|FlowName(key)| self.flows.peek(&TableKey::of(&key).0));
        flow.map_or(CgroupId::default(), |flow| flow.cgroup)
    }

    /// How many of the scenario's policies have taken effect.
    #[must_use]
    pub fn policies_in_effect(&self) -> usize {
        self.policies
    }

    /// Adds what a frame of the trace causes to a batch, which gets a copy of its bytes.
    pub fn direct(&mut self, frame: &trace::Frame<'_>, batch: &mut Batch) -> Record {
        self.direct_at(frame, None, batch)
    }

    /// The same for a frame that lies at this place of the chunk that the batch is to get.
    pub fn direct_at(
        &mut self,
        frame: &trace::Frame<'_>,
        place: Option<usize>,
        batch: &mut Batch,
    ) -> Record {
        let link = trace::link(frame.link_type, frame.bytes);
        let flow = Seen::of(&glance::packet(&link));
        self.decide(frame, &link, flow, place, batch)
    }

    /// The same for a frame that has been looked at.
    pub(crate) fn direct_seen(
        &mut self,
        frame: &trace::Frame<'_>,
        glance: &Glance,
        place: usize,
        batch: &mut Batch,
    ) -> Record {
        let (link, flow) = glance.again(frame);
        self.decide(frame, &link, flow, Some(place), batch)
    }

    // Both callers are the hot path of a replay, on one thread and on two.
    #[inline(always)]
    fn decide(
        &mut self,
        frame: &trace::Frame<'_>,
        link: &Link<'_>,
        flow: Option<Seen>,
        place: Option<usize>,
        batch: &mut Batch,
    ) -> Record {
        let start = *self.start.get_or_insert(frame.time);
        self.policies(frame, start, batch);
        let fate = match link.defect {
            Some(defect) => Fate::Defect(defect),
            None => {
                let place = place.map(|place| place + link.header.len());
                let place = batch.keep(link.payload, place);
                self.packet(frame, start, link, flow, place, batch)
            }
        };
        // What no engine sees is kept whole.
        let (header, trailer) = match fate {
            Fate::Event(_) => (link.header, link.trailer),
            _ => (frame.bytes, &[][..]),
        };
        Record {
            number: frame.number,
            time: frame.time,
            link_type: frame.link_type,
            header: batch.keep(header, place),
            trailer: batch.keep(
                trailer,
                place.map(|place| place + frame.bytes.len() - trailer.len()),
            ),
            original_len: frame.original_len,
            fate,
        }
    }

    /// Lets every policy take effect whose time has come.
    fn policies(&mut self, frame: &trace::Frame<'_>, start: Timestamp, batch: &mut Batch) {
        while let Some(policy) = self.scenario.host.policies.get(self.policies) {
            if policy.at.is_some_and(|at| !due(at, frame, start, 0)) {
                return;
            }
            batch.push(frame.number, Event::Policy(self.policies));
            self.policies += 1;
        }
    }

    #[inline(always)]
    fn packet(
        &mut self,
        frame: &trace::Frame<'_>,
        start: Timestamp,
        link: &Link<'_>,
        flow: Option<Seen>,
        place: Range<usize>,
        batch: &mut Batch,
    ) -> Fate {
        let packet = glance::packet(link);
        let event = if let Some((inner, came_in)) = self.brought(&packet) {
            self.arrives(&inner, came_in, frame.number, batch);
            Event::Ingress {
                ethertype: link.ethertype,
                packet: place,
            }
        } else if !matches!(link.ethertype, 0x0800 | 0x86dd) {
            let (flow, ethertype) = (FlowId::BARE, link.ethertype);
            Event::Egress {
                flow,
                ethertype,
                packet: place,
                gso: None,
            }
        } else if let Some(seen) = flow {
            self.flow_packet(frame, start, &packet, &seen, place, batch)
        } else {
            let flow = self.stray(frame.number, batch);
            Event::Egress {
                flow,
                ethertype: link.ethertype,
                packet: place,
                gso: None,
            }
        };
        let cut = matches!(event, Event::Egress { gso: Some(_), .. });
        if link.payload.len() > MAX_PAYLOAD_LEN && !cut {
            return Fate::Jumbogram;
        }
        batch.push(frame.number, event);
        Fate::Event(batch.events().len() - 1)
    }

    #[inline(always)]
    fn flow_packet(
        &mut self,
        frame: &trace::Frame<'_>,
        start: Timestamp,
        packet: &Packet<'_>,
        seen: &Seen,
        place: Range<usize>,
        batch: &mut Batch,
    ) -> Event {
        let Seen { key, from_lesser } = *seen;
        let (layout, syn) = match self.may_matter(packet, &key) {
            true => transport(packet),
            false => (None, None),
        };
        let (side, gso_size) = (self.scenario.side, self.scenario.gso_size);
        let mtu = self.scenario.host.config.uplink_mtu as usize;
        let place_in_table = match self.flows.find(&key) {
            Some(found) => Some(found),
            None => flow_key(packet)
                .map(|named| self.open(key, named, syn.as_ref(), frame.number, batch)),
        };
        let Some(flow) = place_in_table.and_then(|place| self.flows.at(place)) else {
            // Found or opened, so it is there; a frame without a flow is a bare one.
            let (flow, ethertype) = (FlowId::BARE, packet.ethertype);
            return Event::Egress {
                flow,
                ethertype,
                packet: place,
                gso: None,
            };
        };
        let end = flow.end_of(from_lesser);
        if let Some(syn) = syn {
            flow.mss[end as usize] = syn.mss;
        }
        let leaves = match side {
            Side::Both => true,
            Side::Initiator => end == End::Initiator,
            Side::Responder => end == End::Responder,
        };
        let socket = match flow.sockets[end as usize] {
            Some(socket) if leaves => socket,
            _ => {
                return Event::Ingress {
                    ethertype: packet.ethertype,
                    packet: place,
                };
            }
        };
        flow.sent += 1;
        flow.switch(frame, start, batch);
        let peer_mss = flow.mss[1 - end as usize];
        let gso = layout.and_then(|layout| {
            super_packet(
                packet.bytes,
                &layout,
                mtu,
                flow.overhead(),
                peer_mss,
                gso_size,
            )
        });
        Event::Egress {
            flow: socket,
            ethertype: packet.ethertype,
            packet: place,
            gso,
        }
    }

    /// Whether it can matter where a packet's payload begins: it may be a super-packet, or a SYN.
    fn may_matter(&self, packet: &Packet<'_>, key: &TableKey) -> bool {
        let mtu = self.scenario.host.config.uplink_mtu as usize;
        self.scenario.gso_size.is_some()
            || packet.bytes.len() > mtu.saturating_sub(MAX_OVERHEAD)
            || tcp::may_be_syn(packet.bytes, key.protocol, key.version)
    }
}

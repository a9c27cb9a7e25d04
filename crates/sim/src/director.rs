//! The director: turns the frames of a trace into the events of a scenario.
//!
//! It owns the flow table (bounded), who counts as a flow's initiator, which exit a flow gets
//! and when it changes, and which captured packets were super-packets. What becomes of an event
//! is the engines' affair; the model's parser serves here only to find a flow's key and where
//! its payload begins.

use crate::event::{Batch, Event, FlowId, Gso, Transport};
use crate::scenario::{Assignment, At, FlowMatch, Scenario, Side, Switch, default_exit, overhead};
use crate::trace::{self, Link, LinkDefect, LinkType, Timestamp};
use dynencap_abi::option::{ENCAP_GW, ENCAP_UDP, GATEWAY_LEN, PORTS_LEN};
use dynencap_abi::{Exit, FlowKey, MAX_HEADER_LEN, MAX_PAYLOAD_LEN};
use dynencap_model::{Packet, flow, segment};
use lru::LruCache;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::ops::Range;

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

struct Flow {
    /// As its initiator sees it.
    key: FlowKey,
    /// The sockets of the initiator and of the responder, as far as they send.
    sockets: [Option<FlowId>; 2],
    exit: Exit,
    switches: Vec<Switch>,
    /// How many of `switches` have taken place.
    switched: usize,
    /// Packets that left.
    sent: u64,
    /// The MSS that initiator and responder announced.
    mss: [Option<u16>; 2],
}

/// Turns frames into events.
pub struct Director {
    scenario: Scenario,
    flows: LruCache<FlowKey, Flow>,
    free: Vec<FlowId>,
    next: u32,
    stray: Option<FlowId>,
    start: Option<Timestamp>,
    seen: u64,
}

/// Which end of a flow a packet comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Initiator = 0,
    Responder = 1,
}

impl Director {
    /// Starts with no flow.
    #[must_use]
    pub fn new(scenario: Scenario) -> Self {
        let capacity = NonZeroUsize::new(MAX_FLOWS).unwrap_or(NonZeroUsize::MIN);
        Self {
            scenario,
            flows: LruCache::new(capacity),
            free: Vec::new(),
            next: FIRST_FLOW,
            stray: None,
            start: None,
            seen: 0,
        }
    }

    /// How many flows there were so far.
    #[must_use]
    pub fn flows(&self) -> u64 {
        self.seen
    }

    /// Which flow of the table a frame belongs to; `None` for the frames of none.
    #[must_use]
    pub fn flow_of(&self, frame: &trace::Frame<'_>) -> Option<FlowName> {
        let link = trace::link(frame.link_type, frame.bytes);
        let packet = Packet {
            ethertype: link.ethertype,
            bytes: link.payload,
            gso_size: 0,
        };
        let key = flow::key(&packet).filter(|_| link.defect.is_none())?;
        Some(FlowName(key.min(key.reversed())))
    }

    /// The exit that a frame's flow has now; `None` where it belongs to none.
    #[must_use]
    pub fn exit_of(&self, frame: &trace::Frame<'_>) -> Option<Exit> {
        let FlowName(key) = self.flow_of(frame)?;
        self.flows.peek(&key).map(|flow| flow.exit)
    }

    /// Adds what a frame of the trace causes to a batch.
    pub fn direct(&mut self, frame: &trace::Frame<'_>, batch: &mut Batch) -> Record {
        let start = *self.start.get_or_insert(frame.time);
        let link = trace::link(frame.link_type, frame.bytes);
        let fate = match link.defect {
            Some(defect) => Fate::Defect(defect),
            None => self.packet(frame, start, &link, batch),
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
            header: batch.store(header),
            trailer: batch.store(trailer),
            original_len: frame.original_len,
            fate,
        }
    }

    fn packet(
        &mut self,
        frame: &trace::Frame<'_>,
        start: Timestamp,
        link: &Link<'_>,
        batch: &mut Batch,
    ) -> Fate {
        let packet = Packet {
            ethertype: link.ethertype,
            bytes: link.payload,
            gso_size: 0,
        };
        let place = batch.store(link.payload);
        let event = if !matches!(link.ethertype, 0x0800 | 0x86dd) {
            let (flow, ethertype) = (FlowId::BARE, link.ethertype);
            Event::Egress {
                flow,
                ethertype,
                packet: place,
                gso: None,
            }
        } else if let Some(key) = flow::key(&packet) {
            self.flow_packet(frame, start, &packet, key, place, batch)
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

    fn flow_packet(
        &mut self,
        frame: &trace::Frame<'_>,
        start: Timestamp,
        packet: &Packet<'_>,
        key: FlowKey,
        place: Range<usize>,
        batch: &mut Batch,
    ) -> Event {
        // With the smallest segments, so that BIG TCP counts as what can be cut.
        let layout = segment::layout(&Packet {
            gso_size: 1,
            ..*packet
        });
        let syn = layout
            .as_ref()
            .and_then(|layout| tcp::syn(packet.bytes, layout));
        let table_key = key.min(key.reversed());
        if !self.flows.contains(&table_key) {
            self.open(table_key, key, syn.as_ref(), frame.number, batch);
        }
        let (side, gso_size) = (self.scenario.side, self.scenario.gso_size);
        let mtu = self.scenario.host.config.uplink_mtu as usize;
        let Some(flow) = self.flows.get_mut(&table_key) else {
            // Just opened, so it is there; a frame without a flow is a bare one.
            let (flow, ethertype) = (FlowId::BARE, packet.ethertype);
            return Event::Egress {
                flow,
                ethertype,
                packet: place,
                gso: None,
            };
        };
        let end = if key == flow.key {
            End::Initiator
        } else {
            End::Responder
        };
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
                overhead(&flow.exit),
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

    fn open(
        &mut self,
        table_key: FlowKey,
        key: FlowKey,
        syn: Option<&tcp::Syn>,
        number: u64,
        batch: &mut Batch,
    ) {
        // A SYN-ACK comes from the responder; without a SYN the first seen counts as initiator.
        let from_responder = syn.is_some_and(|syn| syn.ack);
        let key = if from_responder { key.reversed() } else { key };
        let (exit, switches) = match &self.scenario.assignment {
            Assignment::EveryFlow => (default_exit(flow::hash(&key)), Vec::new()),
            Assignment::Rules(rules) => rules
                .iter()
                .find(|rule| matches(&rule.matches, &key))
                .map_or((Exit::NONE, Vec::new()), |rule| {
                    (rule.exit, rule.switches.clone())
                }),
        };
        if self.flows.len() == MAX_FLOWS
            && let Some((_, idle)) = self.flows.pop_lru()
        {
            for socket in idle.sockets.into_iter().flatten() {
                batch.push(number, Event::Close(socket));
                self.free.push(socket);
            }
        }
        let mut socket = |sends: bool| {
            sends.then(|| {
                let socket = self.free.pop().unwrap_or_else(|| {
                    self.next += 1;
                    FlowId(self.next - 1)
                });
                batch.push(number, Event::Open(socket));
                set_exit(socket, &Exit::NONE, &exit, number, batch);
                socket
            })
        };
        let side = self.scenario.side;
        let sockets = [
            socket(side != Side::Responder),
            socket(side != Side::Initiator),
        ];
        self.seen += 1;
        let flow = Flow {
            key,
            sockets,
            exit,
            switches,
            switched: 0,
            sent: 0,
            mss: [None; 2],
        };
        self.flows.put(table_key, flow);
    }

    /// The socket of IP packets whose header names no flow. It has an exit where a flow that
    /// no field of is known gets one, so that they meet the data path's own judgement.
    fn stray(&mut self, number: u64, batch: &mut Batch) -> FlowId {
        if let Some(stray) = self.stray {
            return stray;
        }
        let exit = match &self.scenario.assignment {
            Assignment::EveryFlow => default_exit(0),
            Assignment::Rules(rules) => rules
                .iter()
                .find(|rule| rule.matches == FlowMatch::default())
                .map_or(Exit::NONE, |rule| rule.exit),
        };
        let stray = FlowId(self.next);
        self.next += 1;
        batch.push(number, Event::Open(stray));
        set_exit(stray, &Exit::NONE, &exit, number, batch);
        self.stray = Some(stray);
        stray
    }
}

impl Flow {
    /// Lets every switch take place whose time has come, before the packet at hand leaves.
    fn switch(&mut self, frame: &trace::Frame<'_>, start: Timestamp, batch: &mut Batch) {
        while let Some(switch) = self.switches.get(self.switched).copied() {
            let due = match switch.at {
                At::Packet(number) => frame.number >= number,
                At::FlowPacket(number) => self.sent >= number,
                At::Nanoseconds(after) => frame.time.0.saturating_sub(start.0) >= after,
            };
            if !due {
                return;
            }
            for socket in self.sockets.into_iter().flatten() {
                set_exit(socket, &self.exit, &switch.exit, frame.number, batch);
            }
            self.exit = switch.exit;
            self.switched += 1;
        }
    }
}

/// The option calls that lead from one exit to another, each read back.
fn set_exit(flow: FlowId, from: &Exit, to: &Exit, cause: u64, batch: &mut Batch) {
    if from == to {
        return;
    }
    let udp = |exit: &Exit| {
        let mut value = Vec::new();
        if exit.flags & Exit::UDP != 0 {
            value.extend_from_slice(&exit.source_port);
            value.extend_from_slice(&exit.destination_port);
            value.extend(exit.header.iter().take(usize::from(exit.header_len)));
        }
        value
    };
    let gateway = |exit: &Exit| match exit.flags & Exit::GATEWAY {
        0 => Vec::new(),
        _ => exit.gateway.to_vec(),
    };
    if udp(from) != udp(to) {
        let value = batch.store(&udp(to));
        batch.push(
            cause,
            Event::SetOption {
                flow,
                name: ENCAP_UDP,
                value,
            },
        );
    }
    if gateway(from) != gateway(to) {
        let value = batch.store(&gateway(to));
        batch.push(
            cause,
            Event::SetOption {
                flow,
                name: ENCAP_GW,
                value,
            },
        );
    }
    batch.push(
        cause,
        Event::GetOption {
            flow,
            name: ENCAP_GW,
            capacity: GATEWAY_LEN,
        },
    );
    let capacity = PORTS_LEN + MAX_HEADER_LEN;
    batch.push(
        cause,
        Event::GetOption {
            flow,
            name: ENCAP_UDP,
            capacity,
        },
    );
}

/// How a captured packet was cut on its way, if it was: a capture carries no `gso_size`.
///
/// TCP that does not fit the uplink with its outer headers was a super-packet: its segments
/// carry min(the peer's MSS less the packet's own TCP options (RFC 6691), what fits). UDP was
/// one only where the scenario says so, by a `gso_size` smaller than the payload.
fn super_packet(
    bytes: &[u8],
    layout: &segment::Layout,
    mtu: usize,
    overhead: usize,
    peer_mss: Option<u16>,
    gso_size: Option<u16>,
) -> Option<Gso> {
    let payload = bytes.len().checked_sub(layout.payload_offset)?;
    let (transport, size) = match layout.transport {
        segment::Transport::Tcp => {
            if bytes.len() + overhead <= mtu || payload == 0 {
                return None;
            }
            let fits = mtu.checked_sub(overhead + layout.payload_offset)?;
            let options = layout
                .payload_offset
                .checked_sub(layout.transport_offset + 20)?;
            let agreed = peer_mss.map_or(fits, |mss| usize::from(mss).saturating_sub(options));
            let derived = u16::try_from(agreed.min(fits)).unwrap_or(u16::MAX);
            (Transport::Tcp, gso_size.unwrap_or(derived))
        }
        segment::Transport::Udp => {
            let size = gso_size.filter(|size| payload > usize::from(*size))?;
            (Transport::Udp, size)
        }
    };
    let transport_offset = u16::try_from(layout.transport_offset).ok()?;
    // One segment is no super-packet: no stack sends that, and the kernel's GSO refuses it.
    (size > 0 && payload > usize::from(size)).then_some(Gso {
        size,
        transport_offset,
        transport,
    })
}

fn matches(rule: &FlowMatch, key: &FlowKey) -> bool {
    let address = |octets: [u8; 16]| match key.version {
        4 => {
            let [.., a, b, c, d] = octets;
            IpAddr::from([a, b, c, d])
        }
        _ => IpAddr::from(Ipv6Addr::from(octets)),
    };
    rule.protocol
        .is_none_or(|protocol| protocol == key.protocol)
        && rule
            .source
            .is_none_or(|net| net.contains(&address(key.source)))
        && rule
            .destination
            .is_none_or(|net| net.contains(&address(key.destination)))
        && rule
            .source_port
            .is_none_or(|port| port.to_be_bytes() == key.source_port)
        && rule
            .destination_port
            .is_none_or(|port| port.to_be_bytes() == key.destination_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_one_segment_is_no_super_packet() {
        let layout = segment::Layout {
            transport: segment::Transport::Tcp,
            transport_offset: 40,
            payload_offset: 72,
        };
        let size = |payload: usize| {
            let bytes = vec![0; 72 + payload];
            super_packet(&bytes, &layout, 1500, 40, None, Some(2000)).map(|gso| gso.size)
        };
        assert_eq!(size(1999), None);
        assert_eq!(size(2000), None);
        assert_eq!(size(2001), Some(2000));
    }
}

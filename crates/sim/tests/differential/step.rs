//! Random histories of a host: option calls, packets out, frames in, written into a batch.

use crate::chain;
use crate::host;
use crate::icmp;
use crate::packet::{self, Defect, Spec, TCP, UDP};
use crate::reflect::Question;
use crate::tunnel::{Arrival, arrival};
use dynencap_abi::option::{ENCAP_GW, ENCAP_INFO, ENCAP_REFLECT, ENCAP_UDP};
use dynencap_sim::event::{Batch, Event, FlowId, Gso, Transport};
use dynencap_sim::scenario::{CgroupId, HostSpec};
use proptest::prelude::*;

/// Flows that are open from the start; [`FlowId::BARE`] beside them.
pub(crate) const FLOWS: u32 = 3;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Reopen {
        flow: FlowId,
        cgroup: CgroupId,
    },
    /// One of the host's policies takes effect: the n-th from the end.
    Policy(usize),
    Set {
        flow: FlowId,
        name: i32,
        value: Vec<u8>,
    },
    Read {
        flow: FlowId,
        name: i32,
        capacity: usize,
    },
    Send {
        flow: FlowId,
        packet: Spec,
        size: Size,
        defects: Vec<Defect>,
        ethertype: Option<u16>,
    },
    SendSuper {
        flow: FlowId,
        packet: Spec,
        cut: Cut,
    },
    Arrive(Arrival),
    /// A frame comes in for which somebody will answer.
    Ask(Question),
    TooBig(icmp::TooBig),
}

/// How long a packet is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Size {
    Payload(usize),
    /// In all, where its headers allow.
    Total(usize),
}

/// How a super-packet is to be cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) size: u16,
    /// Whole segments before the last.
    pub(crate) segments: usize,
    /// Bytes in the last one.
    pub(crate) rest: usize,
}

fn flow() -> impl Strategy<Value = FlowId> {
    prop_oneof![1 => Just(0), 9 => 1..=FLOWS].prop_map(FlowId)
}

fn name() -> impl Strategy<Value = i32> {
    let others = prop::sample::select(&[ENCAP_REFLECT, ENCAP_INFO, 0, -1, i32::MAX, i32::MIN][..]);
    prop_oneof![5 => Just(ENCAP_GW), 5 => Just(ENCAP_UDP), 1 => others]
}

fn bytes(len: impl Strategy<Value = usize>) -> impl Strategy<Value = Vec<u8>> {
    (len, any::<u32>()).prop_map(|(len, seed)| packet::noise(seed, len).collect())
}

/// Any call; those that set something useful are the most likely.
fn set() -> impl Strategy<Value = Step> {
    let useful = (flow(), host::exit(), any::<bool>()).prop_map(|(flow, (gateway, udp), which)| {
        let (name, value) = match which {
            true => (ENCAP_GW, gateway),
            false => (ENCAP_UDP, udp),
        };
        Step::Set { flow, name, value }
    });
    let lengths = [
        0, 1, 3, 4, 5, 8, 15, 16, 17, 36, 37, 64, 4095, 4096, 4097, 9000,
    ];
    let any_value = (
        flow(),
        name(),
        bytes(prop::sample::select(lengths.to_vec())),
    )
        .prop_map(|(flow, name, value)| Step::Set { flow, name, value });
    let mut mapped = [0; 16];
    mapped[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
    let mut multicast = [0; 16];
    multicast[..2].copy_from_slice(&[0xff, 2]);
    let mut loopback = [0; 16];
    loopback[15] = 1;
    let addresses = [[0; 16], mapped, multicast, loopback, [0xff; 16], [0xfe; 16]];
    let addresses = prop::sample::select(addresses.to_vec());
    let odd_address = (flow(), addresses).prop_map(|(flow, address)| Step::Set {
        flow,
        name: ENCAP_GW,
        value: address.to_vec(),
    });
    let no_port = (flow(), bytes(0usize..=34)).prop_map(|(flow, mut value)| {
        value.splice(value.len().min(2)..value.len().min(2), [0, 0]);
        let name = ENCAP_UDP;
        Step::Set { flow, name, value }
    });
    prop_oneof![6 => useful, 3 => any_value, 1 => odd_address, 1 => no_port]
}

fn read() -> impl Strategy<Value = Step> {
    let capacities = [0, 1, 3, 4, 12, 15, 16, 17, 35, 36, 37, 4096, 4097, 70_000];
    (flow(), name(), prop::sample::select(capacities.to_vec())).prop_map(
        |(flow, name, capacity)| Step::Read {
            flow,
            name,
            capacity,
        },
    )
}

/// Sizes of every kind, and those where what is added decides whether the packet fits.
pub(crate) fn size() -> impl Strategy<Value = Size> {
    let mtu = prop::sample::select(&[1280usize, 1500, 9000, 9216][..]);
    let overhead = prop::sample::select(&[0usize, 20, 28, 36, 40, 48, 49, 56, 79, 80][..]);
    let edge = (mtu, overhead, 0usize..3).prop_map(|(m, o, more)| Size::Total(m - o + more - 1));
    prop_oneof![
        5 => (0usize..100).prop_map(Size::Payload),
        3 => edge,
        1 => (0usize..10_000).prop_map(Size::Payload),
    ]
}

impl Size {
    pub(crate) fn payload_of(self, packet: &Spec) -> usize {
        match self {
            Self::Payload(payload) => payload,
            Self::Total(total) => total.saturating_sub(packet.headers_len()),
        }
    }
}

fn send(flow: impl Strategy<Value = FlowId>) -> impl Strategy<Value = Step> {
    let defects = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec(packet::defect(), 1..3),
    ];
    let others = prop::sample::select(&[0x0806, 0x88cc, 0x8847, 0x0800, 0x86dd, 0x0101][..]);
    let ethertype = prop_oneof![20 => Just(None), 1 => others.prop_map(Some)];
    (flow, packet::sound(), size(), defects, ethertype).prop_map(
        |(flow, packet, size, defects, ethertype)| Step::Send {
            flow,
            packet,
            size,
            defects,
            ethertype,
        },
    )
}

/// What the kernel can cut: TCP and UDP.
pub(crate) fn super_packet() -> impl Strategy<Value = (Spec, Cut)> {
    let protocol = prop::sample::select(&[TCP, UDP][..]);
    let spec = packet::with_network(packet::segmentable(), protocol);
    (spec, cut())
}

pub(crate) fn cut() -> impl Strategy<Value = Cut> {
    let edge = prop::sample::select(&[1180u16, 1200, 1384, 1388, 1400, 1440, 1448, 8940][..]);
    let size = prop_oneof![3 => edge, 2 => 1u16..2000, 1 => 1u16..=9000];
    let segments = prop_oneof![6 => 1usize..12, 1 => 12usize..50];
    (size, segments, any::<bool>(), any::<u16>()).prop_map(|(size, segments, exact, rest)| {
        let rest = 1 + usize::from(if exact { size - 1 } else { rest % size });
        // Headers, at most 60 + 40 + 8 * 4 * 8 bytes, and payload fit a 16-bit length.
        let segments = segments.min((65_000 - rest) / usize::from(size));
        Cut {
            size,
            segments,
            rest,
        }
    })
}

fn send_super(flow: impl Strategy<Value = FlowId>) -> impl Strategy<Value = Step> {
    (flow, super_packet()).prop_map(|(flow, (packet, cut))| Step::SendSuper { flow, packet, cut })
}

/// Packets and super-packets of these flows.
pub(crate) fn outgoing(flow: impl Strategy<Value = FlowId> + Clone) -> impl Strategy<Value = Step> {
    prop_oneof![3 => send(flow.clone()), 1 => send_super(flow)]
}

/// The calls that give a flow this exit.
pub(crate) fn use_exit(flow: FlowId, (gateway, udp): &host::Options) -> Vec<Step> {
    [(ENCAP_UDP, udp.clone()), (ENCAP_GW, gateway.clone())]
        .map(|(name, value)| Step::Set { flow, name, value })
        .to_vec()
}

impl Step {
    /// The same packet from another socket.
    pub(crate) fn on(mut self, other: FlowId) -> Self {
        if let Self::Send { flow, .. } | Self::SendSuper { flow, .. } = &mut self {
            *flow = other;
        }
        self
    }
}

/// Any step.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (flow(), host::cgroup()).prop_map(|(flow, cgroup)| {
            let flow = FlowId(flow.0.max(1));
            Step::Reopen { flow, cgroup }
        }),
        1 => (0..host::LATER).prop_map(Step::Policy),
        5 => set(),
        2 => read(),
        8 => send(flow()),
        2 => send_super(flow()),
        5 => arrival().prop_map(Step::Arrive),
        2 => icmp::too_big().prop_map(Step::TooBig),
    ]
}

impl Cut {
    pub(crate) fn payload(self) -> usize {
        self.segments * usize::from(self.size) + self.rest
    }
}

/// A batch with all flows open, each in a cgroup of its own, and then the steps.
pub(crate) fn batch(host: &HostSpec, steps: &[Step]) -> Batch {
    let mut batch = Batch::default();
    for (at, _) in host
        .policies
        .iter()
        .enumerate()
        .filter(|(_, policy)| policy.at.is_none())
    {
        batch.push(0, Event::Policy(at));
    }
    for (at, flow) in (1..=FLOWS).map(FlowId).enumerate() {
        let cgroup = CgroupId(at);
        batch.push(0, Event::Open { flow, cgroup });
    }
    for (number, step) in (1..).zip(steps) {
        push(&mut batch, host, number, step);
    }
    batch
}

/// Adds a step to a batch.
pub(crate) fn push(batch: &mut Batch, host: &HostSpec, number: u64, step: &Step) {
    let event = match step {
        Step::Reopen { flow, cgroup } => {
            batch.push(number, Event::Close(*flow));
            let (flow, cgroup) = (*flow, *cgroup);
            Event::Open { flow, cgroup }
        }
        Step::Policy(nth) => match host.policies.len().checked_sub(nth + 1) {
            Some(policy) => Event::Policy(policy),
            None => return,
        },
        Step::TooBig(error) => {
            let (ethertype, bytes) = error.write();
            let packet = batch.store(&bytes);
            Event::Ingress { ethertype, packet }
        }
        Step::Set { flow, name, value } => Event::SetOption {
            flow: *flow,
            name: *name,
            value: batch.store(value),
        },
        Step::Read {
            flow,
            name,
            capacity,
        } => Event::GetOption {
            flow: *flow,
            name: *name,
            capacity: *capacity,
        },
        Step::Send {
            flow,
            packet,
            size,
            defects,
            ethertype,
        } => {
            let mut written = packet.write(size.payload_of(packet));
            for defect in defects {
                defect.spoil(&mut written.bytes, 0);
            }
            Event::Egress {
                flow: *flow,
                ethertype: ethertype.unwrap_or(written.ethertype),
                packet: batch.store(&written.bytes),
                gso: None,
            }
        }
        Step::SendSuper { flow, packet, cut } => {
            let written = packet.write(cut.payload());
            let gso = Some(Gso {
                size: cut.size,
                transport_offset: u16::try_from(written.transport_offset).unwrap(),
                transport: match packet.protocol {
                    TCP => Transport::Tcp,
                    _ => Transport::Udp,
                },
            });
            Event::Egress {
                flow: *flow,
                ethertype: written.ethertype,
                packet: batch.store(&written.bytes),
                gso,
            }
        }
        Step::Ask(question) => {
            let (ethertype, bytes) = question.ask();
            let packet = batch.store(&bytes);
            Event::Ingress { ethertype, packet }
        }
        Step::Arrive(arrival) => {
            let (ethertype, bytes) = arrival.write();
            let packet = batch.store(&bytes);
            Event::Ingress { ethertype, packet }
        }
    };
    batch.push(number, event);
}

/// An unsegmentable network layer for a super-packet.
pub(crate) fn odd_network() -> impl Strategy<Value = packet::Network> {
    let fragment = prop::sample::select(&[0x2000, 0x2001, 0x00b9][..]);
    prop_oneof![
        1 => packet::v4(fragment),
        3 => packet::v6(chain::unsegmentable_chain()),
    ]
}

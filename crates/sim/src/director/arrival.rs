//! What comes in through a tunnel: it belongs to the flow of the packet inside, so that the
//! replies, which leave without outer headers, find it.

use super::key::TableKey;
use super::{Director, FlowName, tcp};
use crate::event::Batch;
use crate::scenario::overhead;
use crate::trace;
use dynencap_model::flow::key as flow_key;
use dynencap_model::{Packet, reflection, segment};

/// Where a packet's payload begins, and what its SYN says. With the smallest segments, so that
/// BIG TCP counts as what can be cut.
pub(super) fn transport(packet: &Packet<'_>) -> (Option<segment::Layout>, Option<tcp::Syn>) {
    let layout = segment::layout(&Packet {
        gso_size: 1,
        ..*packet
    });
    let syn = layout
        .as_ref()
        .and_then(|layout| tcp::syn(packet.bytes, layout));
    (layout, syn)
}

impl Director {
    /// A packet that a tunnel which reflects brought for a flow: it opens the flow like any
    /// other, and the flow's other end answers.
    pub(super) fn arrives(
        &mut self,
        packet: &Packet<'_>,
        came_in: usize,
        number: u64,
        batch: &mut Batch,
    ) {
        let Some(key) = flow_key(packet) else {
            return;
        };
        let (_, syn) = transport(packet);
        let (table_key, from_lesser) = TableKey::of(&key);
        let place = match self.flows.find(&table_key) {
            Some(found) => found,
            None => self.open(table_key, key, syn.as_ref(), number, batch),
        };
        if let Some(flow) = self.flows.at(place) {
            if let Some(syn) = syn {
                flow.mss[flow.end_of(from_lesser) as usize] = syn.mss;
            }
            flow.came_in = came_in;
        }
    }

    /// What a tunnel that reflects brings, and how long its outer headers are.
    pub(super) fn brought<'p>(&self, packet: &Packet<'p>) -> Option<(Packet<'p>, usize)> {
        let exit = reflection::parse(packet, self.reflecting.as_ref()?).ok()?;
        let came_in = overhead(&exit);
        let bytes = packet.bytes.get(came_in..)?;
        let ethertype = match bytes.first()? >> 4 {
            4 => 0x0800,
            _ => 0x86dd,
        };
        let inner = Packet {
            ethertype,
            bytes,
            gso_size: 0,
        };
        Some((inner, came_in))
    }

    /// The flow that a frame belongs to, where a tunnel brought it the one inside; `None` for the
    /// frames of none.
    #[must_use]
    pub fn flow_name(&self, frame: &trace::Frame<'_>) -> Option<FlowName> {
        let link = trace::link(frame.link_type, frame.bytes);
        let packet = Packet {
            ethertype: link.ethertype,
            bytes: link.payload,
            gso_size: 0,
        };
        let inner = self.brought(&packet).map(|(inner, _)| inner);
        let key = flow_key(&inner.unwrap_or(packet)).filter(|_| link.defect.is_none())?;
        Some(FlowName(key.min(key.reversed())))
    }
}

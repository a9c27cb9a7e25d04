//! One flow: its sockets, the exit in force, the switches to come, and the option calls that
//! lead from one exit to another.

use crate::event::{Batch, Event, FlowId};
use crate::scenario::{At, CgroupId, FlowMatch, REFLECTING, Switch, overhead};
use crate::trace::{self, Timestamp};
use dynencap_abi::option::{
    ENCAP_GW, ENCAP_INFO, ENCAP_REFLECT, ENCAP_UDP, GATEWAY_LEN, PORTS_LEN, REFLECT_LEN,
    REFLECT_PATH,
};
use dynencap_abi::{Exit, FlowKey, Info, MAX_HEADER_LEN};
use std::net::{IpAddr, Ipv6Addr};

/// Which end of a flow a packet comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Initiator = 0,
    Responder = 1,
}

/// What is remembered of a flow.
pub(super) struct Flow {
    /// Which end its initiator is.
    pub(super) initiator_is_lesser: bool,
    /// The sockets of the initiator and of the responder, as far as they send.
    pub(super) sockets: [Option<FlowId>; 2],
    pub(super) exit: Exit,
    /// Where its sockets were made.
    pub(super) cgroup: CgroupId,
    pub(super) switches: Vec<Switch>,
    /// How many of `switches` have taken place.
    pub(super) switched: usize,
    /// Packets that left.
    pub(super) sent: u64,
    /// The MSS that initiator and responder announced.
    pub(super) mss: [Option<u16>; 2],
    /// Bytes of outer headers by which its last packet came in.
    pub(super) came_in: usize,
}

impl Flow {
    /// Which end sends what comes from the lesser end, or from the other.
    pub(super) fn end_of(&self, from_lesser: bool) -> End {
        if from_lesser == self.initiator_is_lesser {
            End::Initiator
        } else {
            End::Responder
        }
    }

    /// Bytes that outer headers add to what it sends now.
    pub(super) fn overhead(&self) -> usize {
        match self.exit == REFLECTING {
            true => self.came_in,
            false => overhead(&self.exit),
        }
    }

    /// Lets every switch take place whose time has come, before the packet at hand leaves.
    pub(super) fn switch(&mut self, frame: &trace::Frame<'_>, start: Timestamp, batch: &mut Batch) {
        while let Some(switch) = self.switches.get(self.switched).copied() {
            if !due(switch.at, frame, start, self.sent) {
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

/// Whether a moment has come before this frame, given how many packets its flow has sent.
pub(super) fn due(at: At, frame: &trace::Frame<'_>, start: Timestamp, sent: u64) -> bool {
    match at {
        At::Packet(number) => frame.number >= number,
        At::FlowPacket(number) => sent >= number,
        At::Nanoseconds(after) => frame.time.0.saturating_sub(start.0) >= after,
    }
}

/// The option calls that lead from one exit to another, each read back.
pub(super) fn set_exit(flow: FlowId, from: &Exit, to: &Exit, cause: u64, batch: &mut Batch) {
    if from == to {
        return;
    }
    let reflects = |exit: &Exit| match *exit == REFLECTING {
        true => REFLECT_PATH.to_ne_bytes().to_vec(),
        false => Vec::new(),
    };
    let udp = |exit: &Exit| {
        let mut value = Vec::new();
        if exit.flags & Exit::UDP != 0 {
            value.extend_from_slice(&exit.source_port);
            value.extend_from_slice(&exit.destination_port);
            value.extend(exit.header.iter().take(usize::from(exit.header_len)));
        }
        value
    };
    let gateway = |exit: &Exit| match (exit.flags & Exit::GATEWAY, exit.flags & Exit::IPV4) {
        (0, _) => Vec::new(),
        (_, 0) => exit.gateway.to_vec(),
        _ => exit.gateway.iter().skip(12).copied().collect(),
    };
    for (name, before, after) in [
        (ENCAP_UDP, udp(from), udp(to)),
        (ENCAP_GW, gateway(from), gateway(to)),
        (ENCAP_REFLECT, reflects(from), reflects(to)),
    ] {
        if before != after {
            let value = batch.store(&after);
            batch.push(cause, Event::SetOption { flow, name, value });
        }
    }
    let reflected = [*from, *to].contains(&REFLECTING);
    for (name, capacity) in [
        (ENCAP_GW, GATEWAY_LEN),
        (ENCAP_UDP, PORTS_LEN + MAX_HEADER_LEN),
        (ENCAP_INFO, size_of::<Info>()),
        (ENCAP_REFLECT, REFLECT_LEN),
    ] {
        if name == ENCAP_REFLECT && !reflected {
            continue;
        }
        let event = Event::GetOption {
            flow,
            name,
            capacity,
        };
        batch.push(cause, event);
    }
}

/// Whether a rule is for the flow that its initiator sees as `key`.
pub(super) fn matches(rule: &FlowMatch, key: &FlowKey) -> bool {
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

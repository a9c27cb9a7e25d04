//! Reflection, section 5: from the outer header that a packet came in to the exit of the
//! replies.
//!
//! Here stands what an outer header gives (5.1); `capture` knows what comes of it at TC ingress
//! and what a device of the kernel leaves in front of a packet (5.2, 5.3), `decide` for whom it is
//! (5.4), `newer` which segments move a connection, `accepted` how it comes to a connection (5.5).
//! What the programs hand on by tickets and places is here a value that the caller hands on.

mod accepted;
mod capture;
mod decide;
mod newer;

pub(crate) use capture::Capture;
pub use decide::{Incoming, Receiver};
pub use newer::Sequence;

use crate::packet::Packet;
use crate::tunnel::{Tunnelled, Tunnels};
use crate::wire::Ip;
use dynencap_abi::{Exit, Reason};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The exit of replies to what came in `packet`, or the reason why there is none.
pub fn parse(packet: &Packet<'_>, tunnels: &Tunnels) -> Result<Exit, Reason> {
    let Tunnelled { outer, udp, .. } = Tunnelled::parse(packet, tunnels)?;
    exit_of(&outer, udp).ok_or(Reason::BadOuter)
}

/// 5.1: the exit of replies to what came behind this outer header; none where its source is
/// nobody's. `udp` is destination port and custom header.
fn exit_of(outer: &Ip<'_>, udp: Option<([u8; 2], &[u8])>) -> Option<Exit> {
    let (nobody, family) = match outer {
        Ip::V4(ip) => {
            let source = Ipv4Addr::from(ip.source());
            let nobody = source.is_unspecified() || source.is_multicast() || source.is_broadcast();
            (nobody, Exit::IPV4)
        }
        Ip::V6(ip) => {
            let source = Ipv6Addr::from(ip.source());
            let mapped = source.to_ipv4_mapped().is_some();
            (
                source.is_unspecified() || source.is_multicast() || mapped,
                0,
            )
        }
    };
    if nobody {
        return None;
    }
    let mut exit = Exit {
        gateway: outer.source(),
        source: outer.destination(),
        flags: Exit::GATEWAY | Exit::REFLECTED | family,
        ..Exit::NONE
    };
    if let Some((port, header)) = udp {
        // A longer header than an exit holds cannot be sent back as it came.
        exit.header.get_mut(..header.len())?.copy_from_slice(header);
        exit.header_len = u8::try_from(header.len()).ok()?;
        exit.destination_port = port;
        exit.flags |= Exit::UDP;
    }
    Some(exit)
}

//! Reflection, section 5: from the outer header that a packet came in to the exit of the
//! replies. Who remembers the exit, and for whom, is left to others.

use crate::packet::Packet;
use crate::tunnel::{Tunnelled, Tunnels};
use crate::wire::Ip;
use dynencap_abi::{Exit, Reason};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The exit of replies to what came in `packet`, or the reason why there is none.
pub fn parse(packet: &Packet<'_>, tunnels: &Tunnels) -> Result<Exit, Reason> {
    let Tunnelled { outer, udp, .. } = Tunnelled::parse(packet, tunnels)?;
    let (nobody, family) = match outer {
        Ip::V4(ip) => {
            let source = Ipv4Addr::from(ip.source());
            let nobody = source.is_unspecified() || source.is_multicast() || source.is_broadcast();
            (nobody, Exit::IPV4)
        }
        Ip::V6(ip) => {
            let source = Ipv6Addr::from(ip.source());
            (source.is_unspecified() || source.is_multicast(), 0)
        }
    };
    if nobody {
        return Err(Reason::BadOuter);
    }
    let mut exit = Exit {
        gateway: outer.source(),
        source: outer.destination(),
        flags: Exit::GATEWAY | family,
        ..Exit::NONE
    };
    if let Some((port, header)) = udp {
        // A longer header than an exit holds cannot be sent back as it came.
        exit.header
            .get_mut(..header.len())
            .ok_or(Reason::BadOuter)?
            .copy_from_slice(header);
        exit.header_len = u8::try_from(header.len()).map_err(|_| Reason::BadOuter)?;
        exit.destination_port = port;
        exit.flags |= Exit::UDP;
    }
    Ok(exit)
}

//! Reflection, section 5: from the outer header that a packet came in to the exit of the
//! replies. Who remembers the exit, and for whom, is left to others.

use crate::packet::Packet;
use crate::tunnel::{Tunnelled, Tunnels};
use dynencap_abi::{Exit, Reason};

const MULTICAST: u8 = 0xff;

/// The exit of replies to what came in `packet`, or the reason why there is none.
pub fn parse(packet: &Packet<'_>, tunnels: &Tunnels) -> Result<Exit, Reason> {
    let Tunnelled { outer, udp, .. } = Tunnelled::parse(packet, tunnels)?;
    let gateway = outer.source();
    if gateway == [0; 16] || gateway[0] == MULTICAST {
        return Err(Reason::BadOuter);
    }
    let mut exit = Exit {
        gateway,
        source: outer.destination(),
        flags: Exit::GATEWAY,
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

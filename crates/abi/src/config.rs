//! What an operator sets for the host as a whole: the one value of the `CONFIG` array.

use core::mem::{offset_of, size_of};

/// Value 0 of the map [`crate::object::CONFIG`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Outer source for IPv4 packets in IPv6, network order; all zero: there is none, and
    /// such packets are dropped ([`crate::Reason::NoSource`]).
    pub source: [u8; 16],
    /// The uplink's MTU in bytes, from the outer IP header on.
    pub uplink_mtu: u32,
    /// [`Config::ALLOW_PACKET_SOCKETS`].
    pub flags: u32,
}

impl Config {
    /// `AF_PACKET` and raw sockets may have an exit: replay needs it, production does not.
    pub const ALLOW_PACKET_SOCKETS: u32 = 1;

    /// The value's bytes as the map holds them, in this machine's byte order.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..16].copy_from_slice(&self.source);
        bytes[16..20].copy_from_slice(&self.uplink_mtu.to_ne_bytes());
        bytes[20..].copy_from_slice(&self.flags.to_ne_bytes());
        bytes
    }
}

const _: () = assert!(size_of::<Config>() == 24);
const _: () = assert!(offset_of!(Config, uplink_mtu) == 16 && offset_of!(Config, flags) == 20);

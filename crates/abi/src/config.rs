//! What an operator sets for the host as a whole: the one value of the `CONFIG` array.

use core::mem::{offset_of, size_of};

/// Value 0 of the map [`crate::object::CONFIG`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Outer source for IPv4 packets in IPv6, network order; all zero: there is none, and
    /// such packets are dropped ([`crate::Reason::NoSource`]).
    pub source: [u8; 16],
    /// Outer source for IPv6 packets in IPv4, network order; all zero: none, likewise.
    pub source4: [u8; 4],
    /// The uplink's MTU in bytes, from the outer IP header on.
    pub uplink_mtu: u32,
    /// The flags below.
    pub flags: u32,
    /// Raised by one by whoever changed a policy, after the change: every socket's exit is
    /// checked anew with its next packet.
    pub policy_generation: u32,
    /// Hop limit of outer headers; 0: the inner packet's.
    pub hop_limit: u32,
    /// Interface index of the near end of the segmenting veth pair; 0: there is none.
    pub segmenter: u32,
    /// Interface index of the uplink, to which the program behind the segmenter sends.
    pub uplink: u32,
    /// Always zero.
    pub reserved: u32,
}

impl Config {
    /// `AF_PACKET` and raw sockets may have an exit: replay needs it, production does not.
    pub const ALLOW_PACKET_SOCKETS: u32 = 1;
    /// A cgroup without a policy, its own or an ancestor's, may use no exit at all.
    pub const DENY_BY_DEFAULT: u32 = 2;
    /// Outer UDP checksums are valid, not 0.
    pub const UDP_CHECKSUM: u32 = 4;
    /// Super-packets are cut by the segmenter before they are encapsulated.
    pub const SEGMENT_FIRST: u32 = 8;
    /// The sender of a packet that is too big is told by an ICMP error.
    pub const TELL_TOO_BIG: u32 = 16;
    /// Reflection is on: without it no program looks for, or at, captured headers.
    pub const REFLECT: u32 = 32;
    /// Outer headers that a device of the kernel left in front of a packet are captured too.
    pub const CAPTURE_OUTER: u32 = 64;

    /// The value's bytes as the map holds them, in this machine's byte order.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..16].copy_from_slice(&self.source);
        bytes[16..20].copy_from_slice(&self.source4);
        let words = [
            self.uplink_mtu,
            self.flags,
            self.policy_generation,
            self.hop_limit,
            self.segmenter,
            self.uplink,
            self.reserved,
        ];
        for (place, word) in bytes[20..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

const _: () = assert!(size_of::<Config>() == 48);
const _: () = assert!(offset_of!(Config, uplink_mtu) == 20 && offset_of!(Config, flags) == 24);
const _: () = assert!(offset_of!(Config, hop_limit) == 32 && offset_of!(Config, reserved) == 44);

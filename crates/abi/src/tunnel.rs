//! Which tunnels end on this host: key and value of the `TUNNELS` hash map, read by the TC
//! ingress program.

use core::mem::{offset_of, size_of};

/// An outer destination at which this host decapsulates.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelKey {
    /// The outer destination address, network order; IPv4 as IPv4-mapped.
    pub address: [u8; 16],
    /// The outer next header or protocol: 4 (IPv4), 41 (IPv6) or 17 (UDP).
    pub protocol: u8,
    /// Always zero.
    pub reserved: u8,
    /// The outer UDP destination port, network order; 0 for protocols 4 and 41.
    pub port: [u8; 2],
}

/// How to take the outer headers off.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelSpec {
    /// With [`TunnelSpec::FIXED`]: bytes of custom header between the UDP header and the inner
    /// packet, 0–32.
    pub header_len: u8,
    /// [`TunnelSpec::REFLECT`] | [`TunnelSpec::KERNEL`].
    pub flags: u8,
    /// How long the custom header is: [`TunnelSpec::FIXED`], [`TunnelSpec::GUE`] or
    /// [`TunnelSpec::GENEVE`].
    pub format: u8,
    /// Always zero.
    pub reserved: u8,
}

impl TunnelSpec {
    /// Outer headers of this tunnel are captured for reflection.
    pub const REFLECT: u8 = 1;
    /// A device of the kernel takes the headers off: TC ingress lets the packets through as they are.
    pub const KERNEL: u8 = 2;
    /// `header_len` bytes.
    pub const FIXED: u8 = 0;
    /// As a GUE header says (draft-ietf-intarea-gue-09 §3; Linux's `struct guehdr`).
    pub const GUE: u8 = 1;
    /// As a Geneve header says (RFC 8926 §3.4).
    pub const GENEVE: u8 = 2;
}

impl TunnelKey {
    /// The key's bytes as the map holds them.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..16].copy_from_slice(&self.address);
        bytes[16] = self.protocol;
        bytes[18..].copy_from_slice(&self.port);
        bytes
    }
}

impl TunnelSpec {
    /// The value's bytes as the map holds them.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
        [self.header_len, self.flags, self.format, 0]
    }
}

const _: () = assert!(size_of::<TunnelKey>() == 20 && offset_of!(TunnelKey, port) == 18);
const _: () = assert!(size_of::<TunnelSpec>() == 4);

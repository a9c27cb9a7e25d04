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
    /// Bytes of custom header between the UDP header and the inner packet, 0–32.
    pub header_len: u8,
    /// Always zero.
    pub reserved: [u8; 3],
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
        [self.header_len, 0, 0, 0]
    }
}

const _: () = assert!(size_of::<TunnelKey>() == 20 && offset_of!(TunnelKey, port) == 18);
const _: () = assert!(size_of::<TunnelSpec>() == 4);

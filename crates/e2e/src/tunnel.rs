//! A tunnel that ends on the reflecting host, as a test names it: what the host is told of it, and
//! how long the auditor finds its header, each on its own.

use dynencap_abi::{TunnelKey, TunnelSpec};
use std::net::IpAddr;

/// A tunnel's end.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel {
    /// The outer destination.
    pub address: IpAddr,
    /// What follows the outer IP header.
    pub kind: Kind,
    /// Flags of `TunnelSpec`.
    pub flags: u8,
}

/// What follows the outer IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The packet, of either version.
    Ip,
    /// UDP to this port, and so many bytes.
    Fixed(u16, u8),
    /// UDP to this port, and a GUE header.
    Gue(u16),
    /// UDP to this port, and a Geneve header.
    Geneve(u16),
}

impl Tunnel {
    /// One whose outer headers are reflected.
    #[must_use]
    pub fn reflected(address: impl Into<IpAddr>, kind: Kind) -> Self {
        Self {
            address: address.into(),
            kind,
            flags: TunnelSpec::REFLECT,
        }
    }

    /// The same, where a device of the kernel takes the headers off.
    #[must_use]
    pub fn of_kernel(address: impl Into<IpAddr>, kind: Kind) -> Self {
        Self {
            flags: TunnelSpec::REFLECT | TunnelSpec::KERNEL,
            ..Self::reflected(address, kind)
        }
    }

    /// What the map holds of it.
    #[must_use]
    pub fn entries(&self) -> Vec<(TunnelKey, TunnelSpec)> {
        let address = match self.address {
            IpAddr::V6(address) => address,
            IpAddr::V4(address) => address.to_ipv6_mapped(),
        };
        let (protocols, header_len, format) = match self.kind {
            Kind::Ip => (&[4, 41][..], 0, TunnelSpec::FIXED),
            Kind::Fixed(_, len) => (&[17][..], len, TunnelSpec::FIXED),
            Kind::Gue(_) => (&[17][..], 0, TunnelSpec::GUE),
            Kind::Geneve(_) => (&[17][..], 0, TunnelSpec::GENEVE),
        };
        let entry = |protocol: &u8| {
            let key = TunnelKey {
                address: address.octets(),
                protocol: *protocol,
                reserved: 0,
                port: self.kind.port().unwrap_or(0).to_be_bytes(),
            };
            let spec = TunnelSpec {
                header_len,
                flags: self.flags,
                format,
                reserved: 0,
            };
            (key, spec)
        };
        protocols.iter().map(entry).collect()
    }
}

impl Kind {
    /// The UDP destination port.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match *self {
            Self::Ip => None,
            Self::Fixed(port, _) | Self::Gue(port) | Self::Geneve(port) => Some(port),
        }
    }

    /// Bytes between UDP and the packet inside; `bytes` begin behind UDP.
    #[must_use]
    pub fn header_len(&self, bytes: &[u8]) -> Option<usize> {
        let first = *bytes.first()?;
        match *self {
            Self::Ip => Some(0),
            Self::Fixed(_, len) => Some(len.into()),
            // Version 1 is the packet itself.
            Self::Gue(_) if first >> 6 == 1 => Some(0),
            Self::Gue(_) => Some(4 + 4 * usize::from(first & 0x1f)),
            Self::Geneve(_) => Some(8 + 4 * usize::from(first & 0x3f)),
        }
    }
}

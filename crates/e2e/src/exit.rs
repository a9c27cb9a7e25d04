//! An exit as a test names it: gateway and shape, and the socket options that choose it.

use dynencap_abi::option::{ENCAP_GW, ENCAP_UDP, SOL_DYNENCAP};
use dynencap_kernel::sys;
use serde::{Deserialize, Serialize};
use std::{fmt, io, net::IpAddr, os::fd::AsFd};

/// What stands between the outer IP header and the inner packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Shape {
    /// Nothing: protocol 41 or 4.
    Ip,
    /// UDP and a custom header.
    Udp {
        /// Destination port.
        port: u16,
        /// 0 to 32 bytes.
        header: Vec<u8>,
    },
}

/// Where a socket's packets are sent, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The outer destination.
    pub gateway: IpAddr,
    /// What follows the outer IP header.
    pub shape: Shape,
}

impl Shape {
    /// UDP with `len` bytes of custom header, at the port where the exit node expects so many.
    #[must_use]
    pub fn udp(len: u8) -> Self {
        Self::Udp {
            port: 6080 + u16::from(len),
            header: (0..len).map(|at| 0xa0 ^ at).collect(),
        }
    }

    /// Bytes behind the outer IP header.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Ip => 0,
            Self::Udp { header, .. } => 8 + header.len(),
        }
    }

    /// Whether nothing stands there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::Ip
    }

    /// The value of `ENCAP_UDP`.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        match self {
            Self::Ip => Vec::new(),
            Self::Udp { port, header } => [&[0, 0][..], &port.to_be_bytes(), header].concat(),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip => write!(f, "IP"),
            Self::Udp { port, header } => write!(f, "UDP {port} + {}", header.len()),
        }
    }
}

impl Exit {
    /// An exit without UDP.
    #[must_use]
    pub fn ip(gateway: IpAddr) -> Self {
        Self {
            gateway,
            shape: Shape::Ip,
        }
    }

    /// An exit with UDP and `len` bytes of custom header.
    #[must_use]
    pub fn udp(gateway: IpAddr, len: u8) -> Self {
        Self {
            gateway,
            shape: Shape::udp(len),
        }
    }

    /// Bytes of outer headers.
    #[must_use]
    pub fn overhead(&self) -> usize {
        let ip = if self.gateway.is_ipv6() { 40 } else { 20 };
        ip + self.shape.len()
    }

    /// The value of `ENCAP_GW`.
    #[must_use]
    pub fn gateway_value(&self) -> Vec<u8> {
        match self.gateway {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }

    /// Chooses it for a socket: two calls, between which the exit is of the new shape and at
    /// the old gateway.
    pub fn set(&self, socket: impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd();
        sys::set_option(socket, SOL_DYNENCAP, ENCAP_UDP, &self.shape.value())?;
        sys::set_option(socket, SOL_DYNENCAP, ENCAP_GW, &self.gateway_value())
    }
}

/// Chooses an exit for a socket, or none.
pub fn choose(exit: Option<&Exit>, socket: impl AsFd) -> io::Result<()> {
    match exit {
        Some(exit) => exit.set(socket),
        None => sys::set_option(socket.as_fd(), SOL_DYNENCAP, ENCAP_GW, &[]),
    }
}

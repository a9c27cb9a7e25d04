//! An exit as applications and operators write it: addresses, ports, a custom header, and the
//! one parser of their text. Its values are valid by construction.
//!
//! ```text
//! exit    = address [ "/udp:" port *( "," option ) ]
//! option  = "header=" 2*64HEXDIG      ; 1 to 32 bytes behind the UDP header
//!         | "source-port=" port       ; else from the flow's hash
//! address = IPv6 or IPv4 address, unicast, not IPv4-mapped
//! port    = 1 to 65535
//! ```

use dynencap_abi::{Exit as Layout, MAX_HEADER_LEN};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
    str::FromStr,
};

/// Where a connection's packets leave: a gateway, plainly or in UDP.
///
/// Its text is `2001:db8::1`, `192.0.2.1`, `2001:db8::1/udp:6080` or
/// `2001:db8::1/udp:4790,header=0c00000400000100,source-port=5000`; parsing what
/// [`fmt::Display`] writes gives the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exit {
    gateway: IpAddr,
    udp: Option<Udp>,
}

/// UDP between the outer IP header and the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Udp {
    /// The outer destination port.
    pub destination_port: NonZeroU16,
    /// The outer source port; `None`: from the flow's hash, 49152 to 65535.
    pub source_port: Option<NonZeroU16>,
    /// What stands between the UDP header and the packet.
    pub header: Header,
}

/// A custom header of 0 to 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Header {
    bytes: [u8; MAX_HEADER_LEN],
    length: u8,
}

/// A text that is no exit. The message names what was expected, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("exit `{text}`: {reason}")]
pub struct ParseExitError {
    text: String,
    reason: String,
}

impl Exit {
    /// IP-in-IP to `gateway`. `None` for an address that cannot be an exit: unspecified,
    /// multicast, broadcast, IPv4-mapped.
    #[must_use]
    pub fn new(gateway: impl Into<IpAddr>) -> Option<Self> {
        let gateway = gateway.into();
        let possible = match gateway {
            IpAddr::V4(address) => {
                !(address.is_unspecified() || address.is_multicast() || address.is_broadcast())
            }
            IpAddr::V6(address) => {
                !(address.is_unspecified()
                    || address.is_multicast()
                    || address.to_ipv4_mapped().is_some())
            }
        };
        possible.then_some(Self { gateway, udp: None })
    }

    /// The same gateway, in UDP.
    #[must_use]
    pub const fn with_udp(mut self, udp: Udp) -> Self {
        self.udp = Some(udp);
        self
    }

    /// The outer destination.
    #[must_use]
    pub const fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// The UDP part, if there is one.
    #[must_use]
    pub const fn udp(&self) -> Option<&Udp> {
        self.udp.as_ref()
    }

    /// Bytes of outer headers.
    #[must_use]
    pub fn overhead(&self) -> u8 {
        let ip = if self.gateway.is_ipv4() { 20 } else { 40 };
        ip + self.udp.map_or(0, |udp| 8 + udp.header.length)
    }

    /// As maps and policies hold it, without a source: see [`dynencap_abi::Exit`].
    #[must_use]
    pub fn to_abi(&self) -> Layout {
        let mut layout = Layout {
            flags: Layout::GATEWAY,
            ..Layout::NONE
        };
        layout.gateway = match self.gateway {
            IpAddr::V4(address) => {
                layout.flags |= Layout::IPV4;
                address.to_ipv6_mapped().octets()
            }
            IpAddr::V6(address) => address.octets(),
        };
        if let Some(udp) = self.udp {
            layout.flags |= Layout::UDP;
            layout.source_port = udp
                .source_port
                .map_or([0; 2], |port| port.get().to_be_bytes());
            layout.destination_port = udp.destination_port.get().to_be_bytes();
            layout.header = udp.header.bytes;
            layout.header_len = udp.header.length;
        }
        layout
    }

    /// The reverse; `None` without a gateway, and for what no socket can have.
    #[must_use]
    pub fn from_abi(layout: &Layout) -> Option<Self> {
        if layout.flags & Layout::GATEWAY == 0 {
            return None;
        }
        let address = Ipv6Addr::from(layout.gateway);
        let gateway = if layout.flags & Layout::IPV4 == 0 {
            IpAddr::V6(address)
        } else {
            IpAddr::V4(address.to_ipv4_mapped()?)
        };
        let exit = Self::new(gateway)?;
        if layout.flags & Layout::UDP == 0 {
            return Some(exit);
        }
        let header = layout.header.get(..usize::from(layout.header_len))?;
        Some(exit.with_udp(Udp {
            destination_port: NonZeroU16::new(u16::from_be_bytes(layout.destination_port))?,
            source_port: NonZeroU16::new(u16::from_be_bytes(layout.source_port)),
            header: Header::new(header)?,
        }))
    }

    /// Value of `ENCAP_GW`.
    pub(crate) fn gateway_value(gateway: IpAddr) -> Vec<u8> {
        match gateway {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }

    /// Of that value; `None` for one that is no exit's.
    pub(crate) fn gateway_of(value: &[u8]) -> Option<IpAddr> {
        let octets: Result<[u8; 4], _> = value.try_into();
        let gateway = match octets {
            Ok(octets) => IpAddr::V4(Ipv4Addr::from(octets)),
            Err(_) => {
                let octets: [u8; 16] = value.try_into().ok()?;
                IpAddr::V6(Ipv6Addr::from(octets))
            }
        };
        Some(gateway)
    }
}

impl Udp {
    /// To `destination_port`, from a port of the flow's hash, without a custom header.
    #[must_use]
    pub fn new(destination_port: NonZeroU16) -> Self {
        Self {
            destination_port,
            source_port: None,
            header: Header::default(),
        }
    }

    /// Value of `ENCAP_UDP`.
    pub(crate) fn to_value(self) -> Vec<u8> {
        let source_port = self.source_port.map_or(0, NonZeroU16::get);
        let mut value = source_port.to_be_bytes().to_vec();
        value.extend(self.destination_port.get().to_be_bytes());
        value.extend(self.header.as_bytes());
        value
    }

    /// Of that value; `None` for one that is none.
    pub(crate) fn from_value(value: &[u8]) -> Option<Self> {
        let [s0, s1, d0, d1, header @ ..] = value else {
            return None;
        };
        Some(Self {
            destination_port: NonZeroU16::new(u16::from_be_bytes([*d0, *d1]))?,
            source_port: NonZeroU16::new(u16::from_be_bytes([*s0, *s1])),
            header: Header::new(header)?,
        })
    }
}

impl Header {
    /// `None` for more than 32 bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut header = Self::default();
        header.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        header.length = u8::try_from(bytes.len()).ok()?;
        Some(header)
    }

    /// As on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or(&[])
    }

    fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected 1 to 32 bytes in hexadecimal";
        if text.is_empty() || !text.len().is_multiple_of(2) || text.len() > 2 * MAX_HEADER_LEN {
            return Err(format!(
                "header: {expected}, found {} digits",
                text.chars().count()
            ));
        }
        if let Some(strange) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(format!("header: {expected}, found `{strange}`"));
        }
        let bytes: Option<Vec<u8>> = (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
            .collect();
        bytes
            .and_then(|bytes| Self::new(&bytes))
            .ok_or_else(|| format!("header: {expected}"))
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Header({self})")
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.gateway)?;
        let Some(udp) = self.udp else { return Ok(()) };
        write!(f, "/udp:{}", udp.destination_port)?;
        if !udp.header.as_bytes().is_empty() {
            write!(f, ",header={}", udp.header)?;
        }
        match udp.source_port {
            Some(port) => write!(f, ",source-port={port}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Exit {
    type Err = ParseExitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|reason| ParseExitError {
            text: text.to_owned(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<Exit, String> {
    let (address, rest) = match text.split_once('/') {
        Some((address, rest)) => (address, Some(rest)),
        None => (text, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| format!("expected an IPv6 or IPv4 address, found `{address}`"))?;
    let exit = Exit::new(address).ok_or_else(|| {
        format!("{address} cannot be an exit: expected a unicast address, not IPv4-mapped")
    })?;
    let Some(rest) = rest else { return Ok(exit) };
    let mut options = rest.split(',');
    let ports = options
        .next()
        .and_then(|first| first.strip_prefix("udp:"))
        .ok_or_else(|| format!("expected `udp:PORT` behind the slash, found `{rest}`"))?;
    let mut udp = Udp::new(port("udp", ports)?);
    let mut seen = Vec::new();
    for option in options {
        let (name, value) = option.split_once('=').ok_or_else(|| {
            format!("expected `header=HEX` or `source-port=PORT`, found `{option}`")
        })?;
        if seen.contains(&name) {
            return Err(format!("`{name}` stands there twice"));
        }
        seen.push(name);
        match name {
            "header" => udp.header = Header::parse(value)?,
            "source-port" => udp.source_port = Some(port("source-port", value)?),
            _ => {
                return Err(format!(
                    "expected `header` or `source-port`, found `{name}`"
                ));
            }
        }
    }
    Ok(exit.with_udp(udp))
}

fn port(name: &str, text: &str) -> Result<NonZeroU16, String> {
    // FromStr of integers takes a sign, which no one writes in a port.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| format!("{name}: expected a port from 1 to 65535, found `{text}`"))
}

//! What stands as text in policies: prefixes of gateways, ranges of ports.

use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A value that stands as text in files and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text<T>(pub(crate) T);

impl<T: FromStr> FromStr for Text<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Gateways: a network, an address being the longest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix(pub(super) IpNet);

/// UDP ports from the first to the second, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ports(pub(super) u16, pub(super) u16);

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse().map_err(|_| {
                format!("prefix `{text}`: expected an address or prefix, such as 2001:db8::/32")
            })?,
        };
        let mapped = Ipv6Net::new_assert(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96);
        if matches!(net, IpNet::V6(net) if mapped.contains(&net)) {
            return Err(format!(
                "prefix `{text}`: expected IPv4 gateways as such, not IPv4-mapped"
            ));
        }
        if net.trunc() != net {
            return Err(format!(
                "prefix `{text}`: expected zero bits behind the prefix, as in {}",
                net.trunc()
            ));
        }
        Ok(Self(net))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse().ok().filter(|port| *port > 0_u16);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first, last)),
            _ => Err(format!(
                "ports `{text}`: expected a port from 1 to 65535, or a range such as 6000-6100"
            )),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(first, last) if first == last => first.fmt(f),
            Self(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl Prefix {
    /// Length in bits and address, IPv4 as IPv4-mapped.
    pub(super) fn mapped(self) -> (u32, [u8; 16]) {
        match self.0 {
            IpNet::V6(net) => (u32::from(net.prefix_len()), net.network().octets()),
            IpNet::V4(net) => (
                96 + u32::from(net.prefix_len()),
                net.network().to_ipv6_mapped().octets(),
            ),
        }
    }

    pub(super) fn of(length: u32, address: [u8; 16]) -> Option<Self> {
        let address = Ipv6Addr::from(address);
        let length = u8::try_from(length).ok()?;
        let net = match address.to_ipv4_mapped() {
            Some(address) if length >= 96 => IpNet::new(address.into(), length - 96),
            _ => IpNet::new(address.into(), length),
        };
        net.ok().map(Self)
    }
}

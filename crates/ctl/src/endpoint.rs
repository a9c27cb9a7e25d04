//! A tunnel that ends on this host, as operators write it, by flags or in a file, and as the map
//! holds it.

use clap::{Args, ValueEnum};
use dynencap_abi::{MAX_HEADER_LEN, TunnelKey, TunnelSpec};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU16,
};

const IPV4: u8 = 4;
const IPV6: u8 = 41;
const UDP: u8 = 17;

/// What names a tunnel: where it ends, and what its outer IP header announces.
#[derive(Clone, Debug, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Name {
    /// Outer destination: an address of this host
    #[arg(long, value_name = "ADDRESS")]
    address: IpAddr,
    /// What follows the outer IP header
    #[arg(long, value_enum)]
    carries: Carries,
    /// UDP destination port
    #[arg(long, value_name = "PORT")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<NonZeroU16>,
}

/// All that an operator says of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Args, Serialize, Deserialize)]
// Without `flatten`, which would lose the lines of errors and the check for unknown fields.
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Flags {
    /// Outer destination: an address of this host
    #[arg(long, value_name = "ADDRESS")]
    address: IpAddr,
    /// What follows the outer IP header
    #[arg(long, value_enum)]
    carries: Carries,
    /// UDP destination port
    #[arg(long, value_name = "PORT")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<NonZeroU16>,
    /// Bytes of custom header behind UDP, 0 to 32 [default: 0]
    #[arg(long, value_name = "BYTES")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header_len: Option<u8>,
    /// The custom header tells its own length
    #[arg(long, value_enum)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
    /// Replies may take this path back
    #[arg(long)]
    #[serde(default)]
    reflect: bool,
    /// A device of the kernel takes the headers off, not dynencap
    #[arg(long)]
    #[serde(default)]
    kernel: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Carries {
    /// An IPv4 packet (protocol 4)
    Ipv4,
    /// An IPv6 packet (protocol 41)
    Ipv6,
    /// UDP, a custom header, and a packet of either version
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Format {
    /// Generic UDP encapsulation, with optional fields and private data
    Gue,
    /// Geneve, with options
    Geneve,
}

/// A tunnel that can be: what [`Flags`] say, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Endpoint(Flags);

impl Name {
    /// The key of the map.
    pub(crate) fn key(&self) -> Result<TunnelKey, String> {
        key(self.address, self.carries, self.port)
    }
}

impl TryFrom<Flags> for Endpoint {
    type Error = String;

    fn try_from(flags: Flags) -> Result<Self, String> {
        key(flags.address, flags.carries, flags.port)?;
        let header = flags.header_len.map(|_| "header-len");
        let format = flags.format.map(|_| "format");
        if let Some(field) = header.or(format)
            && flags.carries != Carries::Udp
        {
            return Err(format!("{field}: expected only with carries = \"udp\""));
        }
        if header.is_some() && format.is_some() {
            return Err(
                "header-len and format: expected one of them, since the header of a format tells \
                 its length"
                    .to_owned(),
            );
        }
        match flags.header_len {
            Some(len) if usize::from(len) > MAX_HEADER_LEN => Err(format!(
                "header-len: expected at most {MAX_HEADER_LEN} bytes, found {len}"
            )),
            _ => Ok(Self(flags)),
        }
    }
}

impl Endpoint {
    /// Key and value of the map.
    pub(crate) fn entry(&self) -> Result<(TunnelKey, TunnelSpec), String> {
        let flags = &self.0;
        let bits = [
            (flags.reflect, TunnelSpec::REFLECT),
            (flags.kernel, TunnelSpec::KERNEL),
        ];
        let spec = TunnelSpec {
            header_len: flags.header_len.unwrap_or(0),
            flags: bits
                .into_iter()
                .filter_map(|(on, flag)| on.then_some(flag))
                .sum(),
            format: match flags.format {
                None => TunnelSpec::FIXED,
                Some(Format::Gue) => TunnelSpec::GUE,
                Some(Format::Geneve) => TunnelSpec::GENEVE,
            },
            reserved: 0,
        };
        Ok((key(flags.address, flags.carries, flags.port)?, spec))
    }

    /// From the map; `None` where another build wrote what this one does not know.
    pub(crate) fn of(key: &TunnelKey, spec: &TunnelSpec) -> Option<Self> {
        let address = Ipv6Addr::from(key.address);
        let format = match spec.format {
            TunnelSpec::FIXED => None,
            TunnelSpec::GUE => Some(Format::Gue),
            TunnelSpec::GENEVE => Some(Format::Geneve),
            _ => return None,
        };
        let carries = match key.protocol {
            IPV4 => Carries::Ipv4,
            IPV6 => Carries::Ipv6,
            UDP => Carries::Udp,
            _ => return None,
        };
        Some(Self(Flags {
            address: address
                .to_ipv4_mapped()
                .map_or(IpAddr::V6(address), IpAddr::V4),
            carries,
            port: NonZeroU16::new(u16::from_be_bytes(key.port)),
            header_len: Some(spec.header_len)
                .filter(|_| carries == Carries::Udp && format.is_none()),
            format,
            reflect: spec.flags & TunnelSpec::REFLECT != 0,
            kernel: spec.flags & TunnelSpec::KERNEL != 0,
        }))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = &self.0;
        write!(f, "{} {}", flags.address, flags.carries)?;
        flags.port.map_or(Ok(()), |port| write!(f, " {port}"))
    }
}

impl fmt::Display for Carries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Udp => "udp",
        })
    }
}

fn key(address: IpAddr, carries: Carries, port: Option<NonZeroU16>) -> Result<TunnelKey, String> {
    let mapped = match address {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            return Err(format!(
                "address {address}: expected IPv4 addresses as such, not IPv4-mapped"
            ));
        }
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => address.to_ipv6_mapped(),
    };
    if address.is_unspecified() || address.is_multicast() {
        return Err(format!(
            "address {address}: expected a unicast address of this host"
        ));
    }
    let (protocol, port) = match (carries, port) {
        (Carries::Udp, Some(port)) => (UDP, port.get()),
        (Carries::Udp, None) => {
            return Err(
                "port: expected the UDP destination port with carries = \"udp\"".to_owned(),
            );
        }
        (_, Some(_)) => return Err("port: expected only with carries = \"udp\"".to_owned()),
        (Carries::Ipv4, None) => (IPV4, 0),
        (Carries::Ipv6, None) => (IPV6, 0),
    };
    Ok(TunnelKey {
        address: mapped.octets(),
        protocol,
        reserved: 0,
        port: port.to_be_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags {
            address: "192.0.2.1".parse().unwrap(),
            carries: Carries::Udp,
            port: NonZeroU16::new(4790),
            header_len: Some(8),
            format: None,
            reflect: true,
            kernel: false,
        }
    }

    #[test]
    fn what_was_written_is_what_is_read() {
        let geneve = Flags {
            address: "2001:db8::1".parse().unwrap(),
            header_len: None,
            format: Some(Format::Geneve),
            kernel: true,
            ..flags()
        };
        let plain = Flags {
            carries: Carries::Ipv6,
            port: None,
            header_len: None,
            ..flags()
        };
        for flags in [flags(), geneve, plain] {
            let endpoint = Endpoint::try_from(flags).unwrap();
            let (key, spec) = endpoint.entry().unwrap();
            assert_eq!(Endpoint::of(&key, &spec), Some(endpoint));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_in_the_words_of_its_field() {
        let refused = |change: fn(&mut Flags)| {
            let mut flags = flags();
            change(&mut flags);
            Endpoint::try_from(flags).unwrap_err()
        };
        assert!(refused(|f| f.port = None).starts_with("port:"));
        assert!(refused(|f| f.carries = Carries::Ipv4).starts_with("port:"));
        let not_udp = refused(|f| (f.carries, f.port) = (Carries::Ipv6, None));
        assert!(not_udp.starts_with("header-len:"));
        assert!(refused(|f| f.header_len = Some(33)).contains("at most 32"));
        assert!(refused(|f| f.format = Some(Format::Gue)).contains("one of them"));
        for address in ["::", "ff02::1", "0.0.0.0", "::ffff:192.0.2.1"] {
            let mut flags = flags();
            flags.address = address.parse().unwrap();
            let error = Endpoint::try_from(flags).unwrap_err();
            assert!(error.starts_with("address "), "{address}: {error}");
        }
    }
}

//! Tunnels of a scenario: where they end, and what is taken off there.

use super::file::{Problem, octets};
use super::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TunnelTable {
    address: IpAddr,
    carries: Carries,
    port: Option<u16>,
    header_len: Option<u8>,
    format: Option<Format>,
    #[serde(default)]
    reflect: bool,
}

/// How long a custom header is: as it says itself.
#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Format {
    Gue,
    Geneve,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Carries {
    Ipv4,
    Ipv6,
    Udp,
}

impl TunnelTable {
    pub(super) fn check(self, at: usize) -> Result<(TunnelKey, TunnelSpec), Problem> {
        let field = |rest: &str| format!("tunnel[{at}].{rest}");
        let (protocol, port) = match (self.carries, self.port) {
            (Carries::Udp, Some(port)) if port != 0 => (17, port),
            (Carries::Udp, _) => {
                return Err((
                    field("port"),
                    "a UDP tunnel needs its port, 1 to 65535".into(),
                ));
            }
            (_, Some(_)) => return Err((field("port"), "only a UDP tunnel has a port".into())),
            (Carries::Ipv4, None) => (4, 0),
            (Carries::Ipv6, None) => (41, 0),
        };
        let header_len = match (self.carries, self.header_len) {
            (Carries::Udp, length) => length.unwrap_or(0),
            (_, None) => 0,
            (_, Some(_)) => {
                return Err((
                    field("header_len"),
                    "only a UDP tunnel has a custom header".into(),
                ));
            }
        };
        if usize::from(header_len) > MAX_HEADER_LEN {
            let problem = format!("{header_len} bytes, expected at most {MAX_HEADER_LEN}");
            return Err((field("header_len"), problem));
        }
        let format = match self.format {
            None => TunnelSpec::FIXED,
            Some(_) if self.carries != Carries::Udp => {
                let problem = "only a UDP tunnel has a custom header";
                return Err((field("format"), problem.into()));
            }
            Some(_) if self.header_len.is_some() => {
                let problem = "such a header says its length itself: no header_len";
                return Err((field("format"), problem.into()));
            }
            Some(Format::Gue) => TunnelSpec::GUE,
            Some(Format::Geneve) => TunnelSpec::GENEVE,
        };
        let (address, _) = octets(self.address);
        Ok((
            TunnelKey {
                address,
                protocol,
                reserved: 0,
                port: port.to_be_bytes(),
            },
            TunnelSpec {
                header_len,
                flags: if self.reflect { TunnelSpec::REFLECT } else { 0 },
                format,
                reserved: 0,
            },
        ))
    }
}

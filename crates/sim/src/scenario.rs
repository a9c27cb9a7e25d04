//! The scenario: which host, which flows get which exit, and when it changes.
//!
//! Read from TOML (unknown keys are errors) into a checked [`Scenario`]; docs/scenario.md is
//! the user's reference. When something applies to a packet is the director's affair.

use dynencap_abi::{
    Config, Exit, MAX_HEADER_LEN, MAX_UPLINK_MTU, MIN_UPLINK_MTU, TunnelKey, TunnelSpec,
};
use ipnet::IpNet;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

mod file;
mod policy;
#[cfg(test)]
mod tests;
mod tunnel;
mod write;

pub use policy::{CgroupId, PolicySpec};

/// Why a scenario is refused.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file could not be read.
    #[error("{path}: cannot read the scenario: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of another type.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: String,
        /// The parser's message with line and column.
        message: String,
    },
    /// A value that makes no sense.
    #[error("{path}: {field}: {problem}")]
    Value {
        /// The file.
        path: String,
        /// The field, as in the file.
        field: String,
        /// What is wrong and what was expected.
        problem: String,
    },
}

/// Whose packets leave through the uplink; the others come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The host of each flow is its initiator.
    Initiator,
    /// The host of each flow is its responder.
    Responder,
    /// Both directions leave, each from a socket of its own with the same exit.
    Both,
}

/// Where super-packets are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Segmentation {
    /// Encapsulated once, cut by the kernel's GSO afterwards.
    GsoAware,
    /// Cut first, each segment encapsulated by itself.
    SegmentFirst,
}

/// The host that every engine plays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSpec {
    /// Configuration of the data path.
    pub config: Config,
    /// Where super-packets are cut.
    pub segmentation: Segmentation,
    /// Tunnels that end here.
    pub tunnels: Vec<(TunnelKey, TunnelSpec)>,
    /// Names of the host's cgroups below its own, which is the first and has no name; each
    /// stands behind those above it.
    pub cgroups: Vec<String>,
    /// Policies, in the order in which they take effect.
    pub policies: Vec<PolicySpec>,
}

impl HostSpec {
    /// The cgroups from the root to this one, under ids that engines without cgroups of their
    /// own may give them.
    #[must_use]
    pub fn cgroup_path(&self, cgroup: CgroupId) -> Vec<u64> {
        const ROOT: u64 = 1;
        let id = |at: usize| ROOT + 1 + at as u64;
        let mut path = vec![ROOT, id(0)];
        if let Some(name) = self.cgroups.get(cgroup.0).filter(|name| !name.is_empty()) {
            let above = |other: &str| {
                name.strip_prefix(other)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            let cgroups = self.cgroups.iter().enumerate().skip(1);
            path.extend(
                cgroups
                    .filter(|(_, other)| above(other))
                    .map(|(at, _)| id(at)),
            );
        }
        path
    }
}

/// Which flows a rule is for, seen from the initiator; what is not said matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowMatch {
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// The initiator's address.
    pub source: Option<IpNet>,
    /// The responder's address.
    pub destination: Option<IpNet>,
    /// The initiator's port.
    pub source_port: Option<u16>,
    /// The responder's port.
    pub destination_port: Option<u16>,
}

/// When a switch takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Before packet n of the trace (1-based, as capture tools number them).
    Packet(u64),
    /// Before the n-th packet that the flow sends (1-based).
    FlowPacket(u64),
    /// So many nanoseconds after the trace's first packet.
    Nanoseconds(u64),
}

/// A change of exit in mid-connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Switch {
    /// When.
    pub at: At,
    /// To what; [`Exit::NONE`] clears, [`REFLECTING`] leaves it to what comes in.
    pub exit: Exit,
}

/// The exit of flows whose sockets reflect: none of their own, [`ENCAP_REFLECT`] instead.
///
/// [`ENCAP_REFLECT`]: dynencap_abi::option::ENCAP_REFLECT
pub const REFLECTING: Exit = Exit {
    flags: Exit::REFLECTED,
    ..Exit::NONE
};

/// What a flow gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// For which flows.
    pub matches: FlowMatch,
    /// The cgroup of their sockets and of who sets their options.
    pub cgroup: CgroupId,
    /// The exit at the start; [`Exit::NONE`] for none, or [`REFLECTING`].
    pub exit: Exit,
    /// Changes in order.
    pub switches: Vec<Switch>,
}

/// How exits are given out.
#[derive(Clone, Debug, PartialEq)]
pub enum Assignment {
    /// Every flow gets an exit that its hash picks: [`default_exit`].
    EveryFlow,
    /// The first rule that matches; none: no exit.
    Rules(Vec<Rule>),
}

/// A checked scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The host.
    pub host: HostSpec,
    /// Whose packets leave.
    pub side: Side,
    /// Payload bytes per segment, in place of what SYN and MTU give.
    pub gso_size: Option<u16>,
    /// Exits.
    pub assignment: Assignment,
}

/// The outer source for IPv4 packets where a scenario names none.
pub const DEFAULT_SOURCE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xd, 0, 0, 0, 0, 0, 1);
/// Destination port of the default UDP exits: GUE's (IANA 6080).
pub const DEFAULT_UDP_PORT: u16 = 6080;

impl Default for Scenario {
    fn default() -> Self {
        Self {
            host: HostSpec {
                config: Config {
                    source: DEFAULT_SOURCE.octets(),
                    uplink_mtu: 1500,
                    flags: Config::ALLOW_PACKET_SOCKETS,
                    ..Config::default()
                },
                segmentation: Segmentation::GsoAware,
                tunnels: Vec::new(),
                cgroups: vec![String::new()],
                policies: Vec::new(),
            },
            side: Side::Initiator,
            gso_size: None,
            assignment: Assignment::EveryFlow,
        }
    }
}

impl Scenario {
    /// Reads and checks a scenario file.
    ///
    /// # Errors
    /// See [`ScenarioError`]; each names the file and the field.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ScenarioError::Read {
            path: name.clone(),
            source,
        })?;
        Self::parse(&name, &text)
    }

    /// Checks a scenario's text; `name` stands in errors.
    ///
    /// # Errors
    /// As [`Scenario::read`].
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let file: file::ScenarioFile = toml::from_str(text).map_err(|e| ScenarioError::Syntax {
            path: name.to_owned(),
            message: e.to_string().trim_end().to_owned(),
        })?;
        file.check()
            .map_err(|(field, problem)| ScenarioError::Value {
                path: name.to_owned(),
                field,
                problem,
            })
    }

    /// Whether anything in it wants reflection.
    fn reflects(&self) -> bool {
        let mut tunnels = self.host.tunnels.iter();
        let mut policies = self.host.policies.iter();
        let exits = match &self.assignment {
            Assignment::EveryFlow => Vec::new(),
            Assignment::Rules(rules) => rules
                .iter()
                .flat_map(|rule| {
                    let switched = rule.switches.iter().map(|switch| switch.exit);
                    std::iter::once(rule.exit).chain(switched)
                })
                .collect(),
        };
        tunnels.any(|(_, spec)| spec.flags & TunnelSpec::REFLECT != 0)
            || policies.any(PolicySpec::reflects)
            || exits.contains(&REFLECTING)
    }

    /// The scenario as a file that [`Scenario::parse`] reads back.
    #[must_use]
    pub fn to_toml(&self) -> String {
        write::write(self)
    }
}

/// The exit that a flow of this hash gets without a scenario: one of eight gateways, IP-in-IP
/// for an even hash, UDP with an 8-byte custom header for an odd one.
#[must_use]
pub fn default_exit(hash: u64) -> Exit {
    let gateway = Ipv6Addr::new(0xfd00, 0xe, 0, 0, 0, 0, 0, 1 + (hash >> 1 & 7) as u16);
    let mut exit = Exit {
        gateway: gateway.octets(),
        flags: Exit::GATEWAY,
        ..Exit::NONE
    };
    if hash & 1 == 1 {
        exit.flags |= Exit::UDP;
        exit.destination_port = DEFAULT_UDP_PORT.to_be_bytes();
        exit.header_len = 8;
        for (byte, value) in exit.header.iter_mut().zip(*b"dynencap") {
            *byte = value;
        }
    }
    exit
}

/// Bytes that an exit's headers add; 0 without a gateway. Needed to tell which captured
/// packets were super-packets; what engines emit is measured, not computed from this.
#[must_use]
pub fn overhead(exit: &Exit) -> usize {
    if exit.flags & Exit::GATEWAY == 0 {
        return 0;
    }
    let ip = match exit.flags & Exit::IPV4 {
        0 => dynencap_abi::IPV6_HEADER_LEN,
        _ => dynencap_abi::IPV4_HEADER_LEN,
    };
    match exit.flags & Exit::UDP {
        0 => ip,
        _ => ip + dynencap_abi::UDP_HEADER_LEN + usize::from(exit.header_len),
    }
}

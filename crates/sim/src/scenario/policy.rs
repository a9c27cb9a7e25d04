//! Policies of a scenario: cgroups below the host's own, what each may do, and since when.

use super::file::{Prefix, Problem, Seconds};
use super::*;
use dynencap_abi::option::{REFLECT_DSCP, REFLECT_MARK, REFLECT_PATH};
use dynencap_abi::{
    POLICY_EXIT_CHOOSE, POLICY_EXIT_FOLLOW, POLICY_EXIT_REFLECT, Policy, PolicyExitKey, PortRange,
};
use std::net::Ipv4Addr;

/// A place in [`HostSpec::cgroups`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CgroupId(pub usize);

/// What a cgroup may do from some moment on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySpec {
    /// Whose policy it is.
    pub cgroup: CgroupId,
    /// The policy without its id, which the engines give; `None` takes the one there is away.
    pub policy: Option<Policy>,
    /// Gateways by prefix, each with its rights, bits `POLICY_EXIT_…`.
    pub exits: Vec<(IpNet, u32)>,
    /// Since when; `None`: from the start.
    pub at: Option<At>,
}

impl PolicySpec {
    /// The keys of its prefixes under the policy's id, each with the value that it has.
    pub fn keys(&self, policy: u32) -> impl Iterator<Item = (PolicyExitKey, u32)> {
        self.exits.iter().map(move |(net, rights)| {
            let (address, skipped) = match net.network() {
                IpAddr::V4(address) => (address.to_ipv6_mapped(), 96),
                IpAddr::V6(address) => (address, 0),
            };
            let key = PolicyExitKey {
                prefix_len: 32 + skipped + u32::from(net.prefix_len()),
                policy,
                address: address.octets(),
            };
            (key, *rights)
        })
    }

    /// Whether it says anything of reflection.
    pub(super) fn reflects(&self) -> bool {
        let of_exits = self.exits.iter().any(|(_, rights)| rights & FOLLOW != 0);
        of_exits || self.policy.is_some_and(|policy| policy.reflect != 0)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyTable {
    #[serde(default)]
    cgroup: String,
    #[serde(default)]
    allow: Vec<Prefix>,
    #[serde(default)]
    deny: Vec<Prefix>,
    #[serde(default)]
    reflect: Vec<Prefix>,
    #[serde(default)]
    follow: Vec<Prefix>,
    #[serde(default)]
    reflect_default: Vec<What>,
    #[serde(default)]
    ports: Vec<Ports>,
    #[serde(default)]
    custom_headers: bool,
    #[serde(default)]
    required: bool,
    source: Option<Ipv6Addr>,
    source4: Option<Ipv4Addr>,
    #[serde(default)]
    remove: bool,
    at_packet: Option<u64>,
    at_seconds: Option<Seconds>,
}

/// What a cgroup's sockets reflect unless they say otherwise.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum What {
    Path,
    Dscp,
    Mark,
}

impl What {
    const ALL: [(&str, u32); 3] = [
        ("path", REFLECT_PATH),
        ("dscp", REFLECT_DSCP),
        ("mark", REFLECT_MARK),
    ];

    fn bit(self) -> u32 {
        match self {
            Self::Path => REFLECT_PATH,
            Self::Dscp => REFLECT_DSCP,
            Self::Mark => REFLECT_MARK,
        }
    }
}

/// Who is followed is answered as well.
const FOLLOW: u32 = POLICY_EXIT_REFLECT | POLICY_EXIT_FOLLOW;

#[derive(Deserialize)]
#[serde(untagged, expecting = "a port, or a range such as \"6080-6090\"")]
enum Ports {
    One(u16),
    Range(String),
}

impl Ports {
    fn range(&self) -> Result<PortRange, String> {
        let (first, last) = match self {
            Self::One(port) => (*port, *port),
            Self::Range(text) => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                let port = |text: &str| {
                    let wrong = || format!("{text:?} is no port, expected 1 to 65535");
                    text.trim().parse::<u16>().map_err(|_| wrong())
                };
                (port(first)?, port(last)?)
            }
        };
        if first == 0 || last < first {
            return Err(format!(
                "{first}-{last} is no range of ports, expected 1 to 65535"
            ));
        }
        Ok(PortRange { first, last })
    }
}

impl PolicyTable {
    pub(super) fn check(self, at: usize, cgroups: &mut Vec<String>) -> Result<PolicySpec, Problem> {
        let field = |rest: &str| format!("policy[{at}].{rest}");
        let cgroup = cgroup_named(&self.cgroup, cgroups).map_err(|p| (field("cgroup"), p))?;
        let when = match (self.at_packet, self.at_seconds) {
            (None, None) => None,
            (Some(0), None) => {
                return Err((field("at_packet"), "packets are numbered from 1".into()));
            }
            (Some(packet), None) => Some(At::Packet(packet)),
            (None, Some(seconds)) => {
                let time = seconds
                    .nanoseconds()
                    .map_err(|p| (field("at_seconds"), p))?;
                Some(At::Nanoseconds(time))
            }
            _ => {
                let problem = "expected at most one of at_packet, at_seconds";
                return Err((field("at_packet"), problem.into()));
            }
        };
        if self.ports.len() > Policy::MAX_PORTS {
            let problem = format!(
                "{} ranges, expected at most {}",
                self.ports.len(),
                Policy::MAX_PORTS
            );
            return Err((field("ports"), problem));
        }
        let mut ports = [PortRange::default(); Policy::MAX_PORTS];
        for (place, given) in ports.iter_mut().zip(&self.ports) {
            *place = given.range().map_err(|problem| (field("ports"), problem))?;
        }
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        let policy = Policy {
            source: self.source.map_or([0; 16], |source| source.octets()),
            source4: self.source4.map_or([0; 4], |source| source.octets()),
            id: 0,
            flags: flag(self.custom_headers, Policy::CUSTOM_HEADERS)
                | flag(self.required, Policy::REQUIRED),
            reserve: 0,
            port_count: self.ports.len() as u32,
            reflect: self
                .reflect_default
                .iter()
                .fold(0, |bits, what| bits | what.bit()),
            ports,
            default_exit: Exit::NONE,
        };
        let mut exits: Vec<(IpNet, u32)> = Vec::new();
        for (key, prefixes, rights) in [
            ("allow", self.allow, POLICY_EXIT_CHOOSE),
            ("deny", self.deny, 0),
            ("reflect", self.reflect, POLICY_EXIT_REFLECT),
            ("follow", self.follow, FOLLOW),
        ] {
            for prefix in prefixes {
                let net = prefix.net().trunc();
                match exits.iter_mut().find(|(known, _)| *known == net) {
                    None => exits.push((net, rights)),
                    // Rights of two kinds add up; a denial, or the same again, does not.
                    Some((_, known)) if *known != 0 && rights != 0 && *known & rights == 0 => {
                        *known |= rights;
                    }
                    Some(_) => return Err((field(key), format!("{net} is named twice"))),
                }
            }
        }
        let allows = policy.port_count > 0 || policy.flags != 0 || policy.reflect != 0;
        if self.remove && (allows || !exits.is_empty()) {
            return Err((field("remove"), "what is removed allows nothing".into()));
        }
        Ok(PolicySpec {
            cgroup,
            policy: (!self.remove).then_some(policy),
            exits,
            at: when,
        })
    }
}

/// The place of a cgroup, which is added with those above it if it is new.
pub(super) fn cgroup_named(name: &str, cgroups: &mut Vec<String>) -> Result<CgroupId, String> {
    if name.is_empty() {
        return Ok(CgroupId(0));
    }
    let part = |part: &str| {
        let plain = part
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        plain && !part.is_empty()
    };
    if !name.split('/').all(part) {
        return Err(format!(
            "{name:?} is no cgroup below the host's own, expected names of letters, digits, - and _, \
             joined by /"
        ));
    }
    if name.split('/').count() > MAX_DEPTH {
        return Err(format!("{name:?} is deeper than {MAX_DEPTH} levels"));
    }
    let mut at = 0;
    let ends = name.match_indices('/').map(|(end, _)| end);
    for end in ends.chain([name.len()]) {
        let above = name.get(..end).unwrap_or(name);
        at = cgroups
            .iter()
            .position(|known| known == above)
            .unwrap_or_else(|| {
                cgroups.push(above.to_owned());
                cgroups.len() - 1
            });
    }
    Ok(CgroupId(at))
}

/// Levels below the host's own cgroup, so that all are among those that are searched.
const MAX_DEPTH: usize = 8;

/// Writes the policies so that they read back the same.
pub(super) fn write(host: &HostSpec, out: &mut String) {
    use std::fmt::Write;
    for spec in &host.policies {
        let cgroup = host.cgroups.get(spec.cgroup.0).map_or("", String::as_str);
        let _ = write!(out, "\n[[policy]]\ncgroup = \"{cgroup}\"\n");
        match spec.at {
            Some(At::Packet(n) | At::FlowPacket(n)) => {
                let _ = writeln!(out, "at_packet = {n}");
            }
            Some(At::Nanoseconds(n)) => {
                let _ = writeln!(out, "at_seconds = {:?}", n as f64 / 1e9);
            }
            None => {}
        }
        let Some(policy) = &spec.policy else {
            let _ = writeln!(out, "remove = true");
            continue;
        };
        type Is = fn(u32) -> bool;
        let kinds: [(&str, Is); 4] = [
            ("allow", |rights| rights & POLICY_EXIT_CHOOSE != 0),
            ("deny", |rights| rights == 0),
            ("reflect", |rights| rights & FOLLOW == POLICY_EXIT_REFLECT),
            ("follow", |rights| rights & FOLLOW == FOLLOW),
        ];
        for (key, is_such) in kinds {
            let nets: Vec<String> = spec
                .exits
                .iter()
                .filter(|(_, rights)| is_such(*rights))
                .map(|(net, _)| format!("\"{net}\""))
                .collect();
            if !nets.is_empty() {
                let _ = writeln!(out, "{key} = [{}]", nets.join(", "));
            }
        }
        let ports: Vec<String> = policy
            .ports
            .iter()
            .take(policy.port_count as usize)
            .map(|range| format!("\"{}-{}\"", range.first, range.last))
            .collect();
        if !ports.is_empty() {
            let _ = writeln!(out, "ports = [{}]", ports.join(", "));
        }
        for (key, flag) in [
            ("custom_headers", Policy::CUSTOM_HEADERS),
            ("required", Policy::REQUIRED),
        ] {
            if policy.flags & flag != 0 {
                let _ = writeln!(out, "{key} = true");
            }
        }
        let reflected: Vec<String> = What::ALL
            .into_iter()
            .filter(|(_, bit)| policy.reflect & bit != 0)
            .map(|(name, _)| format!("\"{name}\""))
            .collect();
        if !reflected.is_empty() {
            let _ = writeln!(out, "reflect_default = [{}]", reflected.join(", "));
        }
        if policy.source != [0; 16] {
            let _ = writeln!(out, "source = \"{}\"", Ipv6Addr::from(policy.source));
        }
        if policy.source4 != [0; 4] {
            let _ = writeln!(out, "source4 = \"{}\"", Ipv4Addr::from(policy.source4));
        }
    }
}

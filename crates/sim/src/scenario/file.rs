//! The scenario's file format: TOML tables as they are written, checked field by field.
//!
//! Every problem is reported as (field as in the file, what is wrong and what was expected).

use super::policy::{PolicyTable, cgroup_named};
use super::tunnel::TunnelTable;
use super::*;
use std::net::Ipv4Addr;

pub(super) type Problem = (String, String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScenarioFile {
    #[serde(default)]
    host: HostTable,
    #[serde(default)]
    replay: ReplayTable,
    #[serde(default)]
    exit: BTreeMap<String, ExitTable>,
    #[serde(default)]
    flow: Vec<FlowTable>,
    #[serde(default)]
    tunnel: Vec<TunnelTable>,
    #[serde(default)]
    policy: Vec<PolicyTable>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct HostTable {
    uplink_mtu: Option<u32>,
    source: Option<Ipv6Addr>,
    source4: Option<Ipv4Addr>,
    hop_limit: Option<u8>,
    #[serde(default)]
    udp_checksum: bool,
    #[serde(default)]
    tell_too_big: bool,
    #[serde(default)]
    deny_by_default: bool,
    segmentation: Option<Segmentation>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ReplayTable {
    side: Option<Side>,
    gso_size: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExitTable {
    gateway: IpAddr,
    udp: Option<UdpTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UdpTable {
    #[serde(default)]
    source_port: u16,
    destination_port: u16,
    #[serde(default)]
    header: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlowTable {
    #[serde(rename = "match", default)]
    matches: MatchTable,
    #[serde(default)]
    cgroup: String,
    exit: String,
    #[serde(default)]
    switch: Vec<SwitchTable>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct MatchTable {
    protocol: Option<ProtocolName>,
    source: Option<Prefix>,
    destination: Option<Prefix>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a protocol: \"tcp\", \"udp\", \"icmp\", \"icmpv6\" or a number 0-255"
)]
enum ProtocolName {
    Number(u8),
    Name(KnownProtocol),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum KnownProtocol {
    Tcp,
    Udp,
    Icmp,
    Icmpv6,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "an IP address or a prefix such as \"2001:db8::/32\""
)]
pub(super) enum Prefix {
    Net(IpNet),
    Address(IpAddr),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchTable {
    at_packet: Option<u64>,
    at_flow_packet: Option<u64>,
    at_seconds: Option<Seconds>,
    exit: String,
}

/// Seconds after the trace's first packet.
#[derive(Deserialize, Clone, Copy)]
pub(super) struct Seconds(f64);

impl Seconds {
    pub(super) fn nanoseconds(self) -> Result<u64, String> {
        if (0.0..1e9).contains(&self.0) {
            return Ok((self.0 * 1e9) as u64);
        }
        Err(format!(
            "at_seconds = {} is no time after the trace's first packet",
            self.0
        ))
    }
}

impl ScenarioFile {
    pub(super) fn check(self) -> Result<Scenario, Problem> {
        let mut scenario = Scenario::default();
        if let Some(mtu) = self.host.uplink_mtu {
            if !(MIN_UPLINK_MTU..=MAX_UPLINK_MTU).contains(&mtu) {
                return Err((
                    "host.uplink_mtu".into(),
                    format!("{mtu} is out of range, expected {MIN_UPLINK_MTU} to {MAX_UPLINK_MTU}"),
                ));
            }
            scenario.host.config.uplink_mtu = mtu;
        }
        self.host.configure(&mut scenario.host.config);
        if let Some(segmentation) = self.host.segmentation {
            scenario.host.segmentation = segmentation;
        }
        if let Some(side) = self.replay.side {
            scenario.side = side;
        }
        if self.replay.gso_size == Some(0) {
            return Err((
                "replay.gso_size".into(),
                "0 is no size, expected 1 to 65535".into(),
            ));
        }
        scenario.gso_size = self.replay.gso_size;

        let mut exits = BTreeMap::from([
            ("none".to_owned(), Exit::NONE),
            ("reflect".to_owned(), REFLECTING),
        ]);
        for (name, table) in self.exit {
            let exit = table.check(&name)?;
            if exits.insert(name.clone(), exit).is_some() {
                let meaning = if name == "none" {
                    "this name means \"no exit\""
                } else {
                    "this name means the path by which packets came"
                };
                return Err((format!("exit.{name}"), meaning.into()));
            }
        }
        for (at, table) in self.tunnel.into_iter().enumerate() {
            scenario.host.tunnels.push(table.check(at)?);
        }
        let cgroups = &mut scenario.host.cgroups;
        for (at, table) in self.policy.into_iter().enumerate() {
            scenario.host.policies.push(table.check(at, cgroups)?);
        }
        if !self.flow.is_empty() {
            let rules = self.flow.into_iter().enumerate();
            let rules = rules
                .map(|(at, table)| table.check(at, &exits, cgroups))
                .collect::<Result<_, _>>()?;
            scenario.assignment = Assignment::Rules(rules);
        }
        if scenario.reflects() {
            scenario.host.config.flags |= Config::REFLECT;
        }
        Ok(scenario)
    }
}

impl HostTable {
    /// What any value is good for.
    fn configure(&self, config: &mut Config) {
        if let Some(source) = self.source {
            config.source = source.octets();
        }
        if let Some(source) = self.source4 {
            config.source4 = source.octets();
        }
        config.hop_limit = self.hop_limit.map_or(0, u32::from);
        for (on, flag) in [
            (self.udp_checksum, Config::UDP_CHECKSUM),
            (self.tell_too_big, Config::TELL_TOO_BIG),
            (self.deny_by_default, Config::DENY_BY_DEFAULT),
        ] {
            if on {
                config.flags |= flag;
            }
        }
    }
}

/// An address as maps hold it, and whether it is an IPv4 one.
pub(super) fn octets(address: IpAddr) -> ([u8; 16], bool) {
    match address {
        IpAddr::V4(address) => (address.to_ipv6_mapped().octets(), true),
        IpAddr::V6(address) => (address.octets(), false),
    }
}

impl ExitTable {
    fn check(self, name: &str) -> Result<Exit, Problem> {
        let field = |rest: &str| format!("exit.{name}.{rest}");
        let odd = match self.gateway {
            IpAddr::V4(address) => address.is_broadcast(),
            IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
        };
        if odd || self.gateway.is_unspecified() || self.gateway.is_multicast() {
            return Err((
                field("gateway"),
                format!(
                    "{} cannot be an exit, expected a unicast address",
                    self.gateway
                ),
            ));
        }
        let (gateway, is_ipv4) = octets(self.gateway);
        let mut exit = Exit {
            gateway,
            flags: Exit::GATEWAY | if is_ipv4 { Exit::IPV4 } else { 0 },
            ..Exit::NONE
        };
        let Some(udp) = self.udp else { return Ok(exit) };
        if udp.destination_port == 0 {
            return Err((field("udp.destination_port"), "0 is no port".into()));
        }
        let header = parse_hex(&udp.header).map_err(|problem| (field("udp.header"), problem))?;
        if header.len() > MAX_HEADER_LEN {
            return Err((
                field("udp.header"),
                format!("{} bytes, expected at most {MAX_HEADER_LEN}", header.len()),
            ));
        }
        exit.flags |= Exit::UDP;
        exit.source_port = udp.source_port.to_be_bytes();
        exit.destination_port = udp.destination_port.to_be_bytes();
        exit.header_len = header.len() as u8;
        for (byte, value) in exit.header.iter_mut().zip(header) {
            *byte = value;
        }
        Ok(exit)
    }
}

fn parse_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !matches!(c, ' ' | ':' | '_'))
        .map(|c| c.to_digit(16).map(|d| d as u8).ok_or(c))
        .collect::<Result<_, _>>()
        .map_err(|c| format!("{c:?} is no hexadecimal digit"))?;
    if !digits.len().is_multiple_of(2) {
        return Err("an odd number of hexadecimal digits, expected pairs".into());
    }
    Ok(digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |byte, d| byte << 4 | d))
        .collect())
}

fn exit_named(field: String, name: &str, exits: &BTreeMap<String, Exit>) -> Result<Exit, Problem> {
    exits.get(name).copied().ok_or_else(|| {
        let known: Vec<&str> = exits.keys().map(String::as_str).collect();
        (
            field,
            format!(
                "no exit is named {name:?}, expected one of {}",
                known.join(", ")
            ),
        )
    })
}

impl FlowTable {
    fn check(
        self,
        at: usize,
        exits: &BTreeMap<String, Exit>,
        cgroups: &mut Vec<String>,
    ) -> Result<Rule, Problem> {
        let field = |rest: &str| format!("flow[{at}].{rest}");
        let cgroup = cgroup_named(&self.cgroup, cgroups).map_err(|p| (field("cgroup"), p))?;
        let exit = exit_named(field("exit"), &self.exit, exits)?;
        let mut switches = Vec::new();
        for (nth, switch) in self.switch.iter().enumerate() {
            let field = |rest: &str| format!("flow[{at}].switch[{nth}]{rest}");
            let when = switch.when().map_err(|problem| (field(""), problem))?;
            switches.push(Switch {
                at: when,
                exit: exit_named(field(".exit"), &switch.exit, exits)?,
            });
        }
        let matches = FlowMatch {
            protocol: self.matches.protocol.map(|protocol| match protocol {
                ProtocolName::Number(number) => number,
                ProtocolName::Name(KnownProtocol::Tcp) => 6,
                ProtocolName::Name(KnownProtocol::Udp) => 17,
                ProtocolName::Name(KnownProtocol::Icmp) => 1,
                ProtocolName::Name(KnownProtocol::Icmpv6) => 58,
            }),
            source: self.matches.source.map(Prefix::net),
            destination: self.matches.destination.map(Prefix::net),
            source_port: self.matches.source_port,
            destination_port: self.matches.destination_port,
        };
        Ok(Rule {
            matches,
            cgroup,
            exit,
            switches,
        })
    }
}

impl Prefix {
    pub(super) fn net(self) -> IpNet {
        match self {
            Self::Net(net) => net,
            Self::Address(address) => IpNet::from(address),
        }
    }
}

impl SwitchTable {
    fn when(&self) -> Result<At, String> {
        match (self.at_packet, self.at_flow_packet, self.at_seconds) {
            (Some(0), None, None) | (None, Some(0), None) => {
                Err("packets are numbered from 1".into())
            }
            (Some(packet), None, None) => Ok(At::Packet(packet)),
            (None, Some(packet), None) => Ok(At::FlowPacket(packet)),
            (None, None, Some(seconds)) => seconds.nanoseconds().map(At::Nanoseconds),
            _ => Err("expected exactly one of at_packet, at_flow_packet, at_seconds".into()),
        }
    }
}

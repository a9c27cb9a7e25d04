//! The scenario's file format: TOML tables as they are written, checked field by field.
//!
//! Every problem is reported as (field as in the file, what is wrong and what was expected).

use super::*;

type Problem = (String, String);

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
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct HostTable {
    uplink_mtu: Option<u32>,
    source: Option<Ipv6Addr>,
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
    gateway: Ipv6Addr,
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
enum Prefix {
    Net(IpNet),
    Address(IpAddr),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchTable {
    at_packet: Option<u64>,
    at_flow_packet: Option<u64>,
    at_seconds: Option<f64>,
    exit: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TunnelTable {
    address: Ipv6Addr,
    carries: Carries,
    port: Option<u16>,
    header_len: Option<u8>,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Carries {
    Ipv4,
    Ipv6,
    Udp,
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
        if let Some(source) = self.host.source {
            scenario.host.config.source = source.octets();
        }
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

        let mut exits = BTreeMap::from([("none".to_owned(), Exit::NONE)]);
        for (name, table) in self.exit {
            let exit = table.check(&name)?;
            if exits.insert(name.clone(), exit).is_some() {
                return Err((format!("exit.{name}"), "this name means \"no exit\"".into()));
            }
        }
        for (at, table) in self.tunnel.into_iter().enumerate() {
            scenario.host.tunnels.push(table.check(at)?);
        }
        if !self.flow.is_empty() {
            let rules = self.flow.into_iter().enumerate();
            let rules = rules
                .map(|(at, table)| table.check(at, &exits))
                .collect::<Result<_, _>>()?;
            scenario.assignment = Assignment::Rules(rules);
        }
        Ok(scenario)
    }
}

impl ExitTable {
    fn check(self, name: &str) -> Result<Exit, Problem> {
        let field = |rest: &str| format!("exit.{name}.{rest}");
        let gateway = self.gateway;
        if gateway.is_unspecified() || gateway.is_multicast() || gateway.to_ipv4_mapped().is_some()
        {
            return Err((
                field("gateway"),
                format!("{gateway} cannot be an exit, expected a unicast IPv6 address"),
            ));
        }
        let mut exit = Exit {
            gateway: self.gateway.octets(),
            flags: Exit::GATEWAY,
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
    fn check(self, at: usize, exits: &BTreeMap<String, Exit>) -> Result<Rule, Problem> {
        let field = |rest: &str| format!("flow[{at}].{rest}");
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
            exit,
            switches,
        })
    }
}

impl Prefix {
    fn net(self) -> IpNet {
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
            (None, None, Some(seconds)) if (0.0..1e9).contains(&seconds) => {
                Ok(At::Nanoseconds((seconds * 1e9) as u64))
            }
            (None, None, Some(seconds)) => Err(format!(
                "at_seconds = {seconds} is no time after the trace's first packet"
            )),
            _ => Err("expected exactly one of at_packet, at_flow_packet, at_seconds".into()),
        }
    }
}

impl TunnelTable {
    fn check(self, at: usize) -> Result<(TunnelKey, TunnelSpec), Problem> {
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
        let address = self.address.octets();
        Ok((
            TunnelKey {
                address,
                protocol,
                reserved: 0,
                port: port.to_be_bytes(),
            },
            TunnelSpec {
                header_len,
                reserved: [0; 3],
            },
        ))
    }
}

/// Writes a scenario so that [`Scenario::parse`] reads the same one back.
pub(super) fn write(scenario: &Scenario) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let host = &scenario.host;
    let side = match scenario.side {
        Side::Initiator => "initiator",
        Side::Responder => "responder",
        Side::Both => "both",
    };
    let segmentation = match host.segmentation {
        Segmentation::GsoAware => "gso-aware",
        Segmentation::SegmentFirst => "segment-first",
    };
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "[host]\nuplink_mtu = {}\nsource = \"{}\"\nsegmentation = \"{segmentation}\"\n\n\
         [replay]\nside = \"{side}\"\n",
        host.config.uplink_mtu,
        Ipv6Addr::from(host.config.source),
    );
    if let Some(size) = scenario.gso_size {
        let _ = writeln!(out, "gso_size = {size}");
    }
    for (key, spec) in &host.tunnels {
        let address = Ipv6Addr::from(key.address);
        let _ = write!(out, "\n[[tunnel]]\naddress = \"{address}\"\n");
        let _ = match key.protocol {
            4 => writeln!(out, "carries = \"ipv4\""),
            41 => writeln!(out, "carries = \"ipv6\""),
            _ => writeln!(
                out,
                "carries = \"udp\"\nport = {}\nheader_len = {}",
                u16::from_be_bytes(key.port),
                spec.header_len
            ),
        };
    }
    let Assignment::Rules(rules) = &scenario.assignment else {
        return out;
    };
    let mut exits: Vec<Exit> = Vec::new();
    for exit in rules
        .iter()
        .flat_map(|r| std::iter::once(r.exit).chain(r.switches.iter().map(|switch| switch.exit)))
    {
        if exit != Exit::NONE && !exits.contains(&exit) {
            exits.push(exit);
        }
    }
    let name = |exit: &Exit| match exits.iter().position(|known| known == exit) {
        Some(at) => format!("exit{at}"),
        None => "none".to_owned(),
    };
    for exit in &exits {
        let gateway = Ipv6Addr::from(exit.gateway);
        let _ = write!(out, "\n[exit.{}]\ngateway = \"{gateway}\"\n", name(exit));
        if exit.flags & Exit::UDP != 0 {
            let header: String = exit
                .header
                .iter()
                .take(usize::from(exit.header_len))
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let _ = writeln!(
                out,
                "udp = {{ source_port = {}, destination_port = {}, header = \"{header}\" }}",
                u16::from_be_bytes(exit.source_port),
                u16::from_be_bytes(exit.destination_port),
            );
        }
    }
    for rule in rules {
        let _ = write!(out, "\n[[flow]]\nexit = \"{}\"\n", name(&rule.exit));
        let m = &rule.matches;
        let fields = [
            m.protocol.map(|p| format!("protocol = {p}")),
            m.source.map(|p| format!("source = \"{p}\"")),
            m.destination.map(|p| format!("destination = \"{p}\"")),
            m.source_port.map(|p| format!("source_port = {p}")),
            m.destination_port
                .map(|p| format!("destination_port = {p}")),
        ];
        let fields: Vec<String> = fields.into_iter().flatten().collect();
        if !fields.is_empty() {
            let _ = writeln!(out, "match = {{ {} }}", fields.join(", "));
        }
        for switch in &rule.switches {
            let at = match switch.at {
                At::Packet(n) => format!("at_packet = {n}"),
                At::FlowPacket(n) => format!("at_flow_packet = {n}"),
                At::Nanoseconds(n) => format!("at_seconds = {:?}", n as f64 / 1e9),
            };
            let _ = write!(
                out,
                "[[flow.switch]]\n{at}\nexit = \"{}\"\n",
                name(&switch.exit)
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
        [host]
        uplink_mtu = 9000
        source = "fd00::7"
        segmentation = "segment-first"
        [replay]
        side = "both"
        gso_size = 1200
        [exit.paris]
        gateway = "2001:db8::1"
        [exit.tokyo]
        gateway = "2001:db8::2"
        udp = { destination_port = 4790, header = "0c00 0004 0000:7b00" }
        [[tunnel]]
        address = "fd00::7"
        carries = "udp"
        port = 6080
        header_len = 8
        [[flow]]
        match = { protocol = "tcp", destination = "2001:db8::/32", destination_port = 443 }
        exit = "paris"
        [[flow.switch]]
        at_flow_packet = 10
        exit = "tokyo"
        [[flow.switch]]
        at_seconds = 1.5
        exit = "none"
        [[flow]]
        match = { protocol = 17, source = "192.0.2.1" }
        exit = "none"
    "#;

    #[test]
    fn a_full_file_is_read_and_survives_being_written() {
        let scenario = Scenario::parse("full.toml", FULL).unwrap();
        assert_eq!(scenario.host.config.uplink_mtu, 9000);
        assert_eq!(scenario.side, Side::Both);
        let Assignment::Rules(rules) = &scenario.assignment else {
            panic!("no rules")
        };
        assert_eq!(
            rules[0].switches[0].exit.header[..8],
            [0x0c, 0, 0, 4, 0, 0, 0x7b, 0]
        );
        assert_eq!(rules[0].switches[1].at, At::Nanoseconds(1_500_000_000));
        assert_eq!(rules[1].matches.source.unwrap().to_string(), "192.0.2.1/32");
        let again = Scenario::parse("again.toml", &scenario.to_toml()).unwrap();
        assert_eq!(again, scenario);
        let default = Scenario::default();
        assert_eq!(
            Scenario::parse("default.toml", &default.to_toml()).unwrap(),
            default
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_file_field_and_expectation() {
        let cases: &[(&str, &[&str])] = &[
            (
                "[host]\nuplink_mtu = 100",
                &["s.toml: host.uplink_mtu: 100", "1280 to 9216"],
            ),
            (
                "[host]\nmtu = 1500",
                &["s.toml: ", "line 2", "unknown field `mtu`"],
            ),
            ("[replay]\ngso_size = 0", &["replay.gso_size: 0"]),
            (
                "[replay]\nside = \"left\"",
                &["unknown variant `left`", "initiator"],
            ),
            ("[exit.a]\ngateway = \"1.2.3.4\"", &["line 2", "IPv6"]),
            (
                "[exit.none]\ngateway = \"::1\"",
                &["exit.none: this name means"],
            ),
            (
                "[exit.a]\ngateway = \"::1\"\nudp = { destination_port = 0 }",
                &["exit.a.udp.destination_port: 0"],
            ),
            (
                "[exit.a]\ngateway = \"::1\"\nudp = { destination_port = 1, header = \"abc\" }",
                &["exit.a.udp.header: an odd number"],
            ),
            (
                "[exit.a]\ngateway = \"::1\"\nudp = { destination_port = 1, header = \"zz\" }",
                &["exit.a.udp.header: 'z' is no hexadecimal digit"],
            ),
            (
                "[[flow]]\nexit = \"b\"",
                &["flow[0].exit: no exit is named \"b\"", "none"],
            ),
            (
                "[[flow]]\nexit = \"none\"\n[[flow.switch]]\nexit = \"none\"",
                &["flow[0].switch[0]: expected exactly one of"],
            ),
            (
                "[[flow]]\nexit = \"none\"\n[[flow.switch]]\nat_packet = 0\nexit = \"none\"",
                &["numbered from 1"],
            ),
            (
                "[[tunnel]]\naddress = \"::1\"\ncarries = \"udp\"",
                &["tunnel[0].port"],
            ),
            (
                "[[tunnel]]\naddress = \"::1\"\ncarries = \"ipv6\"\nport = 5",
                &["tunnel[0].port: only a UDP tunnel"],
            ),
            (
                "[[tunnel]]\naddress = \"::1\"\ncarries = \"udp\"\nport = 5\nheader_len = 33",
                &["tunnel[0].header_len: 33 bytes"],
            ),
        ];
        for (text, expected) in cases {
            let message = Scenario::parse("s.toml", text).unwrap_err().to_string();
            for part in *expected {
                assert!(
                    message.contains(part),
                    "{text:?} gave {message:?}, without {part:?}"
                );
            }
        }
    }
}

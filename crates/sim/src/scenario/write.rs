//! A scenario as a file: what `file` reads back as the same scenario.

use super::*;
use std::net::Ipv4Addr;

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
    let config = &host.config;
    let _ = write!(
        out,
        "[host]\nuplink_mtu = {}\nsource = \"{}\"\nsource4 = \"{}\"\nhop_limit = {}\n\
         segmentation = \"{segmentation}\"\n",
        config.uplink_mtu,
        Ipv6Addr::from(config.source),
        Ipv4Addr::from(config.source4),
        config.hop_limit,
    );
    for (key, flag) in [
        ("udp_checksum", Config::UDP_CHECKSUM),
        ("tell_too_big", Config::TELL_TOO_BIG),
        ("deny_by_default", Config::DENY_BY_DEFAULT),
    ] {
        if config.flags & flag != 0 {
            let _ = writeln!(out, "{key} = true");
        }
    }
    let _ = write!(out, "\n[replay]\nside = \"{side}\"\n");
    if let Some(size) = scenario.gso_size {
        let _ = writeln!(out, "gso_size = {size}");
    }
    for (key, spec) in &host.tunnels {
        let address = address(key.address);
        let _ = write!(out, "\n[[tunnel]]\naddress = \"{address}\"\n");
        let _ = match key.protocol {
            4 => writeln!(out, "carries = \"ipv4\""),
            41 => writeln!(out, "carries = \"ipv6\""),
            _ => writeln!(
                out,
                "carries = \"udp\"\nport = {}\n{}",
                u16::from_be_bytes(key.port),
                match spec.format {
                    TunnelSpec::GUE => "format = \"gue\"".to_owned(),
                    TunnelSpec::GENEVE => "format = \"geneve\"".to_owned(),
                    _ => format!("header_len = {}", spec.header_len),
                }
            ),
        };
        if spec.flags & TunnelSpec::REFLECT != 0 {
            let _ = writeln!(out, "reflect = true");
        }
    }
    policy::write(host, &mut out);
    let Assignment::Rules(rules) = &scenario.assignment else {
        return out;
    };
    let mut exits: Vec<Exit> = Vec::new();
    for exit in rules
        .iter()
        .flat_map(|r| std::iter::once(r.exit).chain(r.switches.iter().map(|switch| switch.exit)))
    {
        if exit != Exit::NONE && exit != REFLECTING && !exits.contains(&exit) {
            exits.push(exit);
        }
    }
    let name = |exit: &Exit| match exits.iter().position(|known| known == exit) {
        Some(at) => format!("exit{at}"),
        None if *exit == REFLECTING => "reflect".to_owned(),
        None => "none".to_owned(),
    };
    for exit in &exits {
        let gateway = address(exit.gateway);
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
        if let Some(cgroup) = host.cgroups.get(rule.cgroup.0).filter(|c| !c.is_empty()) {
            let _ = writeln!(out, "cgroup = \"{cgroup}\"");
        }
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

/// An address as it was given: IPv4-mapped ones stand for IPv4.
fn address(octets: [u8; 16]) -> IpAddr {
    let address = Ipv6Addr::from(octets);
    address
        .to_ipv4_mapped()
        .map_or(IpAddr::V6(address), IpAddr::V4)
}

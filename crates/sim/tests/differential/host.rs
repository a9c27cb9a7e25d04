//! Random hosts, gateways and exits: few values of each, so that they meet.

use dynencap_abi::{Config, Exit, Policy, PortRange, TunnelKey, TunnelSpec};
use dynencap_sim::scenario::{At, CgroupId, HostSpec, PolicySpec, Segmentation};
use proptest::prelude::*;

/// The custom headers that tunnels of this host carry; a tunnel's port is
/// [`FIRST_PORT`] + the length.
pub(crate) const HEADER_LENS: [u8; 5] = [0, 1, 8, 31, 32];
/// Destination port of the tunnel without a custom header.
pub(crate) const FIRST_PORT: u16 = 6080;
const SOURCE: [u8; 16] = address(0xaa);
const SOURCE4: [u8; 4] = [198, 51, 100, 0xaa];

/// One of the addresses at which tunnels end.
pub(crate) const fn address(low: u8) -> [u8; 16] {
    [0xfd, 0, 0, 0xd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low]
}

/// Values of `ENCAP_GW` and `ENCAP_UDP`.
pub(crate) type Options = (Vec<u8>, Vec<u8>);

/// IPv6 gateways that have tunnels on this host.
pub(crate) const GATEWAYS: [[u8; 16]; 2] = [address(1), address(2)];
/// IPv4 gateways that do.
pub(crate) const GATEWAYS4: [[u8; 4]; 2] = [[198, 51, 100, 1], [198, 51, 100, 2]];
/// Cgroups of the host; [`CgroupId`] is the place.
const CGROUPS: [&str; 4] = ["", "a", "a/b", "c"];
/// How many policies a host has that take effect later.
pub(crate) const LATER: usize = 4;

/// Every tunnel that [`exit`] can lead to.
pub(crate) fn tunnels() -> Vec<(TunnelKey, TunnelSpec)> {
    let mut tunnels = Vec::new();
    let mapped = GATEWAYS4.map(|address| std::net::Ipv4Addr::from(address).to_ipv6_mapped());
    let mapped = mapped.map(|address| address.octets());
    for address in GATEWAYS.into_iter().chain(mapped) {
        let plain = [4, 41].map(|protocol| (protocol, [0, 0], 0));
        let udp = HEADER_LENS.map(|len| (17, port(len).to_be_bytes(), len));
        for (protocol, port, header_len) in plain.into_iter().chain(udp) {
            let key = TunnelKey {
                address,
                protocol,
                reserved: 0,
                port,
            };
            let spec = TunnelSpec {
                header_len,
                flags: 0,
                format: TunnelSpec::FIXED,
                reserved: 0,
            };
            tunnels.push((key, spec));
        }
    }
    tunnels
}

fn port(header_len: u8) -> u16 {
    FIRST_PORT + u16::from(header_len)
}

/// A gateway that has tunnels here, and UDP or none.
pub(crate) fn exit() -> impl Strategy<Value = Options> {
    let source_port = prop_oneof![Just(0), any::<u16>()];
    let header = proptest::array::uniform32(any::<u8>());
    let udp = (
        source_port,
        prop::sample::select(&HEADER_LENS[..]),
        header,
        any::<bool>(),
    )
        .prop_map(|(source, len, header, plain)| {
            let mut value = Vec::new();
            if !plain {
                value.extend_from_slice(&source.to_be_bytes());
                value.extend_from_slice(&port(len).to_be_bytes());
                value.extend_from_slice(&header[..usize::from(len)]);
            }
            value
        });
    let gateways = GATEWAYS.iter().map(|address| address.to_vec());
    let gateways = gateways.chain(GATEWAYS4.iter().map(|address| address.to_vec()));
    (prop::sample::select(gateways.collect::<Vec<_>>()), udp)
}

/// One of the cgroups.
pub(crate) fn cgroup() -> impl Strategy<Value = CgroupId> {
    (0..CGROUPS.len()).prop_map(CgroupId)
}

fn policy(at: Option<At>) -> impl Strategy<Value = PolicySpec> {
    let nets = [
        "::/0",
        "fd00:d::/32",
        "fd00:d::1/128",
        "0.0.0.0/0",
        "198.51.100.0/31",
        "198.51.100.2/32",
    ];
    let nets: Vec<ipnet::IpNet> = nets.iter().map(|net| net.parse().unwrap()).collect();
    let exits = prop::sample::subsequence(nets, 0..=6);
    let exits = exits.prop_flat_map(|nets| {
        let rights = prop::sample::select(&[0, 1, 1, 1, 2, 6, 7, 7, 7][..]);
        let rights = prop::collection::vec(rights, nets.len());
        rights.prop_map(move |rights| nets.iter().copied().zip(rights).collect())
    });
    let ports = prop::collection::vec((FIRST_PORT..FIRST_PORT + 33, 0u16..33), 0..=3);
    let flags = prop::sample::select(vec![
        0,
        Policy::CUSTOM_HEADERS,
        Policy::CUSTOM_HEADERS,
        Policy::REQUIRED | Policy::CUSTOM_HEADERS,
    ]);
    let source = prop::sample::select(vec![[0; 16], [0; 16], SOURCE]);
    let there = prop::bool::weighted(0.85);
    (cgroup(), exits, ports, flags, source, there).prop_map(
        move |(cgroup, exits, given, flags, source, there)| {
            let mut ports = [PortRange::default(); Policy::MAX_PORTS];
            for (place, (first, more)) in ports.iter_mut().zip(&given) {
                *place = PortRange {
                    first: *first,
                    last: first + more,
                };
            }
            let policy = Policy {
                source,
                source4: if source == [0; 16] { [0; 4] } else { SOURCE4 },
                id: 0,
                flags,
                reserve: 0,
                port_count: given.len() as u32,
                reflect: 0,
                ports,
                default_exit: Exit::NONE,
            };
            PolicySpec {
                cgroup,
                policy: there.then_some(policy),
                exits: if there { exits } else { Vec::new() },
                at,
            }
        },
    )
}

/// Policies in force from the start, mostly none, and [`LATER`] more.
fn policies() -> impl Strategy<Value = Vec<PolicySpec>> {
    let first = prop_oneof![
        2 => Just(Vec::new()),
        1 => prop::collection::vec(policy(None), 1..4),
    ];
    let later = prop::collection::vec(policy(Some(At::Packet(1))), LATER);
    (first, later).prop_map(|(mut first, later)| {
        first.extend(later);
        first
    })
}

fn config() -> impl Strategy<Value = Config> {
    let mtu = prop::sample::select(&[1280, 1500, 9000, 9216][..]);
    let source = prop::sample::select(&[[0; 16], SOURCE, SOURCE, SOURCE][..]);
    let source4 = prop::sample::select(&[[0; 4], SOURCE4, SOURCE4, SOURCE4][..]);
    let flag = |flag: u32, weight: f64| {
        prop::bool::weighted(weight).prop_map(move |on| u32::from(on) * flag)
    };
    let flags = (
        flag(Config::ALLOW_PACKET_SOCKETS, 0.9),
        flag(Config::DENY_BY_DEFAULT, 0.1),
        flag(Config::UDP_CHECKSUM, 0.3),
        flag(Config::TELL_TOO_BIG, 0.3),
    );
    let hop_limit = prop::sample::select(&[0, 0, 1, 64, 255][..]);
    (mtu, source, source4, flags, hop_limit).prop_map(
        |(uplink_mtu, source, source4, (packets, deny, checksum, tell), hop_limit)| Config {
            source,
            source4,
            uplink_mtu,
            flags: packets | deny | checksum | tell,
            hop_limit,
            ..Config::default()
        },
    )
}

/// A host in one of the modes.
pub(crate) fn host() -> impl Strategy<Value = HostSpec> {
    let modes = [Segmentation::GsoAware, Segmentation::SegmentFirst];
    let mode = prop::sample::select(modes.to_vec());
    (config(), mode, policies()).prop_map(|(config, segmentation, policies)| HostSpec {
        config,
        segmentation,
        tunnels: tunnels(),
        cgroups: CGROUPS.map(str::to_owned).to_vec(),
        policies,
    })
}

/// A host on which every exit works.
pub(crate) fn open_host() -> impl Strategy<Value = HostSpec> {
    host().prop_map(|mut host| {
        host.config.source = SOURCE;
        host.config.source4 = SOURCE4;
        host.config.flags = Config::ALLOW_PACKET_SOCKETS;
        host.policies.clear();
        host
    })
}

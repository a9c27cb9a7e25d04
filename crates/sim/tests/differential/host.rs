//! Random hosts, gateways and exits: few values of each, so that they meet.

use dynencap_abi::{Config, TunnelKey, TunnelSpec};
use dynencap_sim::scenario::{HostSpec, Segmentation};
use proptest::prelude::*;

/// The custom headers that tunnels of this host carry; a tunnel's port is
/// [`FIRST_PORT`] + the length.
pub(crate) const HEADER_LENS: [u8; 5] = [0, 1, 8, 31, 32];
/// Destination port of the tunnel without a custom header.
pub(crate) const FIRST_PORT: u16 = 6080;
const SOURCE: [u8; 16] = address(0xaa);

/// One of the addresses at which tunnels end.
pub(crate) const fn address(low: u8) -> [u8; 16] {
    [0xfd, 0, 0, 0xd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low]
}

/// Gateways that have tunnels on this host.
pub(crate) const GATEWAYS: [[u8; 16]; 2] = [address(1), address(2)];

/// Every tunnel that [`exit`] can lead to.
pub(crate) fn tunnels() -> Vec<(TunnelKey, TunnelSpec)> {
    let mut tunnels = Vec::new();
    for address in GATEWAYS {
        let plain = [4, 41].map(|protocol| (protocol, [0, 0], 0));
        let udp = HEADER_LENS.map(|len| (17, port(len).to_be_bytes(), len));
        for (protocol, port, header_len) in plain.into_iter().chain(udp) {
            let key = TunnelKey {
                address,
                protocol,
                reserved: 0,
                port,
            };
            let reserved = [0; 3];
            let spec = TunnelSpec {
                header_len,
                reserved,
            };
            tunnels.push((key, spec));
        }
    }
    tunnels
}

fn port(header_len: u8) -> u16 {
    FIRST_PORT + u16::from(header_len)
}

/// A gateway that has tunnels here, and the value of `ENCAP_UDP`, empty for IP-in-IP.
pub(crate) fn exit() -> impl Strategy<Value = ([u8; 16], Vec<u8>)> {
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
    (prop::sample::select(&GATEWAYS[..]), udp)
}

/// A host in one of the modes, with or without a source for IPv4 inside.
pub(crate) fn host() -> impl Strategy<Value = HostSpec> {
    let mtu = prop::sample::select(&[1280, 1500, 9000, 9216][..]);
    let source = prop::sample::select(&[[0; 16], SOURCE, SOURCE, SOURCE][..]);
    let flags = prop_oneof![9 => Just(Config::ALLOW_PACKET_SOCKETS), 1 => Just(0)];
    let modes = [Segmentation::GsoAware, Segmentation::SegmentFirst];
    let mode = prop::sample::select(modes.to_vec());
    (mtu, source, flags, mode).prop_map(|(uplink_mtu, source, flags, segmentation)| HostSpec {
        config: Config {
            source,
            uplink_mtu,
            flags,
            ..Config::default()
        },
        segmentation,
        tunnels: tunnels(),
    })
}

/// A host on which every exit works.
pub(crate) fn open_host() -> impl Strategy<Value = HostSpec> {
    host().prop_map(|mut host| {
        host.config.source = SOURCE;
        host.config.flags = Config::ALLOW_PACKET_SOCKETS;
        host
    })
}

//! Super-packets that are cut before they are encapsulated, behind the segmenting pair.

use crate::{
    Test, bulk, datagram,
    require::{ACROSS, Need},
};
use dynencap_abi::{Config, Reason};
use dynencap_e2e::{
    Exit, Setup,
    job::server::{DATAGRAMS, SINK},
    topology::{Link, gateway, gateway4, server, server4},
};
use dynencap_kernel::Feature;
use std::net::SocketAddr;

const BOND: &[Need] = &[Need::Device("link add bond0 type bond")];

/// Super-packets of UDP by way of a device that sums nothing.
const SUMMED: &[Need] = &[Need::Kernel(Feature::UdpSegmentationSummed)];

pub(crate) const TESTS: &[Test] = &[
    ("segment::ipv6_in_ipv6", &[], || {
        first("ipv6", server(SINK), Exit::ip(gateway(0)));
    }),
    ("segment::ipv4_in_udp", &[ACROSS], || {
        first("udp", server4(SINK), Exit::udp(gateway(1), 8));
    }),
    ("segment::ipv6_in_ipv4", &[ACROSS], || {
        first("in-ipv4", server(SINK), Exit::ip(gateway4(2)));
    }),
    ("segment::ipv4_in_udp_over_ipv4", &[], || {
        first("udp4", server4(SINK), Exit::udp(gateway4(3), 32));
    }),
    (
        "segment::datagrams_without_checksum_offload",
        SUMMED,
        || {
            datagrams("plain", server(DATAGRAMS), Exit::ip(gateway(4)), CUT);
            datagrams("plain4", server4(DATAGRAMS), Exit::udp(gateway4(5), 8), CUT);
        },
    ),
    ("segment::valid_checksums_of_ipv6", &[], || {
        summed("ipv6", server(SINK), Exit::udp(gateway(1), 8));
    }),
    ("segment::valid_checksums_of_ipv4", &[ACROSS], || {
        summed("ipv4", server4(SINK), Exit::udp(gateway(2), 32));
    }),
    ("segment::valid_checksums_in_ipv4", &[ACROSS], || {
        summed("in-ipv4", server(SINK), Exit::udp(gateway4(3), 0));
    }),
    ("segment::valid_checksums_of_datagrams", SUMMED, || {
        let flags = CUT | Config::UDP_CHECKSUM;
        let exit = Exit::udp(gateway(4), 16);
        let summed = datagrams("summed", server(DATAGRAMS), exit, flags);
        assert!(summed > 100);
    }),
    ("segment::behind_a_bond", BOND, || {
        let setup = Setup {
            flags: CUT,
            link: Link::Bonded,
            ..Setup::default()
        };
        for (name, to, exit) in [
            ("segment-bond", server(SINK), Exit::udp(gateway(6), 8)),
            ("segment-bond4", server4(SINK), Exit::ip(gateway4(7))),
        ] {
            let (audit, topology) = bulk::transferred(name, to, exit, &setup);
            assert!(topology.count(Reason::Segmenting) > 0, "{audit}");
        }
    }),
];

const CUT: u32 = Config::SEGMENT_FIRST;

fn setup(flags: u32) -> Setup {
    Setup {
        flags,
        link: Link::Direct,
        ..Setup::default()
    }
}

fn first(test: &str, to: SocketAddr, exit: Exit) {
    let (audit, topology) = bulk::transferred(&format!("segment-{test}"), to, exit, &setup(CUT));
    assert!(topology.count(Reason::Segmenting) > 0, "{audit}");
    // Each of them once: it comes to the uplink marked as done.
    assert_eq!(
        topology.count(Reason::Encapsulated),
        audit.tunnelled(),
        "{audit}"
    );
}

fn summed(test: &str, to: SocketAddr, exit: Exit) {
    let name = format!("segment-sum-{test}");
    let (audit, topology) = bulk::transferred(&name, to, exit, &setup(Config::UDP_CHECKSUM));
    assert!(topology.count(Reason::Segmenting) > 0, "{audit}");
    assert_eq!(audit.summed, audit.tunnelled(), "{audit}");
}

/// How many valid checksums there were.
fn datagrams(test: &str, to: SocketAddr, exit: Exit, flags: u32) -> u64 {
    let order = datagram::super_packets(to, exit);
    let name = format!("segment-datagrams-{test}");
    let (audit, topology) = datagram::through(&name, order, &setup(flags));
    assert!(topology.count(Reason::Segmenting) > 0, "{audit}");
    audit.summed
}

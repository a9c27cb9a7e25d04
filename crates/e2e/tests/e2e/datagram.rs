//! Datagrams through exits, and the super-packets of `UDP_SEGMENT`.

use crate::{
    Test,
    require::{ACROSS, Need},
};
use dynencap_abi::{Config, Reason};
use dynencap_e2e::{
    Audit, Exit, Segment, Setup, Topology, amount,
    audit::Plain,
    job::{
        datagram::{self, Addressing, Datagrams, Delivered},
        server::DATAGRAMS,
    },
    topology::{SERVER4, gateway, rules, server, server4},
};
use std::net::SocketAddr;

const ETHTOOL: &[Need] = &[Need::Program("ethtool")];
const ETHTOOL_ACROSS: &[Need] = &[ACROSS, Need::Program("ethtool")];

pub(crate) const TESTS: &[Test] = &[
    ("datagram::connected", &[], || {
        one_by_one("connected", server(DATAGRAMS), Addressing::Connected)
    }),
    ("datagram::addressed_each_time", &[ACROSS], || {
        one_by_one("addressed", server4(DATAGRAMS), Addressing::EachTime);
    }),
    ("datagram::dual_stack", &[ACROSS], || {
        let mapped = SERVER4.to_ipv6_mapped();
        one_by_one(
            "dual-stack",
            (mapped, DATAGRAMS).into(),
            Addressing::EachTime,
        );
    }),
    ("datagram::super_packets_in_ipv6", ETHTOOL, || {
        segmented("ipv6", server(DATAGRAMS), Exit::ip(gateway(4)))
    }),
    ("datagram::super_packets_in_udp", ETHTOOL, || {
        segmented("udp", server(DATAGRAMS), Exit::udp(gateway(5), 8));
    }),
    ("datagram::super_packets_of_ipv4", ETHTOOL_ACROSS, || {
        segmented("ipv4", server4(DATAGRAMS), Exit::udp(gateway(6), 32));
    }),
];

fn one_by_one(test: &str, server: SocketAddr, addressing: Addressing) {
    delivered(
        test,
        Datagrams {
            server,
            exit: Some(Exit::udp(gateway(0), 16)),
            sends: 500,
            size: 700,
            segments: 1,
            addressing,
        },
    );
}

fn segmented(test: &str, server: SocketAddr, exit: Exit) {
    delivered(&format!("segments-{test}"), super_packets(server, exit));
}

/// Calls with 20 datagrams each, of the largest size.
pub(crate) fn super_packets(server: SocketAddr, exit: Exit) -> Datagrams {
    // With the inner headers a datagram fills the MTU to the last byte.
    let headers = if server.is_ipv6() { 48 } else { 28 };
    let size = (1500 - exit.overhead() - headers) as u16;
    Datagrams {
        server,
        exit: Some(exit),
        sends: amount(200) as u32,
        size,
        segments: 20,
        addressing: Addressing::Connected,
    }
}

fn delivered(test: &str, order: Datagrams) {
    let setup = Setup::default();
    let (audit, topology) = through(&format!("datagram-{test}"), order, &setup);
    assert_eq!(topology.count(Reason::Segmenting), 0, "{audit}");
}

/// Datagrams with this setup of the client; fails unless all arrive, and as they should.
pub(crate) fn through(test: &str, order: Datagrams, setup: &Setup) -> (Audit, Topology) {
    let gateway = order.exit.as_ref().unwrap().gateway;
    let mut topology = Topology::with(setup);
    if order.segments > 1 && setup.flags & Config::SEGMENT_FIRST == 0 {
        topology.offload_checksums();
    }
    topology.serve();
    let mut rules = rules(Plain::Leak);
    rules.flags = setup.flags;
    let capture = topology.audit_by(test, rules);
    let delivered: Delivered = topology.run(datagram::NAME, order);
    let (audit, _) = capture.finish();
    assert_eq!(delivered.sent, delivered.received, "{audit}");
    audit.assert_clean();
    assert!(
        audit.segments(Segment::Datagram) > delivered.sent.datagrams,
        "{audit}"
    );
    assert_eq!(audit.through(gateway), audit.tunnelled(), "{audit}");
    assert_eq!(topology.drops(), []);
    (audit, topology)
}

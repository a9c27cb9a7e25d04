//! Bulk transfers: what arrives is what was sent, nothing outside of the tunnel, nothing over
//! the MTU.

use crate::{Test, require::ACROSS};
use dynencap_abi::Reason;
use dynencap_e2e::{
    Audit, Exit, Segment, Setup, Topology, amount,
    audit::Plain,
    job::{
        bulk::{self, Bulk, Sent},
        server::SINK,
    },
    topology::{gateway, gateway4, rules, server, server4},
};
use std::net::SocketAddr;

pub(crate) const TESTS: &[Test] = &[
    ("bulk::ipv6_in_ipv6", &[], || {
        through("ipv6_in_ipv6", server(SINK), Exit::ip(gateway(0)))
    }),
    ("bulk::ipv6_in_udp_and_8_bytes", &[], || {
        through(
            "ipv6_in_udp_and_8_bytes",
            server(SINK),
            Exit::udp(gateway(1), 8),
        );
    }),
    ("bulk::ipv4_in_ipv6", &[ACROSS], || {
        through("ipv4_in_ipv6", server4(SINK), Exit::ip(gateway(2)))
    }),
    ("bulk::ipv4_in_udp_and_8_bytes", &[ACROSS], || {
        through(
            "ipv4_in_udp_and_8_bytes",
            server4(SINK),
            Exit::udp(gateway(3), 8),
        );
    }),
    ("bulk::ipv6_in_ipv4", &[ACROSS], || {
        through("ipv6_in_ipv4", server(SINK), Exit::ip(gateway4(4)))
    }),
    ("bulk::ipv4_in_ipv4", &[], || {
        through("ipv4_in_ipv4", server4(SINK), Exit::ip(gateway4(5)))
    }),
    ("bulk::ipv6_in_udp_over_ipv4", &[ACROSS], || {
        through(
            "ipv6_in_udp_over_ipv4",
            server(SINK),
            Exit::udp(gateway4(6), 8),
        );
    }),
    ("bulk::ipv4_in_udp_over_ipv4", &[], || {
        through(
            "ipv4_in_udp_over_ipv4",
            server4(SINK),
            Exit::udp(gateway4(7), 32),
        );
    }),
];

fn through(test: &str, to: SocketAddr, exit: Exit) {
    transferred(&format!("bulk-{test}"), to, exit, &Setup::default());
}

/// A bulk transfer with this setup of the client; fails unless all is as it should be.
pub(crate) fn transferred(
    test: &str,
    to: SocketAddr,
    exit: Exit,
    setup: &Setup,
) -> (Audit, Topology) {
    let bytes = amount(20_000_000);
    let mut topology = Topology::with(setup);
    topology.serve();
    let mut rules = rules(Plain::Leak);
    rules.flags = setup.flags;
    let capture = topology.audit_by(test, rules);
    let sent: Sent = topology.run(bulk::NAME, Bulk::new(to, bytes, Some(exit.clone())));
    let (audit, _) = capture.finish();
    sent.assert_whole();
    assert_eq!(sent.sent.0, bytes);
    audit.assert_clean();
    let header = if to.is_ipv6() { 40 } else { 20 };
    // Timestamps take 12 bytes of each segment.
    assert_eq!(
        sent.mss as usize,
        1500 - exit.overhead() - header - 20 - 12,
        "{sent:?}"
    );
    assert_eq!(audit.tunnels.len(), 1, "{audit}");
    assert_eq!(audit.through(exit.gateway), audit.tunnelled());
    assert_eq!(audit.segments(Segment::Syn), 1, "{audit}");
    assert!(audit.segments(Segment::Fin) >= 1, "{audit}");
    assert!(
        audit.segments(Segment::Data) >= bytes / u64::from(sent.mss),
        "{audit}"
    );
    assert!(topology.count(Reason::Encapsulated) > 0);
    let info = sent.info.unwrap();
    assert_eq!(info.overhead as usize, exit.overhead(), "{info:?}");
    assert_eq!(info.mtu as usize, 1500 - exit.overhead(), "{info:?}");
    assert_eq!((info.dropped, topology.drops()), (0, vec![]), "{info:?}");
    println!(
        "{test}: {:.0} Mbit/s, {} retransmits",
        sent.rate() / 1e6,
        sent.retransmits
    );
    (audit, topology)
}

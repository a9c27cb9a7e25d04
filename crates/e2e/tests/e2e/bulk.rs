//! Bulk transfers: what arrives is what was sent, nothing outside of the tunnel, nothing over
//! the MTU.

use crate::Test;
use dynencap_abi::Reason;
use dynencap_e2e::{
    Exit, Segment, Topology,
    job::{
        bulk::{self, Bulk, Sent},
        server::SINK,
    },
    topology::{gateway, gateway4, server, server4},
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
    ("bulk::ipv4_in_ipv6", &[], || {
        through("ipv4_in_ipv6", server4(SINK), Exit::ip(gateway(2)))
    }),
    ("bulk::ipv4_in_udp_and_8_bytes", &[], || {
        through(
            "ipv4_in_udp_and_8_bytes",
            server4(SINK),
            Exit::udp(gateway(3), 8),
        );
    }),
];

/// What needs IPv4 outer headers.
pub(crate) const GOALS: &[Test] = &[
    ("bulk::ipv6_in_ipv4", &[], || {
        through("ipv6_in_ipv4", server(SINK), Exit::ip(gateway4(4)))
    }),
    ("bulk::ipv4_in_ipv4", &[], || {
        through("ipv4_in_ipv4", server4(SINK), Exit::ip(gateway4(5)))
    }),
    ("bulk::ipv6_in_udp_over_ipv4", &[], || {
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
    const BYTES: u64 = 20_000_000;
    let mut topology = Topology::new();
    topology.serve();
    let capture = topology.audit(&format!("bulk-{test}"));
    let sent: Sent = topology.run(bulk::NAME, Bulk::new(to, BYTES, Some(exit.clone())));
    let (audit, _) = capture.finish();
    sent.assert_whole();
    assert_eq!(sent.sent.0, BYTES);
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
        audit.segments(Segment::Data) >= BYTES / u64::from(sent.mss),
        "{audit}"
    );
    assert!(topology.count(Reason::Encapsulated) > 0);
    // The last acknowledgement of TIME_WAIT, where no exit is found for it.
    let expected = |(reason, count): &(&str, u64)| *reason == "marked_without_exit" && *count <= 2;
    assert!(
        topology.drops().iter().all(expected),
        "{:?}",
        topology.drops()
    );
    println!(
        "{:.0} Mbit/s, {} retransmits",
        sent.rate() / 1e6,
        sent.retransmits
    );
}

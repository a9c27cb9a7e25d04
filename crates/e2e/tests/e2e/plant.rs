//! The auditor behind a real capture goes red for a fault that is really on the wire.

use crate::Test;
use dynencap_e2e::{
    Audit, Exit, Rules, Topology,
    audit::Plain,
    job::{
        bulk::{self, Bulk, Sent},
        server::SINK,
    },
    topology::{gateway, rules, server},
};

pub(crate) const TESTS: &[Test] = &[
    ("plant::a_socket_without_an_exit_is_a_leak", &[], leak),
    ("plant::an_exit_that_no_rule_names_is_seen", &[], other_exit),
    ("plant::frames_over_a_smaller_mtu_are_seen", &[], oversize),
];

fn audited(test: &str, rules: Rules, exit: Option<Exit>) -> Audit {
    let mut topology = Topology::new();
    topology.serve();
    let capture = topology.audit_by(test, rules);
    let sent: Sent = topology.run(bulk::NAME, Bulk::new(server(SINK), 100_000, exit));
    sent.assert_whole();
    capture.finish().0
}

fn leak() {
    let audit = audited("plant-leak", rules(Plain::Leak), None);
    assert!(audit.leaks.count > 70, "{audit}");
    assert_eq!(audit.leaks.count, audit.faults(), "{audit}");
    assert_eq!(audit.tunnelled(), 0, "{audit}");
}

fn other_exit() {
    let mut rules = rules(Plain::Leak);
    rules.shapes.truncate(1);
    let audit = audited("plant-exit", rules, Some(Exit::udp(gateway(0), 8)));
    assert!(audit.altered.count > 70, "{audit}");
    assert_eq!(audit.leaks.count, 0, "{audit}");
}

fn oversize() {
    let mut rules = rules(Plain::Leak);
    rules.mtu = 1499;
    let audit = audited("plant-oversize", rules, Some(Exit::ip(gateway(0))));
    assert!(audit.oversize.count > 50, "{audit}");
    assert_eq!(audit.leaks.count, 0, "{audit}");
}

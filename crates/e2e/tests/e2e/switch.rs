//! A hundred changes of the exit in a bulk transfer of ten seconds, against none in the same
//! run.

use crate::Test;
use dynencap_e2e::{
    Audit, Exit, Topology,
    audit::Plain,
    job::{
        bulk::{self, Bulk, Sent},
        server::SINK,
    },
    topology::{GATEWAYS, gateway, rules, server},
};
use std::{io::Write, time::Duration};

pub(crate) const TESTS: &[Test] = &[
    ("switch::from_exit_to_exit", &[], || {
        let exits = (0..GATEWAYS)
            .map(|number| Some(Exit::ip(gateway(number))))
            .collect();
        let audit = switched("exits", exits, Plain::Leak);
        assert_eq!(audit.tunnels.len(), usize::from(GATEWAYS), "{audit}");
    }),
    ("switch::to_another_overhead", &[], || {
        let exits = vec![
            Some(Exit::ip(gateway(0))),
            Some(Exit::udp(gateway(1), 8)),
            Some(Exit::udp(gateway(2), 32)),
            Some(Exit::udp(gateway(3), 0)),
        ];
        switched("overheads", exits, Plain::Leak);
    }),
    ("switch::from_none_to_some_and_back", &[], || {
        let exits = vec![None, Some(Exit::udp(gateway(1), 8))];
        let audit = switched("none", exits, Plain::Allowed);
        assert!(
            audit.plain > 1000 && audit.through(gateway(1)) > 1000,
            "{audit}"
        );
    }),
];

const TEN_SECONDS: u64 = 10_000;

fn transfer(topology: &Topology, exits: Vec<Option<Exit>>, every: u64) -> Sent {
    let bulk = Bulk {
        server: server(SINK),
        seed: every,
        bytes: u64::MAX,
        milliseconds: TEN_SECONDS,
        exits,
        every,
    };
    let sent: Sent = topology.run_within(bulk::NAME, bulk, Duration::from_secs(60));
    sent.assert_whole();
    sent
}

fn switched(test: &str, exits: Vec<Option<Exit>>, plain: Plain) -> Audit {
    let mut topology = Topology::new();
    topology.serve();
    let capture = topology.audit_by(&format!("switch-{test}"), rules(plain));
    let still = transfer(&topology, exits[..1].to_vec(), 0);
    let moved = transfer(&topology, exits, 98);
    let (audit, _) = capture.finish();
    for (name, sent) in [("still", &still), ("switched", &moved)] {
        let line = format!(
            "switch-{test}: {name}: {} switches, {:.0} Mbit/s, {} retransmits of {} segments, {:.1} a switch\n",
            sent.switches,
            sent.rate() / 1e6,
            sent.retransmits,
            sent.sent.0 / u64::from(sent.mss),
            f64::from(sent.retransmits) / sent.switches.max(1) as f64,
        );
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    let _ = writeln!(
        std::io::stderr(),
        "switch-{test}: drops: {:?}",
        topology.drops()
    );
    audit.assert_clean();
    assert!(moved.switches >= 95, "{moved:?}");
    // Not a stall: a retransmission timeout after each switch would leave a tenth of it.
    assert!(
        moved.rate() > still.rate() / 3.0,
        "{moved:?} against {still:?}"
    );
    audit
}

//! Many connections at once, each with an exit of its own.

use crate::{Test, require::ACROSS};
use dynencap_e2e::{
    Exit, Segment, Topology, amount,
    audit::Seen,
    job::{
        bulk::{self, Bulk, Sent},
        server::SINK,
    },
    topology::{GATEWAYS, HEADER_LENS, gateway, server, server4},
};
use std::time::Duration;

pub(crate) const TESTS: &[Test] = &[(
    "many::two_hundred_connections_through_eight_exits",
    &[ACROSS],
    many,
)];

const CONNECTIONS: u16 = 200;

fn exit(number: u16) -> Exit {
    let gateway = gateway(number % GATEWAYS);
    match usize::from(number / GATEWAYS) % (HEADER_LENS.len() + 1) {
        0 => Exit::ip(gateway),
        shape => Exit::udp(gateway, HEADER_LENS[shape - 1]),
    }
}

fn is_over_ipv4(number: u16) -> bool {
    number.is_multiple_of(3)
}

fn many() {
    let mut topology = Topology::new();
    topology.serve();
    let capture = topology.audit("many");
    let all: Vec<Bulk> = (0..CONNECTIONS)
        .map(|number| {
            let to = if is_over_ipv4(number) {
                server4(SINK)
            } else {
                server(SINK)
            };
            let mut bulk = Bulk::new(to, amount(200_000), Some(exit(number)));
            bulk.seed = number.into();
            bulk
        })
        .collect();
    let sent: Vec<Sent> = topology.run_within(bulk::MANY, &all, Duration::from_secs(120));
    let (audit, _) = capture.finish();
    assert_eq!(sent.len(), usize::from(CONNECTIONS));
    for (number, sent) in (0..).zip(&sent) {
        sent.assert_whole();
        let is_own = |seen: &&Seen| seen.port == sent.port && seen.is_ipv4 == is_over_ipv4(number);
        let mut own = audit.history.iter().filter(is_own).peekable();
        assert!(
            own.peek()
                .is_some_and(|first| first.segment == Segment::Syn),
            "{number}"
        );
        assert!(
            own.all(|seen| seen.gateway == Some(exit(number).gateway)),
            "{number}: {audit}"
        );
    }
    audit.assert_clean();
    assert_eq!(
        audit.tunnels.len(),
        usize::from(GATEWAYS) * (HEADER_LENS.len() + 1),
        "{audit}"
    );
}

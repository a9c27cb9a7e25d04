//! What the kernel says for a socket beside its application's data: each packet in the tunnel.

use crate::{Test, require::ACROSS};
use dynencap_e2e::{
    Audit, Exit, Segment, Topology,
    audit::Seen,
    job::{
        bulk::{self, Bulk, Sent},
        ending::{self, CROSSINGS, Ending, Order},
        passive::{self, Child, Listen},
        server::SINK,
    },
    limit, topology,
    topology::{CLIENT, CLIENT4, SERVER, SERVER4, gateway, server},
};
use serde_json::Value;
use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

pub(crate) const TESTS: &[Test] = &[
    ("leak::a_reset_by_linger_leaves_encapsulated", &[], || {
        let (audit, _) = ended("abort", SERVER.into(), Ending::Abort);
        assert_eq!(audit.segments(Segment::Rst), 1, "{audit}");
    }),
    ("leak::keepalives_leave_encapsulated", &[], || {
        let (audit, _) = ended("idle", SERVER.into(), Ending::Idle);
        // The handshake's, then one a second while nothing was to be sent.
        let before = audit
            .history
            .iter()
            .take_while(|seen| seen.segment != Segment::Fin);
        let acks = before.filter(|seen| seen.segment == Segment::Ack).count();
        assert!(acks >= 3, "{audit}");
    }),
    (
        "leak::retransmissions_leave_encapsulated",
        &[],
        retransmissions,
    ),
    ("leak::a_fast_open_leaves_encapsulated", &[], || {
        let (audit, _) = ended("fast-open", SERVER.into(), Ending::FastOpen);
        assert_eq!(audit.segments(Segment::Syn), 2, "{audit}");
        let first = audit.history.first().unwrap();
        assert_eq!(first.segment, Segment::Syn);
    }),
    (
        "leak::a_close_with_unread_data_resets_encapsulated",
        &[],
        || unread("unread", SERVER.into()),
    ),
    (
        "leak::a_close_with_unread_data_resets_encapsulated_over_ipv4",
        &[ACROSS],
        || unread("unread4", SERVER4.into()),
    ),
    ("leak::time_wait_acknowledges_encapsulated", &[], || {
        closed_first("first", SERVER.into());
    }),
    (
        "leak::time_wait_acknowledges_encapsulated_over_ipv4",
        &[ACROSS],
        || closed_first("first4", SERVER4.into()),
    ),
    // TIME_WAIT may answer while its socket is being closed on another CPU.
    ("leak::a_fin_that_meets_the_close_is_answered", &[], || {
        let (audit, topology) = ended("crossing", SERVER.into(), Ending::Crossing);
        assert_eq!(audit.segments(Segment::Syn), CROSSINGS, "{audit}");
        assert!(audit.segments(Segment::Fin) >= CROSSINGS, "{audit}");
        assert_eq!(topology.drops(), [], "{audit}");
    }),
    (
        "leak::what_is_queued_at_close_leaves_encapsulated",
        &[],
        || {
            let (audit, topology) = ended("queued", SERVER.into(), Ending::Queued);
            assert!(audit.segments(Segment::Data) > 50, "{audit}");
            assert!(audit.segments(Segment::Fin) >= 1, "{audit}");
            assert_eq!(topology.drops(), [], "{audit}");
        },
    ),
    ("leak::a_listeners_syn_ack_leaves_encapsulated", &[], || {
        listened("listener6", CLIENT.into(), Exit::udp(gateway(2), 8), None);
    }),
    (
        "leak::a_listeners_syn_ack_leaves_encapsulated_over_ipv4",
        &[ACROSS],
        || listened("listener4", CLIENT4.into(), Exit::ip(gateway(3)), None),
    ),
    ("leak::a_syn_cookie_leaves_encapsulated", &[], || {
        listened("cookie6", CLIENT.into(), Exit::udp(gateway(2), 8), COOKIES);
    }),
    (
        "leak::a_syn_cookie_leaves_encapsulated_over_ipv4",
        &[ACROSS],
        || listened("cookie4", CLIENT4.into(), Exit::ip(gateway(3)), COOKIES),
    ),
];

const COOKIES: Option<(&str, &str)> = Some(("ipv4/tcp_syncookies", "2"));

fn unread(test: &str, server: IpAddr) {
    let (audit, topology) = ended(test, server, Ending::Unread);
    assert!(audit.segments(Segment::Rst) >= 1, "{audit}");
    assert_eq!(topology.drops(), [], "{audit}");
}

fn closed_first(test: &str, server: IpAddr) {
    let (audit, topology) = ended(test, server, Ending::First);
    let last: Vec<&Seen> = audit
        .history
        .iter()
        .skip_while(|seen| seen.segment != Segment::Fin)
        .collect();
    // The FIN once (not again and again for want of what comes after), then the ACK.
    let kinds: Vec<Segment> = last.iter().map(|seen| seen.segment).collect();
    assert_eq!(kinds, [Segment::Fin, Segment::Ack], "{audit}");
    assert_eq!(topology.drops(), [], "{audit}");
}

/// A connection that ends so; all that left because of it.
fn ended(test: &str, server: IpAddr, ending: Ending) -> (Audit, Topology) {
    let mut topology = Topology::new();
    if ending == Ending::FastOpen {
        // As client and server, the latter without an option on the listener.
        Topology::sysctl(&topology.client, "ipv4/tcp_fastopen", "1");
        Topology::sysctl(&topology.server, "ipv4/tcp_fastopen", "1027");
    }
    topology.serve();
    let capture = topology.audit(&format!("leak-{test}"));
    let exit = Exit::udp(gateway(0), 8);
    topology.run::<Value>(
        ending::NAME,
        Order {
            server,
            exit,
            ending,
        },
    );
    // The server's part of the end, and what the kernel says to it.
    thread::sleep(limit(Duration::from_millis(1500)));
    let (audit, _) = capture.finish();
    audit.assert_clean();
    assert_eq!(audit.plain, 0);
    assert!(audit.through(gateway(0)) > 3, "{audit}");
    (audit, topology)
}

fn retransmissions() {
    let mut topology = Topology::new();
    topology.serve();
    let capture = topology.audit("leak-retransmissions");
    let exit = Exit::ip(gateway(3));
    let mut bulk = Bulk::new(server(SINK), u64::MAX, Some(exit.clone()));
    bulk.milliseconds = 2500;
    let mut program = topology.start(topology.at_client(), bulk::NAME, &bulk);
    capture.wait_until("the transfer", |audit| audit.through(exit.gateway) > 1000);
    topology::blackhole(&topology.router, exit.gateway, Duration::from_millis(700));
    let sent: Sent = topology::result(&mut program, Duration::from_secs(60));
    let (audit, _) = capture.finish();
    sent.assert_whole();
    assert!(sent.retransmits > 0, "nothing was lost: {sent:?}");
    audit.assert_clean();
    assert_eq!(audit.through(exit.gateway), audit.tunnelled(), "{audit}");
}

/// The client host as a server whose listener has an exit.
fn listened(test: &str, client: IpAddr, exit: Exit, setting: Option<(&str, &str)>) {
    const CONNECTIONS: u64 = 3;
    let topology = Topology::new();
    if let Some((name, value)) = setting {
        Topology::sysctl(&topology.client, name, value);
    }
    let capture = topology.audit(&format!("leak-{test}"));
    let mut listening = topology.start(
        topology.at_client(),
        passive::LISTEN,
        Listen {
            exit: exit.clone(),
            bytes: 300_000,
            connections: CONNECTIONS,
        },
    );
    listening.wait_for(passive::READY, Duration::from_secs(10));
    let from = SocketAddr::new(client, passive::PORT);
    let fetched: Vec<String> = (0..CONNECTIONS)
        .map(|_| {
            let mut fetch = topology.start(topology.at_server(), passive::FETCH, from);
            topology::result(&mut fetch, Duration::from_secs(30))
        })
        .collect();
    let children: Vec<Child> = topology::result(&mut listening, Duration::from_secs(30));
    thread::sleep(limit(Duration::from_millis(500)));
    let (audit, _) = capture.finish();
    for (child, fetched) in children.iter().zip(&fetched) {
        assert_eq!(child.sent, *fetched);
        assert_eq!(child.gateway, exit.gateway_value());
        let udp = exit.shape.value();
        assert_eq!(child.udp, if udp.is_empty() { vec![0; 4] } else { udp });
        assert_eq!(child.mark >> 16, 0x80 | exit.overhead() as u32);
    }
    audit.assert_clean();
    assert_eq!(audit.segments(Segment::SynAck), CONNECTIONS, "{audit}");
    assert_eq!(audit.through(exit.gateway), audit.tunnelled(), "{audit}");
    assert_eq!(topology.drops(), [], "{audit}");
}

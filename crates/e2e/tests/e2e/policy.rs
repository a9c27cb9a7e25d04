//! What an operator allows, held against what nobody tries.

use crate::Test;
use dynencap_abi::{Event, Policy, Reason, option::EPERM};
use dynencap_e2e::{
    Exit, Grant, Place, Topology,
    job::{
        bulk::{self, Bulk, Sent},
        request::{self, Request},
        server::SINK,
    },
    limit,
    topology::{self, gateway, gateway4, server},
};
use std::{net::IpAddr, path::Path, thread, time::Duration};

pub(crate) const TESTS: &[Test] = &[
    ("policy::only_what_is_allowed_can_be_chosen", &[], allowed),
    ("policy::a_required_exit_cannot_be_cleared", &[], required),
    (
        "policy::a_change_drops_live_packets_until_another_exit_is_chosen",
        &[],
        changed,
    ),
    ("policy::cgroups_keep_to_their_own_exits", &[], two_rooms),
    (
        "policy::mptcp_is_refused_where_exits_are_given",
        &[],
        multipath,
    ),
];

fn at<'a>(topology: &'a Topology, cgroup: &'a Path) -> Place<'a> {
    Place {
        cgroup,
        ..topology.at_client()
    }
}

fn ask(topology: &Topology, cgroup: &Path, requests: &[Request]) -> Vec<i32> {
    let mut program = topology.start(at(topology, cgroup), request::NAME, requests);
    topology::result(&mut program, Duration::from_secs(20))
}

fn transfer(topology: &Topology, cgroup: &Path, exit: Option<Exit>) -> Sent {
    let bulk = Bulk::new(server(SINK), 500_000, exit);
    let mut program = topology.start(at(topology, cgroup), bulk::NAME, bulk);
    let sent: Sent = topology::result(&mut program, Duration::from_secs(30));
    sent.assert_whole();
    sent
}

fn allowed() {
    let mut topology = Topology::new();
    topology.serve();
    let room = topology.room("room");
    let mut grant = Grant::to(7, &[gateway(0), gateway4(1)]);
    // A whole network, less one of its addresses.
    let network: IpAddr = "fd00:f::".parse().unwrap();
    let except: IpAddr = "fd00:f::9".parse().unwrap();
    grant
        .gateways
        .extend([(network, 64, true), (except, 128, false)]);
    grant.ports = (6080, 6088);
    topology.grant(&room, &grant);
    let within: IpAddr = "fd00:f::1".parse().unwrap();
    let asked = [
        (Exit::ip(gateway(0)), 0),
        (Exit::ip(gateway(1)), EPERM),
        (Exit::ip(gateway4(1)), 0),
        (Exit::ip(gateway4(0)), EPERM),
        (Exit::ip(within), 0),
        (Exit::ip(except), EPERM),
        (Exit::udp(gateway(0), 8), 0),
        // Port 6096.
        (Exit::udp(gateway(0), 16), EPERM),
    ];
    let (requests, errnos): (Vec<_>, Vec<_>) = asked
        .into_iter()
        .map(|(exit, errno)| (Request::Exit(exit), errno))
        .unzip();
    assert_eq!(ask(&topology, &room, &requests), errnos);
    assert_eq!(topology.event(Event::OptionDenied), 4);

    let capture = topology.audit("policy-allowed");
    transfer(&topology, &room, Some(Exit::udp(gateway(0), 8)));
    let (audit, _) = capture.finish();
    audit.assert_clean();
    assert!(audit.through(gateway(0)) > 100, "{audit}");

    // Without custom headers, UDP alone is left.
    grant.flags = 0;
    topology.grant(&room, &grant);
    let requests = [0, 8].map(|len| Request::Exit(Exit::udp(gateway(0), len)));
    assert_eq!(ask(&topology, &room, &requests), [0, EPERM]);
    assert_eq!(topology.drops(), []);
}

fn required() {
    let mut topology = Topology::new();
    let room = topology.room("room");
    let mut grant = Grant::to(3, &[gateway(0), gateway(1)]);
    let clear = [Request::Clear(Exit::ip(gateway(0)))];
    topology.grant(&room, &grant);
    assert_eq!(ask(&topology, &room, &clear), [0]);
    grant.flags |= Policy::REQUIRED;
    topology.grant(&room, &grant);
    assert_eq!(ask(&topology, &room, &clear), [EPERM]);
    let another = [Request::Exit(Exit::ip(gateway(1)))];
    assert_eq!(ask(&topology, &room, &another), [0]);
}

fn changed() {
    let (first, second) = (gateway(0), gateway(1));
    let mut topology = Topology::new();
    topology.serve();
    let room = topology.room("room");
    topology.grant(&room, &Grant::to(5, &[first, second]));
    let capture = topology.audit("policy-changed");
    let every = limit(Duration::from_millis(2000)).as_millis() as u64;
    // What is dropped on this host is sent again every 500 ms, and each time counts: after 15 of them,
    // as the default is, the kernel gives the connection up.
    Topology::sysctl(&topology.client, "ipv4/tcp_retries2", "100");
    let bulk = Bulk {
        milliseconds: every * 7 / 4,
        exits: [first, second]
            .map(|gateway| Some(Exit::ip(gateway)))
            .to_vec(),
        every,
        ..Bulk::new(server(SINK), u64::MAX, None)
    };
    let mut program = topology.start(at(&topology, &room), bulk::NAME, &bulk);
    capture.wait_until("the transfer", |audit| audit.through(first) > 500);
    let mut narrower = Grant::to(5, &[first, second]);
    narrower.gateways[0].2 = false;
    topology.grant(&room, &narrower);
    topology.wait_for(Reason::PolicyDenied, 1);
    // What had left before.
    capture.settle();
    let before = capture.with(|audit| audit.through(first));
    let sent: Sent = topology::result(&mut program, Duration::from_secs(60));
    let (audit, _) = capture.finish();
    audit.assert_clean();
    sent.assert_whole();
    assert_eq!(sent.switches, 1, "{sent:?}");
    assert_eq!(audit.through(first), before, "{audit}");
    assert!(audit.through(second) > 100, "{audit}");
    let denied = topology.count(Reason::PolicyDenied);
    assert_eq!(topology.drops(), [(Reason::PolicyDenied.name(), denied)]);
    let info = sent.info.unwrap();
    assert_eq!(info.last_drop, Reason::PolicyDenied as u32);
    assert_eq!(info.dropped, denied);
}

fn two_rooms() {
    let mut topology = Topology::new();
    topology.serve();
    let rooms = ["a", "b"].map(|name| topology.room(name));
    let own = [gateway(0), gateway(1)];
    for (id, (room, own)) in (1..).zip(rooms.iter().zip(own)) {
        let default = Some(Exit::udp(own, 8));
        topology.grant(
            room,
            &Grant {
                default,
                ..Grant::to(id, &[own])
            },
        );
    }
    let capture = topology.audit("policy-rooms");
    // Both at once, with nothing asked for.
    let sent: Vec<Sent> = thread::scope(|scope| {
        let topology = &topology;
        let threads = rooms
            .each_ref()
            .map(|room| scope.spawn(|| transfer(topology, room, None)));
        threads.map(|thread| thread.join().unwrap()).into()
    });
    let (audit, _) = capture.finish();
    audit.assert_clean();
    for (sent, own) in sent.iter().zip(own) {
        let ports = audit.history.iter().filter(|seen| seen.port == sent.port);
        let gateways: Vec<_> = ports.map(|seen| seen.gateway).collect();
        assert!(gateways.len() > 100, "{audit}");
        assert!(
            gateways.iter().all(|gateway| *gateway == Some(own)),
            "{audit}"
        );
    }
    for (room, other) in rooms.iter().zip([own[1], own[0]]) {
        let request = [Request::Exit(Exit::ip(other))];
        assert_eq!(ask(&topology, room, &request), [EPERM]);
    }
    assert!(topology.event(Event::DefaultExit) >= 2);
    assert_eq!(topology.drops(), []);
}

fn multipath() {
    let mut topology = Topology::new();
    let room = topology.room("room");
    assert_eq!(ask(&topology, &room, &[Request::Multipath]), [0]);
    let default = Some(Exit::ip(gateway(0)));
    topology.grant(
        &room,
        &Grant {
            default,
            ..Grant::to(1, &[gateway(0)])
        },
    );
    assert_eq!(ask(&topology, &room, &[Request::Multipath]), [EPERM]);
    assert_eq!(topology.event(Event::SocketRefused), 1);
}

//! A server that knows nothing answers through the path by which its clients come: every packet,
//! from the SYN-ACK to the last ACK, whatever the outer header was.

use crate::{
    Test,
    require::{ACROSS, Need, program},
};
use dynencap_abi::{
    Event,
    option::{REFLECT_DSCP, REFLECT_MARK, REFLECT_PATH},
};
use dynencap_e2e::{
    Exit, Grant, Mirror, Segment, Topology,
    forge::{self, Checksum, SYN},
    job::{
        reflecting::{self, CONNECTING, Greeted, Greeter, Pull, Pulled, Volley},
        server::{ECHO, GREETING, GREETING_LEN, SOURCE},
    },
    limit,
    mirror::Path,
    topology::{self, CLIENT, CLIENT4, END, END4, GPE, SERVER, VNI, gpe, udp},
};
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    process::Command,
    thread,
    time::Duration,
};

pub(crate) const TESTS: &[Test] = &[
    ("reflect::every_shape_of_outer_header", &[ACROSS], shapes),
    ("reflect::a_server_that_speaks_first", &[ACROSS], || {
        speaks_first("first", &[])
    }),
    ("reflect::with_syn_cookies", &[ACROSS], || {
        speaks_first("cookies", &[("ipv4/tcp_syncookies", "2")]);
    }),
    (
        "reflect::clients_behind_a_tunnel_of_the_kernels",
        &[ACROSS],
        kernel,
    ),
    ("reflect::datagrams_go_back_as_they_came", &[], datagrams),
    ("reflect::a_refused_connection_is_reset_there", &[], refused),
    ("reflect::off_on_by_listener_by_cgroup", &[], switches),
    ("reflect::the_dscp_of_the_syn", &[], dscp),
    ("reflect::the_mark_of_the_syn", NFT, mark),
    (
        "reflect::what_is_another_cgroups_serves_nobody",
        &[],
        cgroups,
    ),
];

const NFT: &[Need] = &[Need::Program("nft")];

pub(crate) fn at(server: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(server.into(), port)
}

/// Runs these clients in S at once; fails unless each has what its server sent.
pub(crate) fn pulled(topology: &Topology, orders: &[Pull]) -> Vec<Pulled> {
    let mut clients = topology.start(topology.at_server(), reflecting::PULL, orders);
    let pulled: Vec<Pulled> = topology::result(&mut clients, Duration::from_secs(60));
    for (order, pulled) in orders.iter().zip(&pulled) {
        assert_eq!(pulled.received, order.expected(), "{order:?}");
        assert!(pulled.refused.is_empty(), "{order:?}: {pulled:?}");
    }
    pulled
}

/// The last packets of connections that are closing.
pub(crate) fn settle() {
    thread::sleep(limit(Duration::from_millis(300)));
}

fn shapes() {
    let mut topology = Topology::reflecting();
    topology.serve_mirrored();
    let capture = topology.mirror("shapes");
    let gue = [&[0x02, 41, 0, 0][..], &[7; 8]].concat();
    let geneve = [&[3, 0, 0x86, 0xdd, 0, 0, 99, 0][..], &[0x5a; 12]].concat();
    let geneve4 = [0, 0, 0x08, 0, 1, 2, 3, 0];
    let paths = [
        (at(CLIENT, SOURCE), Exit::ip(CLIENT.into())),
        (at(CLIENT, SOURCE), Exit::ip(END.into())),
        (at(CLIENT, SOURCE), Exit::ip(END4.into())),
        (at(CLIENT4, SOURCE), Exit::ip(END.into())),
        (at(CLIENT4, SOURCE), Exit::ip(CLIENT4.into())),
        (at(CLIENT, SOURCE), Exit::udp(CLIENT.into(), 0)),
        (at(CLIENT, SOURCE), Exit::udp(END.into(), 8)),
        (at(CLIENT4, SOURCE), Exit::udp(END.into(), 16)),
        (at(CLIENT, SOURCE), Exit::udp(END4.into(), 32)),
        (at(CLIENT, SOURCE), udp(END, GPE, &gpe(6, VNI))),
        (at(CLIENT4, SOURCE), udp(END, GPE, &gpe(4, 0xff_fffe))),
        (at(CLIENT, SOURCE), udp(END, 6079, &[0, 41, 0, 0])),
        (at(CLIENT, SOURCE), udp(END, 6079, &gue)),
        (at(CLIENT4, SOURCE), udp(END4, 6079, &[])),
        (at(CLIENT, SOURCE), udp(END, 6081, &geneve)),
        (at(CLIENT4, SOURCE), udp(END4, 6081, &geneve4)),
    ];
    let orders: Vec<Pull> = paths
        .iter()
        .map(|(server, exit)| Pull::new(*server, 300_000, Some(exit.clone())))
        .collect();
    let pulled = pulled(&topology, &orders);
    settle();
    let (mirror, _) = capture.finish();
    mirror.assert_mirrored();
    assert_eq!(mirror.count(Segment::SynAck), paths.len(), "{mirror}");
    for ((_, exit), pulled) in paths.iter().zip(&pulled) {
        // In the words of whoever chose it.
        let chosen = (exit.gateway, exit.shape.value());
        let own = mirror
            .history
            .iter()
            .filter(|reply| reply.port == pulled.port);
        let mut count = 0;
        for reply in own {
            let path = reply.path.as_ref().unwrap();
            let value = path.udp.as_ref().map_or(Vec::new(), |(port, header)| {
                [&[0, 0][..], &port.to_be_bytes(), header].concat()
            });
            assert_eq!((path.local, value), chosen, "{mirror}");
            count += 1;
        }
        assert!(count > 100, "{exit:?}: {count}");
    }
    assert_eq!(topology.event(Event::ReflectTaken), paths.len() as u64);
    assert_eq!(topology.drops(), [], "{mirror}");
}

/// The server closes first, so that TIME_WAIT answers the client's FIN.
fn speaks_first(test: &str, settings: &[(&str, &str)]) {
    let mut topology = Topology::reflecting();
    for (name, value) in settings {
        Topology::sysctl(&topology.client, name, value);
    }
    topology.serve_mirrored();
    let capture = topology.mirror(test);
    let orders: Vec<Pull> = [
        (at(CLIENT, GREETING), udp(END, GPE, &gpe(6, VNI))),
        (at(CLIENT4, GREETING), Exit::ip(END.into())),
    ]
    .into_iter()
    .map(|(server, exit)| Pull {
        stay: 300,
        ..Pull::new(server, GREETING_LEN, Some(exit))
    })
    .collect();
    let pulled = pulled(&topology, &orders);
    settle();
    let (mirror, _) = capture.finish();
    mirror.assert_mirrored();
    for pulled in pulled {
        let own = mirror
            .history
            .iter()
            .filter(|reply| reply.port == pulled.port);
        let kinds: Vec<Segment> = own.map(|reply| reply.segment).collect();
        assert_eq!(kinds.first(), Some(&Segment::SynAck), "{mirror}");
        assert_eq!(
            kinds[kinds.len() - 2..],
            [Segment::Fin, Segment::Ack],
            "{mirror}"
        );
    }
    assert_eq!(topology.drops(), [], "{mirror}");
}

fn kernel() {
    let mut topology = Topology::reflecting();
    topology.serve_mirrored();
    topology.tunnel_by_kernel(topology::gateway(1), VNI);
    let capture = topology.mirror("kernel");
    let orders = [
        at(CLIENT, SOURCE),
        at(CLIENT4, SOURCE),
        at(CLIENT, GREETING),
    ]
    .map(|server| Pull::new(server, 100_000, None));
    pulled(&topology, &orders);
    settle();
    let (mirror, _) = capture.finish();
    mirror.assert_mirrored();
    let path = |version| Path {
        peer: topology::gateway(1),
        local: END.into(),
        udp: Some((GPE, gpe(version, VNI).to_vec())),
    };
    let seen: Vec<&Path> = mirror.paths.keys().collect();
    assert_eq!(seen, [&path(4), &path(6)], "{mirror}");
}

fn datagrams() {
    let mut topology = Topology::mirrored(0);
    topology.reflect_by(&Grant::reflecting(1, &[SERVER.into()]));
    topology.serve_mirrored();
    let capture = topology.mirror("datagrams");
    let exits = vec![
        udp(END, GPE, &gpe(6, 1)),
        udp(END, GPE, &gpe(6, 2)),
        Exit::ip(CLIENT.into()),
    ];
    for port in [ECHO, CONNECTING] {
        let order = Volley {
            server: CLIENT.into(),
            port,
            exits: exits.clone(),
            each: 20,
        };
        let mut client = topology.start(topology.at_server(), reflecting::DATAGRAMS, &order);
        let back: u32 = topology::result(&mut client, Duration::from_secs(30));
        assert_eq!(back, 60);
    }
    let (mirror, _) = capture.finish();
    mirror.assert_mirrored();
    assert_eq!(mirror.count(Segment::Datagram), 120, "{mirror}");
    assert_eq!(mirror.paths.len(), exits.len(), "{mirror}");
    // Of the socket that connects twice: before and after.
    assert_eq!(topology.event(Event::ReflectCaptured), 3);
    assert_eq!(topology.event(Event::ReflectMoved), 4);
}

fn refused() {
    let topology = Topology::reflecting();
    let capture = topology.mirror("refused");
    // An exit and a connection attempt: the job panics at the refusal, which is what is wanted.
    let order = Pull::new(at(CLIENT, 9999), 1, Some(udp(END, GPE, &gpe(6, VNI))));
    let mut client = topology.start(topology.at_server(), reflecting::PULL, [order]);
    assert!(!client.status(Duration::from_secs(20)).success());
    assert!(client.stderr().contains("refused"), "{}", client.stderr());
    let (mirror, _) = capture.finish();
    mirror.assert_mirrored();
    assert_eq!(mirror.count(Segment::Rst), 1, "{mirror}");
}

/// One connection to a greeter in C; what it said, and what left.
fn greeted(topology: &Topology, test: &str, greeter: &Greeter, pull: &Pull) -> (Greeted, Mirror) {
    let capture = topology.mirror(test);
    let mut server = topology.start(topology.at_client(), reflecting::LISTEN, greeter);
    server.wait_for(reflecting::READY, Duration::from_secs(10));
    pulled(topology, std::slice::from_ref(pull));
    let greeted = topology::result(&mut server, Duration::from_secs(20));
    settle();
    (greeted, capture.finish().0)
}

fn greeter(port: u16, reflect: Option<u32>) -> (Greeter, Pull) {
    let greeter = Greeter {
        port,
        reflect,
        connections: 1,
        bytes: 20_000,
    };
    let exit = udp(END, GPE, &gpe(6, VNI));
    let pull = Pull::new(at(CLIENT, port), greeter.bytes, Some(exit));
    (greeter, pull)
}

fn switches() {
    const PATH: Option<u32> = Some(REFLECT_PATH);
    // What the cgroup's policy has by default, if there is one; the listener's own; what comes
    // of it.
    let table = [
        (PATH, None, true),
        (PATH, Some(0), false),
        (Some(0), None, false),
        (Some(0), PATH, true),
        (None, None, false),
        (None, PATH, true),
    ];
    let mut topology = Topology::mirrored(0);
    // Those without a policy first: a policy that was given cannot be taken away again here.
    for (number, (default, own, reflects)) in (0..).zip(table.into_iter().rev()) {
        if let Some(reflect) = default {
            topology.reflect_by(&Grant {
                reflect,
                ..Grant::reflecting(1, &[])
            });
        }
        let (greeter, pull) = greeter(9200 + number, own);
        let test = format!("switches-{number}");
        let (greeted, mirror) = greeted(&topology, &test, &greeter, &pull);
        assert_eq!(greeted.reflect, own.or(default).or(Some(0)));
        assert!(mirror.history.len() > 5, "{mirror}");
        for reply in &mirror.history {
            assert_eq!(
                reply.path.is_some(),
                reflects,
                "{default:?} {own:?}: {mirror}"
            );
        }
        if reflects {
            mirror.assert_mirrored();
        }
        assert_eq!(greeted.marks[0] >> 16 == 0x80 | 56, reflects);
    }
    drop(topology);
    // As a whole.
    let topology = Topology::mirrored_off();
    let (greeter, pull) = greeter(9200, PATH);
    let (_, mirror) = greeted(&topology, "switches-off", &greeter, &pull);
    assert!(
        mirror.history.iter().all(|reply| reply.path.is_none()),
        "{mirror}"
    );
    assert_eq!(topology.event(Event::ReflectCaptured), 0);
}

fn dscp() {
    const EF: u8 = 46;
    let topology = Topology::reflecting();
    for (number, bits) in (0..).zip([REFLECT_PATH, REFLECT_PATH | REFLECT_DSCP, REFLECT_DSCP]) {
        let (greeter, mut pull) = greeter(9300 + number, Some(bits));
        pull.class = Some(EF << 2);
        if bits == REFLECT_DSCP {
            pull.exits = vec![None];
        }
        let (_, mirror) = greeted(&topology, &format!("dscp-{bits}"), &greeter, &pull);
        mirror.assert_clean();
        let expected = if bits & REFLECT_DSCP == 0 { 0 } else { EF };
        assert!(mirror.count(Segment::SynAck) > 0 && mirror.count(Segment::Fin) > 0);
        for reply in &mirror.history {
            assert_eq!(reply.dscp, expected, "{reply:?}: {mirror}");
        }
    }
}

/// A firewall's mark on what comes in becomes the connection's, beside our own part of it.
fn mark() {
    let topology = Topology::reflecting();
    let rules = "add table inet t; \
                 add chain inet t p { type filter hook prerouting priority 0; }; \
                 add rule inet t p tcp dport 9350-9359 meta mark set 0x5000007";
    let nft = program("nft").unwrap();
    let mut nft = Command::new(nft);
    nft.arg(rules);
    let output = topology.client.in_namespace(|| Ok(nft.output())).unwrap();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    // By which the kernel would give every accepted socket that mark.
    Topology::sysctl(&topology.client, "ipv4/tcp_fwmark_accept", "0");
    let ours = (0x80 | 56) << 16;
    for (port, bits, expected) in [
        (9350, REFLECT_PATH | REFLECT_MARK, ours | 0x0500_0007),
        (9351, REFLECT_MARK, 0x0500_0007),
        (9352, REFLECT_PATH, ours),
    ] {
        let (greeter, mut pull) = greeter(port, Some(bits));
        if bits == REFLECT_MARK {
            pull.exits = vec![None];
        }
        let (greeted, mirror) = greeted(&topology, &format!("mark-{bits}"), &greeter, &pull);
        mirror.assert_clean();
        assert_eq!(greeted.marks, [expected], "{mirror}");
    }
}

/// A path that was captured for the listener of one cgroup is there when another's has the port.
fn cgroups() {
    let mut topology = Topology::reflecting();
    let second = topology.room("second");
    topology.grant(&second, &Grant::reflecting(2, &[]));
    let (first, pull) = greeter(9400, None);
    let first = Greeter {
        connections: 10,
        ..first
    };
    let start = |place, greeter: &Greeter| {
        let mut server = topology.start(place, reflecting::LISTEN, greeter);
        server.wait_for(reflecting::READY, Duration::from_secs(10));
        server
    };
    let mut server = start(topology.at_client(), &first);
    let capture = topology.mirror("cgroups");
    let port = pulled(&topology, std::slice::from_ref(&pull))[0].port;
    let ethernet = capture.with(|mirror| mirror.last(port)).unwrap();
    let path = Path {
        peer: SERVER.into(),
        local: END.into(),
        udp: Some((GPE, gpe(6, VNI).to_vec())),
    };
    // A SYN of a connection that stays half open.
    let syn = forge::Segment {
        // An address that nobody has: a host there would reset what it did not ask for, and what
        // comes outside of the tunnel ends the entry.
        from: (Ipv6Addr::new(0xfd00, 5, 0, 0, 0, 0, 0, 0xdead), 4444),
        to: (CLIENT, 9400),
        sequence: 1,
        acknowledgement: 0,
        flags: SYN,
        payload: Vec::new(),
        checksum: Checksum::Right,
    };
    topology.inject(&syn.frame(&ethernet, Some(&path)));
    capture.wait_until("the first SYN-ACK", |mirror| mirror.replies(4444).0 > 0);
    let (_, last) = capture.with(|mirror| mirror.replies(4444));
    assert_eq!(last, Some(path.clone()));
    server.kill();

    // The other cgroup's listener reflects as well, and has done so.
    let mut place = topology.at_client();
    place.cgroup = &second;
    let mut server = start(place, &first);
    pulled(&topology, &[pull]);
    let before = capture.with(|mirror| mirror.replies(4444).0);
    assert!(topology.reflected().0 > 0, "the entry is still there");
    topology.inject(
        &forge::Segment {
            sequence: 99,
            ..syn
        }
        .frame(&ethernet, None),
    );
    capture.wait_until("the second SYN-ACK", |mirror| {
        mirror.replies(4444).0 > before
    });
    let (_, last) = capture.with(|mirror| mirror.replies(4444));
    assert_eq!(last, None, "it left as its SYN came");
    server.kill();
    drop(capture.finish());
}

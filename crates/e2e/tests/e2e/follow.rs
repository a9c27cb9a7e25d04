//! Replies follow a client that moves, where the policy lets them; nobody else moves them.

use crate::{
    Test,
    reflect::{at, pulled, settle},
};
use dynencap_abi::{Config, Event};
use dynencap_e2e::{
    Exit, Grant, Mirror, Topology, amount,
    capture::Capture,
    forge::{ACK, Checksum, RST, SYN, Segment},
    job::{
        reflecting::{self, Pull, Pulled},
        server::SOURCE,
    },
    limit,
    mirror::Path,
    topology::{self, CLIENT, END, GPE, SERVER, gateway, gpe, udp},
};
use std::{
    net::{IpAddr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

pub(crate) const TESTS: &[Test] = &[
    ("follow::a_client_that_moves_ten_times_a_second", &[], moves),
    ("follow::a_router_that_moves_its_tunnel", &[], router),
    ("follow::not_whom_the_policy_does_not_let", &[], not_let),
    (
        "follow::not_what_is_late_spoofed_or_out_of_window",
        &[],
        forged,
    ),
];

/// How long replies may still leave by the path before: a packet on its way up the stack, while
/// the capture is what it is.
const LAG: Duration = Duration::from_millis(50);

fn assert_followed(mirror: &Mirror, pulled: &Pulled, moves: u64) {
    mirror.assert_clean();
    println!(
        "followed: {moves} moves in {} ms, {} replies, {} by the path before, {:?} after a move",
        pulled.milliseconds,
        mirror.mirrored + mirror.behind,
        mirror.behind,
        mirror.lag
    );
    assert!(mirror.lag < limit(LAG), "{mirror}");
    // Where all takes longer, packets are longer on their way up the stack.
    let share = amount(20).max(2);
    assert!(mirror.behind * share < mirror.mirrored, "{mirror}");
}

/// Milliseconds between two moves.
fn distance() -> u64 {
    limit(Duration::from_millis(100)).as_millis() as u64
}

/// For ten seconds, between four headers of four overheads, while data comes in a stream. Where all
/// takes longer, fewer moves at a longer distance.
fn moves() {
    let mut topology = Topology::mirrored(Config::TELL_TOO_BIG);
    topology.reflect_by(&Grant::reflecting(1, &[SERVER.into()]));
    topology.serve_mirrored();
    let capture = topology.mirror("moves");
    let rate = amount(3_000_000);
    let exits = vec![
        Some(Exit::ip(END.into())),
        Some(udp(END, GPE, &gpe(6, 1))),
        Some(udp(END, GPE, &gpe(6, 2))),
        Some(Exit::udp(CLIENT.into(), 8)),
    ];
    let moves = amount(100).max(20);
    let every = distance();
    let milliseconds = moves * every;
    let pull = Pull {
        rate,
        every,
        exits,
        ..Pull::new(at(CLIENT, SOURCE), rate * milliseconds / 1000, None)
    };
    let pulled = &pulled(&topology, &[pull])[0];
    settle();
    let (mirror, _) = capture.finish();
    assert!(
        pulled.milliseconds > milliseconds * 9 / 10 && pulled.switches > moves * 8 / 10,
        "{pulled:?}"
    );
    assert_followed(&mirror, pulled, pulled.switches);
    assert_eq!(mirror.paths.len(), 4, "{mirror}");
    // The first is no move.
    let moved = topology.event(Event::ReflectMoved);
    assert!(moved >= pulled.switches * 9 / 10, "{:?}", topology.events());
}

/// The outer source changes, and the network's number with it.
fn router() {
    let mut topology = Topology::mirrored(Config::TELL_TOO_BIG);
    let sources = [1, 2, 3].map(gateway);
    topology.reflect_by(&Grant::reflecting(1, &sources));
    topology.serve_mirrored();
    topology.tunnel_by_kernel(sources[0], 1);
    let capture = topology.mirror("router");
    // As many bytes at any rate: it lasts as long as there are moves.
    let bytes = 3_000_000;
    let pull = Pull {
        rate: amount(bytes),
        ..Pull::new(at(CLIENT, SOURCE), 3 * bytes, None)
    };
    let mut client = topology.start(topology.at_server(), reflecting::PULL, [&pull]);
    client.wait_for("port", Duration::from_secs(10));
    let mut moves = 0;
    let until = Instant::now() + limit(Duration::from_millis(2500));
    for (number, source) in (2..).zip(sources.iter().cycle().skip(1)) {
        thread::sleep(limit(Duration::from_millis(100)));
        if Instant::now() > until {
            break;
        }
        topology.tunnel_moves(*source, number);
        moves += 1;
    }
    let pulled: Vec<Pulled> = topology::result(&mut client, Duration::from_secs(60));
    assert_eq!(pulled[0].received, pull.expected());
    settle();
    let (mirror, _) = capture.finish();
    assert_followed(&mirror, &pulled[0], moves);
    assert!(
        topology.event(Event::ReflectMoved) >= moves * 9 / 10,
        "{:?}",
        topology.events()
    );
}

/// Replies stay on the first path, and nothing is lost by that.
fn not_let() {
    let mut topology = Topology::reflecting();
    topology.serve_mirrored();
    let capture = topology.mirror("not-let");
    let first = udp(END, GPE, &gpe(6, 1));
    let exits = vec![Some(first), Some(udp(END, GPE, &gpe(6, 2)))];
    let bytes = 3_000_000;
    let pull = Pull {
        rate: amount(bytes),
        every: distance(),
        exits,
        ..Pull::new(at(CLIENT, SOURCE), bytes, None)
    };
    pulled(&topology, &[pull]);
    settle();
    let (mirror, _) = capture.finish();
    mirror.assert_clean();
    assert_eq!(mirror.paths.len(), 1, "{mirror}");
    assert!(mirror.behind > 50, "{mirror}");
    assert!(topology.event(Event::ReflectRefused) > 0);
    assert_eq!(topology.event(Event::ReflectMoved), 0);
}

/// A header that only forgers use.
const FORGED: [u8; 8] = [0x0c, 0, 0, 2, 0x66, 0x66, 0x66, 0];
const TRUSTED: Ipv6Addr = Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 1);
const STRANGER: Ipv6Addr = Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 2);

fn path(peer: Ipv6Addr) -> Path {
    Path {
        peer: peer.into(),
        local: END.into(),
        udp: Some((GPE, FORGED.to_vec())),
    }
}

fn forged() {
    let mut topology = Topology::mirrored(0);
    let trusted: [IpAddr; 2] = [SERVER.into(), TRUSTED.into()];
    topology.reflect_by(&Grant::reflecting(1, &trusted));
    topology.serve_mirrored();
    let capture = topology.mirror_of("forged", &topology::ends(), &[FORGED]);
    // As many bytes at any rate: it outlasts the blows.
    let bytes = 1_000_000;
    let pull = Pull {
        rate: amount(bytes),
        ..Pull::new(
            at(CLIENT, SOURCE),
            4 * bytes,
            Some(udp(END, GPE, &gpe(6, 1))),
        )
    };
    let mut client = topology.start(topology.at_server(), reflecting::PULL, [&pull]);
    client.wait_for(".", Duration::from_secs(10));
    let port: u16 = client
        .stdout()
        .trim()
        .trim_start_matches("port ")
        .trim_end_matches('.')
        .parse()
        .unwrap();
    capture.wait_until("the transfer", |mirror| mirror.replies(port).0 > 100);
    let (ignored, refused) = (Event::ReflectIgnored, Event::ReflectRefused);

    // By a stranger: newer than all before, and nothing wrong with it.
    strike(&topology, &capture, port, refused, STRANGER, |_| {});
    // By whom the policy trusts: not within the window,
    strike(&topology, &capture, port, ignored, TRUSTED, |segment| {
        segment.sequence = segment.sequence.wrapping_add(1 << 21);
    });
    // late,
    strike(&topology, &capture, port, ignored, TRUSTED, |segment| {
        let length = segment.payload.len() as u32;
        segment.sequence = segment.sequence.wrapping_sub(length);
    });
    // acknowledging what was never sent,
    strike(&topology, &capture, port, ignored, TRUSTED, |segment| {
        segment.acknowledgement = segment.acknowledgement.wrapping_add(1 << 30);
    });
    // acknowledging nothing, a reset, a SYN.
    for flags in [0, RST | ACK, SYN | ACK] {
        strike(&topology, &capture, port, ignored, TRUSTED, |segment| {
            segment.flags = flags;
        });
    }
    let pulled: Vec<Pulled> = topology::result(&mut client, Duration::from_secs(60));
    assert_eq!(pulled[0].received, pull.expected());
    settle();
    let moved = topology.event(Event::ReflectMoved);
    assert_eq!(moved, 0, "{:?}", topology.events());
    let (mirror, _) = capture.finish();
    mirror.assert_mirrored();
    assert_eq!(mirror.paths.len(), 1, "{mirror}");
    assert!(mirror.forged >= 6, "{mirror}");
    control(&mut topology);
}

/// The same blow where it may strike: what shows that the others would have been seen.
fn control(topology: &mut Topology) {
    let capture = topology.mirror_of("forged-control", &topology::ends(), &[FORGED]);
    let bytes = 1_000_000;
    let pull = Pull {
        rate: amount(bytes),
        ..Pull::new(
            at(CLIENT, SOURCE),
            2 * bytes,
            Some(udp(END, GPE, &gpe(6, 1))),
        )
    };
    let mut client = topology.start(topology.at_server(), reflecting::PULL, [&pull]);
    client.wait_for(".", Duration::from_secs(10));
    let port: u16 = client
        .stdout()
        .trim()
        .trim_start_matches("port ")
        .trim_end_matches('.')
        .parse()
        .unwrap();
    capture.wait_until("the transfer", |mirror| mirror.replies(port).0 > 100);
    strike(
        topology,
        &capture,
        port,
        Event::ReflectMoved,
        TRUSTED,
        |_| {},
    );
    capture.wait_until("a reply to the forger", |mirror| mirror.astray.0 > 0);
    client.kill();
    drop(capture.finish());
}

/// Sends C the segment that the client would send next, changed, from this outer source, until the
/// event is counted. The programs see it, TCP drops it.
fn strike(
    topology: &Topology,
    capture: &Capture<Mirror>,
    port: u16,
    event: Event,
    peer: Ipv6Addr,
    mut change: impl FnMut(&mut Segment),
) {
    let before = topology.event(event);
    let until = Instant::now() + limit(Duration::from_secs(2));
    while topology.event(event) == before {
        assert!(
            Instant::now() < until,
            "{}: {:?}",
            event.name(),
            topology.events()
        );
        let frame = capture.with(|mirror| mirror.last(port)).unwrap();
        // Behind IPv6, UDP and VXLAN-GPE.
        let mut segment = Segment::of(&frame, 40 + 8 + 8);
        segment.sequence = segment.end();
        segment.payload = vec![0; 100];
        segment.flags = ACK;
        segment.checksum = Checksum::Wrong;
        change(&mut segment);
        topology.inject(&segment.frame(&frame, Some(&path(peer))));
        thread::sleep(Duration::from_millis(5));
    }
}

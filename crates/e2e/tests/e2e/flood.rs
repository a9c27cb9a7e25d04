//! A flood of SYNs from addresses that nobody has, in the tunnel of honest clients, against the map
//! of captured paths at its default size: who is established keeps the path, who comes new still
//! gets in, and the map stays as large as it is. With `DYNENCAP_FLOOD_SYNS` the flood has so many
//! SYNs, and there are 100 connections; docs/reflection.md has the figures of a million.

use crate::{Test, reflect::at};
use dynencap_abi::Event;
use dynencap_e2e::{
    Audit, Exit, Topology, amount,
    audit::Plain,
    capture::Capture,
    forge::{Checksum, SYN, Segment},
    job::{
        reflecting::{self, Attempts, Got, Pull, Pulled},
        server::SOURCE,
    },
    mirror::Path,
    topology::{self, CLIENT, GPE, VNI, gpe, ip, rules, udp},
};
use dynencap_kernel::sys;
use std::{
    env,
    io::IoSlice,
    net::{IpAddr, Ipv6Addr},
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

pub(crate) const TESTS: &[Test] = &[
    ("flood::without_syn_cookies", &[], || flood("0")),
    ("flood::with_syn_cookies", &[], || flood("1")),
];

/// The outer source of the flood: routed nowhere.
const FLOODER: Ipv6Addr = Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 1);

/// How large the test is.
struct Size {
    syns: u32,
    /// SYNs a second, at most.
    rate: u32,
    connections: u16,
    /// How long the established connections transfer, in seconds.
    seconds: u64,
    attempts: u32,
    /// What the kernel alone does is measured beside.
    beside: bool,
}

impl Size {
    fn chosen() -> Self {
        match env::var("DYNENCAP_FLOOD_SYNS") {
            Ok(text) => {
                let syns: u32 = text.parse().expect("DYNENCAP_FLOOD_SYNS: a number");
                let rate = 100_000;
                Self {
                    syns,
                    rate,
                    connections: 100,
                    // Half as long again as the flood, and some.
                    seconds: 5 + u64::from(syns / rate) * 3 / 2,
                    attempts: 100,
                    beside: true,
                }
            }
            Err(_) => Self {
                // Still more than the map holds where all takes longer.
                syns: amount(50_000) as u32,
                rate: 50_000,
                connections: 20,
                seconds: 4,
                attempts: 20,
                beside: false,
            },
        }
    }

    /// Milliseconds between two honest clients, so that all come while the flood lasts.
    fn pause(&self) -> u64 {
        u64::from(self.syns) * 800 / u64::from(self.rate) / u64::from(self.attempts)
    }
}

fn exit() -> Exit {
    udp(CLIENT, GPE, &gpe(6, VNI))
}

fn flood(cookies: &str) {
    let size = Size::chosen();
    let mut topology = Topology::reflecting();
    let (got, audit) = flooded(&mut topology, cookies, &size, Plain::Leak);
    let (present, capacity) = topology.reflected();
    let count = |event| topology.event(event);
    let (captured, taken) = (count(Event::ReflectCaptured), count(Event::ReflectTaken));
    println!(
        "{captured} paths captured, {taken} taken, {present} of {capacity} present, {} evicted; \
         {} replies in tunnels; dropped {:?}",
        captured
            .saturating_sub(taken)
            .saturating_sub(present as u64),
        audit.tunnelled(),
        topology.drops()
    );
    audit.assert_clean();
    // Each SYN came as far as the map, and the map did not grow.
    assert!(captured >= u64::from(size.syns) * 9 / 10, "{captured}");
    assert!(present <= capacity as usize, "{present} of {capacity}");
    if cookies == "1" {
        assert!(got.succeeded * 10 >= size.attempts * 9, "{got:?}");
    }
    drop(topology);
    if size.beside {
        let mut topology = Topology::mirrored_off();
        flooded(&mut topology, cookies, &size, Plain::Allowed);
    }
}

/// Floods C while others transfer and come; fails unless each transfer is whole.
fn flooded(topology: &mut Topology, cookies: &str, size: &Size, plain: Plain) -> (Got, Audit) {
    const RATE: u64 = 40_000;
    Topology::sysctl(&topology.client, "ipv4/tcp_syncookies", cookies);
    ip(&topology.router, "-6 route add blackhole fd00:7::/64");
    ip(&topology.router, "-6 route add blackhole fd00:f::/32");
    topology.serve_mirrored();
    let ethernet = ethernet(topology);
    let capture = capture(topology, cookies, plain);
    let orders: Vec<Pull> = (0..size.connections)
        .map(|number| Pull {
            seed: number.into(),
            rate: RATE,
            ..Pull::new(at(CLIENT, SOURCE), RATE * size.seconds, Some(exit()))
        })
        .collect();
    let mut established = topology.start(topology.at_server(), reflecting::PULL, &orders);
    let all = usize::from(size.connections);
    established.wait_until("every connection", Duration::from_secs(20), |program| {
        program.stdout().matches('.').count() == all
    });
    let attempts = Attempts {
        pull: Pull::new(at(CLIENT, SOURCE), 10_000, Some(exit())),
        count: size.attempts,
        pause: size.pause(),
        timeout: 2000,
    };
    let mut honest = topology.start(topology.at_server(), reflecting::ATTEMPTS, &attempts);
    let took = send(topology, &ethernet, size);
    let got: Got = topology::result(&mut honest, Duration::from_secs(400));
    let pulled: Vec<Pulled> = topology::result(&mut established, Duration::from_secs(400));
    let (audit, _) = capture.finish();
    let lasted = pulled.iter().map(|pulled| pulled.milliseconds).min();
    let lasted = Duration::from_millis(lasted.unwrap_or(0));
    println!(
        "{} SYNs in {:.1} s, tcp_syncookies={cookies}, {}: {} established connections for {:.1} s, \
         each whole; of {} honest ones {} got in within 2 s, the slowest in {} ms",
        size.syns,
        took.as_secs_f64(),
        match plain {
            Plain::Leak => "reflecting",
            Plain::Allowed => "the kernel alone",
        },
        pulled.len(),
        lasted.as_secs_f64(),
        size.attempts,
        got.succeeded,
        got.slowest,
    );
    for (order, pulled) in orders.iter().zip(&pulled) {
        assert_eq!(pulled.received, order.expected());
    }
    assert!(took < lasted, "the flood outlasted the transfers: {took:?}");
    (got, audit)
}

/// All that C sends, as bytes: to honest clients and to the flooder, in the same header.
fn capture(topology: &Topology, cookies: &str, plain: Plain) -> Capture<Audit> {
    let mut rules = rules(plain);
    rules.gateways = vec![IpAddr::V6(topology::SERVER), FLOODER.into()];
    rules.shapes = vec![exit().shape];
    topology.audit_by(&format!("flood-{cookies}"), rules)
}

/// Ethernet addresses of a frame from the router to C.
fn ethernet(topology: &Topology) -> Vec<u8> {
    let capture = topology.mirror("flood-before");
    let pulled = crate::reflect::pulled(
        topology,
        &[Pull::new(at(CLIENT, SOURCE), 1000, Some(exit()))],
    );
    let frame = capture.with(|mirror| mirror.last(pulled[0].port)).unwrap();
    drop(capture.finish());
    frame
}

/// Sends the flood from the router, at its rate or as fast as one thread can; how long it took.
fn send(topology: &Topology, ethernet: &[u8], size: &Size) -> Duration {
    let path = Path {
        peer: FLOODER.into(),
        local: CLIENT.into(),
        udp: Some((GPE, gpe(6, VNI).to_vec())),
    };
    let send = || -> std::io::Result<Duration> {
        let socket = sys::packet_socket()?;
        let link = sys::Link::named(topology::ROUTER_DEVICES[0])?;
        let start = Instant::now();
        for number in 0..size.syns {
            if number % 100 == 0 {
                let due = Duration::from_secs(1) * number / size.rate;
                thread::sleep(due.saturating_sub(start.elapsed()));
            }
            let low = number.to_be_bytes();
            let pair = |at: usize| u16::from_be_bytes([low[at], low[at + 1]]);
            let syn = Segment {
                from: (
                    Ipv6Addr::new(0xfd00, 0xf, 0, 0, 0, pair(0), 0, pair(2)),
                    1024 + (number % 60_000) as u16,
                ),
                to: (CLIENT, SOURCE),
                sequence: number,
                acknowledgement: 0,
                flags: SYN,
                payload: Vec::new(),
                checksum: Checksum::Right,
            };
            let frame = syn.frame(ethernet, Some(&path));
            sys::send_frame(socket.as_fd(), link, 0x86dd, &[IoSlice::new(&frame)])?;
        }
        Ok(start.elapsed())
    };
    let sent = topology.router.in_namespace(|| Ok(send()));
    sent.expect("setns").expect("the flood")
}

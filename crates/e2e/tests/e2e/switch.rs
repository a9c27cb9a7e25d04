//! Changes of the exit in mid-connection, under full load: every byte arrives, no frame is over
//! the MTU, and each frame leaves by the exit that is in force. Where a change may cost
//! something, `figures` says what; docs/switch.md explains it.

use crate::{Test, require::Need};
use dynencap_abi::{MARK_MASK, MARK_OVERHEAD_SHIFT, MARK_SENTINEL, Reason};
use dynencap_e2e::{
    Audit, Exit, Topology,
    audit::Plain,
    capture::{Capture, Observer},
    job::{
        server::{DATAGRAMS, SINK},
        switching::{self, LEAVING, OneWrite, Switched, Switching, Way, settled},
    },
    topology::{
        EXIT_DEVICES, GATEWAYS, ROUTER_DEVICES, SERVER, SERVER_DEVICE, evidence, gateway, gateways,
        rules, server,
    },
};
use dynencap_kernel::Namespace;
use std::{
    fmt::Write as _,
    io::Write as _,
    net::{IpAddr, Ipv6Addr},
    process::Command,
    time::Duration,
};

const NEEDS: &[Need] = &[Need::Program("tc"), Need::Program("unshare")];

pub(crate) const TESTS: &[Test] = &[
    (
        "switch::between_exits_of_one_overhead_costs_nothing",
        NEEDS,
        || {
            let exits = (0..GATEWAYS).map(|number| Some(Exit::ip(gateway(number))));
            let (switched, audit) = hundred("exits", None, exits.collect());
            assert_eq!(audit.tunnels.len(), usize::from(GATEWAYS), "{audit}");
            switched.assert_free(40);
        },
    ),
    (
        "switch::below_the_planned_overhead_costs_nothing",
        NEEDS,
        || {
            let (switched, _) = hundred("planned", Some(largest()), overheads());
            switched.assert_free(80);
        },
    ),
    (
        "switch::between_none_and_some_costs_nothing_if_planned",
        NEEDS,
        || {
            let exits = vec![None, Some(Exit::udp(gateway(1), 8))];
            let (switched, audit) = hundred("none-planned", Some(largest()), exits);
            assert!(
                audit.plain > 1000 && audit.through(gateway(1)) > 1000,
                "{audit}"
            );
            switched.assert_free(80);
        },
    ),
    (
        "switch::with_a_reserve_the_first_exit_costs_nothing",
        NEEDS,
        || {
            let mut topology = Topology::new();
            topology.reserve(80);
            let exits = vec![None, Some(Exit::udp(gateway(1), 8))];
            let (switched, _) = watched_in(topology, "reserve", &once(None, exits));
            switched.assert_free(80);
        },
    ),
    ("switch::to_a_larger_overhead_loses_nothing", NEEDS, || {
        let (switched, _) = hundred("overheads", None, overheads());
        let sent = &switched.sent;
        assert_eq!(planned(sent.mark.1), 80, "the largest stays: {sent:?}");
        assert_eq!(sent.mss.1, segment(80), "{sent:?}");
    }),
    (
        "switch::from_none_to_some_and_back_loses_nothing",
        NEEDS,
        || {
            let exits = vec![None, Some(Exit::udp(gateway(1), 8))];
            let (switched, audit) = hundred("none", None, exits);
            assert!(
                audit.plain > 1000 && audit.through(gateway(1)) > 1000,
                "{audit}"
            );
            assert_eq!(
                switched.sent.mss,
                (segment(0), segment(56)),
                "{:?}",
                switched.sent
            );
        },
    ),
    (
        "switch::with_probe_only_tcp_s_own_try_is_lost",
        NEEDS,
        || {
            let exits = vec![Some(Exit::ip(gateway(0))), Some(Exit::udp(gateway(1), 8))];
            let transfer = Switching {
                way: Way::Probe,
                ..once(None, exits)
            };
            let (switched, _) = watched("probe", &transfer);
            assert_eq!(switched.fragment_fails, 0, "{switched:?}");
            assert_eq!(
                switched.sent.mss,
                (segment(40), segment(56)),
                "{switched:?}"
            );
        },
    ),
    ("switch::figures", NEEDS, figures),
];

/// TCP's payload of a segment with timestamps, over IPv6 through an exit of this overhead.
fn segment(overhead: u32) -> u32 {
    1500 - overhead - 40 - 20 - 12
}

fn planned(mark: u32) -> u32 {
    (mark & MARK_MASK & !MARK_SENTINEL) >> MARK_OVERHEAD_SHIFT
}

fn largest() -> Exit {
    Exit::udp(gateway(2), 32)
}

fn overheads() -> Vec<Option<Exit>> {
    vec![
        Some(Exit::ip(gateway(0))),
        Some(Exit::udp(gateway(1), 8)),
        Some(largest()),
        Some(Exit::udp(gateway(3), 0)),
    ]
}

/// A hundred changes in ten seconds.
fn hundred(test: &str, plan: Option<Exit>, exits: Vec<Option<Exit>>) -> (Seen, Audit) {
    let transfer = Switching {
        milliseconds: 10_000,
        first: 98,
        every: 98,
        ..once(plan, exits)
    };
    let (seen, audit) = watched(test, &transfer);
    assert!(seen.sent.switches >= 95, "{seen:?}");
    (seen, audit)
}

fn once(plan: Option<Exit>, exits: Vec<Option<Exit>>) -> Switching {
    Switching {
        server: server(SINK),
        milliseconds: 2_000,
        buffer: 500_000,
        plan,
        exits,
        first: 700,
        every: 0,
        way: Way::Plain,
    }
}

/// A transfer, and what the client's kernel and our programs counted meanwhile.
#[derive(Debug)]
struct Seen {
    sent: Switched,
    /// `Ip6FragFails`: packets that the kernel dropped at the route's MTU.
    fragment_fails: u64,
    /// What our programs dropped.
    drops: Vec<(&'static str, u64)>,
}

impl Seen {
    /// Packets of the transfer that our programs dropped. The last acknowledgement of a
    /// connection that is gone is not one.
    fn dropped(&self) -> u64 {
        let late = Reason::MarkedWithoutExit.name();
        let of_transfer = self.drops.iter().filter(|(reason, _)| *reason != late);
        of_transfer.map(|(_, count)| count).sum()
    }

    /// Nothing in the socket's route changed, so nothing was dropped or sent anew for it.
    fn assert_free(&self, overhead: u32) {
        let sent = &self.sent;
        assert_eq!(self.fragment_fails, 0, "{self:?}");
        assert_eq!(self.dropped(), 0, "{self:?}");
        // A window was in flight at each change: one that was lost or sent again would show.
        let lost = sent.retransmits.saturating_sub(sent.needless);
        assert!(lost < sent.segments / 1000, "{self:?}");
        assert_eq!(planned(sent.mark.0), overhead, "{self:?}");
        assert_eq!(planned(sent.mark.1), overhead, "{self:?}");
        assert_eq!(sent.mss, (segment(overhead), segment(overhead)), "{self:?}");
    }
}

fn transfer(topology: &Topology, switching: &Switching) -> Seen {
    let fails = || snmp6(&topology.client, "Ip6FragFails");
    let before = (fails(), topology.drops());
    let sent: Switched = topology.run_within(switching::NAME, switching, Duration::from_secs(60));
    sent.assert_whole();
    Seen {
        sent,
        fragment_fails: fails() - before.0,
        drops: since(&before.1, topology.drops()),
    }
}

fn since(before: &[(&str, u64)], mut now: Vec<(&'static str, u64)>) -> Vec<(&'static str, u64)> {
    for (reason, count) in &mut now {
        let old = before.iter().find(|(known, _)| known == reason);
        *count -= old.map_or(0, |(_, old)| *old);
    }
    now.retain(|(_, count)| *count > 0);
    now
}

/// A transfer whose every frame is judged.
fn watched(test: &str, switching: &Switching) -> (Seen, Audit) {
    watched_in(Topology::new(), test, switching)
}

fn watched_in(mut topology: Topology, test: &str, switching: &Switching) -> (Seen, Audit) {
    topology.serve();
    keep_order(&topology);
    narrow(&topology);
    let path = evidence().join(format!("switch-{test}.pcap"));
    let capture = Capture::start(&topology.router, ROUTER_DEVICES[0], &path, Watch::new());
    let seen = transfer(&topology, switching);
    let (watch, _) = capture.finish();
    say(&format!(
        "switch-{test}: {seen:?}, {} frames placed\n",
        watch.placed
    ));
    watch.audit.assert_clean();
    assert_eq!(watch.misplaced, Vec::<String>::new(), "{}", watch.audit);
    assert!(watch.placed > 1000, "{}", watch.placed);
    assert_eq!(watch.changes, seen.sent.switches);
    (seen, watch.audit)
}

/// The auditor, which also knows from the client's datagrams which exit is in force.
struct Watch {
    audit: Audit,
    /// The port of [`settled`] of the exit in force, once a change is over.
    in_force: Option<u16>,
    changes: u64,
    /// Frames that left by the exit in force.
    placed: u64,
    /// Frames that did not; the first of them.
    misplaced: Vec<String>,
}

impl Watch {
    fn new() -> Self {
        Self {
            // Only the datagrams and a connection without an exit may be outside: judged below.
            audit: Audit::new(rules(Plain::Allowed)),
            in_force: None,
            changes: 0,
            placed: 0,
            misplaced: Vec::new(),
        }
    }
}

impl Observer for Watch {
    fn frame(&mut self, bytes: &[u8]) {
        self.audit.frame(bytes);
        let Some(packet) = ipv6(bytes) else {
            return;
        };
        let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let to = IpAddr::V6(destination(packet));
        let by = match packet[6] {
            17 if port(42) == DATAGRAMS => {
                let said = port(40);
                self.in_force = (said != LEAVING).then_some(said);
                self.changes += u64::from(said != LEAVING);
                return;
            }
            _ if gateways().any(|gateway| gateway == to) => settled(Some(to)),
            _ if to == SERVER => settled(None),
            // The link's own.
            _ => return,
        };
        match self.in_force {
            None => {}
            Some(in_force) if in_force == by => self.placed += 1,
            Some(in_force) if self.misplaced.len() < 5 => {
                let change = self.changes;
                self.misplaced
                    .push(format!("to {to} after change {change}, to {in_force}"));
            }
            Some(_) => {}
        }
    }
}

/// The packet of an Ethernet frame, if it is IPv6 with at least 4 bytes behind the header.
fn ipv6(frame: &[u8]) -> Option<&[u8]> {
    let (ethernet, packet) = frame.split_at_checked(14)?;
    (ethernet[12..] == [0x86, 0xdd] && packet.len() >= 44).then_some(packet)
}

fn destination(packet: &[u8]) -> Ipv6Addr {
    let bytes: [u8; 16] = packet[24..40].try_into().expect("16 bytes");
    bytes.into()
}

/// One CPU for each device's packets: veth hands a frame to the sender's CPU, and a connection
/// that sends from several is reordered on the way, which makes TCP send again what was not
/// lost.
fn keep_order(topology: &Topology) {
    let devices = [
        (&topology.router, ROUTER_DEVICES[0]),
        (&topology.router, ROUTER_DEVICES[1]),
        (&topology.exit, EXIT_DEVICES[0]),
        (&topology.exit, EXIT_DEVICES[1]),
        (&topology.server, SERVER_DEVICE),
    ];
    // What waits for the address of a gateway's neighbour on its first use is not lost.
    let name = format!("ipv6/neigh/{}/unres_qlen_bytes", ROUTER_DEVICES[1]);
    Topology::sysctl(&topology.router, &name, "8000000");
    for (host, device) in devices {
        let queue = format!("/sys/class/net/{device}/queues/rx-0/rps_cpus");
        let script = format!("mount -t sysfs sysfs /sys && echo 1 > {queue}");
        run(host, "unshare", &["--mount", "sh", "-c", &script]);
    }
}

/// A bottleneck behind the capture, with room for all that the connection has in flight: there
/// is always a window on the way, and nothing is lost but for the change.
fn narrow(topology: &Topology) {
    let device = ROUTER_DEVICES[1];
    let shape = "root tbf rate 300mbit burst 64kb limit 8mb";
    let arguments = format!("qdisc add dev {device} {shape}");
    run(
        &topology.router,
        "tc",
        &arguments.split(' ').collect::<Vec<_>>(),
    );
}

fn run(host: &Namespace, program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = host.in_namespace(|| Ok(command.output())).expect("setns");
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

fn snmp6(host: &Namespace, name: &str) -> u64 {
    // `/proc/net` is that of the thread group's leader; this thread's has its own entry.
    let read = || Ok(std::fs::read_to_string("/proc/thread-self/net/snmp6"));
    let text = host.in_namespace(read).expect("setns").expect("/proc");
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(name));
    let value = line
        .and_then(|line| line.split_whitespace().nth(1))
        .expect("a counter");
    value.parse().expect("a number")
}

fn say(text: &str) {
    // Nothing that a test stands on.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// One row of the table.
struct Row {
    name: &'static str,
    switching: Switching,
    seen: Vec<Seen>,
}

/// The table of docs/switch.md, over `DYNENCAP_SWITCH_ROUNDS` rounds (one without): every way in
/// turn, without a capture, behind a bottleneck that keeps a window in flight.
fn figures() {
    let rounds = std::env::var("DYNENCAP_SWITCH_ROUNDS");
    let rounds: u32 = rounds.map_or(1, |rounds| rounds.parse().expect("a number"));
    let mut topology = Topology::new();
    topology.serve();
    keep_order(&topology);
    narrow(&topology);
    let mut rows = rows();
    for _ in 0..rounds {
        for row in &mut rows {
            row.seen.push(transfer(&topology, &row.switching));
        }
    }
    let still = median(&rows[0].seen, |seen| seen.sent.rate());
    let mut table = String::new();
    for row in &rows {
        let of = |value: fn(&Seen) -> f64| median(&row.seen, value);
        let _ = writeln!(
            table,
            "| {} | {} | {} | {}…{} | {} | {} | {} | {:.2} | {} |",
            row.name,
            of(|seen| seen.sent.switches as f64),
            of(|seen| f64::from(seen.sent.flight)),
            row.seen
                .iter()
                .map(|seen| seen.sent.retransmits)
                .min()
                .unwrap_or(0),
            row.seen
                .iter()
                .map(|seen| seen.sent.retransmits)
                .max()
                .unwrap_or(0),
            of(|seen| f64::from(seen.sent.retransmits)),
            of(|seen| f64::from(seen.sent.needless)),
            of(|seen| (seen.fragment_fails + seen.dropped()) as f64),
            of(|seen| seen.sent.rate()) / still,
            of(|seen| seen.sent.stall as f64),
        );
    }
    let writes = writes(&topology, rounds);
    say(&format!("{table}\n{writes}"));
    for row in rows.iter().filter(|row| row.switching.way == Way::Probe) {
        for seen in &row.seen {
            assert_eq!(seen.fragment_fails, 0, "{}: {seen:?}", row.name);
        }
    }
}

fn rows() -> Vec<Row> {
    let ip = || Some(Exit::ip(gateway(0)));
    let same = || Some(Exit::ip(gateway(1)));
    let udp = || Some(Exit::udp(gateway(1), 8));
    let row = |name, exits: [Option<Exit>; 2]| Row {
        name,
        switching: once(None, exits.into()),
        seen: Vec::new(),
    };
    let often = |mut row: Row| {
        (row.switching.first, row.switching.every) = (100, 18);
        row
    };
    let planned = |mut row: Row| {
        row.switching.plan = udp();
        row
    };
    let by = |way, mut row: Row| {
        row.switching.way = way;
        row
    };
    let mut still = row("no switch", [ip(), None]);
    still.switching.exits.truncate(1);
    vec![
        still,
        often(row("same overhead", [ip(), same()])),
        row("smaller overhead", [udp(), ip()]),
        row("larger for the first time", [ip(), udp()]),
        often(row("to and fro between two overheads", [ip(), udp()])),
        row("from none to some", [None, udp()]),
        often(row("to and fro between none and some", [None, udp()])),
        planned(row("larger, planned", [ip(), udp()])),
        often(planned(row(
            "to and fro between two overheads, planned",
            [ip(), udp()],
        ))),
        often(planned(row(
            "to and fro between none and some, planned",
            [None, udp()],
        ))),
        by(Way::Probe, row("larger, `PROBE` around it", [ip(), udp()])),
        by(
            Way::Probe,
            row("from none to some, `PROBE` around it", [None, udp()]),
        ),
        by(Way::Drained, row("larger, nothing unsent", [ip(), udp()])),
        by(
            Way::ByteFirst,
            row("larger, nothing unsent, one byte first", [ip(), udp()]),
        ),
    ]
}

/// One write on a connection that was idle: how long until it is acknowledged.
fn writes(topology: &Topology, rounds: u32) -> String {
    let exits = || vec![Some(Exit::ip(gateway(0))), Some(Exit::udp(gateway(1), 8))];
    let planned = || Some(Exit::udp(gateway(1), 8));
    let mut still = once(None, exits());
    still.exits.truncate(1);
    let ways = [
        ("no switch", still),
        ("larger", once(None, exits())),
        ("larger, planned", once(planned(), exits())),
        (
            "larger, one byte first",
            Switching {
                way: Way::ByteFirst,
                ..once(None, exits())
            },
        ),
        (
            "larger, TCP_NODELAY after",
            Switching {
                way: Way::Push,
                ..once(None, exits())
            },
        ),
    ];
    let mut table = String::new();
    for (name, switching) in ways {
        for bytes in [1_000, 60_000] {
            let write = OneWrite {
                switching: switching.clone(),
                bytes,
            };
            let times: Vec<f64> = (0..rounds)
                .map(|_| topology.run(switching::WRITE, &write))
                .collect();
            let _ = writeln!(
                table,
                "| {name} | {bytes} | {:.1} |",
                median(&times, |&time| time)
            );
        }
    }
    table
}

fn median<T>(all: &[T], value: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = all.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

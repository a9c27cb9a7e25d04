//! Many exits (T1): as devices and rules, as routes and rules, as sockets of ours. How long it
//! takes to have them and to be rid of them, what kernel memory they hold, and what each packet
//! pays for their number.

use crate::{
    Error, Row, Run,
    bed::{GATEWAY, HOST, Headroom, PORT, SERVER, UPLINK, ip},
    holder::{self, exit},
    reference::Expected,
    sample::{Samples, Summary},
    stand::{Egress, Flow, Stand},
};
use dynencap_abi::option::{ENCAP_GW, SOL_DYNENCAP};
use dynencap_kernel::{Chain, sys};
use std::{
    fmt::Write as _,
    fs,
    net::{SocketAddrV6, UdpSocket},
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// Packets a slice.
const PACKETS: usize = 4096;
const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;

/// How the exits are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Vxlan,
    Seg6,
    Ours,
}

/// So many exits, and flows that use the last of them, or one more.
struct Crowd {
    kind: Kind,
    name: String,
    count: u32,
    stand: Stand,
    sockets: holder::Crowd,
    flows: Vec<(String, Flow)>,
    set_up: Duration,
    memory: f64,
}

/// Measures it.
pub fn measure(run: &Run) -> Result<Vec<Row>, Error> {
    let devices: &[u32] = if run.quick {
        &[1, 10, 100]
    } else {
        &[1, 10, 100, 1000]
    };
    let sockets: &[u32] = if run.quick {
        &[1, 10, 100, 1000, 20_000]
    } else {
        &[1, 10, 100, 1000, 10_000, 100_000]
    };
    let mut crowds = vec![Crowd::new(run, Kind::Plain, 0)?];
    for kind in [Kind::Vxlan, Kind::Seg6] {
        for &count in devices {
            crowds.push(Crowd::new(run, kind, count)?);
        }
    }
    if run.objects.len() == 1 {
        for &count in sockets {
            crowds.push(Crowd::new(run, Kind::Ours, count)?);
        }
    }
    let index: Vec<(usize, usize)> = crowds
        .iter()
        .enumerate()
        .flat_map(|(crowd, each)| (0..each.flows.len()).map(move |flow| (crowd, flow)))
        .collect();
    let samples = Samples::take(index.len(), run.rounds(100), &run.interrupt, |number| {
        let (crowd, flow) = index[number];
        let Crowd { stand, flows, .. } = &mut crowds[crowd];
        let (name, flow) = &mut flows[flow];
        let time = stand.send(name, flow, PACKETS)?;
        Ok(PACKETS as f64 / time.as_secs_f64())
    })?;
    let mut rows = Vec::new();
    for (number, &(crowd, flow)) in index.iter().enumerate() {
        let name = &crowds[crowd].flows[flow].0;
        let rate = samples.summary(number).scaled(1e-6);
        rows.push(Row::new("exits", name, "Mpps", rate));
        // The plain crowd's flows: unconnected, connected.
        let base = usize::from(name.ends_with(", connected"));
        rows.push(Row::new(
            "exits",
            name,
            "of plain",
            samples.ratio(number, base),
        ));
    }
    for crowd in crowds {
        run.interrupt.check()?;
        if crowd.kind != Kind::Plain {
            rows.extend(crowd.end()?);
        }
    }
    Ok(rows)
}

impl Crowd {
    fn new(run: &Run, kind: Kind, count: u32) -> Result<Self, Error> {
        run.interrupt.check()?;
        let stand = match (kind, run.objects.first()) {
            (Kind::Ours, Some(object)) => {
                Stand::ours(Headroom::None, Chain::here(), &object.bytes, 0, &run.home)?
            }
            _ => Stand::plain(Headroom::None)?,
        };
        let name = match kind {
            Kind::Plain => "plain".to_owned(),
            Kind::Vxlan => format!("{count} vxlan devices and rules"),
            Kind::Seg6 => format!("{count} seg6 routes and rules"),
            Kind::Ours => format!("{count} sockets with exits"),
        };
        let mut crowd = Self {
            kind,
            name,
            count,
            stand,
            sockets: holder::Crowd::default(),
            flows: Vec::new(),
            set_up: Duration::ZERO,
            memory: 0.0,
        };
        match kind {
            Kind::Plain => {}
            Kind::Ours => crowd.give_exits(run)?,
            Kind::Vxlan | Kind::Seg6 => {
                let commands = crowd.commands();
                let before = memory()?;
                let start = Instant::now();
                ip(&crowd.stand.bed.host, &commands)?;
                crowd.set_up = start.elapsed();
                crowd.memory = memory()? - before;
            }
        }
        crowd.open_flows(run)?;
        Ok(crowd)
    }

    /// Exits as an administrator makes them, and away again.
    fn commands(&self) -> String {
        let mut text = String::new();
        let exits = 1..=self.count;
        if self.kind == Kind::Vxlan {
            for number in exits.clone() {
                let remote = exit(number);
                let _ = writeln!(
                    text,
                    "link add vx{number} mtu 1430 type vxlan id {number} dstport 4789 \
                     local {HOST} remote {remote} udp6zerocsumtx nolearning\n\
                     link set vx{number} arp off up"
                );
            }
        }
        for number in exits {
            let (table, remote) = (10_000 + number, exit(number));
            let _ = match self.kind {
                Kind::Vxlan => writeln!(
                    text,
                    "-6 route add fd00:9::/64 dev vx{number} table {table}"
                ),
                _ => writeln!(
                    text,
                    "-6 route add fd00:9::/64 encap seg6 mode encap segs {remote} \
                     via fd00:1::2 dev {UPLINK} table {table}"
                ),
            };
            let _ = writeln!(text, "-6 rule add fwmark {number} lookup {table} prio 2000");
        }
        text
    }

    fn deletion(&self) -> String {
        let mut text = String::new();
        for number in 1..=self.count {
            let table = 10_000 + number;
            let _ = writeln!(text, "-6 rule del fwmark {number} lookup {table} prio 2000");
            if self.kind == Kind::Seg6 {
                let _ = writeln!(text, "-6 route flush table {table}");
            }
        }
        if self.kind == Kind::Vxlan {
            for number in 1..=self.count {
                let _ = writeln!(text, "link del vx{number}");
            }
        }
        text
    }

    /// So many sockets, each with an exit of its own. Time and memory are the exits' alone.
    fn give_exits(&mut self, run: &Run) -> Result<(), Error> {
        let Egress::Ours(ours) = &self.stand.egress else {
            return Ok(());
        };
        let host = &self.stand.bed.host;
        let (home, interrupt) = (&run.home, &run.interrupt);
        self.sockets = holder::Crowd::open(home, ours.room(), host, self.count, interrupt)?;
        let before = memory()?;
        self.set_up = self.sockets.set()?;
        self.memory = memory()? - before;
        Ok(())
    }

    fn open_flows(&mut self, run: &Run) -> Result<(), Error> {
        let name = self.name.clone();
        let host = &self.stand.bed.host;
        let open = |connected: bool, mark: u32| {
            let work = || {
                let socket = UdpSocket::bind(SocketAddrV6::new(HOST, 0, 0, 0))?;
                if mark > 0 {
                    let value = mark.to_ne_bytes();
                    sys::set_option(socket.as_fd(), SOL_SOCKET, SO_MARK, &value)?;
                }
                if connected {
                    socket.connect(SocketAddrV6::new(SERVER, PORT, 0, 0))?;
                }
                Ok(socket)
            };
            let place = || {
                host.in_namespace(|| Ok(work()))?
                    .map_err(Error::io("a UDP socket"))
            };
            match &self.stand.egress {
                Egress::Ours(ours) => run.home.inside(ours.room(), place),
                _ => place(),
            }
        };
        let expected = match self.kind {
            Kind::Plain => Expected::PLAIN,
            Kind::Vxlan => Expected::ipv6(17, 70),
            Kind::Seg6 => Expected::ipv6(43, 64),
            Kind::Ours => Expected::IP6,
        };
        // By the last rule: the worst place.
        let mark = if self.kind == Kind::Ours {
            0
        } else {
            self.count
        };
        let [unconnected, connected] = [open(false, mark)?, open(true, mark)?];
        if self.kind == Kind::Ours {
            for socket in [&unconnected, &connected] {
                let gateway = GATEWAY.octets();
                sys::set_option(socket.as_fd(), SOL_DYNENCAP, ENCAP_GW, &gateway)
                    .map_err(Error::io("ENCAP_GW"))?;
            }
        }
        let mut flows = vec![
            (
                format!("{name}, unconnected"),
                Flow::unconnected(unconnected, expected),
            ),
            (format!("{name}, connected"), Flow::new(connected, expected)),
        ];
        if matches!(self.kind, Kind::Vxlan | Kind::Seg6) {
            flows.push((
                format!("{name}, unconnected, no mark"),
                Flow::unconnected(open(false, 0)?, Expected::PLAIN),
            ));
        }
        self.flows = flows;
        Ok(())
    }

    /// Rids the host of the exits; what that and the rest took.
    fn end(mut self) -> Result<Vec<Row>, Error> {
        let tear_down = if self.kind == Kind::Ours {
            // An exit goes with its socket as well; this is without.
            self.sockets.unset()?
        } else {
            let start = Instant::now();
            ip(&self.stand.bed.host, &self.deletion())?;
            start.elapsed()
        };
        let once =
            |unit: &str, value: f64| Row::new("exits", &self.name, unit, Summary::of(&[value]));
        Ok(vec![
            once("ms up", self.set_up.as_secs_f64() * 1e3),
            once("ms down", tear_down.as_secs_f64() * 1e3),
            once("kB", self.memory),
        ])
    }
}

/// What the kernel holds for itself, in kB: of all memory the part that is no page of a
/// program or file.
fn memory() -> Result<f64, Error> {
    let text = fs::read_to_string("/proc/meminfo").map_err(Error::io("/proc/meminfo"))?;
    let fields = ["Slab:", "Percpu:", "VmallocUsed:"];
    let kilobytes = text.lines().filter_map(|line| {
        let (field, rest) = line.split_at_checked(line.find(':')? + 1)?;
        let number = rest.split_whitespace().next()?;
        fields
            .contains(&field)
            .then(|| number.parse::<f64>().ok())?
    });
    Ok(kilobytes.sum())
}

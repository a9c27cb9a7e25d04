//! The control path: what a call of setsockopt costs under each hook, and how many connections
//! a second there can be.

use crate::{
    Error, Row, Run,
    bed::{Bed, GATEWAY, Headroom},
    ours::{Ours, Shape},
    reference::Hook,
    sample::Samples,
    tcp,
};
use dynencap_abi::option::{ENCAP_GW, ENCAP_INFO, SOL_DYNENCAP};
use dynencap_kernel::{Chain, sys};
use socket2::Socket;
use std::{
    os::fd::AsFd,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Calls a slice.
const CALLS: u32 = 8192;
/// Sockets a slice, for what happens once on each.
const SOCKETS: usize = 256;
/// Connections a slice.
const CONNECTIONS: u32 = 200;

const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;

enum Call {
    Mark,
    SameGateway,
    Gateway,
    FirstGateway,
    Information,
}

struct Variant {
    name: String,
    call: Call,
    /// Where its sockets are made; none: in a cgroup without hooks.
    room: Option<PathBuf>,
    socket: Socket,
}

/// Measures calls, in nanoseconds.
pub fn measure(run: &Run) -> Result<Vec<Row>, Error> {
    let bed = Bed::new(Headroom::None)?;
    let open = |room: &Option<PathBuf>| match room {
        Some(room) => run.home.inside(room, || tcp::socket(&bed)),
        None => tcp::socket(&bed),
    };
    let mut variants = Vec::new();
    let mut add = |name: String, call, room: Option<PathBuf>| {
        let socket = open(&room)?;
        variants.push(Variant {
            name,
            call,
            room,
            socket,
        });
        Ok::<(), Error>(())
    };
    add("SO_MARK, no hook".to_owned(), Call::Mark, None)?;
    let room = run.home.room()?;
    let _hook = Hook::attach(&room)?;
    add("SO_MARK, empty program".to_owned(), Call::Mark, Some(room))?;
    let mut kept = Vec::new();
    for object in &run.objects {
        let ours = Ours::egress(&object.bytes, 0, Chain::here(), &bed, &run.home)?;
        let calls = [
            ("SO_MARK", Call::Mark),
            ("ENCAP_GW, the same again", Call::SameGateway),
            ("ENCAP_GW, another each time", Call::Gateway),
            ("first ENCAP_GW of a socket", Call::FirstGateway),
            ("reading ENCAP_INFO", Call::Information),
        ];
        for (name, call) in calls {
            let name = format!("{name}, {}", object.name);
            add(name, call, Some(ours.room().to_owned()))?;
        }
        kept.push(ours);
    }
    let samples = Samples::take(variants.len(), run.rounds(60), &run.interrupt, |number| {
        let variant = &variants[number];
        let time = match variant.call {
            Call::Mark => repeated(&variant.socket, SOL_SOCKET, SO_MARK, |number| {
                number.to_ne_bytes()
            }),
            Call::Gateway => repeated(&variant.socket, SOL_DYNENCAP, ENCAP_GW, gateway),
            Call::SameGateway => repeated(&variant.socket, SOL_DYNENCAP, ENCAP_GW, |_| gateway(0)),
            Call::Information => {
                return information(&variant.socket);
            }
            Call::FirstGateway => {
                let sockets = (0..SOCKETS).map(|_| open(&variant.room));
                return first(&sockets.collect::<Result<Vec<_>, _>>()?);
            }
        };
        Ok(time?.as_nanos() as f64 / f64::from(CALLS))
    })?;
    let rows = variants.iter().enumerate();
    let mut rows: Vec<Row> = rows
        .map(|(number, variant)| Row::new("control", &variant.name, "ns", samples.summary(number)))
        .collect();
    rows.extend(connections(run)?);
    Ok(rows)
}

/// Two gateways in turn: each call is a change.
fn gateway(number: u32) -> [u8; 16] {
    let mut octets = GATEWAY.octets();
    octets[15] = (number % 2) as u8 + 1;
    octets
}

fn repeated<const N: usize>(
    socket: &Socket,
    level: i32,
    name: i32,
    value: impl Fn(u32) -> [u8; N],
) -> Result<Duration, Error> {
    let start = Instant::now();
    for number in 0..CALLS {
        sys::set_option(socket.as_fd(), level, name, &value(number % 2))
            .map_err(Error::io("setsockopt"))?;
    }
    Ok(start.elapsed())
}

fn first(sockets: &[Socket]) -> Result<f64, Error> {
    let start = Instant::now();
    for socket in sockets {
        sys::set_option(socket.as_fd(), SOL_DYNENCAP, ENCAP_GW, &gateway(0))
            .map_err(Error::io("setsockopt"))?;
    }
    Ok(start.elapsed().as_nanos() as f64 / sockets.len() as f64)
}

fn information(socket: &Socket) -> Result<f64, Error> {
    let mut value = [0; 32];
    let start = Instant::now();
    for _ in 0..CALLS {
        sys::read_option(socket.as_fd(), SOL_DYNENCAP, ENCAP_INFO, &mut value)
            .map_err(Error::io("getsockopt"))?;
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(CALLS))
}

struct Server {
    name: String,
    shape: Option<Shape>,
    bed: Bed,
    listener: Socket,
    ours: Option<Ours>,
    _decap: crate::reference::Reference,
}

/// Connections a second: opened, accepted, reset.
fn connections(run: &Run) -> Result<Vec<Row>, Error> {
    let mut servers = Vec::new();
    let mut add = |name: String, object: Option<&[u8]>, shape: Option<Shape>| {
        let bed = tcp::bed()?;
        let ours =
            object.map(|object| tcp::ours(run, object, shape.unwrap_or(Shape::Ip6), 0, &bed));
        servers.push(Server {
            name,
            shape,
            listener: tcp::listener(&bed)?,
            ours: ours.transpose()?,
            _decap: tcp::decapsulation(&bed)?,
            bed,
        });
        Ok::<(), Error>(())
    };
    add("connections, plain".to_owned(), None, None)?;
    for object in &run.objects {
        let name = &object.name;
        let bytes = Some(&object.bytes[..]);
        add(format!("connections, {name}, no exit"), bytes, None)?;
        add(
            format!("connections, {name}, IPv6"),
            bytes,
            Some(Shape::Ip6),
        )?;
    }
    let samples = Samples::take(servers.len(), run.rounds(40), &run.interrupt, |number| {
        servers[number].connections(run)
    })?;
    let mut rows = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        let rate = samples.summary(number);
        rows.push(Row::new("control", &server.name, "a second", rate));
        rows.push(Row::new(
            "control",
            &server.name,
            "of plain",
            samples.ratio(number, 0),
        ));
    }
    Ok(rows)
}

impl Server {
    fn connections(&mut self, run: &Run) -> Result<f64, Error> {
        let work = || {
            let failed = Error::io(format!("{}: a connection", self.name));
            let connect = || self.bed.host.in_namespace(|| Ok(self.connect_all()));
            match connect()? {
                Ok(time) => Ok(time),
                Err(Error::Io { source, .. }) => Err(failed(source)),
                Err(error) => Err(error),
            }
        };
        let time = match &self.ours {
            Some(ours) => run.home.inside(ours.room(), work)?,
            None => work()?,
        };
        Ok(f64::from(CONNECTIONS) / time.as_secs_f64())
    }

    /// In H's namespace.
    fn connect_all(&self) -> Result<Duration, Error> {
        let io = || Error::io("a connection");
        let start = Instant::now();
        for _ in 0..CONNECTIONS {
            let socket =
                Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).map_err(io())?;
            if let Some(shape) = self.shape {
                shape.set(&socket)?;
            }
            socket
                .connect_timeout(&Bed::server().into(), Duration::from_secs(5))
                .map_err(io())?;
            let (accepted, _) = self.listener.accept().map_err(io())?;
            // A reset leaves no port in TIME_WAIT.
            for end in [socket, accepted] {
                end.set_linger(Some(Duration::ZERO)).map_err(io())?;
            }
        }
        Ok(start.elapsed())
    }
}

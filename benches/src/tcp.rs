//! TCP through one CPU: sender, receiver and all that lies between take turns on it, in one
//! thread, so that no scheduler is measured.

use crate::{
    Error, Row, Run,
    bed::{Bed, FAR, HOST, Headroom, SERVER, UPLINK, ip, sysctl},
    ours::{Ours, Shape},
    peer::Peer,
    reference::{Expected, Reference},
    sample::{Samples, Summary},
};
use aya::programs::TcAttachType;
use dynencap_abi::Config;
use dynencap_kernel::{
    Chain,
    host::{self, Plan},
};
use socket2::{Domain, Socket, Type};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddrV6, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

/// Bytes a slice: 10 to 50 milliseconds.
const BYTES: usize = 16 << 20;
/// Bytes a call.
const CHUNK: usize = 128 << 10;

/// A client and a server, ready to be connected.
struct Line {
    name: String,
    base: usize,
    way: Way,
    expected: Expected,
    frames: Frames,
    bed: Bed,
    listener: Socket,
    watch: Reference,
    ours: Option<Ours>,
    hand: Option<Reference>,
    _decap: Option<Reference>,
}

/// What crosses the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frames {
    /// Super-packets.
    Whole,
    /// Segments.
    Cut,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    /// Without headers, but in segments as if there were so many bytes of them.
    Smaller(u32),
    Hand(&'static str, Expected),
    Ours(Shape, u32),
    Peer(Peer),
}

/// What the uplink lets the stack leave to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Offload {
    All,
    /// Packets leave the stack in segments; checksums are still left to the device.
    NoSegmentation,
}

/// Measures it: Gbit/s, and for each variant its ratio to the plain of its section.
pub fn measure(run: &Run) -> Result<Vec<Row>, Error> {
    let mut lines = lines(run)?;
    let mut buffer = vec![0x5a; CHUNK];
    let samples = Samples::take(lines.len(), run.rounds(40), &run.interrupt, |number| {
        lines[number].carry(run, &mut buffer)
    })?;
    let mut rows = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        rows.push(Row::new(
            "tcp",
            &line.name,
            "Gbit/s",
            samples.summary(number),
        ));
        let ratio: Summary = samples.ratio(number, line.base);
        rows.push(Row::new("tcp", &line.name, "of plain", ratio));
    }
    Ok(rows)
}

fn lines(run: &Run) -> Result<Vec<Line>, Error> {
    let mut lines: Vec<Line> = Vec::new();
    let hand = [
        ("C with lookup, IPv6", Way::Hand("hand_ip6", Expected::IP6)),
        (
            "C with lookup, IPv6, UDP + 8",
            Way::Hand("hand_udp", Expected::UDP8),
        ),
    ];
    let aware = [Shape::Ip6, Shape::Udp8];
    let mut add = |name: &str, way, offload, object: &[u8], base: usize| {
        let line = Line::open(run, name, way, offload, object, base)?;
        lines.push(line);
        Ok::<(), Error>(())
    };
    let mut count = 0;
    let mut base = 0;
    for offload in [Offload::All, Offload::NoSegmentation] {
        let suffix = match offload {
            Offload::All => "",
            Offload::NoSegmentation => ", GSO off",
        };
        base = count;
        add(&format!("plain{suffix}"), Way::Plain, offload, &[], base)?;
        count += 1;
        for less in [40, 56] {
            let name = format!("plain, MTU {}{suffix}", crate::bed::MTU - less);
            add(&name, Way::Smaller(less), offload, &[], base)?;
            count += 1;
        }
        for (name, way) in hand {
            add(&format!("{name}{suffix}"), way, offload, &[], base)?;
            count += 1;
        }
        for object in &run.objects {
            for shape in aware {
                let name = format!("{}, {}{suffix}", object.name, shape.name());
                add(&name, Way::Ours(shape, 0), offload, &object.bytes, base)?;
                count += 1;
            }
        }
        if offload == Offload::All {
            for peer in Peer::ALL {
                add(peer.name(), Way::Peer(peer), offload, &[], base)?;
                count += 1;
            }
        }
    }
    // What is cut first is compared with what leaves in segments anyway.
    for object in &run.objects {
        for (shape, flag) in [
            (Shape::Ip6, Config::SEGMENT_FIRST),
            (Shape::Udp8, Config::SEGMENT_FIRST),
            (Shape::Checksum, Config::UDP_CHECKSUM),
        ] {
            let name = format!("{}, {}, segment-first", object.name, shape.name());
            let way = Way::Ours(shape, flag);
            add(&name, way, Offload::All, &object.bytes, base)?;
        }
    }
    Ok(lines)
}

impl Line {
    fn open(
        run: &Run,
        name: &str,
        way: Way,
        offload: Offload,
        object: &[u8],
        base: usize,
    ) -> Result<Self, Error> {
        run.interrupt.check()?;
        let bed = bed()?;
        let mut watch = Reference::load("watch")?;
        watch.attach(Chain::here(), &bed.peer, FAR, TcAttachType::Ingress)?;
        let mut frames = Frames::Whole;
        if offload == Offload::NoSegmentation {
            segmentation_off(&bed)?;
            frames = Frames::Cut;
        }
        let mut expected = Expected::PLAIN;
        let (mut ours, mut hand) = (None, None);
        match way {
            Way::Plain => {}
            Way::Smaller(less) => limit(&bed, less)?,
            Way::Hand(program, shape) => {
                expected = shape;
                let mut reference = Reference::load(program)?;
                reference.attach_egress(Chain::here(), &bed.host)?;
                hand = Some(reference);
                limit(&bed, expected.inner_at)?;
            }
            Way::Ours(shape, flags) => {
                expected = shape.expected();
                ours = Some(self::ours(run, object, shape, flags, &bed)?);
                if flags != 0 {
                    frames = Frames::Cut;
                }
            }
            Way::Peer(peer) => {
                expected = peer.expected();
                peer.install(&bed)?;
                peer.receive(&bed)?;
            }
        }
        let is_bpf = matches!(way, Way::Hand(..) | Way::Ours(..));
        let decap = is_bpf.then(|| decapsulation(&bed)).transpose()?;
        watch.expect(&expected.with_tcp())?;
        Ok(Self {
            name: name.to_owned(),
            base,
            way,
            expected,
            frames,
            listener: listener(&bed)?,
            bed,
            watch,
            ours,
            hand,
            _decap: decap,
        })
    }

    /// A new connection each time, so that none's luck with windows and timers lasts.
    fn connect(&mut self, run: &Run) -> Result<(TcpStream, TcpStream), Error> {
        let open = || socket(&self.bed);
        let socket = match &self.ours {
            Some(ours) => run.home.inside(ours.room(), open)?,
            None => open()?,
        };
        if let Way::Ours(shape, _) = self.way {
            shape.set(&socket)?;
        }
        if let Some(hand) = &mut self.hand {
            hand.set_exit(&socket)?;
        }
        connect(socket, &self.listener)
            .map_err(Error::io(format!("{}: a TCP connection", self.name)))
    }

    /// Sends [`BYTES`] and receives them; Gbit/s.
    fn carry(&mut self, run: &Run, buffer: &mut [u8]) -> Result<f64, Error> {
        let (mut sender, mut receiver) = self.connect(run)?;
        self.pass(&mut sender, &mut receiver, buffer, BYTES / 8)?;
        let before = self.watch.arrived()?;
        let start = Instant::now();
        self.pass(&mut sender, &mut receiver, buffer, BYTES)?;
        let time = start.elapsed();
        let after = self.watch.arrived()?;
        let [good, other] = [after[0] - before[0], after[1] - before[1]];
        // Segments carry at most an MTU's worth, super-packets many times that; and all of it is
        // in the headers that it should have, but for a message of the kernel's own.
        let segments = BYTES as u64 / u64::from(crate::bed::MTU);
        let is_right = match self.frames {
            Frames::Whole => good * 8 < segments,
            Frames::Cut => good >= segments,
        };
        if !is_right || good < BYTES as u64 / 65_536 || other > 4 {
            return Err(self.wrong(format!(
                "{good} frames as they should be ({:?}, {:?}), {other} otherwise",
                self.frames, self.expected
            )));
        }
        Ok(BYTES as f64 * 8e-9 / time.as_secs_f64())
    }

    fn pass(
        &self,
        sender: &mut TcpStream,
        receiver: &mut TcpStream,
        buffer: &mut [u8],
        bytes: usize,
    ) -> Result<(), Error> {
        let (mut unsent, mut unread) = (bytes, bytes);
        let mut stalled = Instant::now();
        while unread > 0 {
            let mut moved = 0;
            // As much as the socket takes, then as much as has come.
            while unsent > 0 {
                let chunk = unsent.min(buffer.len());
                match sender.write(&buffer[..chunk]) {
                    Ok(sent) => (unsent, moved) = (unsent - sent, moved + sent),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(Error::io(self.name.clone())(error)),
                }
            }
            loop {
                match receiver.read(buffer) {
                    Ok(0) => break,
                    Ok(read) => (unread, moved) = (unread - read, moved + read),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(Error::io(self.name.clone())(error)),
                }
            }
            if moved > 0 {
                stalled = Instant::now();
            } else if stalled.elapsed() > Duration::from_secs(5) {
                return Err(self.wrong(format!("stalled with {unread} bytes to come")));
            }
        }
        Ok(())
    }

    fn wrong(&self, what: String) -> Error {
        Error::Wrong {
            variant: self.name.clone(),
            what,
        }
    }
}

/// Leaves room for so many bytes of headers.
fn limit(bed: &Bed, less: u32) -> Result<(), Error> {
    let mtu = crate::bed::MTU - less;
    ip(
        &bed.host,
        &format!("-6 route replace fd00:9::/64 via fd00:1::2 dev {UPLINK} mtu {mtu}"),
    )
}

/// A bed with a server in P.
pub(crate) fn bed() -> Result<Bed, Error> {
    let bed = Bed::new(Headroom::None)?;
    // The kernel's tuning of buffers would be another for each connection.
    for namespace in [&bed.host, &bed.peer] {
        for name in ["ipv4/tcp_wmem", "ipv4/tcp_rmem"] {
            sysctl(namespace, name, "1048576 1048576 1048576")?;
        }
    }
    ip(
        &bed.peer,
        &format!(
            "addr add fd00:1::2/64 dev {FAR} nodad\n\
             addr add {SERVER}/128 dev lo nodad\n\
             neigh add {HOST} lladdr 02:00:00:00:00:01 dev {FAR} nud permanent"
        ),
    )?;
    Ok(bed)
}

/// Our programs in a bed, with routes as `dynencap up` makes them.
pub(crate) fn ours(
    run: &Run,
    object: &[u8],
    shape: Shape,
    flags: u32,
    bed: &Bed,
) -> Result<Ours, Error> {
    let plan = Plan::new(UPLINK, [shape.overhead()]);
    bed.host
        .in_namespace(|| Ok(host::install(&plan)))?
        .map_err(Error::reference("rules and routes"))?;
    if flags == 0 {
        Ours::egress(object, flags, Chain::here(), bed, &run.home)
    } else {
        Ours::segmenting(object, flags, bed, &run.home)
    }
}

/// Takes headers off at P.
pub(crate) fn decapsulation(bed: &Bed) -> Result<Reference, Error> {
    let mut decap = Reference::load("decap")?;
    decap.attach(Chain::here(), &bed.peer, FAR, TcAttachType::Ingress)?;
    Ok(decap)
}

/// A listening socket of P.
pub(crate) fn listener(bed: &Bed) -> Result<Socket, Error> {
    let listen = || {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
        socket.bind(&Bed::server().into())?;
        socket.listen(64)?;
        Ok(socket)
    };
    bed.peer
        .in_namespace(|| Ok(listen()))?
        .map_err(Error::io("a listening socket"))
}

/// A TCP socket of H.
pub(crate) fn socket(bed: &Bed) -> Result<Socket, Error> {
    let open = || {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
        socket.bind(&SocketAddrV6::new(HOST, 0, 0, 0).into())?;
        Ok(socket)
    };
    bed.host
        .in_namespace(|| Ok(open()))?
        .map_err(Error::io("a TCP socket"))
}

fn connect(socket: Socket, listener: &Socket) -> std::io::Result<(TcpStream, TcpStream)> {
    socket.connect_timeout(&Bed::server().into(), Duration::from_secs(5))?;
    let (accepted, _) = listener.accept()?;
    let ends: (TcpStream, TcpStream) = (socket.into(), accepted.into());
    for end in [&ends.0, &ends.1] {
        end.set_nonblocking(true)?;
    }
    Ok(ends)
}

fn segmentation_off(bed: &Bed) -> Result<(), Error> {
    let mut ethtool = Command::new("ethtool");
    ethtool.args(["-K", UPLINK, "tso", "off", "gso", "off"]);
    let output = bed.host.in_namespace(|| Ok(ethtool.output()))?;
    let output = output.map_err(Error::io("ethtool"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: "ethtool -K".to_owned(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

//! A transfer whose exit changes in one of several ways, seen from inside: what TCP sent again,
//! how long nothing was acknowledged. Before and after each change it sends a datagram outside
//! of every tunnel, so that a capture shows which frames belong to which exit.

use super::server::{ANSWER, DATAGRAMS};
use crate::{
    agent,
    exit::{Exit, choose},
    limit::seconds,
    payload::{Stream, hex},
    socket::{self, SOL_TCP, mark, set, tcp},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use socket2::Socket;
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, UdpSocket},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// The job's name.
pub const NAME: &str = "switching";
/// The job that writes once after a change on an idle connection.
pub const WRITE: &str = "write-after-switch";

/// Source port of the datagram before a change: from here on, either exit may be seen.
pub const LEAVING: u16 = 7100;
/// Source port of the datagram after a change to no exit.
const OUTSIDE: u16 = 7099;
/// This and the last byte of the gateway: source port of the datagram after a change to it.
const SETTLED: u16 = 7000;

const SOL_IPV6: i32 = 41;
const IPV6_MTU_DISCOVER: i32 = 23;
const IPV6_PMTUDISC_WANT: i32 = 1;
const IPV6_PMTUDISC_PROBE: i32 = 3;
const TCP_NODELAY: i32 = 1;

/// How the application goes about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// It sets the options.
    Plain,
    /// `IPV6_MTU_DISCOVER` is `PROBE` from before the change until 20 ms after it.
    Probe,
    /// It lets the unsent data drain before.
    Drained,
    /// It lets the unsent data drain before, and sends a single byte after.
    ByteFirst,
    /// It sets `TCP_NODELAY`, which pushes, after its next write.
    Push,
}

/// A transfer to the sink, as fast as it goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Switching {
    /// Where to.
    pub server: SocketAddr,
    /// How long, in milliseconds.
    pub milliseconds: u64,
    /// `SO_SNDBUF` in bytes; 0: the system's.
    pub buffer: usize,
    /// Set before the first exit, so that the route is planned for its overhead.
    pub plan: Option<Exit>,
    /// The first is chosen before `connect`, the others in turn.
    pub exits: Vec<Option<Exit>>,
    /// When the second is chosen, in milliseconds.
    pub first: u64,
    /// How long each of the others is kept; 0: the second stays.
    pub every: u64,
    /// How changes are made.
    pub way: Way,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Switched {
    /// Bytes written, and their SHA-256.
    pub sent: (u64, String),
    /// Bytes that the server read, and their SHA-256.
    pub received: (u64, String),
    /// Changes of the exit.
    pub switches: u64,
    /// Segments sent, again or not.
    pub segments: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Of these: the receiver had them (DSACK, RFC 2883).
    pub needless: u32,
    /// Segments in flight before the first change.
    pub flight: u32,
    /// Segment size before the first change, and at the end.
    pub mss: (u32, u32),
    /// `SO_MARK` before the first change, and at the end.
    pub mark: (u32, u32),
    /// The longest time without progress of acknowledgements, in milliseconds.
    pub stall: u64,
    /// The transfer's length, in milliseconds.
    pub milliseconds: u64,
}

impl Switched {
    /// Payload bits a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.sent.0 as f64 * 8000.0 / self.milliseconds.max(1) as f64
    }

    /// Fails unless the server has every byte.
    pub fn assert_whole(&self) {
        assert_eq!(self.sent, self.received);
        assert!(self.sent.0 > 0);
    }
}

/// One write after a change on a connection that was idle.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OneWrite {
    /// The connection and its change; its times do not matter.
    pub switching: Switching,
    /// How many bytes.
    pub bytes: usize,
}

/// The source port of the datagram that says that this exit is in force.
#[must_use]
pub fn settled(gateway: Option<IpAddr>) -> u16 {
    match gateway {
        Some(IpAddr::V6(address)) => SETTLED + u16::from(address.octets()[15]),
        Some(IpAddr::V4(address)) => SETTLED + u16::from(address.octets()[3]),
        None => OUTSIDE,
    }
}

/// `struct tcp_info` of linux/tcp.h.
#[derive(Clone, Copy, Debug)]
struct Progress {
    mss: u32,
    in_flight: u32,
    retransmits: u32,
    acked: u64,
    unsent: u32,
    segments: u32,
    needless: u32,
}

fn progress(socket: &Socket) -> Progress {
    const TCP_INFO: i32 = 11;
    let bytes = socket::get(socket, SOL_TCP, TCP_INFO, 232).expect("TCP_INFO");
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    Progress {
        mss: word(16),
        in_flight: word(24),
        retransmits: word(100),
        acked: u64::from_ne_bytes(bytes[120..128].try_into().expect("8 bytes")),
        unsent: word(144),
        segments: word(156),
        needless: word(216),
    }
}

fn connect(switching: &Switching) -> Socket {
    let socket = tcp(switching.server);
    if switching.buffer > 0 {
        socket
            .set_send_buffer_size(switching.buffer)
            .expect("SO_SNDBUF");
    }
    let first = switching.exits.first().and_then(Option::as_ref);
    if let Some(plan) = &switching.plan {
        plan.set(&socket).expect("the plan");
    }
    // A socket that never had an exit must not even know of the options.
    if switching.plan.is_some() || first.is_some() {
        choose(first, &socket).expect("the first exit");
    }
    socket.connect(&switching.server.into()).expect("connect");
    socket.set_read_timeout(Some(seconds(60))).expect("timeout");
    socket
}

/// Runs one transfer.
pub fn run(input: Value) -> Value {
    let switching: Switching = agent::input(input);
    let socket = connect(&switching);
    let start = Instant::now();
    // Held while a write is under way, or kept from being.
    let stream = Mutex::new((Stream::new(7), Sha256::new(), 0_u64));
    let mut watch = Watch::new(&switching, &socket, start);
    thread::scope(|scope| {
        let writer = scope.spawn(|| transmit(&switching, &socket, &stream, start));
        while !writer.is_finished() {
            watch.look();
            if watch.is_due() {
                watch.change(&stream);
            }
            thread::sleep(Duration::from_millis(2));
        }
    });
    let milliseconds = start.elapsed().as_millis() as u64;
    socket.shutdown(Shutdown::Write).expect("shutdown");
    let mut answer = [0; ANSWER];
    (&socket).read_exact(&mut answer).expect("the answer");
    let (count, digest) = answer.split_at(8);
    let (_, hash, sent) = stream.into_inner().expect("the writer has ended");
    let end = progress(&socket);
    let before = watch.before.unwrap_or((end, mark(&socket)));
    agent::output(Switched {
        sent: (sent, hex(&hash.finalize())),
        received: (
            u64::from_be_bytes(count.try_into().expect("8 bytes")),
            hex(digest),
        ),
        switches: watch.switches,
        segments: end.segments,
        retransmits: end.retransmits,
        needless: end.needless,
        flight: before.0.in_flight,
        mss: (before.0.mss, end.mss),
        mark: (before.1, mark(&socket)),
        stall: watch.stall.as_millis() as u64,
        milliseconds,
    })
}

/// Why the lock cannot be poisoned where it is waited for.
const HELD: &str = "no panic while it is held";

type Written = Mutex<(Stream, Sha256, u64)>;

fn write(mut socket: &Socket, written: &mut (Stream, Sha256, u64), length: usize) {
    let mut buffer = vec![0; length];
    written.0.fill(&mut buffer);
    socket.write_all(&buffer).expect("write");
    written.1.update(&buffer);
    written.2 += length as u64;
}

fn transmit(switching: &Switching, socket: &Socket, written: &Written, start: Instant) {
    let until = Duration::from_millis(switching.milliseconds);
    while start.elapsed() < until {
        write(socket, &mut written.lock().expect(HELD), 64 << 10);
        // The lock is not fair: leave room for a change that waits for it.
        thread::yield_now();
    }
}

/// Who looks at the connection and makes the changes.
struct Watch<'a> {
    switching: &'a Switching,
    socket: &'a Socket,
    start: Instant,
    acked: (u64, Instant),
    stall: Duration,
    switches: u64,
    before: Option<(Progress, u32)>,
    due: Option<Duration>,
}

impl<'a> Watch<'a> {
    fn new(switching: &'a Switching, socket: &'a Socket, start: Instant) -> Self {
        let first = Duration::from_millis(switching.first);
        Self {
            switching,
            socket,
            start,
            acked: (0, start),
            stall: Duration::ZERO,
            switches: 0,
            before: None,
            due: (switching.exits.len() > 1).then_some(first),
        }
    }

    fn look(&mut self) {
        let acked = progress(self.socket).acked;
        self.stall = self.stall.max(self.acked.1.elapsed());
        if acked != self.acked.0 {
            self.acked = (acked, Instant::now());
        }
    }

    fn is_due(&self) -> bool {
        let end = Duration::from_millis(self.switching.milliseconds);
        let now = self.start.elapsed();
        now < end && self.due.is_some_and(|due| now >= due)
    }

    fn drain(&self) {
        while progress(self.socket).unsent > 0 {
            thread::sleep(Duration::from_micros(200));
        }
    }

    fn change(&mut self, written: &Written) {
        self.before
            .get_or_insert_with(|| (progress(self.socket), mark(self.socket)));
        let exits = &self.switching.exits;
        self.switches += 1;
        let exit = exits[self.switches as usize % exits.len()].as_ref();
        say(LEAVING);
        match self.switching.way {
            Way::Plain | Way::Push => choose(exit, self.socket).expect("the exit"),
            Way::Probe => {
                discover(self.socket, IPV6_PMTUDISC_PROBE);
                choose(exit, self.socket).expect("the exit");
            }
            Way::Drained | Way::ByteFirst => {
                let mut held = written.lock().expect(HELD);
                self.drain();
                choose(exit, self.socket).expect("the exit");
                if self.switching.way == Way::ByteFirst {
                    write(self.socket, &mut held, 1);
                    self.drain();
                }
            }
        }
        say(settled(exit.map(|exit| exit.gateway)));
        if self.switching.way == Way::Probe {
            thread::sleep(Duration::from_millis(20));
            discover(self.socket, IPV6_PMTUDISC_WANT);
        }
        let every = Duration::from_millis(self.switching.every);
        self.due = (!every.is_zero())
            .then(|| self.due.map(|due| due + every))
            .flatten();
    }
}

fn discover(socket: &Socket, value: i32) {
    set(socket, SOL_IPV6, IPV6_MTU_DISCOVER, &value.to_ne_bytes()).expect("IPV6_MTU_DISCOVER");
}

/// A datagram from this port, outside of every tunnel. The options take the socket's lock, and
/// whoever sends holds it until the device has the frame: what was sent before a change is
/// before the datagram that follows it.
fn say(port: u16) {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).expect("bind");
    let to = (crate::topology::SERVER, DATAGRAMS);
    socket.send_to(b"-", to).expect("sendto");
}

/// Milliseconds until one write after a change was acknowledged.
pub fn run_write(input: Value) -> Value {
    let OneWrite { switching, bytes } = agent::input(input);
    let socket = connect(&switching);
    (&socket).write_all(&[0; 20_000]).expect("write");
    let idle = |bytes: u64| {
        let until = Instant::now() + seconds(10);
        while progress(&socket).acked < bytes {
            assert!(Instant::now() < until, "not acknowledged in time");
            thread::sleep(Duration::from_micros(200));
        }
    };
    idle(20_000);
    thread::sleep(Duration::from_millis(50));
    if let Some(exit) = switching.exits.get(1) {
        choose(exit.as_ref(), &socket).expect("the exit");
    }
    let start = Instant::now();
    if switching.way == Way::ByteFirst {
        (&socket).write_all(&[1]).expect("write");
        (&socket).write_all(&vec![1; bytes - 1]).expect("write");
    } else {
        (&socket).write_all(&vec![1; bytes]).expect("write");
    }
    if switching.way == Way::Push {
        set(&socket, SOL_TCP, TCP_NODELAY, &1_i32.to_ne_bytes()).expect("TCP_NODELAY");
    }
    idle(20_000 + bytes as u64);
    let time = start.elapsed();
    agent::output(time.as_secs_f64() * 1000.0)
}

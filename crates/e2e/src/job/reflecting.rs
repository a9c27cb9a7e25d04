//! Servers that say what they reflect, and that speak first; clients that change their path while
//! they read.

use super::server::{ECHO, GREETING, QUERY};
use crate::{
    agent::{self, say},
    exit::{Exit, choose},
    limit::{limit, seconds},
    payload::{Stream, hex},
    socket::{errno, get, listener, mark, set, tcp, udp},
};
use dynencap_abi::option::{ENCAP_REFLECT, SOL_DYNENCAP};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use socket2::Socket;
use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The job that listens, and says [`READY`].
pub const LISTEN: &str = "reflecting-listen";
/// The job that fetches while its path changes.
pub const PULL: &str = "reflecting-pull";
/// The job that sends datagrams and counts what comes back.
pub const DATAGRAMS: &str = "reflecting-datagrams";
/// What the first says.
pub const READY: &str = "listening";

/// A listener that greets whoever comes, and closes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Greeter {
    /// Where it listens.
    pub port: u16,
    /// `ENCAP_REFLECT`; `None`: never set.
    pub reflect: Option<u32>,
    /// How many connections, after which it ends.
    pub connections: u32,
    /// Bytes for each; their seed is the port.
    pub bytes: u64,
}

/// What its connections say of themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Greeted {
    /// The listener's `ENCAP_REFLECT`, read back.
    pub reflect: Option<u32>,
    /// `SO_MARK` of each connection.
    pub marks: Vec<u32>,
}

/// Greets.
pub fn greet(input: Value) -> Value {
    let order: Greeter = agent::input(input);
    let listener = listener(order.port);
    if let Some(bits) = order.reflect {
        set(&listener, SOL_DYNENCAP, ENCAP_REFLECT, &bits.to_ne_bytes()).expect("ENCAP_REFLECT");
    }
    let reflect = get(&listener, SOL_DYNENCAP, ENCAP_REFLECT, 4).ok();
    say(READY);
    let marks = (0..order.connections)
        .map(|_| {
            let (mut socket, _) = listener.accept().expect("accept");
            send(&mut socket, order.port.into(), order.bytes).expect("write");
            mark(&socket)
        })
        .collect();
    agent::output(Greeted {
        reflect: reflect.map(|value| u32::from_ne_bytes(value.try_into().expect("4 bytes"))),
        marks,
    })
}

/// A stream of this seed and length.
pub fn send(socket: &mut impl Write, seed: u64, bytes: u64) -> std::io::Result<()> {
    let mut payload = Stream::new(seed);
    let mut left = bytes;
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let part = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        payload.fill(&mut buffer[..part]);
        socket.write_all(&buffer[..part])?;
        left -= part as u64;
    }
    Ok(())
}

/// What to fetch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pull {
    /// Where from. Servers that do not greet are sent seed and length.
    pub server: SocketAddr,
    /// The client's own address and port, where it matters.
    pub from: Option<SocketAddr>,
    /// Of the payload.
    pub seed: u64,
    /// Its length.
    pub bytes: u64,
    /// At most so many bytes a second; 0: as fast as it comes.
    pub rate: u64,
    /// The first is chosen before `connect`, the others in turn while data flows.
    pub exits: Vec<Option<Exit>>,
    /// How long each is kept, in milliseconds.
    pub every: u64,
    /// `IPV6_TCLASS` or `IP_TOS`.
    pub class: Option<u8>,
    /// Stays for so long after the server's FIN, in milliseconds, before it closes.
    pub stay: u64,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// Bytes, and their SHA-256.
    pub received: (u64, String),
    /// How often the exit was changed.
    pub switches: u64,
    /// Errnos of calls that were refused.
    pub refused: Vec<i32>,
    /// From `connect` to the server's FIN, in milliseconds.
    pub milliseconds: u64,
    /// Source port.
    pub port: u16,
}

impl Pull {
    /// So many bytes by one path.
    #[must_use]
    pub fn new(server: SocketAddr, bytes: u64, exit: Option<Exit>) -> Self {
        Self {
            server,
            from: None,
            seed: server.port().into(),
            bytes,
            rate: 0,
            exits: vec![exit],
            every: 0,
            class: None,
            stay: 0,
        }
    }

    /// Length and SHA-256 of what should come.
    #[must_use]
    pub fn expected(&self) -> (u64, String) {
        struct Hash(Sha256);
        impl Write for Hash {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.update(bytes);
                Ok(bytes.len())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut hash = Hash(Sha256::new());
        send(&mut hash, self.seed, self.bytes).expect("a hash");
        (self.bytes, hex(&hash.0.finalize()))
    }
}

/// Fetches all of them at once: the input is a list, and so is the output.
pub fn pull(input: Value) -> Value {
    let orders: Vec<Pull> = agent::input(input);
    let pulled: Vec<Pulled> = thread::scope(|scope| {
        let threads: Vec<_> = orders
            .iter()
            .map(|order| scope.spawn(|| fetch(order)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a transfer"))
            .collect()
    });
    agent::output(pulled)
}

fn fetch(order: &Pull) -> Pulled {
    let mut socket = tcp(order.server);
    let mut refused = Vec::new();
    if let Some(Some(exit)) = order.exits.first() {
        refused.extend(errno(exit.set(&socket)).err());
    }
    if let Some(class) = order.class {
        // IPV6_TCLASS, IP_TOS.
        let (level, name) = if order.server.is_ipv6() {
            (41, 67)
        } else {
            (0, 1)
        };
        set(&socket, level, name, &i32::from(class).to_ne_bytes()).expect("the class");
    }
    if let Some(from) = order.from {
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&from.into()).expect("bind");
    }
    socket
        .connect_timeout(&order.server.into(), seconds(10))
        .expect("connect");
    socket
        .set_read_timeout(Some(seconds(30)))
        .expect("SO_RCVTIMEO");
    let start = Instant::now();
    let port = socket
        .local_addr()
        .ok()
        .and_then(|address| address.as_socket())
        .map_or(0, |address| address.port());
    say(&format!("port {port}."));
    if ![GREETING, GREETING + 1].contains(&order.server.port()) && order.server.port() < 9100 {
        let request = [order.seed.to_be_bytes(), order.bytes.to_be_bytes()].concat();
        socket.write_all(&request).expect("write");
    }
    let done = AtomicBool::new(false);
    let (received, switches) = thread::scope(|scope| {
        let switching = (order.exits.len() > 1).then(|| {
            let socket = socket.try_clone().expect("dup");
            scope.spawn(|| switch(order, socket, &done))
        });
        let received = read(order, &mut socket, start);
        done.store(true, Ordering::SeqCst);
        (
            received,
            switching.map(|thread| thread.join().expect("switching")),
        )
    });
    let milliseconds = start.elapsed().as_millis() as u64;
    let (switches, errnos) = switches.unwrap_or_default();
    refused.extend(errnos);
    thread::sleep(limit(Duration::from_millis(order.stay)));
    Pulled {
        received,
        switches,
        refused,
        milliseconds,
        port,
    }
}

fn read(order: &Pull, socket: &mut Socket, start: Instant) -> (u64, String) {
    let mut hash = Sha256::new();
    let mut count = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = socket.read(&mut buffer).expect("read");
        if read == 0 {
            return (count, hex(&hash.finalize()));
        }
        hash.update(&buffer[..read]);
        count += read as u64;
        if let Some(micros) = (count * 1_000_000).checked_div(order.rate) {
            let due = Duration::from_micros(micros);
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
}

fn switch(order: &Pull, socket: Socket, done: &AtomicBool) -> (u64, Vec<i32>) {
    let mut switches = 0;
    let mut refused = Vec::new();
    for exit in order.exits.iter().cycle().skip(1) {
        let until = Instant::now() + Duration::from_millis(order.every);
        while Instant::now() < until {
            if done.load(Ordering::SeqCst) {
                return (switches, refused);
            }
            thread::sleep(Duration::from_millis(2));
        }
        match errno(choose(exit.as_ref(), &socket)) {
            Ok(()) => switches += 1,
            Err(errno) => refused.push(errno),
        }
    }
    (switches, refused)
}

/// The job of a client that comes again and again.
pub const ATTEMPTS: &str = "reflecting-attempts";

/// Connections that begin one after the other, whatever becomes of those before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attempts {
    /// Each of them.
    pub pull: Pull,
    /// How many.
    pub count: u32,
    /// Milliseconds between the beginnings of two.
    pub pause: u64,
    /// After so many milliseconds one has failed.
    pub timeout: u64,
}

/// What came of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Got {
    /// How many got all.
    pub succeeded: u32,
    /// The slowest of these, in milliseconds.
    pub slowest: u64,
}

/// Tries.
pub fn attempt(input: Value) -> Value {
    let order: Attempts = agent::input(input);
    let expected = order.pull.expected().0;
    let took: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..order.count)
            .map(|_| {
                thread::sleep(limit(Duration::from_millis(order.pause)));
                scope.spawn(|| {
                    let start = Instant::now();
                    let whole = fetched(&order).ok() == Some(expected);
                    whole.then(|| start.elapsed().as_millis() as u64)
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.filter_map(|took| took.expect("a client")).collect()
    });
    agent::output(Got {
        succeeded: took.len() as u32,
        slowest: took.into_iter().max().unwrap_or(0),
    })
}

fn fetched(order: &Attempts) -> std::io::Result<u64> {
    let pull = &order.pull;
    let timeout = limit(Duration::from_millis(order.timeout));
    let mut socket = tcp(pull.server);
    if let Some(Some(exit)) = pull.exits.first() {
        exit.set(&socket)?;
    }
    socket.connect_timeout(&pull.server.into(), timeout)?;
    socket.set_read_timeout(Some(timeout))?;
    let request = [pull.seed.to_be_bytes(), pull.bytes.to_be_bytes()].concat();
    socket.write_all(&request)?;
    std::io::copy(&mut socket, &mut std::io::sink())
}

/// Datagrams to the echo, by each exit in turn from one socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Volley {
    /// Where to.
    pub server: IpAddr,
    /// The server's port.
    pub port: u16,
    /// Through what.
    pub exits: Vec<Exit>,
    /// Datagrams by each.
    pub each: u32,
}

/// How many came back.
pub fn volley(input: Value) -> Value {
    let order: Volley = agent::input(input);
    let server = SocketAddr::new(order.server, order.port);
    let socket = udp(server);
    socket.connect(&server.into()).expect("connect");
    let socket = UdpSocket::from(socket);
    socket
        .set_read_timeout(Some(seconds(5)))
        .expect("SO_RCVTIMEO");
    let mut back = 0_u32;
    let mut buffer = [0; 1000];
    for exit in &order.exits {
        exit.set(&socket).expect("the exit");
        for number in 0..order.each {
            let sent = [&number.to_be_bytes()[..], QUERY].concat();
            socket.send(&sent).expect("send");
            let length = socket.recv(&mut buffer).expect("the echo");
            assert_eq!(buffer[..length], sent);
            back += 1;
        }
    }
    agent::output(back)
}

/// Echoes for ever; with `peer`, from a socket that is connected to it.
pub fn echo(socket: &UdpSocket) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).expect("recvfrom");
        let sent = match socket.peer_addr() {
            Ok(_) => socket.send(&buffer[..length]),
            Err(_) => socket.send_to(&buffer[..length], from),
        };
        // A reply that cannot leave is the test's to miss.
        let _ = sent;
    }
}

/// The port of the echo whose socket connects to whoever comes first.
pub const CONNECTING: u16 = ECHO + 1;

/// Waits for the first datagram, connects to its sender, and echoes.
pub fn echo_connected(socket: &UdpSocket) {
    let mut buffer = [0; 1000];
    let (length, from) = socket.recv_from(&mut buffer).expect("recvfrom");
    socket.connect(from).expect("connect");
    socket.send(&buffer[..length]).expect("send");
    echo(socket);
}

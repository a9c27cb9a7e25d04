//! A bulk transfer over TCP through exits, which may change while it runs.

use super::server::ANSWER;
use crate::{
    agent,
    exit::{Exit, choose},
    limit::seconds,
    payload::{Stream, hex},
    socket::{errno, get, tcp, tcp_info},
};
use dynencap_abi::{
    Info,
    option::{ENCAP_INFO, SOL_DYNENCAP},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use socket2::Socket;
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The job's name.
pub const NAME: &str = "bulk";
/// Many at once: the input is a list, and so is the output.
pub const MANY: &str = "bulk-many";

/// A transfer to the sink.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bulk {
    /// Where to.
    pub server: SocketAddr,
    /// Of the payload.
    pub seed: u64,
    /// Ends after so many bytes,
    pub bytes: u64,
    /// or after so long, in milliseconds, whichever comes first.
    pub milliseconds: u64,
    /// The first is chosen before `connect`, the others in turn while data flows.
    pub exits: Vec<Option<Exit>>,
    /// How long each is kept, in milliseconds.
    pub every: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// Bytes written, and their SHA-256.
    pub sent: (u64, String),
    /// Bytes that the server read, and their SHA-256, in its own words.
    pub received: (u64, String),
    /// How often the exit was changed.
    pub switches: u64,
    /// Errnos of calls that were refused.
    pub refused: Vec<i32>,
    /// Segments sent again.
    pub retransmits: u32,
    /// The segment size at the end.
    pub mss: u32,
    /// From `connect` to the server's answer, in milliseconds.
    pub milliseconds: u64,
    /// Source port.
    pub port: u16,
    /// What the socket says of its exit at the end.
    pub info: Option<Information>,
}

/// `ENCAP_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Information {
    /// Frames encapsulated.
    pub encapsulated: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// The code of the last drop's reason.
    pub last_drop: u32,
    /// Bytes of outer headers.
    pub overhead: u32,
    /// What fits inside.
    pub mtu: u32,
}

impl Information {
    /// Reads the option.
    #[must_use]
    pub fn of(socket: impl AsFd) -> Option<Self> {
        let bytes = get(socket, SOL_DYNENCAP, ENCAP_INFO, 32).ok()?;
        let info = Info::from_bytes(&bytes)?;
        Some(Self {
            encapsulated: info.encapsulated,
            dropped: info.dropped,
            last_drop: info.last_drop,
            overhead: info.overhead,
            mtu: info.mtu,
        })
    }
}

impl Bulk {
    /// So many bytes through one exit.
    #[must_use]
    pub fn new(server: SocketAddr, bytes: u64, exit: Option<Exit>) -> Self {
        Self {
            server,
            seed: bytes ^ u64::from(server.port()),
            bytes,
            milliseconds: u64::MAX,
            exits: vec![exit],
            every: 0,
        }
    }
}

impl Sent {
    /// Payload bits a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.sent.0 as f64 * 8000.0 / self.milliseconds.max(1) as f64
    }

    /// Fails unless the server has what was sent, and no call was refused.
    pub fn assert_whole(&self) {
        assert_eq!(self.sent, self.received);
        assert!(self.refused.is_empty(), "{self:?}");
        assert!(self.sent.0 > 0);
    }
}

/// Runs one transfer.
pub fn run(input: Value) -> Value {
    agent::output(send(&agent::input(input)))
}

/// Runs many at once.
pub fn run_many(input: Value) -> Value {
    let all: Vec<Bulk> = agent::input(input);
    let sent: Vec<Sent> = thread::scope(|scope| {
        let threads: Vec<_> = all.iter().map(|bulk| scope.spawn(|| send(bulk))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a transfer"))
            .collect()
    });
    agent::output(sent)
}

fn send(bulk: &Bulk) -> Sent {
    let mut socket = tcp(bulk.server);
    let mut refused = Vec::new();
    refused.extend(errno(choose_first(bulk, &socket)).err());
    let start = Instant::now();
    socket
        .connect_timeout(&bulk.server.into(), seconds(10))
        .expect("connect");
    socket
        .set_read_timeout(Some(seconds(60)))
        .expect("SO_RCVTIMEO");
    socket
        .set_write_timeout(Some(seconds(60)))
        .expect("SO_SNDTIMEO");

    let done = AtomicBool::new(false);
    let (sent, switches) = thread::scope(|scope| {
        let switching = (bulk.exits.len() > 1).then(|| {
            let socket = socket.try_clone().expect("dup");
            scope.spawn(|| switch(bulk, socket, &done))
        });
        let sending = Sending(&done);
        let sent = transmit(bulk, &mut socket, start);
        drop(sending);
        (
            sent,
            switching.map(|thread| thread.join().expect("switching")),
        )
    });
    let (switches, errnos) = switches.unwrap_or_default();
    refused.extend(errnos);

    socket.shutdown(Shutdown::Write).expect("shutdown");
    let mut answer = [0; ANSWER];
    socket.read_exact(&mut answer).expect("the server's answer");
    let info = tcp_info(&socket);
    let (count, digest) = answer.split_at(8);
    Sent {
        sent,
        received: (
            u64::from_be_bytes(count.try_into().expect("8 bytes")),
            hex(digest),
        ),
        switches,
        refused,
        retransmits: info.retransmits,
        mss: info.snd_mss,
        milliseconds: start.elapsed().as_millis() as u64,
        port: socket
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket())
            .map_or(0, |a| a.port()),
        info: Information::of(&socket),
    }
}

/// Ends the switching when the sending ends, by a panic too.
struct Sending<'a>(&'a AtomicBool);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A socket that never had an exit must not even know of the options.
fn choose_first(bulk: &Bulk, socket: &Socket) -> std::io::Result<()> {
    match bulk.exits.first() {
        Some(Some(exit)) => exit.set(socket),
        _ => Ok(()),
    }
}

fn transmit(bulk: &Bulk, socket: &mut Socket, start: Instant) -> (u64, String) {
    let mut payload = Stream::new(bulk.seed);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut count = 0;
    let until = Duration::from_millis(bulk.milliseconds);
    while count < bulk.bytes && start.elapsed() < until {
        let part = buffer
            .len()
            .min(usize::try_from(bulk.bytes - count).unwrap_or(usize::MAX));
        payload.fill(&mut buffer[..part]);
        socket.write_all(&buffer[..part]).expect("write");
        hash.update(&buffer[..part]);
        count += part as u64;
    }
    (count, hex(&hash.finalize()))
}

/// Changes the exit from another thread, while `write` is under way.
fn switch(bulk: &Bulk, socket: Socket, done: &AtomicBool) -> (u64, Vec<i32>) {
    let mut switches = 0;
    let mut refused = Vec::new();
    let mut next = Instant::now();
    for exit in bulk.exits.iter().cycle().skip(1) {
        next += Duration::from_millis(bulk.every);
        while Instant::now() < next {
            if done.load(Ordering::SeqCst) {
                return (switches, refused);
            }
            let left = next.saturating_duration_since(Instant::now());
            thread::sleep(left.min(Duration::from_millis(5)));
        }
        match errno(choose(exit.as_ref(), &socket)) {
            Ok(()) => switches += 1,
            Err(errno) => refused.push(errno),
        }
    }
    (switches, refused)
}

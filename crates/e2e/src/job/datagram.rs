//! Datagrams through an exit, one by one or as super-packets of `UDP_SEGMENT`.

use super::server::{QUERY, Received};
use crate::{
    agent,
    exit::Exit,
    limit::limit,
    payload::{Stream, fingerprint},
    socket::{SOL_UDP, set, udp},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// The job's name.
pub const NAME: &str = "datagram";

const UDP_SEGMENT: i32 = 103;

/// What to send to the counter of datagrams.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Datagrams {
    /// Where to.
    pub server: SocketAddr,
    /// Through what.
    pub exit: Option<Exit>,
    /// Calls of `send`.
    pub sends: u32,
    /// Bytes of payload of each datagram.
    pub size: u16,
    /// Datagrams in each call; 1: without `UDP_SEGMENT`.
    pub segments: u16,
    /// How the address is given.
    pub addressing: Addressing,
}

/// How a datagram's destination is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Addressing {
    /// By `connect`, once.
    Connected,
    /// By `sendto`, each time.
    EachTime,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delivered {
    /// What was sent.
    pub sent: Received,
    /// What the server counted.
    pub received: Received,
}

/// Sends, asks the server until it has all or time is over.
pub fn run(input: Value) -> Value {
    let order: Datagrams = agent::input(input);
    let socket = udp(order.server);
    if let Some(exit) = &order.exit {
        exit.set(&socket).expect("the exit");
    }
    if order.addressing == Addressing::Connected {
        socket.connect(&order.server.into()).expect("connect");
    }
    let socket = UdpSocket::from(socket);
    let send = |bytes: &[u8]| match order.addressing {
        Addressing::Connected => socket.send(bytes),
        Addressing::EachTime => socket.send_to(bytes, order.server),
    };
    if order.segments > 1 {
        let size = i32::from(order.size).to_ne_bytes();
        set(&socket, SOL_UDP, UDP_SEGMENT, &size).expect("UDP_SEGMENT");
    }
    let mut payload = Stream::new(u64::from(order.size));
    let mut buffer = vec![0; usize::from(order.size) * usize::from(order.segments)];
    let mut sent = Received::default();
    for number in 0..order.sends {
        payload.fill(&mut buffer);
        for datagram in buffer.chunks(usize::from(order.size)) {
            sent.datagrams += 1;
            sent.fingerprint = sent.fingerprint.wrapping_add(fingerprint(datagram));
        }
        let result = send(&buffer);
        assert_eq!(
            result.ok(),
            Some(buffer.len()),
            "send {number} of {order:?}: {}",
            std::io::Error::last_os_error()
        );
        if number % 4 == 3 {
            // Nobody retransmits: the server's buffer must not overflow.
            thread::sleep(limit(Duration::from_millis(1)));
        }
    }
    if order.segments > 1 {
        set(&socket, SOL_UDP, UDP_SEGMENT, &0_i32.to_ne_bytes()).expect("UDP_SEGMENT");
    }
    let received = ask(&socket, || send(QUERY), &sent);
    agent::output(Delivered { sent, received })
}

fn ask(
    socket: &UdpSocket,
    query: impl Fn() -> std::io::Result<usize>,
    sent: &Received,
) -> Received {
    socket
        .set_read_timeout(Some(limit(Duration::from_millis(500))))
        .expect("SO_RCVTIMEO");
    let until = Instant::now() + limit(Duration::from_secs(5));
    let mut received = Received::default();
    let mut buffer = [0; 256];
    while received.datagrams < sent.datagrams && Instant::now() < until {
        query().expect("send");
        if let Ok(length) = socket.recv(&mut buffer) {
            received = serde_json::from_slice(&buffer[..length]).expect("JSON");
        }
        thread::sleep(Duration::from_millis(5));
    }
    received
}

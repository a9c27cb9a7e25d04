//! A UDP socket that may not fragment, and what it learns of the path.

use super::bulk::Information;
use crate::{
    agent,
    exit::Exit,
    limit::seconds,
    socket::{errno, get, set, udp},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use socket2::Socket;
use std::{
    mem::MaybeUninit,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

/// The job's name.
pub const NAME: &str = "probe";

/// What to send.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// Where to.
    pub server: SocketAddr,
    /// Through what.
    pub exit: Exit,
    /// Bytes of payload, again and again until a call fails.
    pub size: u16,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Learned {
    /// Datagrams that were taken.
    pub sent: u32,
    /// The errno of the one that was not.
    pub errno: i32,
    /// Whether the error queue had an entry before that, with the datagram that did not fit.
    pub queued: bool,
    /// `IPV6_MTU` or `IP_MTU` then.
    pub mtu: i32,
    /// Whether a datagram of that size goes.
    pub fits: bool,
    /// `ENCAP_INFO`.
    pub info: Option<Information>,
}

/// Sends until the socket refuses.
pub fn run(input: Value) -> Value {
    let order: Probe = agent::input(input);
    let socket = udp(order.server);
    order.exit.set(&socket).expect("the exit");
    socket.connect(&order.server.into()).expect("connect");
    // Level; path-MTU discovery "do", error queue, MTU; and the bytes of both headers.
    let (level, discover, queue, mtu, headers) = match order.server {
        SocketAddr::V6(_) => (41, 23, 25, 24, 48),
        SocketAddr::V4(_) => (0, 10, 11, 14, 28),
    };
    set(&socket, level, discover, &2_i32.to_ne_bytes()).expect("MTU_DISCOVER");
    set(&socket, level, queue, &1_i32.to_ne_bytes()).expect("RECVERR");
    let payload = vec![7; usize::from(order.size)];
    let until = Instant::now() + seconds(10);
    let mut queued = false;
    let mut sent = 0;
    let refused = loop {
        assert!(Instant::now() < until, "no datagram was refused");
        // Before a call of ours can leave an entry of its own.
        queued |= has_error(&socket, payload.len());
        match errno(socket.send(&payload)) {
            Ok(_) => sent += 1,
            Err(errno) => break errno,
        }
        thread::sleep(Duration::from_millis(50));
    };
    queued |= has_error(&socket, payload.len());
    let now = get(&socket, level, mtu, 4).expect("MTU");
    let now = i32::from_ne_bytes(now.try_into().expect("4 bytes"));
    let fitting = usize::try_from(now).expect("positive") - headers;
    // Whatever is still pending goes first.
    let _ = socket.take_error();
    let fits = socket.send(&payload[..fitting]).is_ok();
    agent::output(Learned {
        sent,
        errno: refused,
        queued,
        mtu: now,
        fits,
        info: Information::of(&socket),
    })
}

fn has_error(socket: &Socket, size: usize) -> bool {
    const MSG_ERRQUEUE: i32 = 0x2000;
    const MSG_DONTWAIT: i32 = 0x40;
    let mut buffer = vec![MaybeUninit::uninit(); size];
    socket
        .recv_with_flags(&mut buffer, MSG_ERRQUEUE | MSG_DONTWAIT)
        .is_ok()
}

//! Connections that end in every way that makes the kernel speak for a socket that its
//! application has left.

use super::server::{SILENT, SINK, SOURCE};
use crate::{
    agent,
    exit::Exit,
    limit::{limit, seconds},
    socket::{SOL_TCP, set, tcp},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use socket2::{Socket, TcpKeepalive};
use std::{
    io::{Read, Write},
    net::{IpAddr, Shutdown, SocketAddr},
    thread,
    time::Duration,
};

/// The job's name.
pub const NAME: &str = "ending";

/// Connections of [`Ending::Crossing`].
pub const CROSSINGS: u64 = 1000;

/// How a connection goes and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Closed with data in the receive buffer, while the server goes on sending.
    Unread,
    /// Closed with a linger time of 0.
    Abort,
    /// Closed first; the server's FIN comes when the application is gone.
    First,
    /// Closed with a full send buffer; the server's answer comes when nobody listens.
    Queued,
    /// Idle for long enough that keepalives are sent, then closed.
    Idle,
    /// Many, one after the other, whose server closes at the same moment as they do.
    Crossing,
    /// Twice with data in the SYN (the first time to get the cookie).
    FastOpen,
}

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The server's address.
    pub server: IpAddr,
    /// Through what.
    pub exit: Exit,
    /// How it ends.
    pub ending: Ending,
}

/// Does it.
pub fn run(input: Value) -> Value {
    let order: Order = agent::input(input);
    match order.ending {
        Ending::Unread => unread(&order),
        Ending::Abort => {
            let mut socket = connected(&order, SINK);
            socket.write_all(&[7; 1000]).expect("write");
            socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        }
        Ending::First => {
            let mut socket = connected(&order, SILENT);
            socket.write_all(&[7; 1000]).expect("write");
        }
        Ending::Queued => queued(&order),
        Ending::Idle => idle(&order),
        Ending::Crossing => crossing(&order),
        Ending::FastOpen => fast_open(&order),
    }
    Value::Null
}

fn with_exit(order: &Order, port: u16) -> (Socket, SocketAddr) {
    let server = SocketAddr::new(order.server, port);
    let socket = tcp(server);
    order.exit.set(&socket).expect("the exit");
    socket
        .set_read_timeout(Some(seconds(20)))
        .expect("SO_RCVTIMEO");
    socket
        .set_write_timeout(Some(seconds(20)))
        .expect("SO_SNDTIMEO");
    (socket, server)
}

fn connected(order: &Order, port: u16) -> Socket {
    let (socket, server) = with_exit(order, port);
    socket
        .connect_timeout(&server.into(), seconds(10))
        .expect("connect");
    socket
}

fn unread(order: &Order) {
    let mut socket = connected(order, SOURCE);
    let request = [1_u64.to_be_bytes(), 50_000_000_u64.to_be_bytes()].concat();
    socket.write_all(&request).expect("write");
    let mut buffer = [0; 1000];
    socket.read_exact(&mut buffer).expect("read");
    thread::sleep(limit(Duration::from_millis(50)));
}

fn queued(order: &Order) {
    let mut socket = connected(order, SINK);
    socket.set_send_buffer_size(4 << 20).expect("SO_SNDBUF");
    socket.set_nonblocking(true).expect("O_NONBLOCK");
    let mut queued = 0;
    while let Ok(written) = socket.write(&[7; 64 << 10]) {
        queued += written;
        if queued > 8 << 20 {
            break;
        }
    }
}

fn idle(order: &Order) {
    let mut socket = connected(order, SINK);
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new().with_time(second).with_interval(second);
    socket.set_tcp_keepalive(&keepalive).expect("SO_KEEPALIVE");
    socket.write_all(&[7; 1000]).expect("write");
    thread::sleep(Duration::from_millis(3500));
    socket.shutdown(Shutdown::Write).expect("shutdown");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("read");
}

fn crossing(order: &Order) {
    for _ in 0..CROSSINGS {
        let mut socket = connected(order, SINK);
        socket.write_all(&[7; 1000]).expect("write");
        socket.shutdown(Shutdown::Write).expect("shutdown");
        // The server's FIN follows its answer at once, and meets our close.
        let mut answer = [0; super::server::ANSWER];
        socket.read_exact(&mut answer).expect("the server's answer");
    }
}

fn fast_open(order: &Order) {
    const MSG_FASTOPEN: i32 = 0x2000_0000;
    const TCP_USER_TIMEOUT: i32 = 18;
    for _ in 0..2 {
        let (mut socket, server) = with_exit(order, SINK);
        set(
            &socket,
            SOL_TCP,
            TCP_USER_TIMEOUT,
            &20_000_u32.to_ne_bytes(),
        )
        .expect("TCP_USER_TIMEOUT");
        let data = [7; 500];
        let sent = socket
            .send_to_with_flags(&data, &server.into(), MSG_FASTOPEN)
            .expect("sendto");
        assert_eq!(sent, data.len());
        socket.shutdown(Shutdown::Write).expect("shutdown");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).expect("read");
        assert_eq!(answer.len(), super::server::ANSWER);
    }
}

//! The server: a sink that answers with the hash of what it got, a source of any stream, and
//! a counter of datagrams.

use super::reflecting;
use crate::{agent::say, payload::fingerprint, socket, topology::CLIENT};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    io::{Read, Write},
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

/// The job's name.
pub const NAME: &str = "server";
/// What it says once it listens.
pub const READY: &str = "listening";

/// Reads until the client's FIN, then answers with [`ANSWER`] bytes and closes.
pub const SINK: u16 = 9000;
/// Reads seed and length (8 bytes each, big endian), sends that stream and closes.
pub const SOURCE: u16 = 9001;
/// Counts datagrams; to [`QUERY`] it answers with [`Received`] in JSON.
pub const DATAGRAMS: u16 = 9002;

/// Reads until the client's FIN, waits [`PAUSE`], and closes without a word.
pub const SILENT: u16 = 9003;

/// Speaks first: sends [`GREETING_LEN`] bytes of the stream whose seed is the port, and closes.
pub const GREETING: u16 = 9004;
/// Echoes datagrams to whoever sent them.
pub const ECHO: u16 = 9006;
/// How much the greeting is.
pub const GREETING_LEN: u64 = 100_000;

/// Between the client's FIN and the silent server's.
pub const PAUSE: Duration = Duration::from_millis(300);

/// Length of the sink's answer: count of bytes, SHA-256.
pub const ANSWER: usize = 8 + 32;
/// Asks for what arrived.
pub const QUERY: &[u8] = b"?";

/// What arrived in datagrams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// How many.
    pub datagrams: u64,
    /// Sum of their fingerprints.
    pub fingerprint: u64,
}

/// Serves until it is ended.
pub fn run(_: Value) -> Value {
    let sink = TcpListener::from(socket::listener(SINK));
    let source = TcpListener::from(socket::listener(SOURCE));
    let silent = TcpListener::from(socket::listener(SILENT));
    let datagrams = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, DATAGRAMS)).expect("bind");
    let greeting = TcpListener::from(socket::listener(GREETING));
    let [echo, connecting] = [ECHO, reflecting::CONNECTING].map(|port| {
        // A socket of every address may answer from another one than it was asked at.
        UdpSocket::bind((CLIENT, port))
            .or_else(|_| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))
            .expect("bind")
    });
    // As much as the system allows: the kernel cuts it down.
    let _ = socket2::SockRef::from(&datagrams).set_recv_buffer_size(8 << 20);
    say(READY);
    thread::spawn(|| serve(sink, swallow));
    thread::spawn(|| serve(source, produce));
    thread::spawn(|| serve(silent, listen));
    thread::spawn(|| serve(greeting, greet));
    thread::spawn(move || reflecting::echo(&echo));
    thread::spawn(move || reflecting::echo_connected(&connecting));
    count(&datagrams);
    Value::Null
}

/// A thread for each connection. One that breaks ends with it: the client tells.
fn serve(listener: TcpListener, work: fn(TcpStream) -> std::io::Result<()>) {
    for stream in listener.incoming() {
        let stream = stream.expect("accept");
        thread::spawn(move || work(stream));
    }
}

fn swallow(mut stream: TcpStream) -> std::io::Result<()> {
    let mut hash = Sha256::new();
    let mut count = 0_u64;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            read => {
                hash.update(&buffer[..read]);
                count += read as u64;
            }
        }
    }
    stream.write_all(&count.to_be_bytes())?;
    stream.write_all(&hash.finalize())
}

fn greet(mut stream: TcpStream) -> std::io::Result<()> {
    reflecting::send(&mut stream, GREETING.into(), GREETING_LEN)
}

fn listen(mut stream: TcpStream) -> std::io::Result<()> {
    std::io::copy(&mut stream, &mut std::io::sink())?;
    thread::sleep(PAUSE);
    Ok(())
}

fn produce(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = [0; 16];
    stream.read_exact(&mut request)?;
    let word = |at: usize| u64::from_be_bytes(request[at..at + 8].try_into().expect("8 bytes"));
    reflecting::send(&mut stream, word(0), word(8))
}

fn count(socket: &UdpSocket) {
    let mut received = Received::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).expect("recvfrom");
        let datagram = &buffer[..length];
        if datagram == QUERY {
            let answer = serde_json::to_vec(&received).expect("JSON");
            socket.send_to(&answer, from).expect("sendto");
        } else {
            received.datagrams += 1;
            received.fingerprint = received.fingerprint.wrapping_add(fingerprint(datagram));
        }
    }
}

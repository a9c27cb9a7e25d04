//! The server: a sink that answers with the hash of what it got, a source of any stream, and
//! a counter of datagrams.

use crate::{
    agent::say,
    payload::{Stream, fingerprint},
    socket,
};
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
    // As much as the system allows: the kernel cuts it down.
    let _ = socket2::SockRef::from(&datagrams).set_recv_buffer_size(8 << 20);
    say(READY);
    thread::spawn(|| serve(sink, swallow));
    thread::spawn(|| serve(source, produce));
    thread::spawn(|| serve(silent, listen));
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

fn listen(mut stream: TcpStream) -> std::io::Result<()> {
    std::io::copy(&mut stream, &mut std::io::sink())?;
    thread::sleep(PAUSE);
    Ok(())
}

fn produce(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = [0; 16];
    stream.read_exact(&mut request)?;
    let word = |at: usize| u64::from_be_bytes(request[at..at + 8].try_into().expect("8 bytes"));
    let mut payload = Stream::new(word(0));
    let mut left = word(8);
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let part = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        payload.fill(&mut buffer[..part]);
        stream.write_all(&buffer[..part])?;
        left -= part as u64;
    }
    Ok(())
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

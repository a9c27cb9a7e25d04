//! Fetches an HTTP resource through an exit, like a very small curl:
//!
//! ```sh
//! cargo run --example get -- --via 2001:db8::1/udp:6080 http://[2001:db8:1::80]/index.html
//! ```
//!
//! The exit is set before the connection is made, so that even the SYN goes through it.

use dynencap::{Exit, ExitSocket};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    env,
    error::Error,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    process::ExitCode,
};

const USAGE: &str = "usage: get [--via EXIT] http://HOST[:PORT]/PATH";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("get: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (exit, url) = match arguments.as_slice() {
        [url] => (None, url),
        [via, exit, url] if via == "--via" => (Some(exit.parse::<Exit>()?), url),
        _ => return Err(USAGE.into()),
    };
    let rest = url.strip_prefix("http://").ok_or(USAGE)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let with_port = if authority.ends_with(']') || !authority.contains(':') {
        format!("{authority}:80")
    } else {
        authority.to_owned()
    };
    let address = with_port
        .to_socket_addrs()?
        .next()
        .ok_or("the host has no address")?;

    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if let Some(exit) = &exit {
        socket.set_exit(exit)?;
    }
    socket.connect(&address.into())?;
    let mut stream = TcpStream::from(socket);
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let body = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .and_then(|at| answer.get(at + 4..))
        .ok_or("the answer has no header")?;
    io::stdout().write_all(body)?;
    if exit.is_some() {
        let info = stream.exit_info()?;
        eprintln!(
            "{} frames encapsulated, {} bytes of overhead each, inner MTU {}",
            info.encapsulated, info.overhead, info.mtu
        );
    }
    Ok(())
}

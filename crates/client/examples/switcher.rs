//! Uploads to one server, and changes the exit of the connection while it runs:
//!
//! ```sh
//! cargo run --example switcher -- [2001:db8:1::80]:9 10 2001:db8::1 2001:db8::2/udp:6080 none
//! ```
//!
//! Server, seconds, then exits that take turns every 100 ms (`none`: no exit). The stream is
//! one and the same all the time.

use dynencap::{Exit, ExitSocket};
use std::{
    env,
    error::Error,
    io::Write,
    net::TcpStream,
    process::ExitCode,
    time::{Duration, Instant},
};

const USAGE: &str = "usage: switcher SERVER:PORT SECONDS EXIT|none EXIT|none…";
const TURN: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("switcher: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [server, seconds, exits @ ..] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    if exits.is_empty() {
        return Err(USAGE.into());
    }
    let exits: Vec<Option<Exit>> = exits
        .iter()
        .map(|text| (text != "none").then(|| text.parse()).transpose())
        .collect::<Result<_, _>>()?;

    let mut stream = TcpStream::connect(server)?;
    let end = Instant::now() + Duration::from_secs(seconds.parse()?);
    let chunk = vec![0; 1 << 16];
    let (mut switches, mut bytes) = (0_u64, 0_u64);
    for exit in exits.iter().cycle() {
        match exit {
            Some(exit) => stream.set_exit(exit)?,
            None => stream.clear_exit()?,
        }
        switches += 1;
        let next = Instant::now() + TURN;
        while Instant::now() < next {
            stream.write_all(&chunk)?;
            bytes += chunk.len() as u64;
        }
        if Instant::now() >= end {
            break;
        }
    }
    let info = stream.exit_info()?;
    println!(
        "{bytes} bytes, {switches} exits; {} frames encapsulated, {} dropped{}",
        info.encapsulated,
        info.dropped,
        info.last_drop
            .map(|reason| format!(" (last: {})", reason.name()))
            .unwrap_or_default()
    );
    Ok(())
}

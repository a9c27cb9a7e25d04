//! Sockets that only have to be there, each with an exit of its own. One process may have so many
//! open files (without CAP_SYS_RESOURCE that is a hard limit), so others of this same program hold
//! them, started in the cgroup and namespace that the sockets are to be made in.

use crate::{
    Error,
    bed::{PORT, SERVER, UPLINK, ip},
    home::Home,
};
use dynencap_abi::option::{ENCAP_GW, SOL_DYNENCAP};
use dynencap_kernel::{Interrupt, Namespace, sys};
use rustix::process::{Resource, getrlimit};
use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv6Addr, SocketAddrV6, UdpSocket},
    os::fd::AsFd,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

/// The hidden argument of those others; the first exit's number and how many follow.
pub const ARGUMENT: &str = "--hold";
/// Ports of one address.
const PORTS: u32 = 50_000;
/// Sockets of one process, if it may have as many files.
const MOST: u32 = 15_000;
/// Files that are no such sockets.
const SPARE: u32 = 100;

/// Exits and their sockets, held by other processes.
#[derive(Debug, Default)]
pub struct Crowd(Vec<Holder>);

/// One of them. It ends when its input does, so also when this process is gone.
#[derive(Debug)]
struct Holder {
    child: Child,
    /// Until it is told to end.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Crowd {
    /// Opens so many sockets of `host` in `room`, as yet without exits.
    pub fn open(
        home: &Home,
        room: &Path,
        host: &Namespace,
        count: u32,
        interrupt: &Interrupt,
    ) -> Result<Self, Error> {
        let addresses: Vec<String> = (0..count.div_ceil(PORTS))
            .map(|number| {
                let address = address(number * PORTS);
                format!("addr add {}/128 dev {UPLINK} nodad", address.ip())
            })
            .collect();
        ip(host, &addresses.join("\n"))?;
        let each = u32::try_from(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
        let each = each.unwrap_or(u32::MAX).saturating_sub(SPARE);
        let each = each.clamp(1, MOST);
        let mut crowd = Self::default();
        for first in (0..count).step_by(each as usize) {
            interrupt.check()?;
            let these = each.min(count - first);
            let start = || host.in_namespace(|| Ok(Holder::start(first, these)));
            crowd.0.push(home.inside(room, || start()?)?);
        }
        for holder in &mut crowd.0 {
            holder.answer()?;
        }
        Ok(crowd)
    }

    /// Gives each its exit; how long the calls took, one process after the other.
    pub fn set(&mut self) -> Result<Duration, Error> {
        self.all("set")
    }

    /// Takes the exits away.
    pub fn unset(&mut self) -> Result<Duration, Error> {
        self.all("unset")
    }

    fn all(&mut self, command: &str) -> Result<Duration, Error> {
        let mut time = Duration::ZERO;
        for holder in &mut self.0 {
            time += holder.ask(command)?;
        }
        Ok(time)
    }
}

impl Holder {
    /// In this thread's namespace.
    fn start(first: u32, count: u32) -> Result<Self, Error> {
        let failed = || Error::io("a process for sockets");
        let program = env::current_exe().map_err(failed())?;
        let mut child = Command::new(program)
            .arg(ARGUMENT)
            .args([first.to_string(), count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed())?;
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let input = child.stdin.take().ok_or_else(gone).map_err(failed())?;
        let output = child.stdout.take().ok_or_else(gone).map_err(failed())?;
        Ok(Self {
            child,
            input: Some(input),
            output: BufReader::new(output),
        })
    }

    fn ask(&mut self, command: &str) -> Result<Duration, Error> {
        if let Some(input) = &mut self.input {
            writeln!(input, "{command}").map_err(Error::io("a process for sockets"))?;
        }
        self.answer()
    }

    fn answer(&mut self) -> Result<Duration, Error> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        read.map_err(Error::io("a process for sockets"))?;
        let nanoseconds = line.trim().parse().map_err(|_| Error::Command {
            command: ARGUMENT.to_owned(),
            said: format!("{line:?} in place of nanoseconds"),
        })?;
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.input.take();
        // It has no choice.
        let _ = self.child.wait();
    }
}

/// What such a process does: opens its sockets, then sets and takes away exits as its input says,
/// and answers each line with how many nanoseconds that took.
pub fn serve(first: u32, count: u32) -> Result<(), Error> {
    sys::raise_descriptor_limit().map_err(Error::io("RLIMIT_NOFILE"))?;
    let start = Instant::now();
    let open = |number| {
        let socket = UdpSocket::bind(address(number))?;
        socket.connect(SocketAddrV6::new(SERVER, PORT, 0, 0))?;
        Ok(socket)
    };
    let sockets: io::Result<Vec<UdpSocket>> = (first..first + count).map(open).collect();
    let sockets = sockets.map_err(Error::io("many UDP sockets"))?;
    let mut output = io::stdout().lock();
    let mut answer = |time: Duration| {
        writeln!(output, "{}", time.as_nanos()).map_err(Error::io("standard output"))
    };
    answer(start.elapsed())?;
    for line in io::stdin().lines() {
        let line = line.map_err(Error::io("standard input"))?;
        let start = Instant::now();
        for (number, socket) in (first..).zip(&sockets) {
            let gateway = exit(number + 1).octets();
            let value: &[u8] = if line == "set" { &gateway } else { &[] };
            sys::set_option(socket.as_fd(), SOL_DYNENCAP, ENCAP_GW, value)
                .map_err(Error::io("ENCAP_GW"))?;
        }
        answer(start.elapsed())?;
    }
    Ok(())
}

/// The address of exit number so and so.
#[must_use]
pub fn exit(number: u32) -> Ipv6Addr {
    let [high, low] = [(number >> 16) as u16, number as u16];
    Ipv6Addr::new(0xfd00, 0xe, 0, 0, 0, 0, high, low)
}

/// Where a socket sends from.
fn address(number: u32) -> SocketAddrV6 {
    let last = (number / PORTS + 2) as u16;
    let address = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 1, last);
    SocketAddrV6::new(address, (number % PORTS) as u16 + 10_000, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_has_an_address_and_an_exit_of_its_own() {
        let numbers = [0, 1, PORTS - 1, PORTS, 99_999];
        let addresses: std::collections::BTreeSet<_> = numbers.map(address).into();
        assert_eq!(addresses.len(), numbers.len());
        let exits: std::collections::BTreeSet<_> = numbers.map(exit).into();
        assert_eq!(exits.len(), numbers.len());
    }
}

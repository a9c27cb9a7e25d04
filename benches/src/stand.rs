//! A variant that is ready to send: a bed, what is attached to its uplink, and flows through it.
//! Every packet is counted where it arrives, in the headers that it should have.

use crate::{
    Error,
    bed::{Bed, FAR, Headroom},
    home::Home,
    ours::{Ours, Shape},
    reference::{Expected, Reference},
};
use aya::programs::TcAttachType;
use dynencap_kernel::{Chain, Namespace, sys::Burst};
use std::{
    net::UdpSocket,
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

/// Packets a system call.
const BATCH: usize = 64;
/// Bytes of payload.
const PAYLOAD: usize = 32;

/// What happens at the uplink's egress.
#[derive(Debug)]
pub enum Egress {
    /// Nothing by BPF.
    Nothing,
    /// A program of the reference.
    Reference(Reference),
    /// Our own.
    Ours(Box<Ours>),
}

/// The bed and its programs.
#[derive(Debug)]
pub struct Stand {
    /// The network.
    pub bed: Bed,
    /// At the uplink.
    pub egress: Egress,
    sink: Reference,
}

impl Stand {
    /// A bed that counts what arrives.
    pub fn plain(headroom: Headroom) -> Result<Self, Error> {
        let bed = Bed::new(headroom)?;
        let mut sink = Reference::load("sink")?;
        sink.attach(Chain::here(), &bed.peer, FAR, TcAttachType::Ingress)?;
        Ok(Self {
            bed,
            egress: Egress::Nothing,
            sink,
        })
    }

    /// The same with a program of the reference.
    pub fn reference(headroom: Headroom, chain: Chain, program: &str) -> Result<Self, Error> {
        let mut stand = Self::plain(headroom)?;
        let mut reference = Reference::load(program)?;
        reference.attach_egress(chain, &stand.bed.host)?;
        stand.egress = Egress::Reference(reference);
        Ok(stand)
    }

    /// The same with our own programs.
    pub fn ours(
        headroom: Headroom,
        chain: Chain,
        object: &[u8],
        flags: u32,
        home: &Home,
    ) -> Result<Self, Error> {
        let mut stand = Self::plain(headroom)?;
        let ours = Ours::egress(object, flags, chain, &stand.bed, home)?;
        stand.egress = Egress::Ours(Box::new(ours));
        Ok(stand)
    }

    /// A flow of the host's own: without an exit.
    pub fn flow(&self, home: &Home) -> Result<Flow, Error> {
        let socket = match &self.egress {
            Egress::Ours(ours) => home.inside(ours.room(), || connect(&self.bed.host))?,
            _ => connect(&self.bed.host)?,
        };
        Ok(Flow::new(socket, Expected::PLAIN))
    }

    /// A flow with an exit of ours.
    pub fn flow_to(&self, shape: Shape, home: &Home) -> Result<Flow, Error> {
        let mut flow = self.flow(home)?;
        shape.set(&flow.socket)?;
        flow.expected = shape.expected();
        Ok(flow)
    }

    /// A flow that leaves as `expected`, with an exit of the reference if that is attached.
    pub fn flow_as(&mut self, expected: Expected, home: &Home) -> Result<Flow, Error> {
        let mut flow = self.flow(home)?;
        if let Egress::Reference(reference) = &mut self.egress {
            reference.set_exit(&flow.socket)?;
        }
        flow.expected = expected;
        Ok(flow)
    }

    /// A flow that the host forwards: packets without a socket.
    pub fn forwarded(&self) -> Result<Flow, Error> {
        Ok(Flow::new(connect(&self.bed.router)?, Expected::PLAIN))
    }

    /// Sends `count` packets and waits until all have arrived; how long that took.
    pub fn send(&mut self, name: &str, flow: &mut Flow, count: usize) -> Result<Duration, Error> {
        self.sink.expect(&flow.expected)?;
        let before = self.sink.arrived()?;
        let start = Instant::now();
        let mut left = count;
        while left > 0 {
            let sent = flow.burst.send(flow.socket.as_fd(), left.min(BATCH));
            left -= sent.map_err(Error::io(format!("{name}: sendmmsg")))?;
        }
        let time = start.elapsed();
        let mut seen = [0; 2];
        for patience in 0..200 {
            let after = self.sink.arrived()?;
            seen = [after[0] - before[0], after[1] - before[1]];
            if seen[0] >= count as u64 {
                break;
            }
            if patience > 10 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        if seen[0] == count as u64 {
            return Ok(time);
        }
        Err(Error::Wrong {
            variant: name.to_owned(),
            what: format!(
                "of {count} packets {} arrived as they should ({:?}), {} otherwise",
                seen[0], flow.expected, seen[1]
            ),
        })
    }

    /// Sends `count` packets while the kernel keeps statistics; nanoseconds that a run of the
    /// uplink's program took.
    pub fn run_time(&mut self, name: &str, flow: &mut Flow, count: usize) -> Result<f64, Error> {
        let before = self.egress.run_time()?;
        self.send(name, flow, count)?;
        let after = self.egress.run_time()?;
        let runs = after.0 - before.0;
        // A neighbour's or a router's message of the kernel's may be among them, no more.
        if runs < count as u64 || runs > count as u64 + count as u64 / 100 {
            return Err(Error::Wrong {
                variant: name.to_owned(),
                what: format!("{runs} runs for {count} packets"),
            });
        }
        Ok((after.1 - before.1).as_nanos() as f64 / runs as f64)
    }
}

impl Egress {
    fn run_time(&mut self) -> Result<(u64, Duration), Error> {
        match self {
            Self::Nothing => Ok((0, Duration::ZERO)),
            Self::Reference(reference) => reference.run_time(),
            Self::Ours(ours) => ours.run_time(),
        }
    }
}

/// A connected socket that sends one datagram again and again.
pub struct Flow {
    /// The socket.
    pub socket: UdpSocket,
    /// What its packets are on the wire.
    pub expected: Expected,
    burst: Burst,
}

impl Flow {
    /// A socket that names the server with each packet.
    #[must_use]
    pub fn unconnected(socket: UdpSocket, expected: Expected) -> Self {
        Self {
            burst: Burst::new(&[0x5a; PAYLOAD], BATCH, Some(Bed::server())),
            ..Self::new(socket, expected)
        }
    }

    /// A connected socket.
    #[must_use]
    pub fn new(socket: UdpSocket, expected: Expected) -> Self {
        Self {
            socket,
            expected,
            burst: Burst::new(&[0x5a; PAYLOAD], BATCH, None),
        }
    }
}

fn connect(namespace: &Namespace) -> Result<UdpSocket, Error> {
    let connect = || {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.connect(Bed::server())?;
        Ok(socket)
    };
    namespace
        .in_namespace(|| Ok(connect()))?
        .map_err(Error::io("a UDP socket"))
}

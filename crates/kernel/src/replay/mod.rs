//! Replay: packets of a capture go through the attached programs of a real kernel, one packet
//! socket a flow, and every frame that comes out is handed back.
//!
//! Order is total on each port: one thread, pinned to one CPU, sends; veth delivers through
//! that CPU's backlog, first in, first out.

mod capture;
mod closer;
mod loss;
mod packet;
mod path;
mod stash;
mod tenant;

pub use packet::{Gso, Packet, Transport};

use crate::{
    Error, Feature, Interrupt, Lab, Loaded,
    sys::{self, Affinity},
};
use capture::Capture;
use closer::Closer;
use dynencap_abi::{Config, Reason, TunnelKey, TunnelSpec, Verdict, option};
use loss::TransmitDrops;
use packet::Framed;
use path::{Entry, Path};
use stash::Stash;
use std::{
    collections::HashMap,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    time::{SystemTime, UNIX_EPOCH},
};

/// One of the replay's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(u32);

/// Where a frame was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// At the far end of the uplink: what [`Replay::send`] put on the wire.
    Wire,
    /// Behind TC ingress of the uplink: what [`Replay::inject`] had delivered.
    Delivered,
}

/// Programs attached in a lab, sockets to send on, captures at both ends.
pub struct Replay {
    loaded: Option<Loaded>,
    flows: HashMap<u32, OwnedFd>,
    closer: Closer,
    next_flow: u32,
    wire: Path,
    delivered: Path,
    segmenter: Path,
    host_drops: TransmitDrops,
    peer_drops: TransmitDrops,
    /// Frames sent since everything was last captured.
    in_flight: usize,
    /// How many frames the CPU's backlog holds before the kernel drops.
    backlog: usize,
    /// Frames that did not leave according to `sendmsg`: the programs must have dropped them.
    not_sent: u64,
    stash: Stash,
    interrupt: Interrupt,
    affinity: Affinity,
    /// The cgroup below the lab's in which the process is.
    cgroup: String,
    lab: Lab,
}

impl Replay {
    /// Builds a lab, loads and attaches the programs and pins the calling thread to the CPU
    /// that it is on (until the replay is dropped).
    pub fn start(object: &[u8], config: Config) -> Result<Self, Error> {
        // Before the lab, of which there is one: another thread may use that meanwhile.
        let mut loaded = Loaded::load(object)?;
        let lab = Lab::new()?;
        loaded.set_config(&config)?;
        let links = lab.links();
        let (host, peer) = (lab.host(), lab.peer());
        // The clock is no randomness, but two replays of one trace do not start together.
        let nonce = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos() as u64)
            ^ u64::from(std::process::id()).rotate_left(32);
        let path = |namespace, link, place, captured| {
            let capture = Capture::open(peer, captured, place)?;
            Path::open(Entry { namespace, link }, capture, nonce)
        };
        let wire = path(host, links.up[0], "on the wire", links.up[1])?;
        let delivered = path(peer, links.up[1], "behind ingress", links.cap[1])?;
        let segmenter = path(host, links.seg[0], "behind segmentation", links.seg[1])?;
        let host_drops = TransmitDrops::of(host, "by a device of the host")?;
        let peer_drops = TransmitDrops::of(peer, "by a device of the peer")?;
        loaded.attach(&lab)?;
        sys::raise_descriptor_limit().map_err(Error::syscall("setrlimit"))?;
        let affinity = Affinity::current().map_err(Error::syscall("sched_getaffinity"))?;
        Affinity::here()
            .and_then(|cpu| cpu.apply())
            .map_err(Error::syscall("sched_setaffinity"))?;
        Ok(Self {
            loaded: Some(loaded),
            flows: HashMap::new(),
            closer: Closer::default(),
            next_flow: 0,
            wire,
            delivered,
            segmenter,
            host_drops,
            peer_drops,
            in_flight: 0,
            backlog: backlog(),
            not_sent: 0,
            stash: Stash::default(),
            interrupt: Interrupt::default(),
            affinity,
            cgroup: String::new(),
            lab,
        })
    }

    /// Lets `interrupt` end a barrier early.
    pub fn stop_on(&mut self, interrupt: Interrupt) {
        self.interrupt = interrupt;
    }

    /// The lab that it runs in.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Writes the host's configuration; packets sent before may still be under way.
    pub fn set_config(&mut self, config: Config) -> Result<(), Error> {
        self.loaded_mut()?.set_config(&config)
    }

    /// Lets the host decapsulate what matches `key`.
    pub fn add_tunnel(&mut self, key: TunnelKey, spec: TunnelSpec) -> Result<(), Error> {
        self.loaded_mut()?.add_tunnel(&key, &spec)
    }

    /// Makes a socket: a packet socket in the lab's cgroup, bound to nothing.
    pub fn open_flow(&mut self) -> Result<FlowId, Error> {
        let socket = path::open_sender(self.lab.host())?;
        let flow = self.next_flow;
        self.next_flow = flow.wrapping_add(1);
        self.flows.insert(flow, socket);
        Ok(FlowId(flow))
    }

    /// Closes it; what it sent is still captured.
    pub fn close_flow(&mut self, flow: FlowId) -> Result<(), Error> {
        let socket = self.flows.remove(&flow.0);
        self.closer
            .close(socket.ok_or(Error::UnknownFlow { flow: flow.0 })?);
        Ok(())
    }

    /// `setsockopt` at level `SOL_DYNENCAP`; the inner error is the errno. On packet sockets
    /// the programs accept it only with `Config::ALLOW_PACKET_SOCKETS`.
    pub fn set_option(
        &mut self,
        flow: FlowId,
        name: i32,
        value: &[u8],
    ) -> Result<Result<(), i32>, Error> {
        self.set_option_at(flow, option::SOL_DYNENCAP, name, value)
    }

    /// `setsockopt` at any level: other people's options.
    pub fn set_option_at(
        &mut self,
        flow: FlowId,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<Result<(), i32>, Error> {
        errno(sys::set_option(
            self.flow(flow)?.as_fd(),
            level,
            name,
            value,
        ))
    }

    /// `getsockopt` at level `SOL_DYNENCAP` into a buffer of `capacity` bytes.
    pub fn option(
        &mut self,
        flow: FlowId,
        name: i32,
        capacity: usize,
    ) -> Result<Result<Vec<u8>, i32>, Error> {
        self.option_at(flow, option::SOL_DYNENCAP, name, capacity)
    }

    /// `getsockopt` at any level.
    pub fn option_at(
        &mut self,
        flow: FlowId,
        level: i32,
        name: i32,
        capacity: usize,
    ) -> Result<Result<Vec<u8>, i32>, Error> {
        errno(sys::option(self.flow(flow)?.as_fd(), level, name, capacity))
    }

    /// Sends a packet on a flow's socket, through TC egress of the uplink. A packet that the
    /// program drops is sent as far as this call is concerned.
    pub fn send(&mut self, flow: FlowId, packet: &Packet<'_>) -> Result<(), Error> {
        let framed = frame(packet)?;
        self.make_room(&framed)?;
        let socket = self.flow(flow)?;
        match self.wire.send_on(socket.as_fd(), &framed, packet.ethertype) {
            Ok(()) => {}
            // What a packet socket says when the frame was dropped below it.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.not_sent += 1,
            Err(error) => {
                // Dropped behind TC, where the device counts it too.
                if error.raw_os_error() == Some(libc::ENOMEM) {
                    self.host_drops.account();
                }
                return Err(refused(packet, &error));
            }
        }
        Ok(())
    }

    /// Sends a frame from the far end, through TC ingress of the uplink.
    ///
    /// The kernel takes an outermost VLAN tag out of a frame before TC ingress: the programs
    /// see the inner Ethernet type, and the tag is put back into what is captured.
    pub fn inject(&mut self, ethertype: u16, bytes: &[u8]) -> Result<(), Error> {
        let packet = Packet {
            ethertype,
            bytes,
            gso: None,
        };
        let framed = frame(&packet)?;
        self.make_room(&framed)?;
        self.delivered
            .send(&framed, ethertype)
            .map_err(|error| refused(&packet, &error))
    }

    /// Hands over everything that came out of what was sent and injected before: port,
    /// Ethernet type, and the bytes behind the Ethernet header. In order on each port; first
    /// all of the wire, then all that was delivered.
    pub fn barrier(&mut self, frame: &mut dyn FnMut(Port, u16, &[u8])) -> Result<(), Error> {
        let stash = std::mem::take(&mut self.stash);
        stash.hand_over(Port::Wire, frame);
        let wire = &mut |ethertype, bytes: &[u8]| frame(Port::Wire, ethertype, bytes);
        self.wire.barrier(&self.interrupt, wire)?;
        stash.hand_over(Port::Delivered, frame);
        let delivered = &mut |ethertype, bytes: &[u8]| frame(Port::Delivered, ethertype, bytes);
        self.delivered.barrier(&self.interrupt, delivered)?;
        self.in_flight = 0;
        self.check_losses()
    }

    /// The programs' counters, without the replay's own frames. Packets of which a barrier
    /// has not yet handed over the outcome may be missing.
    pub fn counters(&self) -> Result<[u64; Reason::COUNT], Error> {
        let mut counters = match &self.loaded {
            Some(loaded) => loaded.counters()?,
            None => [0; Reason::COUNT],
        };
        let own = self.wire.sentinels() + self.delivered.sentinels();
        let not_ip = &mut counters[Reason::NotIp as usize];
        *not_ip = not_ip.saturating_sub(own);
        Ok(counters)
    }

    /// Cuts a super-packet as the kernel's software GSO does, without encapsulation; each
    /// segment goes to `out`. Segment-first replay sends these one by one on the flow's
    /// socket: two passes, since a packet socket's super-packet loses its socket (and with
    /// it the exit) on its way through the devices that would segment it in one.
    pub fn segment(
        &mut self,
        packet: &Packet<'_>,
        out: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        let framed = frame(packet)?;
        self.make_room(&framed)?;
        self.segmenter
            .send(&framed, packet.ethertype)
            .map_err(|error| {
                if error.raw_os_error() == Some(libc::ENOMEM) {
                    self.host_drops.account();
                }
                refused(packet, &error)
            })?;
        self.segmenter
            .barrier(&self.interrupt, &mut |_, bytes| out(bytes))?;
        self.host_drops.check()
    }

    /// Captures what is in flight before a CPU's backlog could overflow.
    fn make_room(&mut self, framed: &Framed<'_>) -> Result<(), Error> {
        // Each of the two barriers' frames needs room too.
        const SPARE: usize = 8;
        let limit = self.backlog.saturating_sub(SPARE);
        if framed.segments > limit {
            return Err(Error::TooManySegments {
                segments: framed.segments,
                limit,
            });
        }
        if self.in_flight + framed.segments > limit.min(MAX_IN_FLIGHT).max(framed.segments) {
            let stash = &mut self.stash;
            self.wire
                .barrier(&self.interrupt, &mut |ethertype, bytes| {
                    stash.push(Port::Wire, ethertype, bytes);
                })?;
            self.delivered
                .barrier(&self.interrupt, &mut |ethertype, bytes| {
                    stash.push(Port::Delivered, ethertype, bytes);
                })?;
            self.in_flight = 0;
        }
        self.in_flight += framed.segments;
        Ok(())
    }

    /// Every frame must have been captured, dropped by a program, or reported.
    fn check_losses(&mut self) -> Result<(), Error> {
        self.host_drops.check()?;
        self.peer_drops.check()?;
        if self.not_sent > 0 {
            let counters = self.counters()?;
            let dropped: u64 = Reason::ALL
                .iter()
                .filter(|reason| reason.verdict() == Verdict::Dropped)
                .map(|&reason| counters[reason as usize])
                .sum();
            if let Some(frames) = self.not_sent.checked_sub(dropped)
                && frames > 0
            {
                return Err(Error::Lost {
                    frames,
                    place: "between a socket and the wire",
                });
            }
        }
        Ok(())
    }

    fn flow(&self, flow: FlowId) -> Result<&OwnedFd, Error> {
        let socket = self.flows.get(&flow.0);
        socket.ok_or(Error::UnknownFlow { flow: flow.0 })
    }

    /// The programs and their maps.
    pub fn loaded_mut(&mut self) -> Result<&mut Loaded, Error> {
        self.loaded.as_mut().ok_or(Error::Interrupted)
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        for (_, socket) in self.flows.drain() {
            self.closer.close(socket);
        }
        if let Some(loaded) = self.loaded.take() {
            // The lab's devices go in a moment, and every program with them.
            let _ = loaded.detach(&self.lab);
        }
        // The thread runs on whichever CPU it was left on: slower, not wrong.
        let _ = self.affinity.apply();
    }
}

/// Frames in flight before they are captured: keeps the working set in the cache.
const MAX_IN_FLIGHT: usize = 256;

fn frame<'a>(packet: &Packet<'a>) -> Result<Framed<'a>, Error> {
    let udp = |gso: Gso| gso.transport == Transport::Udp;
    if packet.gso.is_some_and(udp) && Feature::UdpSegmentation.probe().is_err() {
        return Err(Error::Unsupported {
            feature: "UDP super-packets on packet sockets",
            since: "6.2",
        });
    }
    Framed::new(packet).ok_or(Error::Refused {
        length: packet.bytes.len(),
        errno: libc::EINVAL,
    })
}

fn refused(packet: &Packet<'_>, error: &io::Error) -> Error {
    Error::Refused {
        length: packet.bytes.len(),
        errno: error.raw_os_error().unwrap_or(libc::EIO),
    }
}

fn errno<T>(result: io::Result<T>) -> Result<Result<T, i32>, Error> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => match error.raw_os_error() {
            Some(errno) => Ok(Err(errno)),
            None => Err(Error::Syscall {
                call: "socket option",
                source: error,
            }),
        },
    }
}

/// The length of a CPU's backlog, the kernel's default where it cannot be read.
fn backlog() -> usize {
    fs::read_to_string("/proc/sys/net/core/netdev_max_backlog")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1000)
}

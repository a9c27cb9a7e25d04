//! The auditor: judges every frame that left the client. Nothing for the server may be outside
//! of a tunnel, nothing may exceed the MTU, and what is in a tunnel must be byte for byte what
//! the model makes of the inner packet.

pub(crate) mod packet;

pub use packet::Segment;

use crate::{
    capture::Observer,
    exit::Shape,
    reference::{Reference, config},
};
use dynencap_abi::Config;
use packet::{Ethernet, Ip};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// How many faults of a kind are kept in words.
const KEPT: usize = 5;
const UDP: u8 = 17;
/// How many packets are kept for tests that look at their order.
const HISTORY: usize = 100_000;

/// What may leave the client.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The uplink's MTU, in bytes from the outer IP header on.
    pub mtu: usize,
    /// Outer source of packets of the other IP version.
    pub source: Ipv6Addr,
    /// Outer destinations that may be.
    pub gateways: Vec<IpAddr>,
    /// What may follow the outer IP header.
    pub shapes: Vec<Shape>,
    /// Whether packets outside of a tunnel are a fault.
    pub plain: Plain,
    /// Flags of the client's `Config`.
    pub flags: u32,
}

/// What a packet outside of every tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// A leak.
    Leak,
    /// Part of the test: a socket without an exit.
    Allowed,
}

/// Faults of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// How many.
    pub count: u64,
    /// The first of them, in words.
    pub first: Vec<String>,
}

/// A TCP segment or another packet, as it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The gateway, if it left in a tunnel.
    pub gateway: Option<IpAddr>,
    /// What it is.
    pub segment: Segment,
    /// The inner source port. Connections over the two IP versions may have the same.
    pub port: u16,
    /// The inner IP version is 4.
    pub is_ipv4: bool,
}

/// What was found.
#[derive(Debug)]
pub struct Audit {
    rules: Rules,
    reference: Reference,
    /// All frames.
    pub frames: u64,
    /// Of these: ARP, neighbour discovery, multicast listener reports.
    pub link: u64,
    /// Outside of a tunnel, where that is a fault.
    pub leaks: Faults,
    /// Longer than the MTU.
    pub oversize: Faults,
    /// In a tunnel, and not as the model makes them.
    pub altered: Faults,
    /// Outside of a tunnel, where that is part of the test.
    pub plain: u64,
    /// In a tunnel: by gateway and shape.
    pub tunnels: BTreeMap<(IpAddr, Shape), u64>,
    /// In a tunnel: by what they are.
    pub segments: BTreeMap<Segment, u64>,
    /// The packets in order, link frames apart.
    pub history: Vec<Seen>,
    /// Valid UDP checksums of outer headers, summed over the whole payload.
    pub summed: u64,
    /// The last TCP segment with payload, from its outer IP header on.
    pub sample: Option<Vec<u8>>,
}

impl Faults {
    fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(what());
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.count)?;
        for fault in &self.first {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl Audit {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            reference: Reference::new(Config {
                flags: rules.flags,
                ..config(rules.source, rules.mtu)
            }),
            rules,
            frames: 0,
            link: 0,
            leaks: Faults::default(),
            oversize: Faults::default(),
            altered: Faults::default(),
            plain: 0,
            tunnels: BTreeMap::new(),
            segments: BTreeMap::new(),
            history: Vec::new(),
            summed: 0,
            sample: None,
        }
    }

    /// Everything that was wrong.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.leaks.count + self.oversize.count + self.altered.count
    }

    /// Fails unless nothing was wrong.
    pub fn assert_clean(&self) {
        assert_eq!(self.faults(), 0, "{self}");
    }

    /// Packets in tunnels.
    #[must_use]
    pub fn tunnelled(&self) -> u64 {
        self.tunnels.values().sum()
    }

    /// Packets in tunnels to `gateway`.
    #[must_use]
    pub fn through(&self, gateway: IpAddr) -> u64 {
        let to = self.tunnels.iter().filter(|((to, _), _)| *to == gateway);
        to.map(|(_, count)| count).sum()
    }

    /// Packets of this kind in tunnels.
    #[must_use]
    pub fn segments(&self, segment: Segment) -> u64 {
        self.segments.get(&segment).copied().unwrap_or_default()
    }

    fn packet(&mut self, ethertype: u16, bytes: &[u8]) {
        let Some(ip) = Ip::parse(ethertype, bytes) else {
            self.leaks
                .add(|| format!("not IP: {ethertype:#06x}, {} bytes", bytes.len()));
            return;
        };
        if ip.is_link_local_signalling() {
            self.link += 1;
            return;
        }
        if bytes.len() > self.rules.mtu {
            self.oversize
                .add(|| format!("{ip} of {} bytes", bytes.len()));
        }
        if !self.rules.gateways.contains(&ip.destination) {
            self.outside(&ip);
            return;
        }
        let Some((shape, inner)) = self.inner(&ip) else {
            self.altered
                .add(|| format!("no tunnel that is expected: {ip}"));
            return;
        };
        let shape = shape.clone();
        let (ethertype, version) = match inner.first().map(|first| first >> 4) {
            Some(4) => (0x0800, 4),
            _ => (0x86dd, 41),
        };
        let within = Ip::parse(ethertype, inner);
        let Some(within) = within.filter(|_| shape != Shape::Ip || ip.protocol == version) else {
            self.altered.add(|| format!("no IP packet inside {ip}"));
            return;
        };
        let made = self
            .reference
            .encapsulated(ip.destination, &shape, ethertype, inner);
        let difference = match made {
            // Cut first, each segment has what the model gives it, to the last bit.
            Ok(made)
                if ip.destination.is_ipv4()
                    && ethertype == 0x86dd
                    && self.rules.flags & Config::SEGMENT_FIRST == 0 =>
            {
                packet::difference_but_identification(made, bytes)
            }
            Ok(made) => packet::difference(made, bytes),
            Err(reason) => Some(format!("the model drops it: {reason}")),
        };
        if let Some(difference) = difference {
            self.altered.add(|| format!("{ip}: {difference}"));
        }
        if self.rules.flags & Config::UDP_CHECKSUM != 0 && ip.protocol == UDP {
            if ip.udp_checksum_is_valid() {
                self.summed += 1;
            } else {
                self.altered.add(|| format!("{ip}: a wrong UDP checksum"));
            }
        }
        let segment = within.segment();
        if segment == Segment::Data {
            self.sample = Some(bytes.to_vec());
        }
        *self.tunnels.entry((ip.destination, shape)).or_default() += 1;
        *self.segments.entry(segment).or_default() += 1;
        self.remember(Some(ip.destination), &within);
    }

    fn outside(&mut self, ip: &Ip<'_>) {
        match self.rules.plain {
            Plain::Leak => self.leaks.add(|| format!("{ip}: {:?}", ip.segment())),
            Plain::Allowed => self.plain += 1,
        }
        self.remember(None, ip);
    }

    fn remember(&mut self, gateway: Option<IpAddr>, packet: &Ip<'_>) {
        if self.history.len() < HISTORY {
            self.history.push(Seen {
                gateway,
                segment: packet.segment(),
                port: packet.source_port(),
                is_ipv4: packet.source.is_ipv4(),
            });
        }
    }

    /// The shape that the packet's outer headers have, and what follows them.
    fn inner<'a>(&self, ip: &Ip<'a>) -> Option<(&Shape, &'a [u8])> {
        self.rules.shapes.iter().find_map(|shape| match shape {
            Shape::Ip => matches!(ip.protocol, 4 | 41).then_some((shape, ip.payload)),
            Shape::Udp { port, header } => {
                let (udp, behind) = ip.payload.split_at_checked(8)?;
                (ip.protocol == 17 && udp[2..4] == port.to_be_bytes()).then_some(())?;
                let (_, inner) = behind.split_at_checked(header.len())?;
                Some((shape, inner))
            }
        })
    }
}

impl Observer for Audit {
    fn frame(&mut self, bytes: &[u8]) {
        self.frames += 1;
        match Ethernet::parse(bytes) {
            Some(frame) if frame.ethertype == packet::ARP => self.link += 1,
            Some(frame) => self.packet(frame.ethertype, frame.payload),
            None => self
                .leaks
                .add(|| format!("no Ethernet frame: {} bytes", bytes.len())),
        }
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} frames, {} of them the link's own",
            self.frames, self.link
        )?;
        writeln!(f, "outside of a tunnel: {}", self.leaks)?;
        writeln!(f, "over the MTU: {}", self.oversize)?;
        writeln!(f, "not as the model makes them: {}", self.altered)?;
        writeln!(f, "without an exit: {}", self.plain)?;
        for ((gateway, shape), count) in &self.tunnels {
            writeln!(f, "to {gateway} in {shape}: {count}")?;
        }
        for (segment, count) in &self.segments {
            writeln!(f, "{segment:?}: {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

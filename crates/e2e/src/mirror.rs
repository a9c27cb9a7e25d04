//! The auditor of reflection: sees all that comes to the reflecting host and all that it sends,
//! remembers for each flow by which outer header its packets came, and judges each reply by that.
//! It reads headers on its own, and knows neither the model nor what the host was told.

use crate::{
    audit::{
        Segment,
        packet::{ARP, Ethernet, Ip},
    },
    capture::Observer,
    tunnel::Tunnel,
};
use dynencap_abi::TunnelSpec;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

const UDP: u8 = 17;
/// How many faults of a kind are kept in words.
const KEPT: usize = 5;
/// How many replies are kept for tests that look at their order.
const HISTORY: usize = 100_000;

/// The network as the auditor has to know it.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Addresses of the reflecting host.
    pub host: Vec<IpAddr>,
    /// Tunnels that end there.
    pub tunnels: Vec<Tunnel>,
    /// The uplink's MTU.
    pub mtu: usize,
    /// Packets with one of these in their custom header are a forger's: replies must not follow
    /// them.
    pub forged: Vec<[u8; 8]>,
}

/// An outer header, but for what is computed anew for each packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// The other end's address.
    pub peer: IpAddr,
    /// This end's.
    pub local: IpAddr,
    /// UDP destination port and custom header.
    pub udp: Option<(u16, Vec<u8>)>,
}

/// Addresses, ports and protocol inside: of the packets that come in.
pub type Flow = (IpAddr, u16, IpAddr, u16, u8);

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What it is.
    pub segment: Segment,
    /// Its destination port.
    pub port: u16,
    /// Its source port: the server's.
    pub server: u16,
    /// Its DSCP.
    pub dscp: u8,
    /// By which path it left; `None`: outside of every tunnel.
    pub path: Option<Path>,
}

#[derive(Debug, Default)]
struct Known {
    /// How its packets came, each change of it; `None`: outside of tunnels.
    paths: Vec<Option<Path>>,
    /// When the last of these came first.
    changed: Option<Instant>,
    /// The frame that came last.
    last: Vec<u8>,
}

/// What was found.
#[derive(Debug)]
pub struct Mirror {
    rules: Rules,
    flows: HashMap<Flow, Known>,
    /// Replies by the path of the packet that came last.
    pub mirrored: u64,
    /// Replies by an earlier path.
    pub behind: u64,
    /// How long after a change the last of these left.
    pub lag: Duration,
    /// Outside of tunnels, as the packet that came last.
    pub plain: u64,
    /// By no path by which a packet of the flow had come.
    pub astray: (u64, Vec<String>),
    /// Longer than the MTU.
    pub oversize: (u64, Vec<String>),
    /// Replies in order.
    pub history: Vec<Reply>,
    /// Replies by path.
    pub paths: BTreeMap<Path, u64>,
    /// A forger's packets.
    pub forged: u64,
}

impl Mirror {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            flows: HashMap::new(),
            mirrored: 0,
            behind: 0,
            lag: Duration::ZERO,
            plain: 0,
            astray: (0, Vec::new()),
            oversize: (0, Vec::new()),
            history: Vec::new(),
            paths: BTreeMap::new(),
            forged: 0,
        }
    }

    /// Fails unless every reply left by a path by which a packet of its flow had come.
    pub fn assert_clean(&self) {
        assert_eq!(self.astray.0 + self.oversize.0, 0, "{self}");
    }

    /// The same, and each by the path of the last packet, in a tunnel.
    pub fn assert_mirrored(&self) {
        self.assert_clean();
        assert_eq!(self.behind + self.plain, 0, "{self}");
        assert!(self.mirrored > 0, "{self}");
    }

    /// Replies of this kind.
    #[must_use]
    pub fn count(&self, segment: Segment) -> usize {
        let of_kind = self.history.iter().filter(|reply| reply.segment == segment);
        of_kind.count()
    }

    /// The frame that came last from this client port, from its Ethernet header on.
    #[must_use]
    pub fn last(&self, port: u16) -> Option<Vec<u8>> {
        let mut flows = self.flows.iter();
        let (_, known) =
            flows.find(|((_, source, ..), known)| *source == port && !known.last.is_empty())?;
        Some(known.last.clone())
    }

    /// How many replies have left to this client port, and by which path the last of them.
    #[must_use]
    pub fn replies(&self, port: u16) -> (usize, Option<Path>) {
        let of_port = self.history.iter().filter(|reply| reply.port == port);
        let last = of_port.clone().next_back();
        (of_port.count(), last.and_then(|reply| reply.path.clone()))
    }

    fn packet(&mut self, frame: &[u8], ethertype: u16, bytes: &[u8]) {
        let mut mended = Vec::new();
        let parsed = Ip::parse(ethertype, bytes).or_else(|| {
            let kernels = |tunnel: &Tunnel| tunnel.flags & TunnelSpec::KERNEL != 0;
            if !self.rules.tunnels.iter().any(kernels) {
                return None;
            }
            // FOU and GUE make the outer length smaller where it stands, and capture has no copy of
            // its own until it is read.
            mended = with_length(bytes)?;
            Ip::parse(ethertype, &mended)
        });
        let Some(ip) = parsed else {
            // What comes in may be malformed on purpose.
            return;
        };
        if ip.is_link_local_signalling() {
            return;
        }
        if self.rules.host.contains(&ip.source) {
            self.reply(&ip, bytes.len());
        } else {
            self.comes(frame, &ip);
        }
    }

    fn comes(&mut self, frame: &[u8], ip: &Ip<'_>) {
        let (path, inner) = match self.opened(ip, ip.source, ip.destination) {
            Some((path, inner)) => (Some(path), inner),
            None => (None, None),
        };
        let inner = match &path {
            Some(_) => inner.and_then(parse),
            None => Some(ip.clone()),
        };
        let Some(inner) = inner else {
            return;
        };
        let forged = path.as_ref().and_then(|path| path.udp.as_ref());
        if let Some((_, header)) = forged
            && self.rules.forged.iter().any(|forged| header == forged)
        {
            self.forged += 1;
            return;
        }
        let flow = (
            inner.source,
            inner.source_port(),
            inner.destination,
            inner.destination_port(),
            inner.protocol,
        );
        let known = self.flows.entry(flow).or_default();
        if known.paths.last() != Some(&path) {
            known.paths.push(path);
            known.changed = Some(Instant::now());
        }
        known.last = frame.to_vec();
    }

    fn reply(&mut self, ip: &Ip<'_>, length: usize) {
        if length > self.rules.mtu {
            note(&mut self.oversize, || format!("{ip} of {length} bytes"));
        }
        let (path, inner) = match self.opened(ip, ip.destination, ip.source) {
            Some((path, inner)) => (Some(path), inner.and_then(parse)),
            None => (None, Some(ip.clone())),
        };
        let Some(inner) = inner else {
            note(&mut self.astray, || format!("nothing inside {ip}"));
            return;
        };
        let flow = (
            inner.destination,
            inner.destination_port(),
            inner.source,
            inner.source_port(),
            inner.protocol,
        );
        let segment = inner.segment();
        let known = self.flows.get(&flow);
        let paths = known.map_or(&[][..], |known| &known.paths);
        if paths.last() == Some(&path) {
            *(if path.is_some() {
                &mut self.mirrored
            } else {
                &mut self.plain
            }) += 1;
        } else if paths.contains(&path) {
            self.behind += 1;
            let changed = known.and_then(|known| known.changed);
            self.lag = changed.map_or(self.lag, |at| self.lag.max(at.elapsed()));
        } else {
            note(&mut self.astray, || {
                format!("{segment:?} of {flow:?} by {path:?}, packets came by {paths:?}")
            });
        }
        if let Some(path) = &path {
            *self.paths.entry(path.clone()).or_default() += 1;
        }
        if self.history.len() < HISTORY {
            self.history.push(Reply {
                segment,
                port: flow.1,
                server: flow.3,
                dscp: inner.dscp,
                path,
            });
        }
    }

    /// The outer header of a packet that goes between these ends in one of the tunnels, and what
    /// is inside.
    fn opened<'a>(
        &self,
        ip: &Ip<'a>,
        peer: IpAddr,
        local: IpAddr,
    ) -> Option<(Path, Option<&'a [u8]>)> {
        let mut tunnels = self.rules.tunnels.iter();
        tunnels.find_map(|tunnel| {
            (tunnel.address == local).then_some(())?;
            let path = |udp| Path { peer, local, udp };
            match (tunnel.kind.port(), ip.protocol) {
                (None, 4 | 41) => Some((path(None), Some(ip.payload))),
                (Some(port), UDP) => {
                    let (udp, behind) = ip.payload.split_at_checked(8)?;
                    (udp[2..4] == port.to_be_bytes()).then_some(())?;
                    let length = tunnel.kind.header_len(behind)?;
                    let (header, inner) = behind.split_at_checked(length)?;
                    Some((path(Some((port, header.to_vec()))), Some(inner)))
                }
                _ => None,
            }
        })
    }
}

/// The packet with the length in its IP header that it has.
fn with_length(packet: &[u8]) -> Option<Vec<u8>> {
    let (at, less) = if packet.first()? >> 4 == 4 {
        (2, 0)
    } else {
        (4, 40)
    };
    let length = u16::try_from(packet.len().checked_sub(less)?).ok()?;
    let mut packet = packet.to_vec();
    packet
        .get_mut(at..at + 2)?
        .copy_from_slice(&length.to_be_bytes());
    Some(packet)
}

fn parse(packet: &[u8]) -> Option<Ip<'_>> {
    let ethertype = if packet.first()? >> 4 == 4 {
        0x0800
    } else {
        0x86dd
    };
    Ip::parse(ethertype, packet)
}

fn note(faults: &mut (u64, Vec<String>), what: impl FnOnce() -> String) {
    faults.0 += 1;
    if faults.1.len() < KEPT {
        faults.1.push(what());
    }
}

impl Observer for Mirror {
    fn frame(&mut self, bytes: &[u8]) {
        if let Some(frame) = Ethernet::parse(bytes).filter(|frame| frame.ethertype != ARP) {
            self.packet(bytes, frame.ethertype, frame.payload);
        }
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "mirrored: {}", self.mirrored)?;
        writeln!(f, "by an earlier path: {}, for {:?}", self.behind, self.lag)?;
        writeln!(f, "outside, as they came: {}", self.plain)?;
        writeln!(f, "astray: {:#?}", self.astray)?;
        writeln!(f, "over the MTU: {:?}", self.oversize)?;
        for (path, count) in &self.paths {
            writeln!(f, "by {path:?}: {count}")?;
        }
        let mut kinds: BTreeMap<Segment, u64> = BTreeMap::new();
        for reply in &self.history {
            *kinds.entry(reply.segment).or_default() += 1;
        }
        writeln!(f, "{kinds:?}")
    }
}

#[cfg(test)]
mod tests;

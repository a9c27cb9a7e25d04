//! Which socket a packet's 5-tuple finds, by the kernel's rules: `__inet_lookup_established`,
//! then `__inet_lookup_listener` for TCP, `__udp4_lib_lookup` and its sibling for UDP.
//!
//! Where the kernel's choice depends on hash order (sockets of equal score: `SO_REUSEPORT`),
//! the socket that got its addresses first is taken.

use super::{Endpoints, Socket, Sockets, TcpState};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;

/// `struct bpf_sock_tuple`, as a packet that comes in shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuple {
    /// The other side.
    pub(crate) source: SocketAddr,
    /// This host.
    pub(crate) destination: SocketAddr,
}

impl Tuple {
    /// From 12 or 36 bytes: addresses, then ports, in network order.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (addresses, ports) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        let (source, destination) = addresses.split_at(addresses.len() / 2);
        let address = |bytes: &[u8]| match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
            _ => None,
        };
        let (source_port, destination_port) = match *ports {
            [a, b, c, d] => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
            _ => return None,
        };
        Some(Self {
            source: SocketAddr::new(address(source)?, source_port),
            destination: SocketAddr::new(address(destination)?, destination_port),
        })
    }
}

/// Sockets that have addresses, by local and remote port (0: not connected).
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    slots: HashMap<(u16, u16), Vec<u32>>,
}

fn ports(endpoints: Endpoints) -> (u16, u16) {
    let remote = endpoints.remote.map_or(0, |remote| remote.port());
    (endpoints.local.port(), remote)
}

impl Table {
    pub(super) fn insert(&mut self, slot: u32, endpoints: Option<Endpoints>) {
        if let Some(endpoints) = endpoints {
            self.slots.entry(ports(endpoints)).or_default().push(slot);
        }
    }

    pub(super) fn remove(&mut self, slot: u32, endpoints: Option<Endpoints>) {
        if let Some(endpoints) = endpoints
            && let Some(slots) = self.slots.get_mut(&ports(endpoints))
        {
            slots.retain(|other| *other != slot);
            if slots.is_empty() {
                self.slots.remove(&ports(endpoints));
            }
        }
    }
}

/// How a socket's local address meets a packet's destination.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    Exactly,
    ToAll,
}

impl Socket {
    fn bound(&self, destination: SocketAddr) -> Option<Bound> {
        let local = self.endpoints?.local.ip();
        let wanted = destination.ip();
        if local.to_canonical() == wanted {
            return Some(Bound::Exactly);
        }
        let to_all = match (local, wanted) {
            (IpAddr::V6(local), IpAddr::V4(_)) => local.is_unspecified() && !self.ipv6_only,
            (local, wanted) => local.is_unspecified() && local.is_ipv4() == wanted.is_ipv4(),
        };
        to_all.then_some(Bound::ToAll)
    }

    /// Whether it is connected to where the packet comes from.
    fn connected(&self, source: SocketAddr) -> Option<bool> {
        let remote = self.endpoints?.remote?;
        Some((remote.ip().to_canonical(), remote.port()) == (source.ip(), source.port()))
    }

    /// `inet_sk_bound_dev_eq`.
    fn serves(&self, device: u32) -> bool {
        self.device == 0 || self.device == device
    }
}

impl Sockets {
    fn candidates(&self, local: u16, remote: u16) -> impl Iterator<Item = (u32, &Socket)> {
        let slots = self.table.slots.get(&(local, remote));
        slots
            .into_iter()
            .flatten()
            .filter_map(|slot| Some((*slot, self.get(*slot)?)))
    }

    /// TCP's socket for a packet that comes in at a device: connected (request sockets and
    /// TIME_WAIT included), else listening.
    pub(crate) fn find_tcp(&self, tuple: Tuple, device: u32) -> Option<u32> {
        let (source, destination) = (tuple.source, tuple.destination);
        let is_ours =
            |socket: &Socket| socket.kind.protocol == IPPROTO_TCP && socket.serves(device);
        let connected = self
            .candidates(destination.port(), source.port())
            .find(|(_, socket)| {
                is_ours(socket)
                    && !matches!(socket.state, TcpState::Close | TcpState::Listen)
                    && socket.bound(destination) == Some(Bound::Exactly)
                    && socket.connected(source) == Some(true)
            });
        if let Some((slot, _)) = connected {
            return Some(slot);
        }
        self.best(destination, |socket| {
            let listens = is_ours(socket) && socket.state == TcpState::Listen;
            let is_ipv4 = u32::from(socket.kind.family == AF_INET);
            listens.then_some(1 + u32::from(socket.device != 0) + is_ipv4)
        })
    }

    /// UDP's socket for a packet that comes in at a device.
    pub(crate) fn find_udp(&self, tuple: Tuple, device: u32) -> Option<u32> {
        let score = |socket: &Socket| {
            if socket.kind.protocol != IPPROTO_UDP || !socket.serves(device) {
                return None;
            }
            let connected = match socket.connected(tuple.source) {
                Some(false) => return None,
                Some(true) => 8,
                None => 0,
            };
            let bound = if socket.device == 0 { 0 } else { 4 };
            Some(connected + bound + 1 + u32::from(socket.kind.family == AF_INET))
        };
        let connected = (tuple.destination.port(), tuple.source.port());
        [Bound::Exactly, Bound::ToAll]
            .into_iter()
            .find_map(|wanted| {
                self.candidates(connected.0, connected.1)
                    .chain(
                        self.candidates(connected.0, 0)
                            .take_while(|_| connected.1 != 0),
                    )
                    .filter(|(_, socket)| socket.bound(tuple.destination) == Some(wanted))
                    .filter_map(|(slot, socket)| Some((slot, score(socket)?)))
                    .reduce(higher)
                    .map(|(slot, _)| slot)
            })
    }

    /// The unconnected socket of the highest score: bound exactly before bound to all.
    fn best(&self, destination: SocketAddr, score: impl Fn(&Socket) -> Option<u32>) -> Option<u32> {
        [Bound::Exactly, Bound::ToAll]
            .into_iter()
            .find_map(|wanted| {
                self.candidates(destination.port(), 0)
                    .filter(|(_, socket)| socket.bound(destination) == Some(wanted))
                    .filter_map(|(slot, socket)| Some((slot, score(socket)?)))
                    .reduce(higher)
                    .map(|(slot, _)| slot)
            })
    }
}

fn higher(first: (u32, u32), second: (u32, u32)) -> (u32, u32) {
    if second.1 > first.1 { second } else { first }
}

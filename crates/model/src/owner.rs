//! Whose packet it is (section 2.1): the exit for a packet, from a socket's storage, from what
//! was kept of a closing connection, or from what was captured of packets that came in.

use crate::extension::Upper;
use crate::hook::{Hook, Need};
use crate::packet::Packet;
use crate::socket::{Socket, TcpState};
use crate::storage::Storage;
use crate::wire::{Ip, TCP, UDP};
use crate::{extension, flow};
use dynencap_abi::option::{AF_PACKET, REFLECT_DSCP};
use dynencap_abi::{Exit, FlowKey, MARK_SENTINEL, Reason, Reflected};
use std::collections::BTreeMap;

/// Bytes of a TCP header without options.
pub(crate) const TCP_MIN_LEN: usize = 20;
const RST: u8 = 0x04;
const SYN_ACK: u8 = 0x12;

/// The socket that a packet carries when it leaves.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// None: forwarded, or sent by the kernel without one.
    None,
    /// A full socket; the kernel's own control sockets are ones without storage in state
    /// [`TcpState::Close`].
    Socket(&'a Socket),
    /// A request socket of this listener.
    Request(&'a Socket),
    /// A socket in TIME_WAIT: it has no storage.
    TimeWait,
}

impl<'a> From<Option<&'a Socket>> for Origin<'a> {
    fn from(socket: Option<&'a Socket>) -> Self {
        socket.map_or(Self::None, Self::Socket)
    }
}

/// The kernel's sockets, as `bpf_sk_lookup_tcp` and `bpf_sk_lookup_udp` find them in the
/// device's namespace.
pub trait Sockets {
    /// The TCP socket that sends the packets of this flow: the connection's, else a listener.
    fn tcp(&self, flow: &FlowKey) -> Option<Found<'_>>;
    /// The UDP socket that sends the packets of this flow.
    fn udp(&self, flow: &FlowKey) -> Option<Found<'_>>;
}

/// A socket that was looked up.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The socket.
    pub socket: &'a Socket,
    /// The oldest sequence number not acknowledged; TCP only.
    pub snd_una: u32,
    /// The next sequence number to be sent; TCP only.
    pub snd_nxt: u32,
}

/// No sockets at all.
impl Sockets for () {
    fn tcp(&self, _: &FlowKey) -> Option<Found<'_>> {
        None
    }

    fn udp(&self, _: &FlowKey) -> Option<Found<'_>> {
        None
    }
}

/// Where an exit came from.
pub(crate) enum Owner<'a> {
    Stored(&'a Socket, &'a Storage),
    /// Of a socket that was looked up: the packet does not tell its cgroup.
    LookedUp(&'a Storage),
    /// Kept of a closing connection, or captured of what came in: counted in no storage.
    Kept(Exit),
    /// Captured for the peer of a socket without a connection, in whose storage it counts.
    Peers(Exit, &'a Storage),
}

impl<'a> Owner<'a> {
    pub(crate) fn exit(&self) -> &Exit {
        match self {
            Self::Stored(_, storage) | Self::LookedUp(storage) => &storage.exit,
            Self::Kept(exit) | Self::Peers(exit, _) => exit,
        }
    }

    pub(crate) fn storage(&self) -> Option<&'a Storage> {
        match self {
            Self::Stored(_, storage) | Self::LookedUp(storage) | Self::Peers(_, storage) => {
                Some(storage)
            }
            Self::Kept(_) => None,
        }
    }
}

/// What is asked, and of whom.
pub(crate) struct Search<'a, S> {
    pub(crate) hook: Hook,
    pub(crate) origin: Origin<'a>,
    pub(crate) mark: u32,
    pub(crate) closing: &'a BTreeMap<FlowKey, Exit>,
    /// None while reflection is off.
    pub(crate) reflected: Option<&'a BTreeMap<FlowKey, Reflected>>,
    pub(crate) sockets: &'a S,
}

/// A packet, as far as the search for its exit depends on it.
struct Asked {
    flow: Option<FlowKey>,
    is_tcp: bool,
    resets: bool,
    accepts: bool,
}

/// The answer, and the traffic class whose DSCP the packet takes first.
pub(crate) type Answer<'a> = (Result<Owner<'a>, Reason>, Option<u8>);

impl<'a, S: Sockets> Search<'a, S> {
    /// Lines 1 to 7 of section 2.1.
    pub(crate) fn owner(&self, packet: &Packet<'_>) -> Answer<'a> {
        let mut class = None;
        let owner = self.find(packet, &mut class);
        (owner, class)
    }

    fn find(&self, packet: &Packet<'_>, class: &mut Option<u8>) -> Result<Owner<'a>, Reason> {
        let stored = self.hook.offers(Need::SocketStorage);
        if let Origin::Socket(socket) = self.origin
            && let Some(storage) = socket.storage().filter(|_| stored)
        {
            return self.of_socket(socket, storage, packet, class);
        }
        let nobodys = match self.origin {
            Origin::None => Reason::NoSocket,
            _ => Reason::NoExit,
        };
        let marked = self.is_marked();
        let requested = self.reflects() && matches!(self.origin, Origin::Request(_));
        if !marked && !requested && !may_be_late(self.origin) {
            return Err(nobodys);
        }
        let ip = Ip::parse(packet.ethertype, packet.bytes);
        let flow = ip.map(|ip| flow::key_of(&ip, packet.bytes));
        let upper = ip.map(|ip| extension::upper(&ip, packet.bytes));
        let tcp = upper.and_then(|upper| tcp_header(&upper, packet.bytes));
        let asked = Asked {
            flow,
            is_tcp: tcp.is_some(),
            resets: tcp.is_some_and(|tcp| tcp[13] & RST != 0),
            accepts: tcp.is_some_and(|tcp| tcp[13] & SYN_ACK == SYN_ACK),
        };
        let late = asked.resets || self.reflects() && asked.accepts;
        if !marked && !requested && !late {
            return Err(nobodys);
        }
        if let Origin::Request(listener) = self.origin {
            let Some(storage) = listener.storage().filter(|_| stored) else {
                return self.of_nobody(&asked, nobodys, class);
            };
            let cgroup = storage.reflecting.cgroup;
            if cgroup != 0
                && let Some(entry) = self.entry(flow, cgroup)
            {
                if entry.flags & REFLECT_DSCP != 0 {
                    *class = Some(entry.class);
                }
                if entry.exit.flags & Exit::GATEWAY != 0 {
                    return Ok(Owner::Kept(entry.exit));
                }
            }
            if storage.has_gateway() {
                return Ok(Owner::Stored(listener, storage));
            }
            if !marked {
                return Err(Reason::NoGateway);
            }
        }
        self.of_nobody(&asked, nobodys, class)
    }

    /// Line 1.
    fn of_socket(
        &self,
        socket: &'a Socket,
        storage: &'a Storage,
        packet: &Packet<'_>,
        class: &mut Option<u8>,
    ) -> Result<Owner<'a>, Reason> {
        let own = Ok(Owner::Stored(socket, storage));
        if storage.has_gateway() || !self.reflects() {
            return own;
        }
        let cgroup = storage.reflecting.cgroup;
        let asked = match socket.kind().family {
            AF_PACKET => Some(0),
            _ if socket.speaks(UDP) && cgroup != 0 => Some(cgroup),
            _ => None,
        };
        if let Some(asked) = asked
            && let Some(exit) = self.captured(flow::key(packet), asked, class)
        {
            return Ok(Owner::Peers(exit, storage));
        }
        if cgroup != 0 && self.is_marked() {
            return Err(Reason::MarkedWithoutExit);
        }
        own
    }

    /// Lines 4 to 7.
    fn of_nobody(
        &self,
        packet: &Asked,
        nobodys: Reason,
        class: &mut Option<u8>,
    ) -> Result<Owner<'a>, Reason> {
        let Asked { flow, .. } = *packet;
        let marked = self.is_marked();
        let gone = if marked {
            Reason::MarkedWithoutExit
        } else {
            nobodys
        };
        if !marked && matches!(self.origin, Origin::Request(_)) {
            return Err(gone);
        }
        // A SYN-ACK begins a connection; what was kept is of the one before.
        if !packet.accepts
            && let Some(exit) = flow.and_then(|flow| self.closing.get(&flow))
        {
            return Ok(Owner::Kept(*exit));
        }
        if packet.resets
            && let Some(exit) = self.captured(flow, 0, class)
        {
            return Ok(Owner::Kept(exit));
        }
        if packet.is_tcp
            && self.hook.offers(Need::SocketLookup)
            && let Some(storage) = flow
                .and_then(|flow| self.sockets.tcp(&flow))
                .and_then(|found| found.socket.storage())
        {
            let cgroup = storage.reflecting.cgroup;
            if !storage.has_gateway()
                && cgroup != 0
                && let Some(exit) = self.captured(flow, cgroup, class)
            {
                return Ok(Owner::Kept(exit));
            }
            if storage.has_gateway() || !marked {
                return Ok(Owner::LookedUp(storage));
            }
        }
        Err(gone)
    }

    fn is_marked(&self) -> bool {
        self.mark & MARK_SENTINEL != 0
    }

    fn reflects(&self) -> bool {
        self.reflected.is_some()
    }

    /// What `REFLECTED` has for replies of this flow from this cgroup.
    fn entry(&self, flow: Option<FlowKey>, cgroup: u64) -> Option<&'a Reflected> {
        self.reflected?
            .get(&flow?)
            .filter(|entry| entry.cgroup == cgroup)
    }

    /// The exit of that.
    fn captured(&self, flow: Option<FlowKey>, cgroup: u64, class: &mut Option<u8>) -> Option<Exit> {
        let entry = self.entry(flow, cgroup)?;
        if entry.exit.flags & Exit::GATEWAY == 0 {
            return None;
        }
        if entry.flags & REFLECT_DSCP != 0 {
            *class = Some(entry.class);
        }
        Some(entry.exit)
    }
}

/// Whether an answer of this origin would be a late one.
fn may_be_late(origin: Origin<'_>) -> bool {
    match origin {
        Origin::None => true,
        Origin::Socket(socket) => socket.state() == TcpState::Close,
        Origin::Request(_) | Origin::TimeWait => false,
    }
}

/// The fixed part of the packet's TCP header, where it is wholly there.
pub(crate) fn tcp_header<'a>(upper: &Upper, bytes: &'a [u8]) -> Option<&'a [u8; TCP_MIN_LEN]> {
    if upper.protocol != TCP {
        return None;
    }
    bytes.get(upper.offset?..)?.first_chunk()
}

//! Whose packet it is (section 2.1): the exit for a packet, from a socket's storage or from
//! what was kept of a closing connection.

use crate::extension::Upper;
use crate::hook::{Hook, Need};
use crate::packet::Packet;
use crate::socket::{Socket, Storage, TcpState};
use crate::wire::{Ip, TCP};
use crate::{extension, flow};
use dynencap_abi::{Exit, FlowKey, MARK_SENTINEL, Reason};
use std::collections::BTreeMap;

/// Bytes of a TCP header without options.
pub(crate) const TCP_MIN_LEN: usize = 20;
const RST: u8 = 0x04;

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
    Kept(Exit),
}

impl<'a> Owner<'a> {
    fn stored(socket: &'a Socket) -> Option<Self> {
        Some(Self::Stored(socket, socket.storage()?))
    }

    pub(crate) fn exit(&self) -> &Exit {
        match self {
            Self::Stored(_, storage) | Self::LookedUp(storage) => &storage.exit,
            Self::Kept(exit) => exit,
        }
    }

    pub(crate) fn storage(&self) -> Option<&'a Storage> {
        match self {
            Self::Stored(_, storage) | Self::LookedUp(storage) => Some(storage),
            Self::Kept(_) => None,
        }
    }

    /// Steps 1 to 6 of section 2.1.
    pub(crate) fn find(
        hook: Hook,
        origin: Origin<'a>,
        mark: u32,
        packet: &Packet<'_>,
        closing: &BTreeMap<FlowKey, Exit>,
        sockets: &'a impl Sockets,
    ) -> Result<Self, Reason> {
        if let Origin::Socket(socket) = origin
            && hook.offers(Need::SocketStorage)
            && let Some(owner) = Self::stored(socket)
        {
            return Ok(owner);
        }
        let nobodys = match origin {
            Origin::None => Reason::NoSocket,
            _ => Reason::NoExit,
        };
        let marked = mark & MARK_SENTINEL != 0;
        if !marked && !may_be_late(origin) {
            return Err(nobodys);
        }
        let ip = Ip::parse(packet.ethertype, packet.bytes);
        let upper = ip.map(|ip| extension::upper(&ip, packet.bytes));
        let tcp = upper.and_then(|upper| tcp_header(&upper, packet.bytes));
        if !marked && tcp.is_none_or(|tcp| tcp[13] & RST == 0) {
            return Err(nobodys);
        }
        if let Origin::Request(listener) = origin
            && hook.offers(Need::SocketStorage)
            && let Some(owner) = Self::stored(listener)
        {
            return Ok(owner);
        }
        if let Some(ip) = ip {
            let flow = flow::key_of(&ip, packet.bytes);
            if let Some(exit) = closing.get(&flow) {
                return Ok(Self::Kept(*exit));
            }
            if tcp.is_some()
                && hook.offers(Need::SocketLookup)
                && let Some(found) = sockets.tcp(&flow)
                && let Some(storage) = found.socket.storage()
            {
                return Ok(Self::LookedUp(storage));
            }
        }
        Err(if marked {
            Reason::MarkedWithoutExit
        } else {
            nobodys
        })
    }
}

/// Whether a reset of this origin would be a late one.
fn may_be_late(origin: Origin<'_>) -> bool {
    match origin {
        Origin::None => true,
        Origin::Socket(socket) => socket.state() == TcpState::Close,
        Origin::Request(_) | Origin::TimeWait => false,
    }
}

/// The fixed part of the packet's TCP header, where it is wholly there.
fn tcp_header<'a>(upper: &Upper, bytes: &'a [u8]) -> Option<&'a [u8; TCP_MIN_LEN]> {
    if upper.protocol != TCP {
        return None;
    }
    bytes.get(upper.offset?..)?.first_chunk()
}

//! Sockets as programs see them: identity, kind, state, addresses and mark, as a
//! `struct bpf_sock` (and `struct bpf_tcp_sock`) in guest memory. Which socket a packet's
//! 5-tuple finds stands in [`lookup`].

mod lookup;

pub(crate) use lookup::Tuple;

use crate::memory::Memory;
use lookup::Table;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Offsets in `struct bpf_sock`.
pub(crate) mod bpf_sock {
    pub(crate) const LEN: usize = 80;
    pub(crate) const BOUND_DEV_IF: usize = 0;
    pub(crate) const FAMILY: usize = 4;
    pub(crate) const TYPE: usize = 8;
    pub(crate) const PROTOCOL: usize = 12;
    pub(crate) const MARK: usize = 16;
    pub(crate) const PRIORITY: usize = 20;
    pub(crate) const SRC_IP4: usize = 24;
    pub(crate) const SRC_IP6: usize = 28;
    pub(crate) const SRC_PORT: usize = 44;
    pub(crate) const DST_PORT: usize = 48;
    pub(crate) const DST_IP4: usize = 52;
    pub(crate) const DST_IP6: usize = 56;
    pub(crate) const STATE: usize = 72;
    pub(crate) const RX_QUEUE_MAPPING: usize = 76;
}

/// Offsets in `struct bpf_tcp_sock`; what is not here reads as 0.
pub(crate) mod bpf_tcp_sock {
    pub(crate) const LEN: usize = 112;
    pub(super) const RCV_NXT: usize = 16;
    pub(super) const SND_NXT: usize = 20;
    pub(super) const SND_UNA: usize = 24;
}

const AF_INET6: u32 = 10;
const IPPROTO_TCP: u32 = 6;

/// What `socket(2)` was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketKind {
    /// `AF_*`.
    pub family: u32,
    /// `SOCK_*`.
    pub ty: u32,
    /// `IPPROTO_*`.
    pub protocol: u32,
}

/// `sk->sk_state`, with the kernel's numbers. Sockets that are not TCP's use
/// [`TcpState::Close`] and, once connected, [`TcpState::Established`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 9293 §3.3.2 names them")]
pub enum TcpState {
    Established = 1,
    SynSent = 2,
    SynRecv = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Close = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
    /// A request socket: a handshake of which the listener alone knows.
    NewSynRecv = 12,
}

/// Addresses and ports of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Where it is bound; an unspecified address stands for all.
    pub local: SocketAddr,
    /// To where it is connected.
    pub remote: Option<SocketAddr>,
}

/// Names a socket of one [`crate::Machine`]; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    slot: u32,
    generation: u32,
}

/// An open socket.
#[derive(Clone, Debug)]
pub(crate) struct Socket {
    pub(crate) kind: SocketKind,
    pub(crate) state: TcpState,
    pub(crate) mark: u32,
    pub(crate) priority: u32,
    /// The device that it is bound to; 0: none.
    pub(crate) device: u32,
    pub(crate) endpoints: Option<Endpoints>,
    /// `IPV6_V6ONLY`.
    pub(crate) ipv6_only: bool,
    /// The cgroup in which it was made: ids from the root on.
    pub(crate) cgroup: Arc<[u64]>,
    /// Of a request socket: whose.
    pub(crate) listener: Option<SocketId>,
    /// `bpf_sock_ops_cb_flags`.
    pub(crate) callbacks: u32,
    pub(crate) rcv_nxt: u32,
    pub(crate) snd_una: u32,
    pub(crate) snd_nxt: u32,
    /// `IP_TOS` or `IPV6_TCLASS`.
    pub(crate) traffic_class: u8,
}

impl Socket {
    pub(crate) fn new(kind: SocketKind, cgroup: Arc<[u64]>) -> Self {
        Self {
            kind,
            state: TcpState::Close,
            mark: 0,
            priority: 0,
            device: 0,
            endpoints: None,
            ipv6_only: false,
            cgroup,
            listener: None,
            callbacks: 0,
            rcv_nxt: 0,
            snd_una: 0,
            snd_nxt: 0,
            traffic_class: 0,
        }
    }

    /// `sk_fullsock`.
    pub(crate) fn is_full(&self) -> bool {
        !matches!(self.state, TcpState::TimeWait | TcpState::NewSynRecv)
    }

    pub(crate) fn is_tcp(&self) -> bool {
        self.kind.protocol == IPPROTO_TCP && self.is_full()
    }

    /// Writes it as a `struct bpf_sock`.
    pub(crate) fn write(&self, into: &mut [u8]) {
        use bpf_sock as at;
        into.fill(0);
        for (at, value) in [
            (at::BOUND_DEV_IF, self.device),
            (at::FAMILY, self.kind.family),
            (at::TYPE, self.kind.ty),
            (at::PROTOCOL, self.kind.protocol),
            (at::MARK, self.mark),
            (at::PRIORITY, self.priority),
            (at::STATE, self.state as u32),
            // No queue.
            (at::RX_QUEUE_MAPPING, u32::MAX),
        ] {
            put(into, at, &value.to_le_bytes());
        }
        let Some(Endpoints { local, remote }) = self.endpoints else {
            return;
        };
        put(into, at::SRC_PORT, &u32::from(local.port()).to_le_bytes());
        self.write_address(local.ip(), into, at::SRC_IP4, at::SRC_IP6);
        if let Some(remote) = remote {
            put(into, at::DST_PORT, &remote.port().to_be_bytes());
            self.write_address(remote.ip(), into, at::DST_IP4, at::DST_IP6);
        }
    }

    /// Writes an address where the kernel keeps it: an IPv6 socket's IPv4 address in both
    /// forms.
    pub(crate) fn write_address(&self, address: IpAddr, into: &mut [u8], at4: usize, at6: usize) {
        if let IpAddr::V4(address) = address.to_canonical() {
            put(into, at4, &address.octets());
        }
        if self.kind.family == AF_INET6 {
            put(into, at6, &ipv6_octets(address));
        }
    }
}

fn ipv6_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = into.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[derive(Clone, Debug, Default)]
struct Entry {
    generation: u32,
    socket: Option<Socket>,
}

/// All sockets of a machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sockets {
    entries: Vec<Entry>,
    free: Vec<u32>,
    table: Table,
}

impl Sockets {
    pub(crate) fn open(&mut self, socket: Socket, memory: &mut Memory) -> SocketId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            // As many sockets as 32 bits count do not fit into memory.
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.table.insert(slot, socket.endpoints);
        entry.socket = Some(socket);
        let id = SocketId {
            slot,
            generation: entry.generation,
        };
        self.publish(slot, memory);
        id
    }

    /// Gives the slot that was freed.
    pub(crate) fn close(&mut self, id: SocketId, memory: &mut Memory) -> Option<u32> {
        let slot = self.slot(id)?;
        if let Some(socket) = self.entries[slot as usize].socket.take() {
            self.table.remove(slot, socket.endpoints);
        }
        self.free.push(slot);
        memory.socket_mut(slot).fill(0);
        memory.tcp_socket_mut(slot).fill(0);
        Some(slot)
    }

    /// The slot of an open socket.
    #[inline]
    pub(crate) fn slot(&self, id: SocketId) -> Option<u32> {
        let entry = self.entries.get(id.slot as usize)?;
        (entry.generation == id.generation && entry.socket.is_some()).then_some(id.slot)
    }

    /// The open socket in a slot.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&Socket> {
        self.entries.get(slot as usize)?.socket.as_ref()
    }

    /// `sk_to_full_sk`: a request socket's listener, nothing for TIME_WAIT.
    pub(crate) fn full(&self, slot: u32) -> Option<u32> {
        let socket = self.get(slot)?;
        match socket.state {
            TcpState::TimeWait => None,
            TcpState::NewSynRecv => self.slot(socket.listener?),
            _ => Some(slot),
        }
    }

    pub(crate) fn mark(&self, slot: u32) -> u32 {
        self.get(slot).map_or(0, |socket| socket.mark)
    }

    pub(crate) fn set_mark(&mut self, slot: u32, mark: u32, memory: &mut Memory) {
        self.change(slot, memory, |socket| socket.mark = mark);
    }

    /// Changes a socket, and what programs see of it.
    pub(crate) fn change(
        &mut self,
        slot: u32,
        memory: &mut Memory,
        change: impl FnOnce(&mut Socket),
    ) {
        let entry = self.entries.get_mut(slot as usize);
        if let Some(socket) = entry.and_then(|entry| entry.socket.as_mut()) {
            let before = socket.endpoints;
            change(socket);
            let after = socket.endpoints;
            if before != after {
                self.table.remove(slot, before);
                self.table.insert(slot, after);
            }
            self.publish(slot, memory);
        }
    }

    /// Writes what programs can read of a socket.
    fn publish(&self, slot: u32, memory: &mut Memory) {
        let Some(socket) = self.get(slot) else {
            return;
        };
        socket.write(memory.socket_mut(slot));
        let tcp = memory.tcp_socket_mut(slot);
        put(tcp, bpf_tcp_sock::RCV_NXT, &socket.rcv_nxt.to_le_bytes());
        put(tcp, bpf_tcp_sock::SND_NXT, &socket.snd_nxt.to_le_bytes());
        put(tcp, bpf_tcp_sock::SND_UNA, &socket.snd_una.to_le_bytes());
    }
}

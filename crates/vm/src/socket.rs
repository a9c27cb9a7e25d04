//! Sockets as programs see them: identity, kind and mark, as a `struct bpf_sock` in guest
//! memory.

use crate::memory::Memory;

/// `sizeof(struct bpf_sock)`.
pub(crate) const BPF_SOCK_LEN: usize = 80;
const FAMILY: usize = 4;
const TYPE: usize = 8;
const PROTOCOL: usize = 12;
const MARK: usize = 16;

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

/// Names a socket of one [`crate::Machine`]; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    slot: u32,
    generation: u32,
}

#[derive(Clone, Copy, Debug)]
struct Socket {
    kind: SocketKind,
    mark: u32,
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
}

impl Sockets {
    pub(crate) fn open(&mut self, kind: SocketKind, memory: &mut Memory) -> SocketId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            // As many sockets as 32 bits count do not fit into memory.
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.socket = Some(Socket { kind, mark: 0 });
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
        self.entries[slot as usize].socket = None;
        self.free.push(slot);
        memory.socket_mut(slot).fill(0);
        Some(slot)
    }

    /// The slot of an open socket.
    #[inline]
    pub(crate) fn slot(&self, id: SocketId) -> Option<u32> {
        let entry = self.entries.get(id.slot as usize)?;
        (entry.generation == id.generation && entry.socket.is_some()).then_some(id.slot)
    }

    /// Whether an open socket stands in this slot.
    pub(crate) fn is_open(&self, slot: u32) -> bool {
        self.entries
            .get(slot as usize)
            .is_some_and(|entry| entry.socket.is_some())
    }

    pub(crate) fn kind(&self, id: SocketId) -> Option<SocketKind> {
        let slot = self.slot(id)?;
        self.entries[slot as usize].socket.map(|socket| socket.kind)
    }

    pub(crate) fn mark(&self, slot: u32) -> u32 {
        self.entries
            .get(slot as usize)
            .and_then(|entry| entry.socket)
            .map_or(0, |socket| socket.mark)
    }

    pub(crate) fn set_mark(&mut self, slot: u32, mark: u32, memory: &mut Memory) {
        let entry = self.entries.get_mut(slot as usize);
        if let Some(socket) = entry.and_then(|entry| entry.socket.as_mut()) {
            socket.mark = mark;
            self.publish(slot, memory);
        }
    }

    /// Writes what programs can read of a socket.
    fn publish(&self, slot: u32, memory: &mut Memory) {
        let Some(socket) = self.entries[slot as usize].socket else {
            return;
        };
        let bytes = memory.socket_mut(slot);
        for (at, value) in [
            (FAMILY, socket.kind.family),
            (TYPE, socket.kind.ty),
            (PROTOCOL, socket.kind.protocol),
            (MARK, socket.mark),
        ] {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
}

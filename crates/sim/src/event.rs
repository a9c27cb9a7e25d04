//! What happens to a host, in order: the engines' common input, held in batches.
//!
//! A batch owns its bytes in buffers that are reused, so that replay allocates nothing per
//! packet: what was stored, and the chunk of the trace in which packets lie. Which frame becomes which event is the director's affair.

use crate::scenario::CgroupId;
use std::ops::Range;

/// A place in the flow table; the engines keep a socket for each open one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u32);

impl FlowId {
    /// The socket without any exit, for frames that belong to no IP flow; always open.
    pub const BARE: Self = Self(0);

    /// The place in a table indexed by flow.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The transport of a super-packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP: TSO.
    Tcp,
    /// UDP: `UDP_SEGMENT`.
    Udp,
}

/// How a super-packet is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Transport payload bytes per segment, not 0, and less than the packet has: what makes
    /// one segment is no super-packet.
    pub size: u16,
    /// Offset of the transport header from the IP header, in bytes.
    pub transport_offset: u16,
    /// The transport header's protocol.
    pub transport: Transport,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A socket is made, in a cgroup; options are set from there.
    Open {
        /// Which.
        flow: FlowId,
        /// Where.
        cgroup: CgroupId,
    },
    /// A socket is closed.
    Close(FlowId),
    /// `setsockopt` at our level.
    SetOption {
        /// On which socket.
        flow: FlowId,
        /// Option name.
        name: i32,
        /// Place of the value in the batch's bytes.
        value: Range<usize>,
    },
    /// `getsockopt` at our level.
    GetOption {
        /// On which socket.
        flow: FlowId,
        /// Option name.
        name: i32,
        /// Size of the caller's buffer.
        capacity: usize,
    },
    /// A socket sends a packet.
    Egress {
        /// Which socket.
        flow: FlowId,
        /// Ethernet type, host byte order.
        ethertype: u16,
        /// Place of the packet, from the network header on, in the batch's bytes.
        packet: Range<usize>,
        /// Set for a super-packet.
        gso: Option<Gso>,
    },
    /// The policy at this place of [`crate::scenario::HostSpec::policies`] takes effect.
    Policy(usize),
    /// A frame comes in from the uplink.
    Ingress {
        /// Ethernet type, host byte order.
        ethertype: u16,
        /// Place of the packet, from the network header on, in the batch's bytes.
        packet: Range<usize>,
    },
}

/// No chunk is that long.
const STORED: usize = 1 << (usize::BITS - 1);

/// Events with the trace's packet numbers that caused them.
#[derive(Debug, Default)]
pub struct Batch {
    /// Of the trace; its places count from 0.
    chunk: Vec<u8>,
    /// Whatever else; its places count from [`STORED`].
    bytes: Vec<u8>,
    events: Vec<Event>,
    causes: Vec<u64>,
}

impl Batch {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.events.clear();
        self.causes.clear();
    }

    /// The events in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The trace's packet number that caused an event; 0 for none.
    #[must_use]
    pub fn cause(&self, event: usize) -> u64 {
        self.causes.get(event).copied().unwrap_or(0)
    }

    /// How many bytes the events carry.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of a value or packet.
    #[must_use]
    pub fn bytes(&self, range: &Range<usize>) -> &[u8] {
        let (bytes, from) = match range.start.checked_sub(STORED) {
            Some(from) => (&self.bytes, from),
            None => (&self.chunk, range.start),
        };
        let len = range.end.saturating_sub(range.start);
        bytes.get(from..from + len).unwrap_or_default()
    }

    /// The chunk that packets lie in.
    #[must_use]
    pub fn chunk(&self) -> &[u8] {
        &self.chunk
    }

    /// Takes the chunk that [`Batch::keep`] spoke of, for the one that it had.
    pub fn replace_chunk(&mut self, chunk: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut self.chunk, chunk)
    }

    /// Bytes that lie in the chunk to come at this place, or else are stored.
    #[inline]
    pub fn keep(&mut self, bytes: &[u8], place: Option<usize>) -> Range<usize> {
        match place {
            Some(place) => place..place + bytes.len(),
            None => self.store(bytes),
        }
    }

    /// Keeps bytes for an event to refer to.
    pub fn store(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = STORED + self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..start + bytes.len()
    }

    /// Adds an event caused by packet `cause` of the trace.
    pub fn push(&mut self, cause: u64, event: Event) {
        self.events.push(event);
        self.causes.push(cause);
    }
}

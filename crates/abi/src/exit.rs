//! `Exit`, the talk's `bpf_dyndest`: where a socket's packets go and in which headers, and
//! the socket's storage that holds it.

use crate::MAX_HEADER_LEN;
use core::mem::{offset_of, size_of};

/// One exit point. All zero is "none".
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Outer destination, network order; with [`Exit::IPV4`] IPv4-mapped. Meaningful with
    /// [`Exit::GATEWAY`].
    pub gateway: [u8; 16],
    /// Outer source, network order, of the gateway's family; all zero: the packet's own where
    /// it is of that family, else the configured one.
    pub source: [u8; 16],
    /// Custom header behind the outer UDP header; bytes past `header_len` are zero.
    pub header: [u8; MAX_HEADER_LEN],
    /// Outer UDP source port, network order; 0: from the flow's hash.
    pub source_port: [u8; 2],
    /// Outer UDP destination port, network order. Meaningful with [`Exit::UDP`].
    pub destination_port: [u8; 2],
    /// [`Exit::GATEWAY`] | [`Exit::UDP`] | [`Exit::IPV4`] | [`Exit::REFLECTED`].
    pub flags: u8,
    /// Length of the custom header, 0–32.
    pub header_len: u8,
    /// Always zero.
    pub reserved: [u8; 2],
}

impl Exit {
    /// `gateway` is set: packets are encapsulated.
    pub const GATEWAY: u8 = 1;
    /// The outer headers are IP + UDP + custom header; otherwise IP alone.
    pub const UDP: u8 = 2;
    /// The outer IP header is IPv4; otherwise IPv6. Only with [`Exit::GATEWAY`].
    pub const IPV4: u8 = 4;
    /// Captured from the outer header of a packet that came in, not chosen by the application.
    pub const REFLECTED: u8 = 8;
    /// No exit at all.
    pub const NONE: Self = Self {
        gateway: [0; 16],
        source: [0; 16],
        header: [0; MAX_HEADER_LEN],
        source_port: [0; 2],
        destination_port: [0; 2],
        flags: 0,
        header_len: 0,
        reserved: [0; 2],
    };

    /// The value's bytes as maps hold them.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..16].copy_from_slice(&self.gateway);
        bytes[16..32].copy_from_slice(&self.source);
        bytes[32..64].copy_from_slice(&self.header);
        bytes[64..66].copy_from_slice(&self.source_port);
        bytes[66..68].copy_from_slice(&self.destination_port);
        bytes[68] = self.flags;
        bytes[69] = self.header_len;
        bytes
    }
}

impl Info {
    /// From the option's value; `None` where it is too short.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let long = |at: usize| {
            let bytes = bytes.get(at..at + 8)?;
            Some(u64::from_ne_bytes(bytes.try_into().ok()?))
        };
        let word = |at: usize| {
            let bytes = bytes.get(at..at + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?))
        };
        Some(Self {
            encapsulated: long(0)?,
            dropped: long(8)?,
            last_drop: word(16)?,
            overhead: word(20)?,
            mtu: word(24)?,
            reserved: word(28)?,
        })
    }
}

/// Value of the `SK_STORAGE` map: read at TC egress without a lock while a `setsockopt` on
/// another CPU may write.
///
/// The slot in use is `slots[generation & 1]`. A writer (the socket's lock serialises
/// writers) fills the other slot and then adds one to `generation`. A reader copies what it
/// needs and reads `generation` again: if it moved, what it copied may be torn, and it starts
/// over. The fields behind the slots belong to TC egress. A child of a listener starts with a
/// copy of the whole.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketState {
    /// Number of writes; its lowest bit names the slot in use.
    pub generation: u32,
    /// 1 while somebody writes: the `cgroup_skb` program has no socket's lock, so writers claim
    /// the storage by a compare and swap of 0.
    pub writer: u32,
    /// The exit in use and the one before it.
    pub slots: [Exit; 2],
    /// For which exit under which policies the last check said yes:
    /// `Config::policy_generation << 32 | generation`.
    pub checked: u64,
    /// Frames encapsulated; a super-packet counts once.
    pub encapsulated: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// [`crate::Reason`] of the last drop; 0 (which is no drop's): none yet.
    pub last_drop: u32,
    /// [`SocketState::REFLECT_SET`] and the bits of [`crate::option::ENCAP_REFLECT`], and
    /// [`SocketState::REFLECT_PASSIVE`].
    pub reflect: u32,
    /// Id of the socket's cgroup, written with the first capture; 0: nothing was captured for
    /// this socket or its listener.
    pub cgroup: u64,
    /// Of the newest segment that came by the path in use: end of its sequence range << 32 |
    /// acknowledgement number; 0: none yet.
    pub newest: u64,
}

impl SocketState {
    /// The application set [`crate::option::ENCAP_REFLECT`] on this socket.
    pub const REFLECT_SET: u32 = 1 << 31;
    /// A listener that reflects accepted this connection.
    pub const REFLECT_PASSIVE: u32 = 1 << 30;
}

/// Value of the option [`crate::option::ENCAP_INFO`], in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// [`SocketState::encapsulated`].
    pub encapsulated: u64,
    /// [`SocketState::dropped`].
    pub dropped: u64,
    /// [`SocketState::last_drop`].
    pub last_drop: u32,
    /// Bytes of outer headers that the exit costs; 0 without a gateway.
    pub overhead: u32,
    /// The longest inner packet in bytes that fits the uplink now: path MTU, or the uplink's,
    /// less the overhead; 0 without a gateway.
    pub mtu: u32,
    /// Always zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Exit>() == 72);
const _: () = assert!(offset_of!(Exit, header) == 32);
const _: () = assert!(offset_of!(Exit, source_port) == 64);
const _: () = assert!(offset_of!(Exit, reserved) == 70);
const _: () = assert!(size_of::<SocketState>() == 200);
const _: () = assert!(offset_of!(SocketState, reflect) == 180);
const _: () = assert!(offset_of!(SocketState, checked) == 152);
const _: () = assert!(size_of::<Info>() == 32);

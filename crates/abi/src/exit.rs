//! `Exit`, the talk's `bpf_dyndest`: where a socket's packets go and in which headers, and
//! the socket's storage that holds it.

use crate::MAX_HEADER_LEN;
use core::mem::{offset_of, size_of};

/// One exit point. All zero is "none".
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Outer destination, network order. Meaningful with [`Exit::GATEWAY`].
    pub gateway: [u8; 16],
    /// Outer source, network order; all zero: the packet's own (IPv6) or the configured one.
    pub source: [u8; 16],
    /// Custom header behind the outer UDP header; bytes past `header_len` are zero.
    pub header: [u8; MAX_HEADER_LEN],
    /// Outer UDP source port, network order; 0: from the flow's hash.
    pub source_port: [u8; 2],
    /// Outer UDP destination port, network order. Meaningful with [`Exit::UDP`].
    pub destination_port: [u8; 2],
    /// [`Exit::GATEWAY`] | [`Exit::UDP`].
    pub flags: u8,
    /// Length of the custom header, 0–32.
    pub header_len: u8,
    /// Always zero.
    pub reserved: [u8; 2],
}

impl Exit {
    /// `gateway` is set: packets are encapsulated.
    pub const GATEWAY: u8 = 1;
    /// The outer headers are IPv6 + UDP + custom header; otherwise IPv6 alone.
    pub const UDP: u8 = 2;
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
}

/// Value of the `SK_STORAGE` map: read at TC egress without a lock while a `setsockopt` on
/// another CPU may write.
///
/// The slot in use is `slots[generation & 1]`. A writer (the socket's lock serialises
/// writers) fills the other slot and then adds one to `generation`. A reader copies what it
/// needs and reads `generation` again: if it moved, what it copied may be torn, and it starts
/// over.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketState {
    /// Number of writes; its lowest bit names the slot in use.
    pub generation: u32,
    /// Always zero.
    pub reserved: u32,
    /// The exit in use and the one before it.
    pub slots: [Exit; 2],
}

const _: () = assert!(size_of::<Exit>() == 72);
const _: () = assert!(offset_of!(Exit, header) == 32);
const _: () = assert!(offset_of!(Exit, source_port) == 64);
const _: () = assert!(offset_of!(Exit, reserved) == 70);
const _: () = assert!(size_of::<SocketState>() == 8 + 2 * 72);

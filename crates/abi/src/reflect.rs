//! What is captured of outer headers, between the packet that brought them and the socket that
//! answers: values of the maps `REFLECTED` and `STAGED`.

use crate::{Exit, FlowKey};
use core::mem::{offset_of, size_of};

/// How far ahead of the next byte that a socket expects a segment may begin and still move the
/// connection's path. The kernel does not show its own window to programs.
pub const REFLECT_WINDOW: u32 = 1 << 20;

/// In `tc_index` of a packet: the bits below name its place in the map `STAGED`.
pub const STAGED_TICKET: u16 = 0x8000;
/// The bits of the place.
pub const STAGED_TICKET_MASK: u16 = 0x0fff;

/// Value of the `LRU_HASH` [`crate::object::REFLECTED`]; the key is the flow as the replies show
/// it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reflected {
    /// Through which the replies leave; without a gateway only DSCP or mark are reflected.
    pub exit: Exit,
    /// Id of the cgroup whose socket answers, and that alone may use the entry; 0: the kernel
    /// itself.
    pub cgroup: u64,
    /// Mark of the packet that came in, without our part.
    pub mark: u32,
    /// What is reflected: bits of [`crate::option::ENCAP_REFLECT`].
    pub flags: u32,
    /// Traffic class of the packet that came in, its two ECN bits cleared.
    pub class: u8,
    /// Always zero.
    pub reserved: [u8; 7],
}

/// Value of the `ARRAY` [`crate::object::STAGED`]: what TC ingress took off a packet that is on
/// its way to a socket.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// By whom: counts the places that this CPU has used, 0 while the place is written.
    pub serial: u32,
    /// Always zero.
    pub reserved: u32,
    /// Tells the packet from others of its flow: TCP's sequence number << 32 | acknowledgement
    /// number, UDP's length << 16 | checksum.
    pub print: u64,
    /// The packet's flow, as it shows it.
    pub flow: FlowKey,
    /// The exit of replies.
    pub exit: Exit,
}

impl Reflected {
    /// The value's bytes as the map holds them, in this machine's byte order.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..72].copy_from_slice(&self.exit.to_bytes());
        bytes[72..80].copy_from_slice(&self.cgroup.to_ne_bytes());
        bytes[80..84].copy_from_slice(&self.mark.to_ne_bytes());
        bytes[84..88].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[88] = self.class;
        bytes
    }
}

const _: () = assert!(size_of::<Reflected>() == 96 && offset_of!(Reflected, cgroup) == 72);
const _: () = assert!(offset_of!(Reflected, mark) == 80 && offset_of!(Reflected, class) == 88);
const _: () = assert!(size_of::<Staged>() == 128 && offset_of!(Staged, flow) == 16);
const _: () = assert!(offset_of!(Staged, exit) == 56);

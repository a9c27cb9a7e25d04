//! The exits of connections whose socket is gone (docs/datapath.md §2.1): the map `CLOSING` and
//! its key, which is that of the other maps by flow as well. Who writes it is `track`, who reads it the egress path.

use crate::{exit::Exit, map::CLOSING};
use core::mem::{offset_of, size_of};

/// `abi::FlowKey` in words.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct FlowKey {
    source: [u64; 2],
    destination: [u64; 2],
    /// Source port, destination port, protocol, version, two zero bytes.
    tail: u64,
}

const _: () = {
    use dynencap_abi::FlowKey as Abi;
    assert!(size_of::<FlowKey>() == size_of::<Abi>());
    assert!(offset_of!(FlowKey, destination) == offset_of!(Abi, destination));
    assert!(offset_of!(FlowKey, tail) == offset_of!(Abi, source_port));
    assert!(offset_of!(Abi, destination_port) == offset_of!(FlowKey, tail) + 2);
    assert!(offset_of!(Abi, protocol) == offset_of!(FlowKey, tail) + 4);
    assert!(offset_of!(Abi, version) == offset_of!(FlowKey, tail) + 5);
};

impl FlowKey {
    /// Addresses as they stand in memory, IPv4 mapped; ports as on the wire.
    #[inline(always)]
    pub(crate) fn new(
        version: u8,
        protocol: u8,
        source: ([u64; 2], u16),
        destination: ([u64; 2], u16),
    ) -> Self {
        let tail = u64::from(u16::from_le(source.1))
            | u64::from(u16::from_le(destination.1)) << 16
            | u64::from(protocol) << 32
            | u64::from(version) << 40;
        Self {
            source: source.0,
            destination: destination.0,
            tail: tail.to_le(),
        }
    }
}

impl FlowKey {
    /// Whether it is the same flow in the same direction.
    #[inline(always)]
    pub(crate) fn is(&self, other: &Self) -> bool {
        let difference = (self.source[0] ^ other.source[0])
            | (self.source[1] ^ other.source[1])
            | (self.destination[0] ^ other.destination[0])
            | (self.destination[1] ^ other.destination[1])
            | (self.tail ^ other.tail);
        difference == 0
    }

    /// As `Exit::read_volatile`.
    ///
    /// # Safety
    /// `from` points to an aligned key.
    #[inline(always)]
    pub(crate) unsafe fn read_volatile(from: *const Self) -> Self {
        let words = from.cast::<u64>();
        // SAFETY: five words, of which the caller vouches.
        unsafe {
            Self {
                source: [words.read_volatile(), words.add(1).read_volatile()],
                destination: [words.add(2).read_volatile(), words.add(3).read_volatile()],
                tail: words.add(4).read_volatile(),
            }
        }
    }

    #[inline(always)]
    pub(crate) fn words(&self) -> [u64; 5] {
        let [s0, s1] = self.source;
        let [d0, d1] = self.destination;
        [s0, s1, d0, d1, self.tail]
    }
}

/// The exit that the flow's packets had; those that it sends are keyed.
///
/// The kernel reuses the place of an entry that it evicts: only where the key still has it after
/// the copy was the copy whole.
#[inline(always)]
pub(crate) fn exit(key: &FlowKey) -> Option<Exit> {
    let found = CLOSING.get_ptr(key)?;
    // SAFETY: a map value of this type, aligned to 8 bytes.
    let exit = unsafe { Exit::read_volatile(found) };
    (CLOSING.get_ptr(key) == Some(found)).then_some(exit)
}

/// `Err`: the kernel had no place for it.
#[inline(always)]
pub(crate) fn keep(key: &FlowKey, exit: &Exit) -> Result<(), i32> {
    CLOSING.insert(key, exit, 0)
}

#[inline(always)]
pub(crate) fn forget(key: &FlowKey) {
    // That there was none is the common case.
    let _ = CLOSING.remove(key);
}

//! The map `REFLECTED` (docs/datapath.md §5): captured exits of connections that are not
//! established yet, and of UDP sockets' peers. Each entry belongs to one cgroup, the kernel's own
//! to none (0), and nobody else may see it.

use crate::{
    checksum::rfc1624,
    closing::FlowKey,
    exit::Exit,
    frame::{self, Frame},
    map::REFLECTED,
    packet::Packet,
    whose::{Found, Place},
};
use core::mem::{MaybeUninit, offset_of, size_of};
use dynencap_abi::option::REFLECT_DSCP;

/// `abi::Reflected` in words.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Reflected {
    pub(crate) exit: Exit,
    pub(crate) cgroup: u64,
    pub(crate) mark: u32,
    pub(crate) flags: u32,
    /// Seven zero bytes follow.
    class: u64,
}

const _: () = {
    use dynencap_abi::Reflected as Abi;
    assert!(size_of::<Reflected>() == size_of::<Abi>());
    assert!(offset_of!(Reflected, cgroup) == offset_of!(Abi, cgroup));
    assert!(offset_of!(Reflected, mark) == offset_of!(Abi, mark));
    assert!(offset_of!(Reflected, flags) == offset_of!(Abi, flags));
    assert!(offset_of!(Reflected, class) == offset_of!(Abi, class));
};

impl Reflected {
    #[inline(always)]
    pub(crate) fn new(exit: Exit, cgroup: u64, mark: u32, flags: u32, class: u8) -> Self {
        Self {
            exit,
            cgroup,
            mark,
            flags,
            class: u64::from(class).to_le(),
        }
    }

    #[inline(always)]
    pub(crate) fn class(&self) -> u8 {
        u64::from_le(self.class) as u8
    }
}

/// The cgroup of what the kernel itself sends.
pub(crate) const KERNEL: u64 = 0;

/// What stands under a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum There {
    Nothing,
    /// An entry of another cgroup.
    Others,
    /// One of this cgroup, which was copied.
    Own,
}

/// Copies the entry of this cgroup, if that is what stands there.
///
/// The kernel reuses the place of an entry that it evicts: only where the key still has it after
/// the copy was the copy whole.
#[inline(always)]
pub(crate) fn find(key: &FlowKey, cgroup: u64, entry: &mut MaybeUninit<Reflected>) -> There {
    let Some(found) = REFLECTED.get_ptr(key) else {
        return There::Nothing;
    };
    // SAFETY: a map value of this type, aligned to 8 bytes; any bytes are good.
    let of = unsafe {
        entry
            .write(Reflected {
                exit: Exit::read_volatile(&raw const (*found).exit),
                cgroup: (&raw const (*found).cgroup).read_volatile(),
                mark: (&raw const (*found).mark).read_volatile(),
                flags: (&raw const (*found).flags).read_volatile(),
                class: (&raw const (*found).class).read_volatile(),
            })
            .cgroup
    };
    if REFLECTED.get_ptr(key) != Some(found) {
        return There::Nothing;
    }
    if of == cgroup {
        There::Own
    } else {
        There::Others
    }
}

/// Which line of §2.1 asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// For the SYN-ACK of a request: its DSCP is reflected without an exit, too.
    Request,
    Any,
}

/// Whether the packet takes an exit of this cgroup, which then stands in `place`, without a
/// storage. The packet's DSCP becomes what is reflected.
#[inline(never)]
pub(crate) fn exit(frame: &mut Frame, cgroup: u64, line: Line, place: &mut Place) -> bool {
    let packet = Packet::parse(frame);
    if packet.version == 0 {
        return false;
    }
    let key = packet.flow(frame).key();
    let Some(found) = REFLECTED.get_ptr(&key) else {
        return false;
    };
    // SAFETY: as in `find`.
    let (of, flags, class, exit) = unsafe {
        (
            (&raw const (*found).cgroup).read_volatile(),
            (&raw const (*found).flags).read_volatile(),
            (&raw const (*found).class).read_volatile(),
            Exit::read_volatile(&raw const (*found).exit),
        )
    };
    let storage = None;
    let has_gateway = place.write(Found { exit, storage }).exit.has_gateway();
    if REFLECTED.get_ptr(&key) != Some(found) || of != cgroup {
        return false;
    }
    if flags & REFLECT_DSCP != 0 && (has_gateway || line == Line::Request) {
        set_dscp(frame, u64::from_le(class) as u8);
    }
    has_gateway
}

/// Gives the packet the DSCP of a traffic class; a packet that is cut short keeps its own.
#[inline(always)]
fn set_dscp(frame: &mut Frame, class: u8) {
    const ECN: u8 = 3;
    if frame.protocol() == frame::IPV6 {
        // Version, traffic class, flow label.
        if let Some(mut header) = frame.space::<40>(0) {
            let before = u16::from_be(header.read::<u16, 0>());
            let after = before & !(u16::from(!ECN) << 4) | u16::from(class & !ECN) << 4;
            header.write::<u16, 0>(after.to_be());
        }
    } else if let Some(mut header) = frame.space::<20>(0) {
        let before = u16::from_be(header.read::<u16, 0>());
        let after = before & !u16::from(!ECN) | u16::from(class & !ECN);
        if before != after {
            let checksum = u16::from_be(header.read::<u16, 10>());
            header.write::<u16, 0>(after.to_be());
            header.write::<u16, 10>(rfc1624(checksum, before, after).to_be());
        }
    }
}

/// What stands under the key, without a copy.
#[inline(always)]
pub(crate) fn whose(key: &FlowKey, cgroup: u64) -> There {
    let Some(found) = REFLECTED.get_ptr(key) else {
        return There::Nothing;
    };
    // SAFETY: as in `find`.
    if unsafe { (&raw const (*found).cgroup).read_volatile() } == cgroup {
        There::Own
    } else {
        There::Others
    }
}

/// `Err`: the kernel had no place for it.
#[inline(always)]
pub(crate) fn put(key: &FlowKey, entry: &Reflected) -> Result<(), i32> {
    REFLECTED.insert(key, entry, 0)
}

#[inline(always)]
pub(crate) fn remove(key: &FlowKey) {
    // That it has gone meanwhile is as well.
    let _ = REFLECTED.remove(key);
}

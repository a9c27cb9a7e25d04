//! What is known of the way to an exit (docs/datapath.md §1 and §8): the maps `PATHS` and
//! `PATHS_LEARNED`. From which ICMP errors something is learned is left to ingress.

use crate::{
    exit::Exit,
    map::{PATHS, PATHS_LEARNED},
};
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use core::{
    mem::{offset_of, size_of},
    ptr::NonNull,
};
use dynencap_abi::PathState;

/// `BPF_NOEXIST`.
const NEW_ONLY: u64 = 1;

/// `abi::PathKey` in words.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PathKey {
    gateway: [u32; 4],
    /// Destination port, flags, a zero byte.
    tail: u32,
}

/// A key as it is looked for: the verifier wants words on the stack to be aligned, and LLVM writes
/// the address as two.
#[repr(C)]
pub(crate) struct Wanted {
    gateway: [u64; 2],
    tail: u32,
}

impl Wanted {
    /// The port as on the wire, `None` without UDP.
    #[inline(always)]
    pub(crate) fn new(gateway: [u64; 2], udp_port: Option<u16>) -> Self {
        let tail = match udp_port {
            Some(port) => u32::from(u16::from_le(port)) | u32::from(dynencap_abi::Exit::UDP) << 16,
            None => 0,
        };
        Self {
            gateway,
            tail: tail.to_le(),
        }
    }

    #[inline(always)]
    fn of(exit: &Exit) -> Self {
        Self::new(
            exit.gateway,
            exit.has_udp().then(|| exit.destination_port()),
        )
    }

    #[inline(always)]
    fn key(&self) -> &PathKey {
        // SAFETY: the same 20 bytes, more strictly aligned.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }
}

const _: () = {
    use dynencap_abi::PathKey as Abi;
    assert!(size_of::<PathKey>() == size_of::<Abi>());
    assert!(offset_of!(Wanted, tail) == offset_of!(PathKey, tail));
    assert!(offset_of!(PathKey, gateway) == offset_of!(Abi, gateway));
    assert!(offset_of!(PathKey, tail) == offset_of!(Abi, destination_port));
    assert!(offset_of!(Abi, flags) == offset_of!(PathKey, tail) + 2);
};

/// What `PATHS` holds under a key. Any CPU may write it at any time: each field is loaded and
/// stored by itself, and no two of them must belong together.
#[derive(Clone, Copy)]
pub(crate) struct Path(NonNull<PathState>);

impl Path {
    #[inline(always)]
    pub(crate) fn find(wanted: &Wanted) -> Option<Self> {
        PATHS
            .get_ptr_mut(wanted.key())
            .and_then(NonNull::new)
            .map(Self)
    }

    /// Bytes of custom header of who chose the exit last.
    #[inline(always)]
    pub(crate) fn header_len(self) -> u32 {
        // SAFETY: a field of a map value, which the verifier checks; a slot that was recycled
        // meanwhile holds another path's valid value.
        unsafe { (&raw const (*self.0.as_ptr()).header_len).read_volatile() }
    }

    #[inline(always)]
    fn set_header_len(self, header_len: u32) {
        // SAFETY: as in `header_len`.
        unsafe { (&raw mut (*self.0.as_ptr()).header_len).write_volatile(header_len) }
    }

    /// The path MTU, unless none was learned or it is too old.
    #[inline(always)]
    pub(crate) fn fresh_mtu(self) -> Option<u32> {
        // SAFETY: as in `header_len`.
        let (mtu, learned) = unsafe {
            (
                (&raw const (*self.0.as_ptr()).mtu).read_volatile(),
                (&raw const (*self.0.as_ptr()).learned).read_volatile(),
            )
        };
        (mtu != 0 && now().wrapping_sub(learned) < PathState::LIFETIME).then_some(mtu)
    }

    /// From now on `mtu` limits the packets of every socket with this exit.
    #[inline(always)]
    pub(crate) fn learn(self, mtu: u32) {
        // SAFETY: as in `header_len`.
        unsafe {
            (&raw mut (*self.0.as_ptr()).mtu).write_volatile(mtu);
            (&raw mut (*self.0.as_ptr()).learned).write_volatile(now());
        }
        if let Some(learned) = PATHS_LEARNED.get_ptr_mut(0) {
            // SAFETY: a single store into a map value; it only ever becomes 1.
            unsafe { learned.write_volatile(1) }
        }
    }
}

/// Whether any path MTU was ever learned: as long as not, no packet pays for more than this.
#[inline(always)]
pub(crate) fn is_any_learned() -> bool {
    // SAFETY: a single load from a map value.
    PATHS_LEARNED
        .get_ptr(0)
        .is_some_and(|learned| unsafe { learned.read_volatile() } != 0)
}

/// The path MTU of the exit, if a fresh one limits packets to less than `limit`; else that.
#[inline(never)]
pub(crate) fn limit(exit: &Exit, limit: u32) -> u32 {
    match Path::find(&Wanted::of(exit)).and_then(Path::fresh_mtu) {
        Some(mtu) if mtu < limit => mtu,
        _ => limit,
    }
}

/// As [`limit`], for those who have time.
#[inline(always)]
pub(crate) fn fresh_mtu(exit: &Exit) -> Option<u32> {
    if is_any_learned() {
        Path::find(&Wanted::of(exit))?.fresh_mtu()
    } else {
        None
    }
}

/// A socket chose this exit: errors about it may be believed. That it could not be noted is
/// ignored, since packets leave all the same.
#[inline(always)]
pub(crate) fn remember(exit: &Exit) {
    if !exit.has_gateway() {
        return;
    }
    let key = Wanted::of(exit);
    if let Some(path) = Path::find(&key) {
        path.set_header_len(exit.header_len());
        return;
    }
    let state = PathState {
        learned: 0,
        mtu: 0,
        header_len: exit.header_len(),
    };
    let _ = PATHS.insert(key.key(), &state, NEW_ONLY);
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

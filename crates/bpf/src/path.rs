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

const _: () = {
    use dynencap_abi::PathKey as Abi;
    assert!(size_of::<PathKey>() == size_of::<Abi>());
    assert!(offset_of!(PathKey, gateway) == offset_of!(Abi, gateway));
    assert!(offset_of!(PathKey, tail) == offset_of!(Abi, destination_port));
    assert!(offset_of!(Abi, flags) == offset_of!(PathKey, tail) + 2);
};

impl PathKey {
    /// The port as on the wire, `None` without UDP.
    #[inline(always)]
    pub(crate) fn new(gateway: [u64; 2], udp_port: Option<u16>) -> Self {
        let [high, low] = gateway.map(u64::from_le);
        let tail = match udp_port {
            Some(port) => u32::from(u16::from_le(port)) | u32::from(dynencap_abi::Exit::UDP) << 16,
            None => 0,
        };
        Self {
            gateway: [high, high >> 32, low, low >> 32].map(|word| (word as u32).to_le()),
            tail: tail.to_le(),
        }
    }

    #[inline(always)]
    pub(crate) fn of(exit: &Exit) -> Self {
        Self::new(
            exit.gateway,
            exit.has_udp().then(|| exit.destination_port()),
        )
    }

    #[inline(always)]
    pub(crate) fn equals(&self, other: &Self) -> bool {
        let [a, b, c, d] = self.gateway;
        let [e, f, g, h] = other.gateway;
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) | (self.tail ^ other.tail) == 0
    }
}

/// What `PATHS` holds under a key. Any CPU may write it at any time: each field is loaded and
/// stored by itself, and no two of them must belong together.
#[derive(Clone, Copy)]
pub(crate) struct Path(NonNull<PathState>);

impl Path {
    #[inline(always)]
    pub(crate) fn find(key: &PathKey) -> Option<Self> {
        PATHS.get_ptr_mut(key).and_then(NonNull::new).map(Self)
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

/// The path MTU of the exit that limits a packet now. Costs one load as long as nothing was
/// ever learned.
#[inline(always)]
pub(crate) fn fresh_mtu(exit: &Exit) -> Option<u32> {
    // SAFETY: a single load from a map value.
    let learned = unsafe { PATHS_LEARNED.get_ptr(0)?.read_volatile() };
    if learned == 0 {
        return None;
    }
    Path::find(&PathKey::of(exit))?.fresh_mtu()
}

/// A socket chose this exit: errors about it may be believed. That it could not be noted is
/// ignored, since packets leave all the same.
#[inline(always)]
pub(crate) fn remember(exit: &Exit) {
    if !exit.has_gateway() {
        return;
    }
    let key = PathKey::of(exit);
    if let Some(path) = Path::find(&key) {
        path.set_header_len(exit.header_len());
        return;
    }
    let state = PathState {
        learned: 0,
        mtu: 0,
        header_len: exit.header_len(),
    };
    let _ = PATHS.insert(key, state, NEW_ONLY);
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

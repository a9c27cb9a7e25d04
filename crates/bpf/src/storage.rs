//! A socket's storage: the map's type, the protocol of two slots and a generation
//! (`abi::SocketState`), and the fields behind them that belong to the egress path.

use crate::{allowed::Allowed, exit::Exit};
use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE;
use core::{ffi::c_void, ptr::NonNull};
use dynencap_abi::{Reason, SocketState};

const BPF_F_NO_PREALLOC: usize = 1;
const BPF_F_CLONE: usize = 1 << 9;
/// How often a reader tries before it gives up on an exit that is being rewritten.
const READINGS: usize = 4;
/// How often a writer that can wait asks for the claim.
const CLAIMS: u32 = 1000;

/// The map's definition as BTF: aya-ebpf's own `SkStorage` cannot ask for `BPF_F_CLONE`, by
/// which an accepted connection inherits its listener's exit.
#[repr(C)]
pub(crate) struct SocketStorage {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const SocketState,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC | BPF_F_CLONE],
}

// SAFETY: the pointers are never followed; only their types matter, as BTF.
unsafe impl Sync for SocketStorage {}

impl SocketStorage {
    pub(crate) const fn new() -> Self {
        use core::ptr::null;
        Self {
            r#type: null(),
            key: null(),
            value: null(),
            max_entries: null(),
            map_flags: null(),
        }
    }

    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}

/// A socket's storage.
#[derive(Clone, Copy)]
pub(crate) struct Storage(NonNull<SocketState>);

impl Storage {
    #[inline(always)]
    pub(crate) fn new(state: NonNull<SocketState>) -> Self {
        Self(state)
    }

    /// The exit in use and its generation, read without a lock while another CPU may write:
    /// `None` when each of the readings was torn.
    ///
    /// The loads are volatile so that LLVM keeps them between the two readings of the
    /// generation; x86-64 keeps their order. On a machine with weaker order a load-acquire
    /// would be needed, which BPF has only since 6.15.
    #[inline(always)]
    pub(crate) fn read(self) -> Option<(Exit, u32)> {
        for _ in 0..READINGS {
            let generation = self.generation();
            // SAFETY: the slot lies in the storage, is aligned, and any bytes make an `Exit`.
            let exit = unsafe { Exit::read_volatile(self.slot(generation)) };
            if self.generation() == generation {
                return Some((exit, generation));
            }
        }
        None
    }

    /// The exit of which the last check said that these policies allow it, whether or not it is
    /// still the one in use: [`Allowed::is_still`] says that.
    #[inline(always)]
    pub(crate) fn allowed(self, policy_generation: u32) -> Option<Allowed> {
        let checked = self.checked();
        let generation = checked as u32;
        ((checked >> 32) as u32 == policy_generation)
            .then(|| Allowed::new(self, self.slot(generation), generation))
    }

    /// The exit in use, for those who hold the claim.
    #[inline(always)]
    pub(crate) fn current(self) -> Exit {
        // SAFETY: as in `read`; the claim keeps writers out.
        unsafe { Exit::read_volatile(self.slot(self.generation())) }
    }

    /// Claims the storage for a write, unless another CPU has; [`Storage::release`] lets it go.
    #[inline(always)]
    pub(crate) fn try_claim(self) -> bool {
        compare_and_swap(self.writer_ptr(), 0, 1) == 0
    }

    /// As [`Storage::try_claim`], for those who can wait: another writer has it for the time of
    /// some stores.
    #[inline(never)]
    pub(crate) fn claim(self) -> bool {
        let mut left = CLAIMS;
        while left > 0 {
            if self.try_claim() {
                return true;
            }
            left -= 1;
        }
        false
    }

    /// Whoever had the claim, now nobody has it.
    #[inline(always)]
    pub(crate) fn release(self) {
        // SAFETY: the field is aligned and lives as long as the program runs; x86-64 keeps stores
        // in order.
        unsafe { self.writer_ptr().write_volatile(0) }
    }

    /// Puts the exit in use; only with the claim, or before anyone else has the socket.
    #[inline(always)]
    pub(crate) fn write(self, exit: &Exit) {
        let generation = self.generation().wrapping_add(1);
        let slot = self.slot(generation);
        // SAFETY: the slot lies in the storage and is aligned; readers use the other one, and
        // see by the generation when it was overtaken.
        unsafe {
            for (index, word) in exit.words().into_iter().enumerate() {
                slot.cast::<u64>().add(index).write_volatile(word);
            }
        }
        // SAFETY: the field is aligned and lives as long as the program runs. A plain store:
        // the claim keeps other writers out, and x86-64 keeps stores in order (Rust has no
        // 32-bit atomics for this target).
        unsafe { self.generation_ptr().write_volatile(generation) };
    }

    /// For which exit under which policies the last check said yes.
    #[inline(always)]
    pub(crate) fn checked(self) -> u64 {
        // SAFETY: the field is aligned and lives as long as the program runs; a single load.
        unsafe { (&raw const (*self.0.as_ptr()).checked).read_volatile() }
    }

    /// Any CPU may write at any time; each writes what it found by itself, so that none needs
    /// to wait.
    #[inline(always)]
    pub(crate) fn set_checked(self, checked: u64) {
        // SAFETY: as in `checked`; a single store.
        unsafe { (&raw mut (*self.0.as_ptr()).checked).write_volatile(checked) }
    }

    #[inline(always)]
    pub(crate) fn encapsulated(self) -> u64 {
        // SAFETY: as in `checked`.
        unsafe { (&raw const (*self.0.as_ptr()).encapsulated).read_volatile() }
    }

    #[inline(always)]
    pub(crate) fn dropped(self) -> u64 {
        // SAFETY: as in `checked`.
        unsafe { (&raw const (*self.0.as_ptr()).dropped).read_volatile() }
    }

    #[inline(always)]
    pub(crate) fn last_drop(self) -> u32 {
        // SAFETY: as in `checked`.
        unsafe { (&raw const (*self.0.as_ptr()).last_drop).read_volatile() }
    }

    /// A socket's packets may leave on several CPUs at once: an atomic add.
    #[inline(always)]
    pub(crate) fn count_encapsulated(self) {
        // SAFETY: the field is aligned and lives as long as the program runs; all who write it
        // do so here.
        add_one(unsafe { &raw mut (*self.0.as_ptr()).encapsulated });
    }

    #[inline(always)]
    pub(crate) fn count_drop(self, reason: Reason) {
        // SAFETY: as in `count_encapsulated`.
        add_one(unsafe { &raw mut (*self.0.as_ptr()).dropped });
        // SAFETY: as in `checked`; a single store.
        unsafe { (&raw mut (*self.0.as_ptr()).last_drop).write_volatile(reason as u32) }
    }

    /// `abi::SocketState::reflect`; only those who hold the socket's lock write it.
    #[inline(always)]
    pub(crate) fn reflect(self) -> u32 {
        // SAFETY: as in `checked`.
        unsafe { (&raw const (*self.0.as_ptr()).reflect).read_volatile() }
    }

    #[inline(always)]
    pub(crate) fn set_reflect(self, reflect: u32) {
        // SAFETY: as in `checked`; a single store.
        unsafe { (&raw mut (*self.0.as_ptr()).reflect).write_volatile(reflect) }
    }

    /// Id of the socket's cgroup, once something was captured for it.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> u64 {
        // SAFETY: as in `checked`.
        unsafe { (&raw const (*self.0.as_ptr()).cgroup).read_volatile() }
    }

    /// Whoever writes it writes the same.
    #[inline(always)]
    pub(crate) fn set_cgroup(self, cgroup: u64) {
        // SAFETY: as in `checked`; a single store.
        unsafe { (&raw mut (*self.0.as_ptr()).cgroup).write_volatile(cgroup) }
    }

    /// Of the newest segment by the path in use.
    #[inline(always)]
    pub(crate) fn newest(self) -> u64 {
        // SAFETY: as in `checked`.
        unsafe { (&raw const (*self.0.as_ptr()).newest).read_volatile() }
    }

    #[inline(always)]
    pub(crate) fn set_newest(self, newest: u64) {
        // SAFETY: as in `checked`; a single store.
        unsafe { (&raw mut (*self.0.as_ptr()).newest).write_volatile(newest) }
    }

    #[inline(always)]
    fn writer_ptr(self) -> *mut u32 {
        // SAFETY: the offset of a field.
        unsafe { &raw mut (*self.0.as_ptr()).writer }
    }

    #[inline(always)]
    fn generation_ptr(self) -> *mut u32 {
        // SAFETY: the offset of a field.
        unsafe { &raw mut (*self.0.as_ptr()).generation }
    }

    #[inline(always)]
    pub(crate) fn generation(self) -> u32 {
        // SAFETY: the field is aligned and lives as long as the program runs.
        unsafe { self.generation_ptr().read_volatile() }
    }

    #[inline(always)]
    fn slot(self, generation: u32) -> *mut Exit {
        let index = (generation & 1) as usize;
        // SAFETY: the index is 0 or 1, which the verifier sees by the mask.
        unsafe {
            (&raw mut (*self.0.as_ptr()).slots)
                .cast::<Exit>()
                .add(index)
        }
    }
}

/// Adds one to a counter in a map, which other CPUs and interrupts may do at the same time.
///
/// By the intrinsic, since Rust's atomic types offer no additions where a target has no
/// compare-and-swap of every width. The result is not used: of a relaxed addition LLVM makes one
/// that fetches nothing, which is what is wanted here, and silently wrong where it is used.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(crate) fn add_one(counter: *mut u64) {
    use core::intrinsics::{AtomicOrdering, atomic_xadd};
    // SAFETY: callers pass aligned counters in map values, which live as long as the program
    // runs; the verifier checks the access.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) };
}

/// Puts `new` where `old` stands, and gives what stood there. Sequentially consistent, as every
/// atomic of BPF that gives something.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn compare_and_swap(place: *mut u32, old: u32, new: u32) -> u32 {
    use core::intrinsics::{AtomicOrdering, atomic_cxchg};
    // SAFETY: as in `add_one`.
    let (stood, _) = unsafe {
        atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(place, old, new)
    };
    stood
}

/// The host compiles these, for the tests of what is pure, and never calls them.
#[cfg(not(target_arch = "bpf"))]
pub(crate) fn add_one(_: *mut u64) {}
#[cfg(not(target_arch = "bpf"))]
fn compare_and_swap(_: *mut u32, _: u32, _: u32) -> u32 {
    0
}

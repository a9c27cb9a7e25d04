//! A socket's storage and its protocol of two slots and a generation (`abi::SocketState`), and
//! the socket's mark. Owns the map type; what an exit means is left to the hooks.

use crate::map::SOCKETS;
use aya_ebpf::{
    bindings::{bpf_map_type::BPF_MAP_TYPE_SK_STORAGE, bpf_sock},
    helpers::generated::{bpf_setsockopt, bpf_sk_storage_delete, bpf_sk_storage_get},
};
use core::{
    ffi::c_void,
    mem::{offset_of, size_of},
    ptr::{NonNull, null_mut},
};
use dynencap_abi::{
    IPV6_HEADER_LEN, MARK_MASK, MARK_OVERHEAD_SHIFT, MARK_SENTINEL, SocketState, UDP_HEADER_LEN,
};

const BPF_F_NO_PREALLOC: usize = 1;
const BPF_F_CLONE: usize = 1 << 9;
const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;
/// How often a reader tries before it gives up on an exit that is being rewritten.
const READINGS: usize = 4;

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
    fn as_ptr(&self) -> *mut c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}

/// `abi::Exit` as nine words. Byte arrays of 16 and 32 bytes would be copied byte by byte;
/// these are single loads and stores.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Exit {
    pub(crate) gateway: [u64; 2],
    pub(crate) source: [u64; 2],
    pub(crate) header: [u64; 4],
    /// source port, destination port, flags, header length, two reserved bytes.
    tail: u64,
}

const _: () = {
    assert!(size_of::<Exit>() == size_of::<dynencap_abi::Exit>());
    assert!(offset_of!(Exit, gateway) == offset_of!(dynencap_abi::Exit, gateway));
    assert!(offset_of!(Exit, source) == offset_of!(dynencap_abi::Exit, source));
    assert!(offset_of!(Exit, header) == offset_of!(dynencap_abi::Exit, header));
    assert!(offset_of!(Exit, tail) == offset_of!(dynencap_abi::Exit, source_port));
    assert!(offset_of!(dynencap_abi::Exit, destination_port) == offset_of!(Exit, tail) + 2);
    assert!(offset_of!(dynencap_abi::Exit, flags) == offset_of!(Exit, tail) + 4);
    assert!(offset_of!(dynencap_abi::Exit, header_len) == offset_of!(Exit, tail) + 5);
};

impl Exit {
    const NONE: Self = Self {
        gateway: [0; 2],
        source: [0; 2],
        header: [0; 4],
        tail: 0,
    };
    const FLAGS_SHIFT: u32 = 32;
    const HEADER_LEN_SHIFT: u32 = 40;

    /// As on the wire.
    #[inline(always)]
    pub(crate) fn source_port(&self) -> u16 {
        self.tail as u16
    }

    /// As on the wire.
    #[inline(always)]
    pub(crate) fn destination_port(&self) -> u16 {
        (self.tail >> 16) as u16
    }

    #[inline(always)]
    pub(crate) fn has_gateway(&self) -> bool {
        self.flag(dynencap_abi::Exit::GATEWAY)
    }

    #[inline(always)]
    pub(crate) fn has_udp(&self) -> bool {
        self.flag(dynencap_abi::Exit::UDP)
    }

    #[inline(always)]
    pub(crate) fn header_len(&self) -> u32 {
        (self.tail >> Self::HEADER_LEN_SHIFT) as u32 & 0xff
    }

    #[inline(always)]
    pub(crate) fn overhead(&self) -> u32 {
        if self.has_udp() {
            (IPV6_HEADER_LEN + UDP_HEADER_LEN) as u32 + self.header_len()
        } else {
            IPV6_HEADER_LEN as u32
        }
    }

    #[inline(always)]
    pub(crate) fn set_gateway(&mut self, gateway: Option<[u64; 2]>) {
        self.gateway = gateway.unwrap_or([0; 2]);
        self.set_flag(dynencap_abi::Exit::GATEWAY, gateway.is_some());
    }

    /// Ports as on the wire.
    #[inline(always)]
    pub(crate) fn set_udp(&mut self, source_port: u16, destination_port: u16, header_len: u32) {
        let kept = self.tail & (0xff << Self::FLAGS_SHIFT);
        self.tail = kept
            | u64::from(source_port)
            | u64::from(destination_port) << 16
            | u64::from(header_len) << Self::HEADER_LEN_SHIFT;
        self.set_flag(dynencap_abi::Exit::UDP, true);
    }

    #[inline(always)]
    pub(crate) fn clear_udp(&mut self) {
        self.header = [0; 4];
        self.tail &= 0xff << Self::FLAGS_SHIFT;
        self.set_flag(dynencap_abi::Exit::UDP, false);
    }

    #[inline(always)]
    fn flag(&self, flag: u8) -> bool {
        self.tail & u64::from(flag) << Self::FLAGS_SHIFT != 0
    }

    #[inline(always)]
    fn set_flag(&mut self, flag: u8, on: bool) {
        let bit = u64::from(flag) << Self::FLAGS_SHIFT;
        self.tail = if on {
            self.tail | bit
        } else {
            self.tail & !bit
        };
    }
}

/// A socket that is there; of any kind, a request or TIME_WAIT one too.
#[derive(Clone, Copy)]
pub(crate) struct Socket(NonNull<bpf_sock>);

impl Socket {
    /// The verifier follows the null check from the context's field to the helper's argument:
    /// the pointer must be read once and not be computed with.
    #[inline(always)]
    pub(crate) fn new(socket: *mut bpf_sock) -> Option<Self> {
        NonNull::new(socket).map(Self)
    }

    #[inline(always)]
    pub(crate) fn family(self) -> u32 {
        // SAFETY: a field of a socket that is not null; the verifier checks each access.
        unsafe { (*self.0.as_ptr()).family }
    }

    #[inline(always)]
    pub(crate) fn kind(self) -> u32 {
        // SAFETY: as in `family`.
        unsafe { (*self.0.as_ptr()).type_ }
    }

    #[inline(always)]
    pub(crate) fn protocol(self) -> u32 {
        // SAFETY: as in `family`.
        unsafe { (*self.0.as_ptr()).protocol }
    }

    #[inline(always)]
    pub(crate) fn storage(self) -> Option<Storage> {
        self.lookup(null_mut(), 0)
    }

    /// The storage, made with no exit in it if there was none.
    #[inline(always)]
    pub(crate) fn storage_or_new(self) -> Option<Storage> {
        self.lookup(null_mut(), 1)
    }

    #[inline(always)]
    pub(crate) fn remove_storage(self) {
        // SAFETY: map and socket are what the helper takes.
        unsafe { bpf_sk_storage_delete(SOCKETS.as_ptr(), self.0.as_ptr().cast()) };
    }

    /// Gives the socket the mark that belongs to the exit; the bits outside our mask stay.
    /// `Err` holds the kernel's negative errno.
    #[inline(always)]
    pub(crate) fn set_mark_for(self, exit: &Exit) -> Result<(), i32> {
        // SAFETY: as in `family`.
        let mark = unsafe { (*self.0.as_ptr()).mark };
        let ours = if exit.has_gateway() {
            MARK_SENTINEL | exit.overhead() << MARK_OVERHEAD_SHIFT
        } else {
            0
        };
        let mut wanted = mark & !MARK_MASK | ours;
        if wanted == mark {
            return Ok(());
        }
        // SAFETY: the value points to four bytes of the stack, as its length says.
        let result = unsafe {
            bpf_setsockopt(
                self.0.as_ptr().cast(),
                SOL_SOCKET,
                SO_MARK,
                (&raw mut wanted).cast(),
                size_of::<u32>() as i32,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(result as i32)
        }
    }

    #[inline(always)]
    fn lookup(self, init: *mut c_void, flags: u64) -> Option<Storage> {
        // SAFETY: map and socket are what the helper takes; it answers null for sockets that
        // cannot have storage (request sockets, TIME_WAIT).
        let state =
            unsafe { bpf_sk_storage_get(SOCKETS.as_ptr(), self.0.as_ptr().cast(), init, flags) };
        NonNull::new(state.cast()).map(Storage)
    }
}

/// A socket's storage.
#[derive(Clone, Copy)]
pub(crate) struct Storage(NonNull<SocketState>);

impl Storage {
    /// The exit in use, read without a lock while another CPU may write: `None` when each of
    /// the readings was torn.
    ///
    /// The loads are volatile so that LLVM keeps them between the two readings of the
    /// generation; x86-64 keeps their order. On a machine with weaker order a load-acquire
    /// would be needed, which BPF has only since 6.15.
    #[inline(always)]
    pub(crate) fn read(self) -> Option<Exit> {
        for _ in 0..READINGS {
            let generation = self.generation();
            // SAFETY: the slot lies in the storage, is aligned, and any bytes make an `Exit`.
            let exit = unsafe { read_words(self.slot(generation)) };
            if self.generation() == generation {
                return Some(exit);
            }
        }
        None
    }

    /// The exit in use, for those who hold the socket's lock (the socket-option hooks do).
    #[inline(always)]
    pub(crate) fn current(self) -> Exit {
        // SAFETY: as in `read`; the lock keeps writers out.
        unsafe { read_words(self.slot(self.generation())) }
    }

    /// Puts the exit in use; only under the socket's lock.
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
        // writers do not meet, and x86-64 keeps stores in order (Rust has no
        // 32-bit atomics for this target).
        unsafe { self.generation_ptr().write_volatile(generation) };
    }

    #[inline(always)]
    fn generation_ptr(self) -> *mut u32 {
        // SAFETY: the offset of a field.
        unsafe { &raw mut (*self.0.as_ptr()).generation }
    }

    #[inline(always)]
    fn generation(self) -> u32 {
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

impl Exit {
    #[inline(always)]
    fn words(&self) -> [u64; 9] {
        let [g0, g1] = self.gateway;
        let [s0, s1] = self.source;
        let [h0, h1, h2, h3] = self.header;
        [g0, g1, s0, s1, h0, h1, h2, h3, self.tail]
    }

    /// The exit that was, or none.
    #[inline(always)]
    pub(crate) fn of(storage: Option<Storage>) -> Self {
        match storage {
            Some(storage) => storage.current(),
            None => Self::NONE,
        }
    }
}

/// # Safety
/// `from` points to an aligned `Exit`.
#[inline(always)]
unsafe fn read_words(from: *const Exit) -> Exit {
    let words = from.cast::<u64>();
    // SAFETY: nine words, of which the caller vouches.
    unsafe {
        Exit {
            gateway: [words.read_volatile(), words.add(1).read_volatile()],
            source: [words.add(2).read_volatile(), words.add(3).read_volatile()],
            header: [
                words.add(4).read_volatile(),
                words.add(5).read_volatile(),
                words.add(6).read_volatile(),
                words.add(7).read_volatile(),
            ],
            tail: words.add(8).read_volatile(),
        }
    }
}

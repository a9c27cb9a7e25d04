//! A socket: what the kernel shows of it, its storage, its mark.

use crate::{exit::Exit, map::SOCKETS, mark, storage::Storage};
use aya_ebpf::{
    bindings::bpf_sock,
    helpers::generated::{bpf_setsockopt, bpf_sk_storage_delete, bpf_sk_storage_get},
};
use core::{
    mem::size_of,
    ptr::{NonNull, null_mut},
};

const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;
/// `BPF_SK_STORAGE_GET_F_CREATE`.
const CREATE: u64 = 1;

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

    /// For helpers that take a socket.
    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *mut bpf_sock {
        self.0.as_ptr()
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
    pub(crate) fn mark(self) -> u32 {
        // SAFETY: as in `family`.
        unsafe { (*self.0.as_ptr()).mark }
    }

    /// Whether it has a peer: its port is not 0.
    #[inline(always)]
    pub(crate) fn is_connected(self) -> bool {
        // SAFETY: as in `family`.
        unsafe { (*self.0.as_ptr()).dst_port != 0 }
    }

    /// The TCP state's number.
    #[inline(always)]
    pub(crate) fn state(self) -> u32 {
        // SAFETY: as in `family`.
        unsafe { (*self.0.as_ptr()).state }
    }

    #[inline(always)]
    pub(crate) fn storage(self) -> Option<Storage> {
        self.lookup(0)
    }

    /// The storage, made with no exit in it if there was none. Of two CPUs that make it at once
    /// (the first SYNs at a listener) the helper answers one with null: by then it is there.
    #[inline(always)]
    pub(crate) fn storage_or_new(self) -> Option<Storage> {
        self.lookup(CREATE).or_else(|| self.lookup(0))
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
        let mark = self.mark();
        let mut wanted = mark::for_exit(mark, exit);
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
    fn lookup(self, flags: u64) -> Option<Storage> {
        // SAFETY: map and socket are what the helper takes; it answers null for sockets that
        // cannot have storage (request sockets, TIME_WAIT).
        let state = unsafe {
            bpf_sk_storage_get(SOCKETS.as_ptr(), self.0.as_ptr().cast(), null_mut(), flags)
        };
        NonNull::new(state.cast()).map(Storage::new)
    }
}

//! An exit in its slot of a socket's storage, as `plain` reads it: of that word after word, where
//! each is needed, since a copy of the whole has no place but on the stack. The protocol is that of
//! `storage`.

use crate::{
    exit::{Exit, Kind},
    storage::Storage,
};

/// The exit of a generation that the policies allowed. What was read of it counts only once
/// [`Allowed::is_still`] has said yes.
#[derive(Clone, Copy)]
pub(crate) struct Allowed {
    storage: Storage,
    exit: *const Exit,
    generation: u32,
}

impl Allowed {
    /// `exit` is the slot of this generation.
    #[inline(always)]
    pub(crate) fn new(storage: Storage, exit: *const Exit, generation: u32) -> Self {
        Self {
            storage,
            exit,
            generation,
        }
    }

    /// Whether the exit is the one in use, and so was all the time: its slot is written again only
    /// when the generation has moved on.
    #[inline(always)]
    pub(crate) fn is_still(self) -> bool {
        self.storage.generation() == self.generation
    }

    #[inline(always)]
    pub(crate) fn kind(self) -> Kind {
        // SAFETY: the slot lies in the storage, is aligned, and any bytes make an `Exit`.
        unsafe { Exit::read_kind(self.exit) }
    }

    /// Source and destination, as they stand in the UDP header; source 0: the flow's.
    #[inline(always)]
    pub(crate) fn ports(self) -> u32 {
        // SAFETY: as in `kind`.
        unsafe { Exit::read_ports(self.exit) }
    }

    #[inline(always)]
    pub(crate) fn gateway(self) -> [u64; 2] {
        // SAFETY: as in `kind`.
        unsafe {
            [
                (&raw const (*self.exit).gateway[0]).read_volatile(),
                (&raw const (*self.exit).gateway[1]).read_volatile(),
            ]
        }
    }

    /// The outer source, if it is set.
    #[inline(always)]
    pub(crate) fn source(self) -> Option<[u64; 2]> {
        // SAFETY: as in `kind`.
        let source = unsafe {
            [
                (&raw const (*self.exit).source[0]).read_volatile(),
                (&raw const (*self.exit).source[1]).read_volatile(),
            ]
        };
        (source[0] | source[1] != 0).then_some(source)
    }

    /// The first word of the custom header.
    #[inline(always)]
    pub(crate) fn word(self) -> u64 {
        // SAFETY: as in `kind`.
        unsafe { (&raw const (*self.exit).header[0]).read_volatile() }
    }
}

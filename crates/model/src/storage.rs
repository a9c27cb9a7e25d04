//! A socket's storage, what `abi::SocketState` holds: its exit, whether that was judged, its
//! counters, and what reflection keeps.

use crate::policy::Judge;
use dynencap_abi::{Exit, Reason};
use std::cell::Cell;

/// TC egress writes through a shared reference, as in the kernel: what it writes are counters.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    pub(crate) exit: Exit,
    /// Number of writes of `exit`.
    generation: u32,
    checked: Cell<u64>,
    pub(crate) encapsulated: Cell<u64>,
    pub(crate) dropped: Cell<u64>,
    pub(crate) last_drop: Cell<u32>,
    pub(crate) reflecting: Reflecting,
}

/// What reflection keeps in a socket's storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reflecting {
    /// `abi::SocketState::reflect`.
    pub flags: u32,
    /// Id of the socket's cgroup; 0: nothing was captured for it or its listener.
    pub cgroup: u64,
    /// End of the newest segment's sequence range << 32 | its acknowledgement number; 0: none.
    pub newest: u64,
}

impl Storage {
    pub(crate) fn new() -> Self {
        Self {
            exit: Exit::NONE,
            generation: 0,
            checked: Cell::new(0),
            encapsulated: Cell::new(0),
            dropped: Cell::new(0),
            last_drop: Cell::new(0),
            reflecting: Reflecting::default(),
        }
    }

    pub(crate) fn write(&mut self, exit: Exit) {
        self.exit = exit;
        self.generation = self.generation.wrapping_add(1);
    }

    pub(crate) fn has_gateway(&self) -> bool {
        self.exit.flags & Exit::GATEWAY != 0
    }

    /// Section 2, step 5: asks anew only when exit or policies changed since the last yes.
    pub(crate) fn permitted<'a>(
        &self,
        policy_generation: u32,
        judge: impl FnOnce() -> Judge<'a>,
    ) -> bool {
        if self.is_permitted(policy_generation) {
            return true;
        }
        let allowed = judge().allows(&self.exit);
        if allowed {
            self.checked.set(self.current(policy_generation));
        }
        allowed
    }

    /// Whether the last answer was a yes, and still holds.
    pub(crate) fn is_permitted(&self, policy_generation: u32) -> bool {
        self.checked.get() == self.current(policy_generation)
    }

    fn current(&self, policy_generation: u32) -> u64 {
        u64::from(policy_generation) << 32 | u64::from(self.generation)
    }

    pub(crate) fn encapsulated(&self) {
        self.encapsulated
            .set(self.encapsulated.get().wrapping_add(1));
    }

    pub(crate) fn dropped(&self, reason: Reason) {
        self.dropped.set(self.dropped.get().wrapping_add(1));
        self.last_drop.set(reason as u32);
    }
}

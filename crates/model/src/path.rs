//! What is known of the ways to the exits: the map `PATHS`. Section 1 puts keys in, section 8
//! learns, section 2 asks. The kernel's map is an LRU hash of 4,096 entries; here nothing is
//! ever evicted.

use dynencap_abi::{Exit, PathKey, PathState};
use std::collections::BTreeMap;

/// The maps `PATHS` and `PATHS_LEARNED`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    states: BTreeMap<PathKey, PathState>,
    learned: bool,
}

/// The exit's kind; none without a gateway.
pub(crate) fn key_of(exit: &Exit) -> Option<PathKey> {
    let udp = exit.flags & Exit::UDP;
    (exit.flags & Exit::GATEWAY != 0).then_some(PathKey {
        gateway: exit.gateway,
        destination_port: if udp == 0 {
            [0; 2]
        } else {
            exit.destination_port
        },
        flags: udp,
        reserved: 0,
    })
}

impl Paths {
    /// Somebody chose this exit: what was learned before stays.
    pub(crate) fn choose(&mut self, exit: &Exit) {
        if let Some(key) = key_of(exit) {
            self.states.entry(key).or_default().header_len = match key.flags {
                0 => 0,
                _ => exit.header_len.into(),
            };
        }
    }

    pub(crate) fn state(&self, key: &PathKey) -> Option<&PathState> {
        self.states.get(key)
    }

    /// The path MTU of the exit, while it holds.
    pub(crate) fn mtu(&self, exit: &Exit, now: u64) -> Option<u32> {
        if !self.learned {
            return None;
        }
        let state = self.states.get(&key_of(exit)?)?;
        fresh(state, now)
    }

    pub(crate) fn learn(&mut self, key: &PathKey, mtu: u32, now: u64) {
        if let Some(state) = self.states.get_mut(key) {
            state.mtu = mtu;
            state.learned = now;
            self.learned = true;
        }
    }
}

/// RFC 8201 §4: what was learned ten minutes ago is tried anew.
pub(crate) fn fresh(state: &PathState, now: u64) -> Option<u32> {
    let age = now.checked_sub(state.learned)?;
    (state.mtu != 0 && age < PathState::LIFETIME).then_some(state.mtu)
}

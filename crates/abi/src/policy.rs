//! What a cgroup may do: keys and values of the policy maps, which the operator writes and the
//! programs only read.

use crate::Exit;
use core::mem::{offset_of, size_of};

/// Destination ports from `first` to `last`, both included, in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

/// Value of the map [`crate::object::POLICIES`]; the key is the id of a cgroup (`u64`, host byte
/// order: the inode number of its directory).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Where IPv6 headers come from: outer source of this cgroup's sockets; all zero: as
    /// without a policy.
    pub source: [u8; 16],
    /// The same for IPv4 headers.
    pub source4: [u8; 4],
    /// Names the policy in [`PolicyExitKey`]; one of its own for each entry.
    pub id: u32,
    /// The flags below.
    pub flags: u32,
    /// Overhead in bytes for which the routes of this cgroup's sockets are planned from their
    /// creation on; 0: none, at most [`crate::MAX_OVERHEAD`].
    pub reserve: u32,
    /// How many of `ports` hold; without any, no UDP encapsulation is allowed.
    pub port_count: u32,
    /// Default of [`crate::option::ENCAP_REFLECT`] for the cgroup's sockets.
    pub reflect: u32,
    /// UDP destination ports that are allowed.
    pub ports: [PortRange; Self::MAX_PORTS],
    /// With [`Policy::DEFAULT_EXIT`]: the exit with which each new socket begins. Its
    /// `source` is zero: the policy's own applies.
    pub default_exit: Exit,
}

impl Policy {
    /// Custom headers behind UDP are allowed.
    pub const CUSTOM_HEADERS: u32 = 1;
    /// New sockets begin with `default_exit`.
    pub const DEFAULT_EXIT: u32 = 2;
    /// A gateway may be changed, but not cleared.
    pub const REQUIRED: u32 = 4;
    /// How many port ranges a policy holds.
    pub const MAX_PORTS: usize = 8;

    /// The value's bytes as the map holds them, in this machine's byte order.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..16].copy_from_slice(&self.source);
        bytes[16..20].copy_from_slice(&self.source4);
        let words = [
            self.id,
            self.flags,
            self.reserve,
            self.port_count,
            self.reflect,
        ];
        for (place, word) in bytes[20..40].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        for (place, range) in bytes[40..72].chunks_exact_mut(4).zip(self.ports) {
            place[..2].copy_from_slice(&range.first.to_ne_bytes());
            place[2..].copy_from_slice(&range.last.to_ne_bytes());
        }
        bytes[72..].copy_from_slice(&self.default_exit.to_bytes());
        bytes
    }
}

/// Applications may choose the gateway.
pub const POLICY_EXIT_CHOOSE: u32 = 1;
/// Replies may be sent to the gateway, by which packets came (reflection).
pub const POLICY_EXIT_REFLECT: u32 = 2;
/// With [`POLICY_EXIT_REFLECT`]: a live connection's replies may move to it.
pub const POLICY_EXIT_FOLLOW: u32 = 4;

/// Key of the `LPM_TRIE` [`crate::object::POLICY_EXITS`]. The longest prefix that matches a
/// gateway decides: the value (`u32`) is of the bits [`POLICY_EXIT_CHOOSE`],
/// [`POLICY_EXIT_REFLECT`] and [`POLICY_EXIT_FOLLOW`]; 0, or no prefix, denies.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyExitKey {
    /// Length in bits of what follows: 32 for the policy, then the gateway's prefix.
    pub prefix_len: u32,
    /// [`Policy::id`], in host byte order.
    pub policy: u32,
    /// The gateway, network order, IPv4 as IPv4-mapped (its prefixes are 96 bits longer).
    pub address: [u8; 16],
}

impl PolicyExitKey {
    /// The key's bytes as the map holds them.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..4].copy_from_slice(&self.prefix_len.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.policy.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.address);
        bytes
    }
}

const _: () = assert!(size_of::<Policy>() == 144);
const _: () = assert!(offset_of!(Policy, id) == 20 && offset_of!(Policy, ports) == 40);
const _: () = assert!(offset_of!(Policy, default_exit) == 72);
const _: () = assert!(size_of::<PolicyExitKey>() == 24);

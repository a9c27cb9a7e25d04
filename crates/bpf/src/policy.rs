//! The policy in force for a task or a packet, and what it allows (docs/datapath.md §7).
//!
//! User space may replace a policy while it is read, and the kernel reuses the place of the old
//! one: a decision can then be of both. It does not last, since whoever changes a policy raises
//! the generation afterwards, and egress asks anew.

use crate::{
    exit::Exit,
    flow::mapped,
    map::{self, POLICIES, POLICY_EXITS},
};
use aya_ebpf::{
    bindings::__sk_buff,
    btf_maps::lpm_trie::Key,
    helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_skb_ancestor_cgroup_id},
};
use core::mem::{align_of, offset_of, size_of};
use dynencap_abi::{
    Config, MAX_CGROUP_LEVELS, POLICY_EXIT_CHOOSE, POLICY_EXIT_FOLLOW, POLICY_EXIT_REFLECT,
    PortRange,
    option::{REFLECT_DSCP, REFLECT_MARK, REFLECT_PATH},
};

/// Id of cgroup v2's root.
const ROOT: u64 = 1;
/// The bits of `ENCAP_REFLECT`.
pub(crate) const REFLECT_ALL: u32 = REFLECT_PATH | REFLECT_DSCP | REFLECT_MARK;

/// `abi::Policy` with addresses and exit as words.
#[repr(C)]
pub(crate) struct Policy {
    source: [u64; 2],
    source4: u32,
    id: u32,
    flags: u32,
    pub(crate) reserve: u32,
    port_count: u32,
    pub(crate) reflect: u32,
    ports: [PortRange; dynencap_abi::Policy::MAX_PORTS],
    pub(crate) default_exit: Exit,
}

/// What follows the prefix length in `abi::PolicyExitKey`: policy and address.
pub(crate) type PolicyExitKey = [u32; 5];

/// `abi::PolicyExitKey`, aligned: aya-ebpf's `Key` is packed, and the verifier wants words on
/// the stack to be aligned.
#[repr(C)]
struct Prefix {
    len: u32,
    key: PolicyExitKey,
}

const _: () = {
    use dynencap_abi::{Policy as Abi, PolicyExitKey as AbiKey};
    assert!(size_of::<Policy>() == size_of::<Abi>());
    assert!(offset_of!(Policy, source4) == offset_of!(Abi, source4));
    assert!(offset_of!(Policy, id) == offset_of!(Abi, id));
    assert!(offset_of!(Policy, flags) == offset_of!(Abi, flags));
    assert!(offset_of!(Policy, reserve) == offset_of!(Abi, reserve));
    assert!(offset_of!(Policy, port_count) == offset_of!(Abi, port_count));
    assert!(offset_of!(Policy, ports) == offset_of!(Abi, ports));
    assert!(offset_of!(Policy, default_exit) == offset_of!(Abi, default_exit));
    assert!(size_of::<Prefix>() == size_of::<AbiKey>());
    assert!(size_of::<Prefix>() == size_of::<Key<PolicyExitKey>>());
    assert!(offset_of!(AbiKey, policy) == 4 && offset_of!(AbiKey, address) == 8);
    assert!(align_of::<Key<PolicyExitKey>>() == 1);
};

impl Policy {
    /// One of `abi::Policy`'s flags.
    #[inline(always)]
    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// The outer source of this cgroup's sockets, in the exit's family; all zero: none.
    #[inline(always)]
    fn source(&self, exit: &Exit) -> [u64; 2] {
        if !exit.is_ipv4() {
            self.source
        } else if self.source4 == 0 {
            [0; 2]
        } else {
            mapped(self.source4)
        }
    }

    /// With which exit a new socket begins.
    #[inline(always)]
    pub(crate) fn first_exit(&self) -> Exit {
        let mut exit = self.default_exit;
        if exit.has_gateway() {
            exit.source = self.source(&exit);
        }
        exit
    }

    /// The bits of the longest prefix that matches the gateway; 0 where none does.
    #[inline(always)]
    fn exits(&self, gateway: [u64; 2]) -> u32 {
        let [high, low] = gateway.map(u64::from_le);
        let [a, b, c, d] = [high, high >> 32, low, low >> 32].map(|word| (word as u32).to_le());
        let prefix = Prefix {
            len: 8 * size_of::<PolicyExitKey>() as u32,
            key: [self.id, a, b, c, d],
        };
        // SAFETY: both are a length and 20 bytes, as asserted above; `Key` asks for no alignment.
        let key = unsafe { &*(&raw const prefix).cast::<Key<PolicyExitKey>>() };
        POLICY_EXITS.get(key).copied().unwrap_or(0)
    }

    /// The port as on the wire.
    #[inline(always)]
    fn allows_udp(&self, port: u16, header_len: u32) -> bool {
        if header_len != 0 && !self.has(dynencap_abi::Policy::CUSTOM_HEADERS) {
            return false;
        }
        let port = u16::from_be(port);
        for (index, range) in self.ports.iter().enumerate() {
            if (index as u32) < self.port_count && range.first <= port && port <= range.last {
                return true;
            }
        }
        false
    }
}

/// A policy, or none and then what the configuration says.
#[derive(Clone, Copy)]
pub(crate) struct InForce(Option<&'static Policy>);

impl InForce {
    /// For the task that makes the system call.
    #[inline(always)]
    pub(crate) fn of_task() -> Self {
        // SAFETY: takes any level.
        Self::nearest(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })
    }

    /// For the socket of a packet: where that is a request, its listener's.
    #[inline(always)]
    pub(crate) fn of_packet(skb: *mut __sk_buff) -> Self {
        // SAFETY: the hook's context, and any level.
        Self::nearest(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) })
    }

    /// For what the kernel itself sends: the root's.
    #[inline(always)]
    pub(crate) fn of_root() -> Self {
        // SAFETY: as in `nearest`.
        Self(unsafe { POLICIES.get(ROOT) })
    }

    /// By the ids of the cgroup's ancestors: level 0 is the root, 0 stands for a level below the
    /// cgroup itself.
    #[inline(always)]
    fn nearest(ancestor: impl Fn(i32) -> u64) -> Self {
        let mut level = MAX_CGROUP_LEVELS as i32;
        while level > 0 {
            level -= 1;
            let id = ancestor(level);
            if id == 0 {
                continue;
            }
            // SAFETY: plain numbers, see the module's comment; the programs never write here.
            if let Some(policy) = unsafe { POLICIES.get(id) } {
                return Self(Some(policy));
            }
        }
        Self(None)
    }

    #[inline(always)]
    pub(crate) fn policy(self) -> Option<&'static Policy> {
        self.0
    }

    /// May a socket be without a gateway again?
    #[inline(always)]
    pub(crate) fn allows_clearing(self) -> bool {
        self.0
            .is_none_or(|policy| !policy.has(dynencap_abi::Policy::REQUIRED))
    }

    #[inline(always)]
    pub(crate) fn allows_gateway(self, gateway: [u64; 2]) -> bool {
        match self.0 {
            Some(policy) => policy.exits(gateway) & POLICY_EXIT_CHOOSE != 0,
            None => is_open(),
        }
    }

    /// May replies leave by the gateway by which packets came?
    #[inline(always)]
    pub(crate) fn allows_reflection(self, gateway: [u64; 2]) -> bool {
        match self.0 {
            Some(policy) => policy.exits(gateway) & POLICY_EXIT_REFLECT != 0,
            None => is_open(),
        }
    }

    /// May replies move to this gateway (where they may be reflected there)?
    #[inline(always)]
    pub(crate) fn allows_following(self, gateway: [u64; 2]) -> bool {
        match self.0 {
            Some(policy) => policy.exits(gateway) & POLICY_EXIT_FOLLOW != 0,
            None => false,
        }
    }

    /// What is reflected for sockets that say nothing about it.
    #[inline(always)]
    pub(crate) fn reflect(self) -> u32 {
        match self.0 {
            Some(policy) => policy.reflect & REFLECT_ALL,
            None => 0,
        }
    }

    /// May `ENCAP_REFLECT` be set to something?
    #[inline(always)]
    pub(crate) fn allows_reflect_option(self) -> bool {
        self.0.is_some() || is_open()
    }

    /// The port as on the wire.
    #[inline(always)]
    pub(crate) fn allows_udp(self, port: u16, header_len: u32) -> bool {
        match self.0 {
            Some(policy) => policy.allows_udp(port, header_len),
            None => is_open(),
        }
    }

    /// The outer source that the exit must have.
    #[inline(always)]
    pub(crate) fn source(self, exit: &Exit) -> [u64; 2] {
        match self.0 {
            Some(policy) => policy.source(exit),
            None => [0; 2],
        }
    }

    /// The whole exit, as egress asks.
    #[inline(always)]
    pub(crate) fn allows(self, exit: &Exit) -> bool {
        if exit.is_reflected() {
            return self.allows_reflection(exit.gateway);
        }
        let [high, low] = self.source(exit);
        self.allows_gateway(exit.gateway)
            && (!exit.has_udp() || self.allows_udp(exit.destination_port(), exit.header_len()))
            && (exit.source[0] ^ high) | (exit.source[1] ^ low) == 0
    }
}

/// Is everything allowed where there is no policy?
#[inline(always)]
fn is_open() -> bool {
    map::config().is_some_and(|config| !config.has(Config::DENY_BY_DEFAULT))
}

//! Policy per cgroup (section 7): which policy is in force, and what it allows.
//! When it is asked, sections 1 and 2 say.

use crate::option::Errno;
use crate::wire::mapped;
use dynencap_abi::option::EINVAL;
use dynencap_abi::{
    Config, Exit, MAX_CGROUP_LEVELS, POLICY_EXIT_CHOOSE, POLICY_EXIT_FOLLOW, POLICY_EXIT_REFLECT,
    Policy, PolicyExitKey,
};
use std::collections::BTreeMap;

/// What a prefix is made of: the policy's id in host byte order, then the gateway.
const KEY_LEN: usize = 20;
const KEY_BITS: u32 = 8 * KEY_LEN as u32;

/// The maps `POLICIES` and `POLICY_EXITS`.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    by_cgroup: BTreeMap<u64, Policy>,
    /// By length in bits; bits behind the prefix are zero.
    prefixes: BTreeMap<(u32, [u8; KEY_LEN]), u32>,
}

impl Policies {
    /// The policy of the cgroup with this id.
    pub fn insert(&mut self, cgroup: u64, policy: Policy) {
        self.by_cgroup.insert(cgroup, policy);
    }

    /// Removes a cgroup's own policy and returns it.
    pub fn remove(&mut self, cgroup: u64) -> Option<Policy> {
        self.by_cgroup.remove(&cgroup)
    }

    /// Adds a prefix, or changes its value. As in the kernel's trie, bits behind the prefix
    /// do not matter and a prefix of more than 160 bits is `EINVAL`.
    pub fn insert_exit(&mut self, key: &PolicyExitKey, value: u32) -> Result<(), Errno> {
        if key.prefix_len > KEY_BITS {
            return Err(Errno(EINVAL));
        }
        self.prefixes.insert(prefix(key), value);
        Ok(())
    }

    /// Removes a prefix and returns its value.
    pub fn remove_exit(&mut self, key: &PolicyExitKey) -> Option<u32> {
        self.prefixes.remove(&prefix(key))
    }

    /// The policy of the nearest cgroup that has one; `path` holds ids, the root's first.
    #[must_use]
    pub fn in_force(&self, path: &[u64]) -> Option<&Policy> {
        let searched = path.get(..MAX_CGROUP_LEVELS).unwrap_or(path);
        searched
            .iter()
            .rev()
            .find_map(|cgroup| self.by_cgroup.get(cgroup))
    }

    /// Who judges calls and packets from this cgroup.
    pub(crate) fn judge<'a>(&'a self, config: &Config, path: &[u64]) -> Judge<'a> {
        Judge {
            policies: self,
            policy: self.in_force(path),
            deny: config.flags & Config::DENY_BY_DEFAULT != 0,
        }
    }

    /// The bits `POLICY_EXIT_…` of the longest prefix that matches.
    fn rights(&self, policy: u32, gateway: [u8; 16]) -> u32 {
        let key = |prefix_len| PolicyExitKey {
            prefix_len,
            policy,
            address: gateway,
        };
        (0..=KEY_BITS)
            .rev()
            .find_map(|len| self.prefixes.get(&prefix(&key(len))))
            .copied()
            .unwrap_or(0)
    }
}

fn prefix(key: &PolicyExitKey) -> (u32, [u8; KEY_LEN]) {
    let mut octets = [0; KEY_LEN];
    octets[..4].copy_from_slice(&key.policy.to_ne_bytes());
    octets[4..].copy_from_slice(&key.address);
    for (index, octet) in octets.iter_mut().enumerate() {
        let kept = key.prefix_len.saturating_sub(8 * index as u32).min(8);
        *octet &= !(0xff_u16 >> kept) as u8;
    }
    (key.prefix_len, octets)
}

/// The policy in force for one cgroup, or none.
pub(crate) struct Judge<'a> {
    policies: &'a Policies,
    pub(crate) policy: Option<&'a Policy>,
    deny: bool,
}

impl Judge<'_> {
    pub(crate) fn allows_gateway(&self, gateway: [u8; 16]) -> bool {
        match self.policy {
            Some(policy) => self.has(policy, gateway, POLICY_EXIT_CHOOSE),
            None => !self.deny,
        }
    }

    /// Whether replies may be sent to the gateway by which packets came.
    pub(crate) fn allows_reflection(&self, gateway: [u8; 16]) -> bool {
        match self.policy {
            Some(policy) => self.has(policy, gateway, POLICY_EXIT_REFLECT),
            None => !self.deny,
        }
    }

    /// Whether the replies of a live connection may move there; nobody is followed without a
    /// policy that says so.
    pub(crate) fn allows_following(&self, gateway: [u8; 16]) -> bool {
        let both = POLICY_EXIT_REFLECT | POLICY_EXIT_FOLLOW;
        self.policy
            .is_some_and(|policy| self.has(policy, gateway, both))
    }

    /// Whether `ENCAP_REFLECT` may set these bits.
    pub(crate) fn allows_reflecting(&self, bits: u32) -> bool {
        self.policy.is_some() || !self.deny || bits == 0
    }

    fn has(&self, policy: &Policy, gateway: [u8; 16], rights: u32) -> bool {
        self.policies.rights(policy.id, gateway) & rights == rights
    }

    pub(crate) fn allows_udp(&self, destination_port: [u8; 2], header_len: u8) -> bool {
        let Some(policy) = self.policy else {
            return !self.deny;
        };
        let port = u16::from_be_bytes(destination_port);
        let count = usize::try_from(policy.port_count).unwrap_or(usize::MAX);
        let ports = policy.ports.iter().take(count);
        let headers = policy.flags & Policy::CUSTOM_HEADERS != 0;
        (headers || header_len == 0)
            && ports
                .into_iter()
                .any(|range| (range.first..=range.last).contains(&port))
    }

    pub(crate) fn allows_clearing_gateway(&self) -> bool {
        self.policy
            .is_none_or(|policy| policy.flags & Policy::REQUIRED == 0)
    }

    /// The outer source of exits with this gateway: all zero where the policy gives none.
    pub(crate) fn source(&self, flags: u8) -> [u8; 16] {
        match self.policy {
            Some(policy) if flags & Exit::IPV4 == 0 => policy.source,
            Some(policy) if policy.source4 != [0; 4] => mapped(policy.source4),
            _ => [0; 16],
        }
    }

    /// The exit as a whole, as egress asks.
    pub(crate) fn allows(&self, exit: &Exit) -> bool {
        if exit.flags & Exit::REFLECTED != 0 {
            return self.allows_reflection(exit.gateway);
        }
        self.allows_gateway(exit.gateway)
            && (exit.flags & Exit::UDP == 0
                || self.allows_udp(exit.destination_port, exit.header_len))
            && exit.source == self.source(exit.flags)
    }
}

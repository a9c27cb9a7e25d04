//! The maps, under the names of `abi::object`, and the counting of reasons and events. Keys and
//! values of policies, paths and closing connections belong to the modules that look there.

use crate::{
    closing::FlowKey,
    custom::Tunnel,
    exit::Exit,
    path::PathKey,
    policy::{Policy, PolicyExitKey},
    reflected::Reflected,
    staged::Staged,
    storage::{SocketStorage, add_one},
};
use aya_ebpf::{
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use core::{
    mem::{offset_of, size_of},
    ptr::NonNull,
};
use dynencap_abi::{
    Event, PathState, Reason,
    object::{
        MAX_CLOSING, MAX_PATHS, MAX_POLICIES, MAX_POLICY_EXITS, MAX_REFLECTED, MAX_STAGED,
        MAX_TUNNELS,
    },
};

#[btf_map]
pub(crate) static SOCKETS: SocketStorage = SocketStorage::new();
#[btf_map]
static CONFIG: Array<Config, 1> = Array::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, { Reason::COUNT }> = PerCpuArray::new();
#[btf_map]
static TUNNELS: HashMap<TunnelKey, Tunnel, { MAX_TUNNELS as usize }> = HashMap::new();
#[btf_map]
static EVENTS: PerCpuArray<u64, { Event::COUNT }> = PerCpuArray::new();
#[btf_map]
pub(crate) static POLICIES: HashMap<u64, Policy, { MAX_POLICIES as usize }> = HashMap::new();
#[btf_map]
pub(crate) static POLICY_EXITS: LpmTrie<PolicyExitKey, u32, { MAX_POLICY_EXITS as usize }> =
    LpmTrie::new();
#[btf_map]
pub(crate) static CLOSING: LruHashMap<FlowKey, Exit, { MAX_CLOSING as usize }> = LruHashMap::new();
#[btf_map]
pub(crate) static REFLECTED: LruHashMap<FlowKey, Reflected, { MAX_REFLECTED as usize }> =
    LruHashMap::new();
#[btf_map]
pub(crate) static STAGED: Array<Staged, { MAX_STAGED as usize }> = Array::new();
#[btf_map]
pub(crate) static STAGED_COUNT: PerCpuArray<u32, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static PATHS: LruHashMap<PathKey, PathState, { MAX_PATHS as usize }> = LruHashMap::new();
#[btf_map]
pub(crate) static PATHS_LEARNED: Array<u32, 1> = Array::new();
#[btf_map]
static LAB_DEVICE: Array<u32, 1> = Array::new();

/// `abi::Config` with the address as words.
#[repr(C)]
pub(crate) struct Config {
    source: [u32; 4],
    /// Outer source for IPv6 packets in IPv4, as on the wire; 0: none.
    pub(crate) source4: u32,
    pub(crate) uplink_mtu: u32,
    pub(crate) flags: u32,
    pub(crate) policy_generation: u32,
    pub(crate) hop_limit: u32,
    pub(crate) segmenter: u32,
    pub(crate) uplink: u32,
    reserved: u32,
}

/// `abi::TunnelKey` in words: built from bytes it would be filled byte by byte.
#[repr(C)]
pub(crate) struct TunnelKey {
    pub(crate) address: [u32; 4],
    /// Protocol, a zero byte, port.
    protocol_port: u32,
}

const _: () = {
    use dynencap_abi as abi;
    assert!(size_of::<Config>() == size_of::<abi::Config>());
    assert!(offset_of!(Config, uplink_mtu) == offset_of!(abi::Config, uplink_mtu));
    assert!(offset_of!(Config, flags) == offset_of!(abi::Config, flags));
    assert!(offset_of!(Config, source4) == offset_of!(abi::Config, source4));
    assert!(
        offset_of!(Config, policy_generation) == offset_of!(abi::Config, policy_generation)
            && offset_of!(Config, hop_limit) == offset_of!(abi::Config, hop_limit)
            && offset_of!(Config, segmenter) == offset_of!(abi::Config, segmenter)
            && offset_of!(Config, uplink) == offset_of!(abi::Config, uplink)
    );
    assert!(size_of::<TunnelKey>() == size_of::<abi::TunnelKey>());
    assert!(offset_of!(TunnelKey, protocol_port) == offset_of!(abi::TunnelKey, protocol));
    assert!(offset_of!(abi::TunnelKey, port) == offset_of!(TunnelKey, protocol_port) + 2);
};

impl Config {
    /// One of `abi::Config`'s flags.
    #[inline(always)]
    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// What `SocketState::checked` is for an exit of this generation that may be used.
    #[inline(always)]
    pub(crate) fn wanted(&self, generation: u32) -> u64 {
        u64::from(self.policy_generation) << 32 | u64::from(generation)
    }

    /// Outer source for IPv4 packets in IPv6; all zero: none.
    #[inline(always)]
    pub(crate) fn source(&self) -> [u64; 2] {
        let [a, b, c, d] = self.source.map(|word| u64::from(u32::from_le(word)));
        [(a | b << 32).to_le(), (c | d << 32).to_le()]
    }
}

impl TunnelKey {
    /// The port as on the wire.
    #[inline(always)]
    pub(crate) fn new(address: [u32; 4], protocol: u8, port: u16) -> Self {
        let port = u32::from(u16::from_le(port));
        Self {
            address,
            protocol_port: (u32::from(protocol) | port << 16).to_le(),
        }
    }
}

/// What the operator set. `None` cannot happen (the array has one value), but the verifier
/// does not know it.
#[inline(always)]
pub(crate) fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

#[inline(always)]
pub(crate) fn lab_device() -> Option<u32> {
    LAB_DEVICE.get(0).copied()
}

#[inline(always)]
pub(crate) fn tunnel(key: &TunnelKey) -> Option<Tunnel> {
    // SAFETY: the bytes are copied at once, as one word; an element that user space deletes
    // meanwhile is freed or reused only after the program ends, or holds another tunnel's.
    unsafe { TUNNELS.get(key) }.copied()
}

/// Whether reflection is on.
#[inline(always)]
pub(crate) fn reflects() -> bool {
    config().is_some_and(|config| config.has(dynencap_abi::Config::REFLECT))
}

/// A reason's counter.
#[derive(Clone, Copy)]
pub(crate) struct Counter(NonNull<u64>);

impl Counter {
    /// `None` cannot happen, as in [`config`].
    #[inline(always)]
    pub(crate) fn of(reason: Reason) -> Option<Self> {
        COUNTERS
            .get_ptr_mut(reason as u32)
            .and_then(NonNull::new)
            .map(Self)
    }

    #[inline(always)]
    pub(crate) fn add_one(self) {
        let counter = self.0.as_ptr();
        // SAFETY: a value of this CPU, and TC programs do not interrupt each other on one CPU
        // (bottom halves are off), so a plain add is enough. An atomic one would cost 5 ns,
        // and with relaxed order LLVM makes a non-fetching add of it even where the result is
        // used.
        unsafe { *counter = (*counter).wrapping_add(1) }
    }
}

/// Adds one to the reason's counter.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    if let Some(counter) = Counter::of(reason) {
        counter.add_one();
    }
}

/// Adds one to the event's counter. Atomic: a program of the control path can be interrupted by
/// one of TC on the same CPU.
#[inline(always)]
pub(crate) fn count_event(event: Event) {
    if let Some(counter) = EVENTS.get_ptr_mut(event as u32) {
        add_one(counter);
    }
}

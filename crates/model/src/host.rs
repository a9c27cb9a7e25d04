//! One host: its configuration, tunnels, policies and counters, and the calls that sockets
//! make. The packets' way through it is left to `step`.

use crate::option::{Errno, OptionValue};
use crate::path::Paths;
use crate::policy::Policies;
use crate::socket::{Socket, SocketKind};
use crate::tunnel::Tunnels;
use dynencap_abi::option::{AF_INET, AF_INET6, ENCAP_GW, ENCAP_UDP, EPERM, IPPROTO_MPTCP};
use dynencap_abi::{
    Config, Event, Exit, FlowKey, PathKey, PathState, Policy, PolicyExitKey, Reason, Reflected,
    TunnelKey, TunnelSpec,
};
use std::collections::BTreeMap;

/// Model of one host.
///
/// Its maps evict nothing: that `CLOSING`, `PATHS` and `REFLECTED` are LRU hashes in the kernel is
/// not modelled, nor that a full map refuses an entry.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) config: Config,
    pub(crate) tunnels: Tunnels,
    pub(crate) policies: Policies,
    pub(crate) paths: Paths,
    pub(crate) closing: BTreeMap<FlowKey, Exit>,
    pub(crate) reflected: BTreeMap<FlowKey, Reflected>,
    pub(crate) now: u64,
    counters: [u64; Reason::COUNT],
    events: [u64; Event::COUNT],
    /// Holds one segment at a time on its way through the segmenter.
    pub(crate) scratch: Vec<u8>,
}

impl Host {
    /// A host without tunnels and policies, at time 0.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            tunnels: Tunnels::default(),
            policies: Policies::default(),
            paths: Paths::default(),
            closing: BTreeMap::new(),
            reflected: BTreeMap::new(),
            now: 0,
            counters: [0; Reason::COUNT],
            events: [0; Event::COUNT],
            scratch: Vec::new(),
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The next packet goes by this configuration.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// The time of all that follows, in nanoseconds of whatever clock: the host has none.
    pub fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    /// The tunnels that end here.
    #[must_use]
    pub fn tunnels(&self) -> &Tunnels {
        &self.tunnels
    }

    /// Adds a tunnel, or changes how its headers are taken off.
    pub fn add_tunnel(&mut self, key: TunnelKey, spec: TunnelSpec) {
        self.tunnels.insert(key, spec);
    }

    /// Removes a tunnel and returns it.
    pub fn remove_tunnel(&mut self, key: &TunnelKey) -> Option<TunnelSpec> {
        self.tunnels.remove(key)
    }

    /// The policies of this host's cgroups.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Sets a cgroup's policy. Live sockets heed it once the caller has raised
    /// `Config::policy_generation`.
    pub fn set_policy(&mut self, cgroup: u64, policy: Policy) {
        self.policies.insert(cgroup, policy);
    }

    /// Removes a cgroup's own policy and returns it; the generation is the caller's.
    pub fn remove_policy(&mut self, cgroup: u64) -> Option<Policy> {
        self.policies.remove(cgroup)
    }

    /// Gives a prefix of gateways the rights `POLICY_EXIT_…`, 0 for none; the generation is the caller's.
    /// `EINVAL` as [`Policies::insert_exit`].
    pub fn set_policy_exit(&mut self, key: &PolicyExitKey, value: u32) -> Result<(), Errno> {
        self.policies.insert_exit(key, value)
    }

    /// Removes a prefix and returns its value; the generation is the caller's.
    pub fn remove_policy_exit(&mut self, key: &PolicyExitKey) -> Option<u32> {
        self.policies.remove_exit(key)
    }

    /// How many packets each reason has met.
    #[must_use]
    pub fn counters(&self) -> &[u64; Reason::COUNT] {
        &self.counters
    }

    /// How often each event has happened.
    #[must_use]
    pub fn events(&self) -> &[u64; Event::COUNT] {
        &self.events
    }

    /// What is known of the way to exits of this kind.
    #[must_use]
    pub fn path(&self, key: &PathKey) -> Option<&PathState> {
        self.paths.state(key)
    }

    /// The exit kept for what the kernel still sends for a connection whose socket is gone.
    #[must_use]
    pub fn kept(&self, flow: &FlowKey) -> Option<&Exit> {
        self.closing.get(flow)
    }

    /// `socket(2)` by a task of this cgroup, given as ids from the root's on: with its default
    /// exit, or `EPERM`.
    pub fn create_socket(&mut self, cgroup: &[u64], kind: SocketKind) -> Result<Socket, Errno> {
        let mut socket = Socket::in_cgroup(kind, cgroup);
        let judge = self.policies.judge(&self.config, cgroup);
        let Some(policy) = judge.policy else {
            return Ok(socket);
        };
        if !matches!(kind.family, AF_INET | AF_INET6) {
            return Ok(socket);
        }
        if policy.flags & Policy::DEFAULT_EXIT == 0 {
            socket.reserve(policy);
            return Ok(socket);
        }
        if kind.protocol == IPPROTO_MPTCP {
            self.happened(Event::SocketRefused);
            return Err(Errno(EPERM));
        }
        let exit = Exit {
            source: judge.source(policy.default_exit.flags),
            ..policy.default_exit
        };
        socket.set_exit(exit);
        self.paths.choose(&exit);
        self.happened(Event::DefaultExit);
        Ok(socket)
    }

    /// `setsockopt` at our level by a task of cgroup `caller`, given as ids from the root's
    /// on. A refused call changes nothing but its event's counter.
    pub fn set_option(
        &mut self,
        socket: &mut Socket,
        caller: &[u64],
        name: i32,
        value: &[u8],
    ) -> Result<(), Errno> {
        let judge = self.policies.judge(&self.config, caller);
        let result = socket.set_option_under(&judge, &self.config, name, value);
        if let (Ok(()), ENCAP_GW | ENCAP_UDP, Some(exit)) = (result, name, socket.exit()) {
            self.paths.choose(exit);
        }
        self.happened(match result {
            Ok(()) => Event::OptionSet,
            Err(Errno(EPERM)) => Event::OptionDenied,
            Err(_) => Event::OptionRefused,
        });
        result
    }

    /// `getsockopt` at our level by a task of the socket's own cgroup, into a buffer of
    /// `capacity` bytes.
    pub fn option(
        &self,
        socket: &Socket,
        name: i32,
        capacity: usize,
    ) -> Result<OptionValue, Errno> {
        self.option_for(socket, socket.cgroup(), name, capacity)
    }

    /// The same by a task of cgroup `caller`, given as ids from the root's on.
    pub fn option_for(
        &self,
        socket: &Socket,
        caller: &[u64],
        name: i32,
        capacity: usize,
    ) -> Result<OptionValue, Errno> {
        let uplink = self.config.uplink_mtu;
        let learned = socket
            .exit()
            .and_then(|exit| self.paths.mtu(exit, self.now));
        let path_mtu = learned.map_or(uplink, |mtu| mtu.min(uplink));
        let judge = self.policies.judge(&self.config, caller);
        socket.option_with(&judge, &self.config, path_mtu, name, capacity)
    }

    /// What was captured for replies of this flow, as they show it.
    #[must_use]
    pub fn reflected(&self, flow: &FlowKey) -> Option<&Reflected> {
        self.reflected.get(flow)
    }

    /// The map had no place for it any more.
    pub fn evict_reflected(&mut self, flow: &FlowKey) -> Option<Reflected> {
        self.reflected.remove(flow)
    }

    /// `sock_ops`: a connection of this flow, as its packets show it, is established; one that
    /// a listener accepted goes through [`Host::accepted`].
    pub fn established(&mut self, flow: &FlowKey) {
        self.closing.remove(flow);
    }

    /// `sock_ops`: a socket becomes `TCP_FIN_WAIT2` or `TCP_CLOSING`, so that TIME_WAIT may take
    /// its place at any time. `flow` is as the packets that it sent show it.
    pub fn closing(&mut self, socket: &Socket, flow: FlowKey) {
        self.keep(socket, flow);
    }

    /// `sock_ops`: a socket that was connecting or established becomes `TCP_CLOSE`, or leaves
    /// its place to TIME_WAIT.
    pub fn closed(&mut self, socket: &Socket, flow: FlowKey) {
        if self.keep(socket, flow) {
            self.happened(Event::ExitKept);
        }
    }

    /// Whether there is an exit to keep.
    fn keep(&mut self, socket: &Socket, flow: FlowKey) -> bool {
        let Some(storage) = socket.storage() else {
            return false;
        };
        if storage.has_gateway() {
            self.closing.insert(flow, storage.exit);
        } else {
            self.closing.remove(&flow);
        }
        storage.has_gateway()
    }

    pub(crate) fn count(&mut self, reason: Reason) {
        if let Some(counter) = self.counters.get_mut(reason as usize) {
            *counter = counter.wrapping_add(1);
        }
    }

    pub(crate) fn happened(&mut self, event: Event) {
        if let Some(counter) = self.events.get_mut(event as usize) {
            *counter = counter.wrapping_add(1);
        }
    }
}

//! Policies of the client's cgroups, as a test states them.

use super::Topology;
use crate::{exit::Exit, reference::stored};
use dynencap_abi::{POLICY_EXIT_CHOOSE, Policy, PolicyExitKey, PortRange};
use dynencap_kernel::Loaded;
use std::{
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What a cgroup may do.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Names the policy.
    pub id: u32,
    /// Flags of `Policy`; `DEFAULT_EXIT` comes with `default`.
    pub flags: u32,
    /// UDP destination ports, from and to.
    pub ports: (u16, u16),
    /// Prefixes of gateways, with their lengths, and whether they are allowed.
    pub gateways: Vec<(IpAddr, u8, bool)>,
    /// The exit of every new socket.
    pub default: Option<Exit>,
    /// Peers: prefix, its length, and the bits `POLICY_EXIT_…`.
    pub peers: Vec<(IpAddr, u8, u32)>,
    /// What sockets reflect that do not say.
    pub reflect: u32,
    /// Overhead in bytes for which routes are planned from a socket's creation on; 0: none.
    pub reserve: u32,
}

impl Grant {
    /// Custom headers and UDP to any port, and these gateways.
    #[must_use]
    pub fn to(id: u32, gateways: &[IpAddr]) -> Self {
        let whole = |gateway: &IpAddr| (*gateway, if gateway.is_ipv6() { 128 } else { 32 }, true);
        Self {
            id,
            flags: Policy::CUSTOM_HEADERS,
            ports: (1, u16::MAX),
            gateways: gateways.iter().map(whole).collect(),
            default: None,
            peers: Vec::new(),
            reflect: 0,
            reserve: 0,
        }
    }

    fn policy(&self) -> Policy {
        let (first, last) = self.ports;
        let mut ports = [PortRange::default(); Policy::MAX_PORTS];
        ports[0] = PortRange { first, last };
        let default = self.default.as_ref();
        Policy {
            source: [0; 16],
            source4: [0; 4],
            id: self.id,
            flags: self.flags | default.map_or(0, |_| Policy::DEFAULT_EXIT),
            reserve: self.reserve,
            port_count: 1,
            reflect: self.reflect,
            ports,
            default_exit: default.map_or(dynencap_abi::Exit::NONE, |exit| {
                stored(exit.gateway, &exit.shape)
            }),
        }
    }
}

impl Topology {
    /// Gives a cgroup of the client's this policy.
    pub fn grant(&mut self, cgroup: &Path, grant: &Grant) {
        write(
            &mut self.datapath.as_mut().expect("attached").client,
            cgroup,
            grant,
        );
    }

    /// Gives the cgroup of a mirrored topology's clients one.
    pub fn grant_peer(&mut self, grant: &Grant) {
        let cgroup = self.server_cgroup.clone();
        let datapath = self.datapath.as_mut().expect("attached");
        write(datapath.peer.as_mut().expect("mirrored"), &cgroup, grant);
    }

    /// Gives the client's cgroup a policy that allows everything, with this exit for every new
    /// socket of it.
    pub fn default_exit(&mut self, exit: &Exit) {
        self.grant_all(Some(exit.clone()), 0);
    }

    /// The same with no exit, and routes planned for so many bytes of overhead.
    pub fn reserve(&mut self, overhead: u32) {
        self.grant_all(None, overhead);
    }

    fn grant_all(&mut self, default: Option<Exit>, reserve: u32) {
        let cgroup: PathBuf = self.client_cgroup.clone();
        let any = (IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), 0, true);
        let grant = Grant {
            gateways: vec![any],
            default,
            reserve,
            ..Grant::to(1, &[])
        };
        self.grant(&cgroup, &grant);
    }
}

fn write(host: &mut Loaded, cgroup: &Path, grant: &Grant) {
    let cgroup = std::fs::metadata(cgroup).expect("the cgroup").ino();
    let choices = grant.gateways.iter().map(|(address, prefix, allowed)| {
        let bits = if *allowed { POLICY_EXIT_CHOOSE } else { 0 };
        (*address, *prefix, bits)
    });
    for (address, prefix, bits) in choices.chain(grant.peers.iter().copied()) {
        let (address, more) = match address {
            IpAddr::V6(address) => (address, 32),
            IpAddr::V4(address) => (address.to_ipv6_mapped(), 32 + 96),
        };
        let key = PolicyExitKey {
            prefix_len: more + u32::from(prefix),
            policy: grant.id,
            address: address.octets(),
        };
        host.set_policy_exit(&key, bits).expect("POLICY_EXITS");
    }
    host.set_policy(cgroup, &grant.policy()).expect("POLICIES");
    host.raise_policy_generation().expect("CONFIG");
}

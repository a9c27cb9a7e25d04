//! Our programs on the client host and on the exit node.

use super::{CLIENT, EXIT_DEVICES, HEADER_LENS, MTU, Topology, UPLINK, gateways};
use crate::{
    exit::{Exit, Shape},
    reference::{config, stored},
};
use dynencap_abi::{Policy, PolicyExitKey, PortRange, Reason, TunnelKey, TunnelSpec};
use dynencap_kernel::{DeviceProgram, Loaded};
use std::{
    net::{IpAddr, Ipv6Addr},
    os::unix::fs::MetadataExt,
    sync::OnceLock,
};

/// The object, loaded once for each of the two hosts.
#[derive(Debug)]
pub(super) struct Datapath {
    client: Loaded,
    exit: Option<Loaded>,
}

/// The committed object, or the one that `DYNENCAP_OBJECT` names.
fn object() -> &'static [u8] {
    static OBJECT: OnceLock<Vec<u8>> = OnceLock::new();
    OBJECT.get_or_init(|| match std::env::var_os("DYNENCAP_OBJECT") {
        Some(path) => std::fs::read(path).expect("DYNENCAP_OBJECT"),
        None => include_bytes!("../../../bpf/dynencap.bpf.o").to_vec(),
    })
}

impl Topology {
    /// The topology with our programs: options and encapsulation in C, decapsulation in X.
    #[must_use]
    pub fn new() -> Self {
        let mut topology = Self::build();
        topology.attach();
        topology
    }

    /// The topology with our programs in C alone: what X is, the test says in commands of `ip`.
    #[must_use]
    pub fn with_exit_node(commands: &str) -> Self {
        let mut topology = Self::build();
        super::build::ip(&topology.exit, commands);
        topology.attach_client();
        topology
    }

    /// Loads and attaches the programs.
    pub fn attach(&mut self) {
        self.attach_client();
        self.attach_exit();
    }

    fn attach_client(&mut self) {
        let mut client = Loaded::load(object()).expect("the object");
        client.set_config(&config(CLIENT, MTU)).expect("CONFIG");
        client
            .attach_cgroup(std::fs::File::open(&self.client_cgroup).expect("the cgroup"))
            .expect("the option hooks");
        let both = [DeviceProgram::Egress, DeviceProgram::Ingress];
        client
            .attach_device(&self.client, UPLINK, &both)
            .expect("TC");
        self.datapath = Some(Datapath { client, exit: None });
    }

    fn attach_exit(&mut self) {
        let mut exit = Loaded::load(object()).expect("the object");
        exit.set_config(&config(Ipv6Addr::UNSPECIFIED, MTU))
            .expect("CONFIG");
        for (key, spec) in tunnels() {
            exit.add_tunnel(&key, &spec).expect("TUNNELS");
        }
        exit.attach_device(&self.exit, EXIT_DEVICES[0], &[DeviceProgram::Ingress])
            .expect("TC");
        self.datapath.as_mut().expect("attached").exit = Some(exit);
    }

    /// Takes the programs away again.
    pub fn detach(&mut self) {
        if let Some(Datapath { client, exit }) = self.datapath.take() {
            client.detach_in(&self.client).expect("setns");
            if let Some(exit) = exit {
                exit.detach_in(&self.exit).expect("setns");
            }
        }
    }

    /// Gives the client's cgroup a policy that allows everything, with this exit for every new
    /// socket of it.
    pub fn default_exit(&mut self, exit: &Exit) {
        const ID: u32 = 1;
        let cgroup = std::fs::metadata(&self.client_cgroup)
            .expect("the cgroup")
            .ino();
        let mut ports = [PortRange::default(); Policy::MAX_PORTS];
        ports[0] = PortRange {
            first: 1,
            last: u16::MAX,
        };
        let policy = Policy {
            source: [0; 16],
            source4: [0; 4],
            id: ID,
            flags: Policy::DEFAULT_EXIT | Policy::CUSTOM_HEADERS,
            reserve: 0,
            port_count: 1,
            reserved: 0,
            ports,
            default_exit: stored(exit.gateway, &exit.shape),
        };
        let every = PolicyExitKey {
            prefix_len: 32,
            policy: ID,
            address: [0; 16],
        };
        let client = &mut self.datapath.as_mut().expect("attached").client;
        client.set_policy_exit(&every, 1).expect("POLICY_EXITS");
        client.set_policy(cgroup, &policy).expect("POLICIES");
    }

    /// One of the client's counters.
    #[must_use]
    pub fn count(&self, reason: Reason) -> u64 {
        let datapath = self.datapath.as_ref().expect("attached");
        datapath.client.counters().expect("COUNTERS")[reason as usize]
    }

    /// The counters of the client that count drops, and are not zero.
    #[must_use]
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        Reason::ALL
            .into_iter()
            .filter(|reason| reason.verdict() == dynencap_abi::Verdict::Dropped)
            .map(|reason| (reason.name(), self.count(reason)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self::new()
    }
}

/// Every shape at every gateway.
fn tunnels() -> impl Iterator<Item = (TunnelKey, TunnelSpec)> {
    let plain = [(41, 0, 0), (4, 0, 0)].into_iter();
    let shapes = plain.chain(HEADER_LENS.map(|len| {
        let Shape::Udp { port, .. } = Shape::udp(len) else {
            unreachable!("it is UDP")
        };
        (17, port, len)
    }));
    shapes.flat_map(|(protocol, port, header_len)| {
        gateways().map(move |gateway| {
            let address = match gateway {
                IpAddr::V6(address) => address,
                IpAddr::V4(address) => address.to_ipv6_mapped(),
            };
            let key = TunnelKey {
                address: address.octets(),
                protocol,
                reserved: 0,
                port: u16::to_be_bytes(port),
            };
            let spec = TunnelSpec {
                header_len,
                reserved: [0; 3],
            };
            (key, spec)
        })
    })
}

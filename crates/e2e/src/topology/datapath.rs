//! Our programs on the client host and on the exit node.

use super::{CLIENT, EXIT_DEVICES, HEADER_LENS, MTU, Topology, UPLINK, gateways};
use crate::{exit::Shape, limit::seconds, reference::config};
use dynencap_abi::{Config, Event, Reason, TunnelKey, TunnelSpec};
use dynencap_kernel::{
    DeviceProgram, Loaded, Namespace,
    host::{self, Plan, SegmentPair},
    sys,
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// The object, loaded once for each of the two hosts.
#[derive(Debug)]
pub(super) struct Datapath {
    pub(super) client: Loaded,
    exit: Option<Loaded>,
    /// A mirrored topology's clients.
    pub(super) peer: Option<Loaded>,
}

/// The committed object, or the one that `DYNENCAP_OBJECT` names.
pub(super) fn object() -> &'static [u8] {
    static OBJECT: OnceLock<Vec<u8>> = OnceLock::new();
    OBJECT.get_or_init(|| match std::env::var_os("DYNENCAP_OBJECT") {
        Some(path) => std::fs::read(path).expect("DYNENCAP_OBJECT"),
        None => include_bytes!("../../../bpf/dynencap.bpf.o").to_vec(),
    })
}

/// How the client's host is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// Flags of its `Config`. Those that need the segmenting pair have one made.
    pub flags: u32,
    /// Where its addresses are.
    pub link: Link,
    /// Nothing looks at what comes in at its uplink.
    pub egress_only: bool,
}

/// What stands between the client's routes and its uplink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Nothing.
    #[default]
    Direct,
    /// A bond, whose only slave is the uplink: the programs are at the slave.
    Bonded,
}

/// The bond's name.
pub const BOND: &str = "bond0";
const SEGMENTER: [&str; 2] = ["seg0", "seg1"];

impl Topology {
    /// The topology with our programs: options and encapsulation in C, decapsulation in X.
    #[must_use]
    pub fn new() -> Self {
        Self::with(&Setup::default())
    }

    /// The same with another setup of C.
    #[must_use]
    pub fn with(setup: &Setup) -> Self {
        let mut topology = Self::build();
        if setup.link == Link::Bonded {
            super::build::bond(&topology.client);
        }
        topology.attach_client(setup);
        topology.attach_exit();
        topology
    }

    /// The topology with our programs in C alone: what X is, the test says in commands of `ip`.
    #[must_use]
    pub fn with_exit_node(commands: &str) -> Self {
        let mut topology = Self::build();
        super::build::ip(&topology.exit, commands);
        topology.attach_client(&Setup::default());
        topology
    }

    /// Loads and attaches the programs.
    pub fn attach(&mut self) {
        self.attach_client(&Setup::default());
        self.attach_exit();
    }

    pub(super) fn attach_client(&mut self, setup: &Setup) {
        let device = match setup.link {
            Link::Direct => UPLINK,
            Link::Bonded => BOND,
        };
        routes(&self.client, device);
        if setup.flags & Config::REFLECT != 0 {
            Self::sysctl(&self.client, "ipv4/tcp_fwmark_accept", "1");
        }
        let mut configured = Config {
            flags: setup.flags,
            ..config(CLIENT, MTU)
        };
        let segments = setup.flags & (Config::SEGMENT_FIRST | Config::UDP_CHECKSUM) != 0;
        let mut programs = vec![DeviceProgram::Egress, DeviceProgram::Ingress];
        programs.extend(segments.then_some(DeviceProgram::Segmented));
        let mut client = Loaded::load_with(object(), &programs).expect("the object");
        if segments {
            let [near, far] = SEGMENTER;
            let made = self
                .client
                .in_namespace(|| Ok((SegmentPair::ensure(near, far), sys::Link::named(UPLINK))));
            let (pair, uplink) = made.expect("setns");
            configured.segmenter = pair.expect("the segmenting pair").0.near();
            configured.uplink = uplink.expect("the uplink").index();
            client
                .attach_device(&self.client, far, &[DeviceProgram::Segmented])
                .expect("TC");
        }
        client.set_config(&configured).expect("CONFIG");
        client
            .attach_cgroup(std::fs::File::open(&self.client_cgroup).expect("the cgroup"))
            .expect("the option hooks");
        let both = [DeviceProgram::Egress, DeviceProgram::Ingress];
        let attached = if setup.egress_only {
            &both[..1]
        } else {
            &both[..]
        };
        client
            .attach_device(&self.client, UPLINK, attached)
            .expect("TC");
        self.datapath = Some(Datapath {
            client,
            exit: None,
            peer: None,
        });
    }

    fn attach_exit(&mut self) {
        let mut exit = Loaded::load_ingress(object()).expect("the object");
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
        if let Some(Datapath { client, exit, peer }) = self.datapath.take() {
            if let Some(peer) = peer {
                peer.detach_in(&self.server).expect("setns");
            }
            client.detach_in(&self.client).expect("setns");
            if let Some(exit) = exit {
                exit.detach_in(&self.exit).expect("setns");
            }
        }
    }

    /// One of the client's counters.
    #[must_use]
    pub fn count(&self, reason: Reason) -> u64 {
        let datapath = self.datapath.as_ref().expect("attached");
        datapath.client.counters().expect("COUNTERS")[reason as usize]
    }

    /// How often an event happened at the client.
    #[must_use]
    pub fn event(&self, event: Event) -> u64 {
        let datapath = self.datapath.as_ref().expect("attached");
        datapath.client.events().expect("EVENTS")[event as usize]
    }

    /// Waits until a counter of the client's has reached `least`.
    pub fn wait_for(&self, reason: Reason, least: u64) {
        let until = Instant::now() + seconds(15);
        while self.count(reason) < least {
            assert!(
                Instant::now() < until,
                "{}: {} of {least}; {:?}",
                reason.name(),
                self.count(reason),
                self.drops()
            );
            thread::sleep(Duration::from_millis(5));
        }
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

/// Rules and routes by mark.
pub(super) fn routes(host: &Namespace, device: &str) {
    let plan = Plan::new(device, overheads());
    let installed = host.in_namespace(|| Ok(host::install(&plan)));
    let installed = installed.expect("setns").expect("the routes");
    assert_eq!(installed.uplink_mtu as usize, MTU);
}

impl Default for Topology {
    fn default() -> Self {
        Self::new()
    }
}

/// Of every shape that a test uses: the exit node's headers, GUE's, VXLAN-GPE's and Geneve's.
fn overheads() -> BTreeSet<u8> {
    let udp = HEADER_LENS
        .into_iter()
        .chain([4, 12, 20])
        .map(|len| 8 + len);
    let behind: Vec<u8> = udp.chain([0]).collect();
    let overheads = [20, 40].into_iter();
    overheads
        .flat_map(|ip| behind.iter().map(move |len| ip + len))
        .collect()
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
                flags: 0,
                format: TunnelSpec::FIXED,
                reserved: 0,
            };
            (key, spec)
        })
    })
}

//! The roles reversed: C is a server's host and reflects, and the clients in S choose how their
//! packets come there, by their own dynencap or by a tunnel of the kernel's in X.
//!
//! ```text
//!  C server host       R router              X                   S client host
//!  c0 ──────────────── r0     r1 ─────────── x0     x1 ────────── s0
//!  reflects to         both directions       a VXLAN-GPE device   options in a
//!  a cgroup            captured here         of the kernel        cgroup, TC at s0
//! ```

use super::{
    CLIENT, CLIENT4, Grant, MTU, ROUTER_DEVICES, SERVER, SERVER_DEVICE, SERVER4, Setup, Topology,
    datapath::{object, routes},
    evidence, ip,
};
use crate::{Exit, Mirror, Shape, Tunnel, capture::Capture, mirror, tunnel::Kind};
use dynencap_abi::{Config, Event, POLICY_EXIT_FOLLOW, POLICY_EXIT_REFLECT, option::REFLECT_PATH};
use dynencap_kernel::{DeviceProgram, Loaded, sys};
use std::{
    io::IoSlice,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    path::PathBuf,
};

/// Where tunnels to the server's host end, beside its own addresses.
pub const END: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xc, 0, 0, 0, 0, 0, 2);
/// The same in IPv4.
pub const END4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
/// Port of VXLAN-GPE.
pub const GPE: u16 = 4790;
/// A VXLAN-GPE network.
pub const VNI: u32 = 42;

/// VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe §3.1): flags I and P, the inner packet's version, VNI.
#[must_use]
pub fn gpe(version: u8, vni: u32) -> [u8; 8] {
    let [_, a, b, c] = vni.to_be_bytes();
    [0x0c, 0, 0, if version == 4 { 1 } else { 2 }, a, b, c, 0]
}

/// Every tunnel that ends at the server's host, at each of its addresses.
#[must_use]
pub fn ends() -> Vec<Tunnel> {
    let kinds = [0, 8, 16, 32].map(|len| Kind::Fixed(6080 + u16::from(len), len));
    let more = [
        Kind::Ip,
        Kind::Fixed(GPE, 8),
        Kind::Gue(6079),
        Kind::Geneve(6081),
    ];
    let addresses: [IpAddr; 4] = [CLIENT.into(), END.into(), CLIENT4.into(), END4.into()];
    addresses
        .into_iter()
        .flat_map(|address| {
            let kinds = kinds.into_iter().chain(more);
            kinds.map(move |kind| Tunnel::reflected(address, kind))
        })
        .collect()
}

impl Grant {
    /// What a reflecting cgroup may do in most tests: reflect the path by default, to anybody,
    /// and follow those in `follow`.
    #[must_use]
    pub fn reflecting(id: u32, follow: &[IpAddr]) -> Self {
        let any = (IpAddr::from(Ipv6Addr::UNSPECIFIED), 0, POLICY_EXIT_REFLECT);
        let both = POLICY_EXIT_REFLECT | POLICY_EXIT_FOLLOW;
        let whole = |peer: &IpAddr| (*peer, if peer.is_ipv6() { 128 } else { 32 }, both);
        Self {
            peers: follow.iter().map(whole).chain([any]).collect(),
            reflect: REFLECT_PATH,
            ..Self::to(id, &[])
        }
    }
}

impl Topology {
    /// C reflects, with these flags of `Config` beside; its cgroup has no policy yet. Clients run
    /// at [`Topology::at_server`].
    #[must_use]
    pub fn mirrored(flags: u32) -> Self {
        Self::mirrored_with(&Setup {
            flags: Config::REFLECT | flags,
            ..Setup::default()
        })
    }

    /// The same without TC ingress at C's uplink.
    #[must_use]
    pub fn mirrored_by_egress(flags: u32) -> Self {
        Self::mirrored_with(&Setup {
            flags: Config::REFLECT | flags,
            egress_only: true,
            ..Setup::default()
        })
    }

    /// The same with reflection off.
    #[must_use]
    pub fn mirrored_off() -> Self {
        Self::mirrored_with(&Setup::default())
    }

    fn mirrored_with(setup: &Setup) -> Self {
        let mut topology = Self::build();
        ip(
            &topology.client,
            &format!("addr add {END}/64 dev c0 nodad\naddr add {END4}/24 dev c0"),
        );
        topology.attach_client(setup);
        topology.attach_peer();
        topology.let_in(&ends());
        topology
    }

    /// The same, and servers in C's cgroup reflect the path by default.
    #[must_use]
    pub fn reflecting() -> Self {
        let mut topology = Self::mirrored(0);
        topology.reflect_by(&Grant::reflecting(1, &[]));
        topology
    }

    /// Gives C's cgroup this policy.
    pub fn reflect_by(&mut self, grant: &Grant) {
        let cgroup: PathBuf = self.client_cgroup.clone();
        self.grant(&cgroup, grant);
    }

    /// Tells C of tunnels that end there, and S of replies in headers of their kind.
    pub fn let_in(&mut self, tunnels: &[Tunnel]) {
        let datapath = self.datapath.as_mut().expect("attached");
        for (key, spec) in tunnels.iter().flat_map(Tunnel::entries) {
            datapath.client.add_tunnel(&key, &spec).expect("TUNNELS");
        }
        let peer = datapath.peer.as_mut().expect("mirrored");
        let addresses: [IpAddr; 2] = [SERVER.into(), SERVER4.into()];
        for tunnel in tunnels {
            for address in addresses {
                for (key, spec) in Tunnel::reflected(address, tunnel.kind).entries() {
                    peer.add_tunnel(&key, &spec).expect("TUNNELS");
                }
            }
        }
    }

    /// Sends a frame to C as if the router did.
    pub fn inject(&self, frame: &[u8]) {
        let send = || {
            let socket = sys::packet_socket()?;
            let link = sys::Link::named(ROUTER_DEVICES[0])?;
            sys::send_frame(socket.as_fd(), link, 0x86dd, &[IoSlice::new(frame)])
        };
        let sent = self.router.in_namespace(|| Ok(send()));
        sent.expect("setns").expect("a frame");
    }

    /// How many captured paths there are now, and how many there can be.
    #[must_use]
    pub fn reflected(&self) -> (usize, u32) {
        let client = &self.datapath.as_ref().expect("attached").client;
        let entries = client.reflected().expect("REFLECTED");
        let capacity = client.reflected_capacity().expect("REFLECTED");
        (entries.len(), capacity)
    }

    /// How often each event happened, those that never did left out.
    #[must_use]
    pub fn events(&self) -> Vec<(&'static str, u64)> {
        Event::ALL
            .into_iter()
            .map(|event| (event.name(), self.event(event)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Gives clients in S this exit, whatever program they are.
    pub fn peer_exit(&mut self, exit: &Exit) {
        let any = (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0, true);
        self.grant_peer(&Grant {
            gateways: vec![any],
            default: Some(exit.clone()),
            ..Grant::to(9, &[])
        });
    }

    /// Lets X, a router that knows nothing of us, send what goes to C's own addresses through
    /// VXLAN-GPE, from its address `source` and with this network's number.
    pub fn tunnel_by_kernel(&self, source: IpAddr, vni: u32) {
        ip(
            &self.exit,
            &format!(
                "link add vx0 type vxlan dstport {GPE} gpe external udp6zerocsumrx\n\
                 link set vx0 up"
            ),
        );
        self.tunnel_moves(source, vni);
    }

    /// The same tunnel, from another address or with another number.
    pub fn tunnel_moves(&self, source: IpAddr, vni: u32) {
        let through =
            format!("encap ip6 id {vni} dst {END} src {source} hoplimit 64 dev vx0 mtu 1444");
        ip(
            &self.exit,
            &format!(
                "-6 route replace {CLIENT}/128 {through}\nroute replace {CLIENT4}/32 {through}"
            ),
        );
    }

    /// Captures what comes to C and what it sends, and judges the latter by the former.
    #[must_use]
    pub fn mirror(&self, test: &str) -> Capture<Mirror> {
        self.mirror_of(test, &ends(), &[])
    }

    /// The same with other tunnels, and with headers that only a forger uses.
    #[must_use]
    pub fn mirror_of(&self, test: &str, tunnels: &[Tunnel], forged: &[[u8; 8]]) -> Capture<Mirror> {
        let path = evidence().join(format!("reflect-{test}.pcap"));
        let mut host: Vec<IpAddr> = vec![CLIENT.into(), END.into(), CLIENT4.into(), END4.into()];
        host.extend(tunnels.iter().map(|tunnel| tunnel.address));
        let rules = mirror::Rules {
            host,
            tunnels: tunnels.to_vec(),
            mtu: MTU,
            forged: forged.to_vec(),
        };
        Capture::both_ways(&self.router, ROUTER_DEVICES[0], &path, Mirror::new(rules))
    }

    fn attach_peer(&mut self) {
        routes(&self.server, SERVER_DEVICE);
        super::build::offloads_off(&self.server, SERVER_DEVICE);
        let programs = [DeviceProgram::Egress, DeviceProgram::Ingress];
        let mut peer = Loaded::load_with(object(), &programs).expect("the object");
        let config = Config {
            source: SERVER.octets(),
            source4: SERVER4.octets(),
            uplink_mtu: MTU as u32,
            ..Config::default()
        };
        peer.set_config(&config).expect("CONFIG");
        peer.attach_cgroup(std::fs::File::open(&self.server_cgroup).expect("the cgroup"))
            .expect("the option hooks");
        peer.attach_device(&self.server, SERVER_DEVICE, &programs)
            .expect("TC");
        self.datapath.as_mut().expect("attached").peer = Some(peer);
    }
}

/// An exit with UDP and this custom header.
#[must_use]
pub fn udp(gateway: impl Into<IpAddr>, port: u16, header: &[u8]) -> Exit {
    Exit {
        gateway: gateway.into(),
        shape: Shape::Udp {
            port,
            header: header.to_vec(),
        },
    }
}

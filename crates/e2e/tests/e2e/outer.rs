//! Capture of the outer header behind devices of the kernel: by TC ingress in front of them, whose
//! ticket comes out with the packet inside, and without it where the header still stands in front.

use crate::{
    Test,
    device::{FOU, FOU6, IP6TNL, IPIP},
    reflect::{at, pulled, settle},
    require::{ACROSS, Need},
};
use dynencap_abi::{Config, Event};
use dynencap_e2e::{
    Exit, Grant, Segment, Topology, Tunnel,
    job::{
        reflecting::Pull,
        server::{GREETING, GREETING_LEN, SOURCE},
    },
    topology::{CLIENT, CLIENT4, END, END4, GPE, VNI, gpe, ip, udp},
    tunnel::Kind,
};
use std::net::{IpAddr, SocketAddr};

pub(crate) const TESTS: &[Test] = &[
    ("outer::seg6local_end_dt6", &[], || {
        seg6local("seg6local", Topology::mirrored(0));
    }),
    ("outer::seg6local_without_tc_ingress", &[], || {
        let topology = Topology::mirrored_by_egress(Config::CAPTURE_OUTER);
        seg6local("seg6local-egress", topology);
    }),
    ("outer::vxlan_gpe", &[ACROSS], || {
        let device = format!(
            "link add vx0 type vxlan dstport {GPE} gpe external udp6zerocsumrx\n\
             link set vx0 up"
        );
        let tunnel = Tunnel::of_kernel(END, Kind::Fixed(GPE, 8));
        let paths =
            [(CLIENT.into(), 6), (CLIENT4.into(), 4)].map(|(server, version): (IpAddr, u8)| {
                (at(server, SOURCE), udp(END, GPE, &gpe(version, VNI)))
            });
        captured("vxlan", &device, &[tunnel], &paths);
    }),
    ("outer::ip6tnl", IP6TNL_ACROSS, || {
        let paths = [CLIENT.into(), CLIENT4.into()]
            .map(|server: IpAddr| (at(server, SOURCE), Exit::ip(END.into())));
        captured(
            "ip6tnl",
            TUNNEL6,
            &[Tunnel::of_kernel(END, Kind::Ip)],
            &paths,
        );
    }),
    ("outer::sit_and_ipip", IPIP_ACROSS, || {
        let paths = [CLIENT.into(), CLIENT4.into()]
            .map(|server: IpAddr| (at(server, SOURCE), Exit::ip(END4.into())));
        captured("sit", TUNNEL4, &[Tunnel::of_kernel(END4, Kind::Ip)], &paths);
    }),
    ("outer::fou_over_ipv6", FOU6, || {
        let device = format!("{TUNNEL6}\n-6 fou add port 5555 ipproto 41");
        let tunnel = Tunnel::of_kernel(END, Kind::Fixed(5555, 0));
        let paths = [(at(CLIENT, SOURCE), udp(END, 5555, &[]))];
        captured("fou6", &device, &[tunnel], &paths);
    }),
    ("outer::fou_over_ipv4", FOU, || {
        let device = format!("{TUNNEL4}\nfou add port 5555 ipproto 4");
        let tunnel = Tunnel::of_kernel(END4, Kind::Fixed(5555, 0));
        let paths = [(at(CLIENT4, SOURCE), udp(END4, 5555, &[]))];
        captured("fou", &device, &[tunnel], &paths);
    }),
    ("outer::gue_over_ipv6", FOU6_ACROSS, || {
        let device = format!("{TUNNEL6}\n-6 fou add port 6079 gue");
        let tunnel = Tunnel::of_kernel(END, Kind::Gue(6079));
        let paths = [
            (at(CLIENT, SOURCE), udp(END, 6079, &[0, 41, 0, 0])),
            (at(CLIENT4, SOURCE), udp(END, 6079, &[0, 4, 0, 0])),
            (at(CLIENT, SOURCE), udp(END, 6079, &[])),
        ];
        captured("gue6", &device, &[tunnel], &paths);
    }),
    ("outer::gue_over_ipv4", FOU_ACROSS, || {
        let device = format!("{TUNNEL4}\nfou add port 6079 gue");
        let tunnel = Tunnel::of_kernel(END4, Kind::Gue(6079));
        let paths = [
            (at(CLIENT4, SOURCE), udp(END4, 6079, &[0, 4, 0, 0])),
            (at(CLIENT, SOURCE), udp(END4, 6079, &[])),
        ];
        captured("gue", &device, &[tunnel], &paths);
    }),
];

// The client's host takes replies out of headers of the other IP version, too.
const IP6TNL_ACROSS: &[Need] = &[ACROSS, IP6TNL[0]];
const IPIP_ACROSS: &[Need] = &[ACROSS, IPIP[0], IPIP[1]];
const FOU6_ACROSS: &[Need] = &[ACROSS, FOU6[0], FOU6[1]];
const FOU_ACROSS: &[Need] = &[ACROSS, FOU[0], FOU[1], FOU[2]];

/// The kernel's tunnel from S, for both versions inside.
const TUNNEL6: &str = "-6 link add t0 type ip6tnl mode any local fd00:c::2 remote fd00:5::1\n\
                       link set t0 up";
/// Over IPv4: one for each version inside.
const TUNNEL4: &str = "link add t4 type ipip local 10.1.0.2 remote 10.3.0.1\n\
                       link set t4 up\n\
                       link add t6 type sit local 10.1.0.2 remote 10.3.0.1\n\
                       link set t6 up";

fn seg6local(test: &str, topology: Topology) {
    let segment: IpAddr = "fd00:c6::1".parse().unwrap();
    let tunnel = Tunnel::of_kernel(segment, Kind::Ip);
    let device =
        format!("-6 route add {segment}/128 encap seg6local action End.DT6 table 255 dev c0");
    let paths = [(at(CLIENT, SOURCE), Exit::ip(segment))];
    captured_at(topology, test, &device, &[tunnel], &paths);
}

fn captured(test: &str, device: &str, tunnels: &[Tunnel], paths: &[(SocketAddr, Exit)]) {
    captured_at(Topology::mirrored(0), test, device, tunnels, paths);
}

fn captured_at(
    mut topology: Topology,
    test: &str,
    device: &str,
    tunnels: &[Tunnel],
    paths: &[(SocketAddr, Exit)],
) {
    topology.reflect_by(&Grant::reflecting(1, &[]));
    topology.let_in(tunnels);
    ip(&topology.client, device);
    ip(&topology.router, "-6 route add fd00:c6::/64 via fd00:c::1");
    topology.serve_mirrored();
    let capture = topology.mirror_of(&format!("outer-{test}"), tunnels, &[]);
    let orders: Vec<Pull> = paths
        .iter()
        .flat_map(|(server, exit)| {
            let greeting = Pull {
                stay: 300,
                ..Pull::new(at(server.ip(), GREETING), GREETING_LEN, Some(exit.clone()))
            };
            [Pull::new(*server, 200_000, Some(exit.clone())), greeting]
        })
        .collect();
    pulled(&topology, &orders);
    settle();
    let (mirror, _) = capture.finish();
    mirror.assert_mirrored();
    assert_eq!(mirror.count(Segment::SynAck), orders.len(), "{mirror}");
    assert_eq!(topology.event(Event::ReflectTaken), orders.len() as u64);
    // dynencap itself has taken no header off.
    assert_eq!(topology.count(dynencap_abi::Reason::Decapsulated), 0);
}

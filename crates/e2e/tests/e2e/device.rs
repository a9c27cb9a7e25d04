//! Exit nodes that nobody here wrote: the kernel's own tunnel devices take our headers off.

use crate::{Test, require::Need};
use dynencap_e2e::{
    Exit, Shape, Topology, amount,
    audit::Plain,
    job::{
        bulk::{self, Bulk, Sent},
        server::SINK,
    },
    topology::{gateway, gateway4, rules, server, server4},
};
use std::net::{IpAddr, SocketAddr};

pub(crate) const TESTS: &[Test] = &[
    ("device::vxlan_gpe_with_ipv6", &[], || {
        vxlan("ipv6", server(SINK), 2)
    }),
    ("device::vxlan_gpe_with_ipv4", &[], || {
        vxlan("ipv4", server4(SINK), 1)
    }),
    ("device::seg6local_end_dt6", &[], || {
        let segment: IpAddr = "fd00:e6::1".parse().unwrap();
        let commands =
            format!("-6 route add {segment}/128 encap seg6local action End.DT6 table main dev x1");
        through("seg6local", &commands, server(SINK), Exit::ip(segment));
    }),
    ("device::ip6tnl", IP6TNL, || {
        for (name, to) in [("ip6tnl", server(SINK)), ("ip6tnl4", server4(SINK))] {
            through(name, TUNNEL6, to, Exit::ip(gateway(0)));
        }
    }),
    ("device::sit_and_ipip", IPIP, || {
        for (name, to) in [("sit", server(SINK)), ("ipip", server4(SINK))] {
            through(name, TUNNEL4, to, Exit::ip(gateway4(0)));
        }
    }),
    ("device::fou_over_ipv6", FOU6, || {
        let commands = format!("{TUNNEL6}\n-6 fou add port 5555 ipproto 41");
        let exit = udp(gateway(0), 5555, &[]);
        through("fou6", &commands, server(SINK), exit);
    }),
    ("device::fou_over_ipv4", FOU, || {
        let commands = format!("{TUNNEL4}\nfou add port 5555 ipproto 4");
        let exit = udp(gateway4(0), 5555, &[]);
        through("fou", &commands, server4(SINK), exit);
        let commands = format!("{TUNNEL4}\nfou add port 5555 ipproto 41");
        let exit = udp(gateway4(0), 5555, &[]);
        through("fou-ipv6", &commands, server(SINK), exit);
    }),
    ("device::gue_over_ipv6", FOU6, || {
        let commands = format!("{TUNNEL6}\n-6 fou add port 6080 gue");
        // GUE (draft-ietf-intarea-gue §3): version 0, no optional fields, the inner protocol.
        through(
            "gue6",
            &commands,
            server(SINK),
            udp(gateway(0), 6080, &[0, 41, 0, 0]),
        );
        through(
            "gue6-ipv4",
            &commands,
            server4(SINK),
            udp(gateway(0), 6080, &[0, 4, 0, 0]),
        );
        // Version 1: an IP packet directly behind UDP.
        through(
            "gue6-direct",
            &commands,
            server(SINK),
            udp(gateway(0), 6080, &[]),
        );
    }),
    ("device::gue_over_ipv4", FOU, || {
        let commands = format!("{TUNNEL4}\nfou add port 6080 gue");
        through(
            "gue",
            &commands,
            server4(SINK),
            udp(gateway4(0), 6080, &[0, 4, 0, 0]),
        );
        through(
            "gue-direct",
            &commands,
            server(SINK),
            udp(gateway4(0), 6080, &[]),
        );
    }),
];

pub(crate) const IP6TNL: &[Need] = &[Need::Device(
    "-6 link add t0 type ip6tnl local ::1 remote ::2",
)];
pub(crate) const IPIP: &[Need] = &[
    Need::Device("link add t0 type ipip local 127.0.0.1 remote 127.0.0.2"),
    Need::Device("link add t0 type sit local 127.0.0.1 remote 127.0.0.2"),
];
pub(crate) const FOU6: &[Need] = &[
    Need::Device("-6 link add t0 type ip6tnl local ::1 remote ::2"),
    Need::Device("-6 fou add port 5555 ipproto 41"),
];
pub(crate) const FOU: &[Need] = &[
    Need::Device("link add t0 type ipip local 127.0.0.1 remote 127.0.0.2"),
    Need::Device("link add t0 type sit local 127.0.0.1 remote 127.0.0.2"),
    Need::Device("fou add port 5555 ipproto 4"),
];

/// The kernel's tunnel to C over IPv6, for both versions inside.
const TUNNEL6: &str = "-6 link add t0 type ip6tnl mode any local fd00:e::1 remote fd00:c::1\n\
                       link set t0 up";
/// Over IPv4: one for each version inside.
const TUNNEL4: &str = "link add t4 type ipip local 10.2.0.1 remote 10.1.0.1\n\
                       link set t4 up\n\
                       link add t6 type sit local 10.2.0.1 remote 10.1.0.1\n\
                       link set t6 up";

fn udp(gateway: IpAddr, port: u16, header: &[u8]) -> Exit {
    let header = header.to_vec();
    let shape = Shape::Udp { port, header };
    Exit { gateway, shape }
}

/// VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe §3.1): flags I and P, next protocol, VNI 42.
fn vxlan(test: &str, to: SocketAddr, next_protocol: u8) {
    let shape = Shape::Udp {
        port: 4790,
        header: vec![0x0c, 0, 0, next_protocol, 0, 0, 42, 0],
    };
    let exit = Exit {
        gateway: gateway(1),
        shape,
    };
    let commands = "link add vx0 type vxlan dstport 4790 gpe external udp6zerocsumrx\n\
                    link set vx0 up";
    through(&format!("vxlan-{test}"), commands, to, exit);
}

fn through(test: &str, commands: &str, to: SocketAddr, exit: Exit) {
    let bytes = amount(5_000_000);
    let mut topology = Topology::with_exit_node(commands);
    topology.serve();
    let mut rules = rules(Plain::Leak);
    rules.shapes = vec![exit.shape.clone()];
    rules.gateways.push(exit.gateway);
    let capture = topology.audit_by(&format!("device-{test}"), rules);
    let sent: Sent = topology.run(bulk::NAME, Bulk::new(to, bytes, Some(exit.clone())));
    let (audit, _) = capture.finish();
    sent.assert_whole();
    audit.assert_clean();
    assert_eq!(audit.through(exit.gateway), audit.tunnelled(), "{audit}");
}

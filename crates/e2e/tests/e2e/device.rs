//! Exit nodes that nobody here wrote: the kernel's own tunnel devices take our headers off.

use crate::Test;
use dynencap_e2e::{
    Exit, Shape, Topology,
    audit::Plain,
    job::{
        bulk::{self, Bulk, Sent},
        server::SINK,
    },
    topology::{gateway, rules, server, server4},
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
];

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
    const BYTES: u64 = 5_000_000;
    let mut topology = Topology::with_exit_node(commands);
    topology.serve();
    let mut rules = rules(Plain::Leak);
    rules.shapes.push(exit.shape.clone());
    rules.gateways.push(exit.gateway);
    let capture = topology.audit_by(&format!("device-{test}"), rules);
    let sent: Sent = topology.run(bulk::NAME, Bulk::new(to, BYTES, Some(exit.clone())));
    let (audit, _) = capture.finish();
    sent.assert_whole();
    audit.assert_clean();
    assert_eq!(audit.through(exit.gateway), audit.tunnelled(), "{audit}");
}

//! The kernel's own tunnels in the place of our programs: for the same inner packets, the
//! fields of their outer headers that are not as ours (docs/divergence.md, "Kernel devices").

use crate::{Test, require::Need};
use dynencap_e2e::{
    Topology,
    capture::Capture,
    job::{
        bulk::{self, Bulk, Sent},
        server::SINK,
    },
    topology::{CLIENT, CLIENT4, ROUTER_DEVICES, UPLINK, evidence, ip, server, server4},
    twin::Twin,
};
use std::net::{Ipv6Addr, SocketAddr};

const TUNNEL: &[Need] = &[Need::Device("link add t0 type ip6tnl local ::1 remote ::2")];

pub(crate) const TESTS: &[Test] = &[
    ("twin::seg6_differs_by_its_routing_header", &[], || {
        let segment = Ipv6Addr::new(0xfd00, 0xe6, 0, 0, 0, 0, 0, 1);
        let exit =
            format!("-6 route add {segment}/128 encap seg6local action End.DT6 table main dev x1");
        let client = format!(
            "-6 route add fd00:5::/64 encap seg6 mode encap segs {segment} dev c0 mtu 1400"
        );
        let twin = compared("seg6", segment, [&exit, &client], &[server(SINK)]);
        let names: Vec<_> = twin.differing.keys().copied().collect();
        let expected = ["flow label", "next header", "payload length"];
        assert_eq!(names, expected, "{twin:?}");
        assert_eq!(twin.routing.into_iter().collect::<Vec<_>>(), [24]);
    }),
    ("twin::ip6tnl_differs_by_its_flow_label", TUNNEL, || {
        let gateway = Ipv6Addr::new(0xfd00, 0xe, 0, 0, 0, 0, 0, 1);
        let exit = format!(
            "-6 link add t0 type ip6tnl mode any local {gateway} remote {CLIENT}\n\
             link set t0 up"
        );
        let client = format!(
            "-6 link add t0 type ip6tnl mode any local {CLIENT} remote {gateway} \
             encaplimit none hoplimit 64 tclass inherit dev {UPLINK}\n\
             link set t0 mtu 1400 up\n\
             -6 route add fd00:5::/64 dev t0 src {CLIENT}\n\
             route add 10.3.0.0/24 dev t0 src {CLIENT4}"
        );
        let servers = [server(SINK), server4(SINK)];
        let twin = compared("ip6tnl", gateway, [&exit, &client], &servers);
        let names: Vec<_> = twin.differing.keys().copied().collect();
        assert_eq!(names, ["flow label"], "{twin:?}");
        assert_eq!(twin.routing.into_iter().collect::<Vec<_>>(), [0]);
    }),
];

/// `commands`: of X and of C.
fn compared(test: &str, gateway: Ipv6Addr, commands: [&str; 2], servers: &[SocketAddr]) -> Twin {
    let mut topology = Topology::build();
    ip(&topology.exit, commands[0]);
    ip(&topology.client, commands[1]);
    topology.serve();
    let file = evidence().join(format!("twin-{test}.pcap"));
    let twin = Twin::new(gateway, 1500);
    let capture = Capture::start(&topology.router, ROUTER_DEVICES[0], &file, twin);
    for server in servers {
        let sent: Sent = topology.run(bulk::NAME, Bulk::new(*server, 300_000, None));
        sent.assert_whole();
    }
    let (twin, _) = capture.finish();
    println!(
        "twin-{test}: {} packets, differing: {:?}",
        twin.packets, twin.differing
    );
    assert!(twin.packets > 150, "{twin:?}");
    twin
}

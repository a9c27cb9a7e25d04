//! Capture of the outer header behind what of the kernel leaves it in front of the packet. Tunnel
//! devices do not (docs/reflection.md).

use crate::{
    Test,
    reflect::{at, pulled, settle},
};
use dynencap_abi::{Config, Event};
use dynencap_e2e::{
    Exit, Grant, Segment, Topology, Tunnel,
    job::{
        reflecting::Pull,
        server::{GREETING, GREETING_LEN, SOURCE},
    },
    topology::{CLIENT, ip},
    tunnel::Kind,
};
use std::net::{IpAddr, SocketAddr};

pub(crate) const TESTS: &[Test] = &[("outer::seg6local_end_dt6", &[], || {
    let segment: IpAddr = "fd00:c6::1".parse().unwrap();
    let tunnel = Tunnel::of_kernel(segment, Kind::Ip);
    let device =
        format!("-6 route add {segment}/128 encap seg6local action End.DT6 table 255 dev c0");
    let paths = [(at(CLIENT, SOURCE), Exit::ip(segment))];
    captured("seg6local", &device, &[tunnel], &paths);
})];

fn captured(test: &str, device: &str, tunnels: &[Tunnel], paths: &[(SocketAddr, Exit)]) {
    let mut topology = Topology::mirrored(Config::CAPTURE_OUTER);
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

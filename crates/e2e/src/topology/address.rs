//! Names, addresses, and the shapes that the exit node takes off.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// MTU of every link.
pub const MTU: usize = 1500;
/// The client's uplink.
pub const UPLINK: &str = "c0";
/// The router's devices: towards the client, towards the exit node.
pub const ROUTER_DEVICES: [&str; 2] = ["r0", "r1"];
/// The exit node's devices: towards the router, towards the server.
pub const EXIT_DEVICES: [&str; 2] = ["x0", "x1"];
/// The server's device.
pub const SERVER_DEVICE: &str = "s0";

/// The client.
pub const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xc, 0, 0, 0, 0, 0, 1);
/// The client's IPv4 address.
pub const CLIENT4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The server.
pub const SERVER: Ipv6Addr = Ipv6Addr::new(0xfd00, 5, 0, 0, 0, 0, 0, 1);
/// The server's IPv4 address.
pub const SERVER4: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 1);

/// How many gateways the exit node is.
pub const GATEWAYS: u16 = 8;
/// Lengths of custom headers that the exit node takes off, each at its port.
pub const HEADER_LENS: [u8; 4] = [0, 8, 16, 32];

/// A gateway, from 0 on.
#[must_use]
pub fn gateway(number: u16) -> IpAddr {
    assert!(number < GATEWAYS);
    Ipv6Addr::new(0xfd00, 0xe, 0, 0, 0, 0, 0, number + 1).into()
}

/// The same gateway's IPv4 address.
#[must_use]
pub fn gateway4(number: u16) -> IpAddr {
    assert!(number < GATEWAYS);
    Ipv4Addr::new(10, 2, 0, number as u8 + 1).into()
}

/// All of them, of both families.
pub fn gateways() -> impl Iterator<Item = IpAddr> {
    (0..GATEWAYS).flat_map(|number| [gateway(number), gateway4(number)])
}

/// The server at a port, over IPv6.
#[must_use]
pub fn server(port: u16) -> SocketAddr {
    (SERVER, port).into()
}

/// The server at a port, over IPv4.
#[must_use]
pub fn server4(port: u16) -> SocketAddr {
    (SERVER4, port).into()
}

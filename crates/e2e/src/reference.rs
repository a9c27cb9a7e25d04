//! The model as the judge of frames: what an inner packet becomes with this exit. The only
//! file that knows the model's interface.

use crate::{exit::Shape, topology::CLIENT4};
use dynencap_abi::{Config, Exit};
use dynencap_model::{Frame, Host, Packet, Socket, SocketKind};
use std::net::{IpAddr, Ipv6Addr};

const TCP6: SocketKind = SocketKind {
    family: 10,
    ty: 1,
    protocol: 6,
};

/// The configuration of the client host.
#[must_use]
pub fn config(source: Ipv6Addr, uplink_mtu: usize) -> Config {
    Config {
        source: source.octets(),
        source4: CLIENT4.octets(),
        uplink_mtu: uplink_mtu as u32,
        ..Config::default()
    }
}

/// The exit as the socket's storage holds it.
#[must_use]
pub fn stored(gateway: IpAddr, shape: &Shape) -> Exit {
    let mut exit = Exit {
        gateway: match gateway {
            IpAddr::V6(address) => address.octets(),
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        },
        flags: Exit::GATEWAY,
        ..Exit::NONE
    };
    if gateway.is_ipv4() {
        exit.flags |= Exit::IPV4;
    }
    if let Shape::Udp { port, header } = shape {
        exit.flags |= Exit::UDP;
        exit.destination_port = port.to_be_bytes();
        exit.header[..header.len()].copy_from_slice(header);
        exit.header_len = header.len() as u8;
    }
    exit
}

/// A client host of the model's.
#[derive(Debug)]
pub struct Reference {
    host: Host,
    frames: Vec<Frame>,
}

impl Reference {
    /// With this configuration.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            host: Host::new(config),
            frames: Vec::new(),
        }
    }

    /// The frame, from its outer IP header on, that `inner` leaves in; or why it does not.
    pub fn encapsulated(
        &mut self,
        gateway: IpAddr,
        shape: &Shape,
        ethertype: u16,
        inner: &[u8],
    ) -> Result<&[u8], String> {
        let mut socket = Socket::new(TCP6);
        socket.set_exit(stored(gateway, shape));
        let packet = Packet {
            ethertype,
            bytes: inner,
            gso_size: 0,
        };
        self.frames.clear();
        let egress = self.host.egress(Some(&socket), packet, &mut self.frames);
        match &self.frames[..] {
            [frame] => Ok(&frame.bytes),
            _ => Err(egress.reason.name().to_owned()),
        }
    }
}

//! Random frames from the uplink: what the model encapsulated for a tunnel of this host, with
//! any outer ECN, whole or spoilt, also tunnel in tunnel.

use crate::host;
use crate::packet::{self, Defect, Spec, Written};
use dynencap_abi::option::{AF_PACKET, ENCAP_GW, ENCAP_UDP, SOCK_RAW};
use dynencap_abi::{Config, MAX_UPLINK_MTU};
use dynencap_model::{Frame, Host, Packet, Socket, SocketKind};
use proptest::prelude::*;

/// A frame before it is written.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    inner: Spec,
    payload: usize,
    exits: Vec<host::Options>,
    ecn: u8,
    defects: Vec<Defect>,
    /// Other than its own.
    ethertype: Option<u16>,
}

/// Any frame that comes in.
pub(crate) fn arrival() -> impl Strategy<Value = Arrival> {
    let payload = prop_oneof![6 => 0usize..200, 1 => 1200usize..9000];
    let exits = prop_oneof![
        1 => prop::collection::vec(host::exit(), 0..1),
        8 => prop::collection::vec(host::exit(), 1..2),
        1 => prop::collection::vec(host::exit(), 2..4),
    ];
    let defects = prop_oneof![
        1 => Just(Vec::new()),
        1 => prop::collection::vec(packet::defect(), 1..3),
    ];
    let other = prop::sample::select(&[0x0800, 0x86dd, 0x0806, 0x88cc, 0x8847][..]);
    let ethertype = prop_oneof![20 => Just(None), 1 => other.prop_map(Some)];
    (packet::sound(), payload, exits, 0u8..4, defects, ethertype).prop_map(
        |(inner, payload, exits, ecn, defects, ethertype)| Arrival {
            inner,
            payload,
            exits,
            ecn,
            defects,
            ethertype,
        },
    )
}

impl Arrival {
    /// Ethernet type and bytes.
    pub(crate) fn write(&self) -> (u16, Vec<u8>) {
        let mut packet = self.inner.write(self.payload);
        for (gateway, udp) in &self.exits {
            packet = encapsulated(&packet, gateway, udp);
        }
        let Written {
            ethertype,
            mut bytes,
            ..
        } = packet;
        // The path may have marked what it carried.
        if !self.exits.is_empty() {
            mark(&mut bytes, ethertype, self.ecn);
        }
        for defect in &self.defects {
            defect.spoil(&mut bytes, 0);
        }
        (self.ethertype.unwrap_or(ethertype), bytes)
    }
}

/// Writes the ECN field of an IP header, and an IPv4 header's checksum anew.
fn mark(bytes: &mut [u8], ethertype: u16, ecn: u8) {
    if ethertype == 0x86dd {
        bytes[1] = bytes[1] & !0x30 | ecn << 4;
        return;
    }
    bytes[1] = bytes[1] & !3 | ecn;
    let header = &mut bytes[..20];
    header[10..12].fill(0);
    let sum = packet::folded(header);
    header[10..12].copy_from_slice(&(!sum).to_be_bytes());
}

/// A packet inside the headers of an exit, where it fits any uplink.
pub(crate) fn encapsulated(packet: &Written, gateway: &[u8], udp: &[u8]) -> Written {
    let config = Config {
        source: host::address(0xbb),
        source4: [198, 51, 100, 0xbb],
        uplink_mtu: MAX_UPLINK_MTU,
        flags: Config::ALLOW_PACKET_SOCKETS,
        ..Config::default()
    };
    let mut host = Host::new(config);
    let mut socket = Socket::new(SocketKind {
        family: AF_PACKET,
        ty: SOCK_RAW,
        protocol: 0,
    });
    socket.set_option(&config, ENCAP_UDP, udp).unwrap();
    socket.set_option(&config, ENCAP_GW, gateway).unwrap();
    let whole = Packet {
        ethertype: packet.ethertype,
        bytes: &packet.bytes,
        gso_size: 0,
    };
    let mut frames: Vec<Frame> = Vec::new();
    host.egress(Some(&socket), whole, &mut frames);
    match frames.pop() {
        Some(frame) => Written {
            ethertype: frame.ethertype,
            bytes: frame.bytes,
            transport_offset: 0,
        },
        // What does not fit any uplink arrives as it is.
        None => packet.clone(),
    }
}

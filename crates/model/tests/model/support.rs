//! Packets, exits and sockets for the tests; written without the model's code.

use dynencap_abi::option::{AF_INET6, ENCAP_GW, ENCAP_UDP};
use dynencap_abi::{Config, Exit, Policy, PolicyExitKey, PortRange, TunnelKey, TunnelSpec};
use dynencap_model::{Frame, Host, Packet, Port, Socket, SocketKind};
use pnet_packet::{ipv4, ipv6, tcp, udp};
use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) const V4: u16 = 0x0800;
pub(crate) const V6: u16 = 0x86dd;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const CWR: u8 = 0x80;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const FIN: u8 = 0x01;

pub(crate) const GATEWAY: [u8; 16] = address(0x99);
pub(crate) const CONFIGURED: [u8; 16] = address(0x55);
pub(crate) const SOURCE: [u8; 16] = address(1);
pub(crate) const DESTINATION: [u8; 16] = address(2);
pub(crate) const SOURCE4: [u8; 4] = [192, 0, 2, 1];
pub(crate) const DESTINATION4: [u8; 4] = [198, 51, 100, 7];

pub(crate) const GATEWAY4: [u8; 4] = [203, 0, 113, 99];
pub(crate) const CONFIGURED4: [u8; 4] = [203, 0, 113, 55];
/// A cgroup two levels below the root.
pub(crate) const CGROUP: [u64; 3] = [1, 20, 300];

pub(crate) const fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, a, b, c, d]
}

pub(crate) const fn address(last: u8) -> [u8; 16] {
    [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

pub(crate) fn config() -> Config {
    Config {
        source: CONFIGURED,
        source4: CONFIGURED4,
        uplink_mtu: 1500,
        flags: 0,
        ..Config::default()
    }
}

pub(crate) fn host() -> Host {
    Host::new(config())
}

pub(crate) const STREAM: SocketKind = SocketKind {
    family: AF_INET6,
    ty: 1,
    protocol: TCP as u32,
};

pub(crate) fn socket() -> Socket {
    Socket::new(STREAM)
}

/// A socket whose packets go to [`GATEWAY`], IP-in-IP.
pub(crate) fn ip_exit() -> Socket {
    let mut socket = socket();
    socket.set_option(&config(), ENCAP_GW, &GATEWAY).unwrap();
    socket
}

/// The same with an IPv4 outer header.
pub(crate) fn ip4_exit() -> Socket {
    let mut socket = socket();
    socket.set_option(&config(), ENCAP_GW, &GATEWAY4).unwrap();
    socket
}

pub(crate) fn udp4_exit(header: &[u8]) -> Socket {
    let mut socket = udp_exit(header);
    socket.set_option(&config(), ENCAP_GW, &GATEWAY4).unwrap();
    socket
}

/// The same in UDP: source port from the flow, destination port 6080, then `header`.
pub(crate) fn udp_exit(header: &[u8]) -> Socket {
    let mut socket = ip_exit();
    let value = [&[0, 0, 0x17, 0xc0], header].concat();
    socket.set_option(&config(), ENCAP_UDP, &value).unwrap();
    socket
}

pub(crate) fn tunnel(protocol: u8) -> (TunnelKey, TunnelSpec) {
    let port = if protocol == UDP {
        [0x17, 0xc0]
    } else {
        [0; 2]
    };
    let key = TunnelKey {
        address: GATEWAY,
        protocol,
        reserved: 0,
        port,
    };
    (key, spec(0))
}

pub(crate) fn spec(header_len: u8) -> TunnelSpec {
    TunnelSpec {
        header_len,
        flags: 0,
        format: TunnelSpec::FIXED,
        reserved: 0,
    }
}

/// A host where the tunnels of every protocol end, UDP with `header_len` bytes.
pub(crate) fn receiver(header_len: u8) -> Host {
    let mut host = host();
    for protocol in [4, 41, UDP] {
        let key = tunnel(protocol).0;
        host.add_tunnel(key, spec(header_len));
        let address = mapped(GATEWAY4);
        host.add_tunnel(TunnelKey { address, ..key }, spec(header_len));
    }
    host
}

/// An IPv6 packet, hop limit 61, traffic class 0xb9 (EF, ECT(1)).
pub(crate) fn ipv6_packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x6b, 0x91, 0x23, 0x45];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend([next_header, 61]);
    bytes.extend(SOURCE);
    bytes.extend(DESTINATION);
    bytes.extend(payload);
    bytes
}

/// An IPv4 packet, TTL 57, type of service 0x2a (AF11, ECT(0)), identification 0xfffe.
pub(crate) fn ipv4_packet(options: &[u8], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let mut bytes = vec![0x40 | (header_len / 4) as u8, 0x2a];
    bytes.extend(((header_len + payload.len()) as u16).to_be_bytes());
    bytes.extend([0xff, 0xfe, 0x40, 0, 57, protocol, 0, 0]);
    bytes.extend(SOURCE4);
    bytes.extend(DESTINATION4);
    bytes.extend(options);
    let sum = ipv4::checksum(&ipv4::Ipv4Packet::new(&bytes).unwrap());
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Ports 1024 and 443, sequence number 0xffff_fc00, and a checksum that is a partial sum.
pub(crate) fn tcp_segment(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![4, 0, 1, 0xbb, 0xff, 0xff, 0xfc, 0, 1, 2, 3, 4];
    bytes.extend([((5 + options.len() / 4) << 4) as u8, 0x10 | flags]);
    bytes.extend([1, 0, 0xbe, 0xef, 0, 0]);
    bytes.extend(options);
    bytes.extend(payload);
    bytes
}

pub(crate) fn udp_datagram(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![4, 0, 1, 0xbb];
    bytes.extend(((8 + payload.len()) as u16).to_be_bytes());
    bytes.extend([0xbe, 0xef]);
    bytes.extend(payload);
    bytes
}

/// An extension header of `len` bytes whose type is announced elsewhere.
pub(crate) fn extension(next_header: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[0] = next_header;
    bytes[1] = (len / 8 - 1) as u8;
    bytes
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

pub(crate) fn packet(ethertype: u16, bytes: &[u8]) -> Packet<'_> {
    super_packet(ethertype, bytes, 0)
}

pub(crate) fn super_packet(ethertype: u16, bytes: &[u8], gso_size: u16) -> Packet<'_> {
    Packet {
        ethertype,
        bytes,
        gso_size,
    }
}

pub(crate) fn frame_packet(frame: &Frame) -> Packet<'_> {
    packet(frame.ethertype, &frame.bytes)
}

/// One transport packet with correct checksums, of either version.
pub(crate) fn sound_transport(ethertype: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let upper = match protocol {
        TCP => tcp_segment(PSH, &[], payload),
        _ => udp_datagram(payload),
    };
    let (bytes, offset) = match ethertype {
        V4 => (ipv4_packet(&[], protocol, &upper), 20),
        _ => (ipv6_packet(protocol, &upper), 40),
    };
    let mut frame = Frame {
        port: Port::Wire,
        ethertype,
        bytes,
    };
    let sum = transport_checksum(&frame, &frame.bytes[offset..], protocol);
    let sum = if sum == 0 { 0xffff } else { sum };
    let at = offset + if protocol == TCP { 16 } else { 6 };
    frame.bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    frame.bytes
}

pub(crate) fn changed(bytes: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] = value;
    bytes
}

/// Policy `id` for gateways below `2001:db8::/32` and `203.0.113.0/24`, all ports.
pub(crate) fn allow_gateways(host: &mut Host, id: u32) {
    for (bits, address) in [(32, GATEWAY), (96 + 24, mapped(GATEWAY4))] {
        let key = PolicyExitKey {
            prefix_len: 32 + bits,
            policy: id,
            address,
        };
        host.set_policy_exit(&key, 1).unwrap();
    }
}

pub(crate) fn policy(id: u32) -> Policy {
    let mut ports = [PortRange::default(); 8];
    ports[0] = PortRange {
        first: 0,
        last: 65_535,
    };
    Policy {
        source: [0; 16],
        source4: [0; 4],
        id,
        flags: Policy::CUSTOM_HEADERS,
        reserve: 0,
        port_count: 1,
        reflect: 0,
        ports,
        default_exit: Exit::NONE,
    }
}

/// Asserts that every checksum of a TCP or UDP frame is right, as pnet computes it.
pub(crate) fn assert_checksums(frame: &Frame, transport_offset: usize) {
    let upper = &frame.bytes[transport_offset..];
    let protocol = transport_of(frame);
    if frame.ethertype == V4 {
        let ip = ipv4::Ipv4Packet::new(&frame.bytes).unwrap();
        assert_eq!(ip.get_checksum(), ipv4::checksum(&ip));
    }
    let stated = match protocol {
        TCP => tcp::TcpPacket::new(upper).unwrap().get_checksum(),
        _ => udp::UdpPacket::new(upper).unwrap().get_checksum(),
    };
    let computed = match (protocol, transport_checksum(frame, upper, protocol)) {
        (UDP, 0) => 0xffff,
        (_, checksum) => checksum,
    };
    assert_eq!(stated, computed);
}

/// The transport protocol behind hop-by-hop, routing and destination options.
fn transport_of(frame: &Frame) -> u8 {
    let bytes = &frame.bytes;
    if frame.ethertype == V4 {
        return bytes[9];
    }
    let (mut next, mut at) = (bytes[6], 40);
    while matches!(next, 0 | 43 | 60) {
        (next, at) = (bytes[at], at + 8 * (usize::from(bytes[at + 1]) + 1));
    }
    next
}

fn transport_checksum(frame: &Frame, upper: &[u8], protocol: u8) -> u16 {
    if frame.ethertype == V4 {
        let ip = ipv4::Ipv4Packet::new(&frame.bytes).unwrap();
        let (from, to): (Ipv4Addr, Ipv4Addr) = (ip.get_source(), ip.get_destination());
        match protocol {
            TCP => tcp::ipv4_checksum(&tcp::TcpPacket::new(upper).unwrap(), &from, &to),
            _ => udp::ipv4_checksum(&udp::UdpPacket::new(upper).unwrap(), &from, &to),
        }
    } else {
        let ip = ipv6::Ipv6Packet::new(&frame.bytes).unwrap();
        let (from, to): (Ipv6Addr, Ipv6Addr) = (ip.get_source(), ip.get_destination());
        match protocol {
            TCP => tcp::ipv6_checksum(&tcp::TcpPacket::new(upper).unwrap(), &from, &to),
            _ => udp::ipv6_checksum(&udp::UdpPacket::new(upper).unwrap(), &from, &to),
        }
    }
}

/// Makes the IPv4 header's checksum right.
pub(crate) fn rewrite_checksum(bytes: &mut [u8]) {
    let sum = ipv4::checksum(&ipv4::Ipv4Packet::new(bytes).unwrap());
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
}

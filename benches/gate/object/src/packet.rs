//! The packets of the paths, as frames.

use crate::host::{LOCAL, REMOTE};

/// Behind Ethernet and IP.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    Tcp,
    /// The same with RST.
    Reset,
    /// The same with SYN alone.
    Syn,
    Udp,
}

/// An ordinary packet: bytes from the IP header on.
pub(crate) const LEN: usize = 500;
/// A super-packet, and its segments' payload.
pub(crate) const SUPER_LEN: usize = 20_000;
pub(crate) const SEGMENT: u16 = 1300;

/// Of the connection in IPv6, `len` bytes from the IP header on.
pub(crate) fn ip6(inside: Inside, len: usize) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(((len - 40) as u16).to_be_bytes());
    packet.extend([protocol(inside), 64]);
    for address in [LOCAL.0, REMOTE.0] {
        packet.extend(address);
    }
    transport(&mut packet, inside, len);
    frame(0x86dd, packet)
}

/// The same behind a destination options header.
pub(crate) fn ip6_extended(len: usize) -> Vec<u8> {
    let mut frame = ip6(Inside::Tcp, len);
    let (at, next) = (14 + 40, 60);
    frame.splice(at..at, [6, 0, 1, 4, 0, 0, 0, 0]);
    frame.truncate(14 + len);
    if let Some(place) = frame.get_mut(14 + 6) {
        *place = next;
    }
    frame
}

/// The same as [`ip6`] in IPv4.
pub(crate) fn ip4(inside: Inside, len: usize) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((len as u16).to_be_bytes());
    packet.extend([0, 1, 0x40, 0, 64, protocol(inside), 0, 0]);
    for address in [LOCAL.0, REMOTE.0] {
        packet.extend(address.iter().skip(12));
    }
    transport(&mut packet, inside, len);
    frame(0x0800, packet)
}

/// ARP, as far as it matters.
pub(crate) fn arp() -> Vec<u8> {
    frame(0x0806, vec![0; 46])
}

/// "Packet too big" (ICMPv6) or "fragmentation needed", about a tunnel packet of ours.
pub(crate) fn too_big(mtu: u16, tunnel: &[u8]) -> Vec<u8> {
    let (ethernet, quoted) = tunnel.split_at(14);
    let quoted = quoted.get(..LEN).unwrap_or(quoted);
    let is_v6 = ethernet.ends_with(&[0x86, 0xdd]);
    let mut icmp: Vec<u8> = if is_v6 {
        vec![2, 0, 0, 0, 0, 0]
    } else {
        vec![3, 4, 0, 0, 0, 0]
    };
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(quoted);
    let mut packet = Vec::new();
    if is_v6 {
        packet.extend([0x60, 0, 0, 0]);
        packet.extend((icmp.len() as u16).to_be_bytes());
        packet.extend([58, 64]);
        packet.extend([[7; 16], [0xfd; 16]].concat());
        packet.extend(icmp);
        return frame(0x86dd, packet);
    }
    packet.extend([0x45, 0]);
    packet.extend((20 + icmp.len() as u16).to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, 1, 0, 0, 7, 7, 7, 7, 10, 0, 0, 1]);
    packet.extend(icmp);
    frame(0x0800, packet)
}

fn frame(ethertype: u16, packet: Vec<u8>) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

fn protocol(inside: Inside) -> u8 {
    if inside == Inside::Udp { 17 } else { 6 }
}

fn transport(packet: &mut Vec<u8>, inside: Inside, len: usize) {
    packet.extend(LOCAL.1.to_be_bytes());
    packet.extend(REMOTE.1.to_be_bytes());
    match inside {
        Inside::Udp => {
            packet.extend(((len - packet.len() + 4) as u16).to_be_bytes());
            packet.extend([0x12, 0x34]);
        }
        Inside::Tcp | Inside::Reset | Inside::Syn => {
            let flags = match inside {
                Inside::Reset => 0x14,
                Inside::Syn => 0x02,
                _ => 0x18,
            };
            packet.extend([0, 0, 0, 100, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        }
    }
    packet.resize(len, 0xa5);
}

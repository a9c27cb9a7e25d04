//! Frames that nobody's stack sent: TCP segments of somebody else's connection, in whatever outer
//! header. Checksums are right, unless a segment shall go no further than the programs: TCP itself
//! drops it then, and the connection goes on as if it had not been there.

use crate::mirror::Path;
use std::net::{IpAddr, Ipv6Addr};

/// TCP's flags.
pub const FIN: u8 = 1;
/// SYN.
pub const SYN: u8 = 2;
/// RST.
pub const RST: u8 = 4;
/// ACK.
pub const ACK: u8 = 16;

/// A TCP segment over IPv6.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Source address and port.
    pub from: (Ipv6Addr, u16),
    /// Destination address and port.
    pub to: (Ipv6Addr, u16),
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Flags.
    pub flags: u8,
    /// Payload.
    pub payload: Vec<u8>,
    /// Whether TCP takes it.
    pub checksum: Checksum,
}

/// TCP's checksum of a forged segment. The kernel looks at it before any program where the segment
/// has at most 76 bytes, else behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// As it should be.
    Right,
    /// Not so.
    Wrong,
}

impl Segment {
    /// What a captured frame holds: an Ethernet frame with a TCP segment over IPv6, behind
    /// `outer` bytes of outer headers.
    #[must_use]
    pub fn of(frame: &[u8], outer: usize) -> Self {
        let ip = &frame[14 + outer..];
        assert_eq!((ip[0] >> 4, ip[6]), (6, 6), "TCP over IPv6");
        let address = |at: usize| -> Ipv6Addr {
            let octets: [u8; 16] = ip[at..at + 16].try_into().expect("16 bytes");
            octets.into()
        };
        let tcp = &ip[40..40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]))];
        let short = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().expect("4 bytes"));
        Self {
            from: (address(8), short(0)),
            to: (address(24), short(2)),
            sequence: word(4),
            acknowledgement: word(8),
            flags: tcp[13],
            payload: tcp[usize::from(tcp[12] >> 4) * 4..].to_vec(),
            checksum: Checksum::Right,
        }
    }

    /// The sequence number behind it.
    #[must_use]
    pub fn end(&self) -> u32 {
        let one = u32::from(self.flags & (FIN | SYN) != 0);
        self.sequence
            .wrapping_add(self.payload.len() as u32)
            .wrapping_add(one)
    }

    /// The frame, from these Ethernet addresses and within this outer header (IPv6), if any.
    #[must_use]
    pub fn frame(&self, ethernet: &[u8], path: Option<&Path>) -> Vec<u8> {
        let inner = self.packet();
        let packet = match path {
            None => inner,
            Some(path) => {
                let (IpAddr::V6(peer), IpAddr::V6(local)) = (path.peer, path.local) else {
                    panic!("an outer header of IPv6");
                };
                match &path.udp {
                    None => ipv6(peer, local, 41, &inner),
                    Some((port, header)) => {
                        let length = 8 + header.len() + inner.len();
                        let mut udp = vec![0xc0, 1];
                        udp.extend(port.to_be_bytes());
                        udp.extend((length as u16).to_be_bytes());
                        udp.extend([0, 0]);
                        udp.extend(header);
                        udp.extend(inner);
                        ipv6(peer, local, 17, &udp)
                    }
                }
            }
        };
        [&ethernet[..12], &[0x86, 0xdd], &packet].concat()
    }

    fn packet(&self) -> Vec<u8> {
        let mut tcp = Vec::with_capacity(20 + self.payload.len());
        tcp.extend(self.from.1.to_be_bytes());
        tcp.extend(self.to.1.to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledgement.to_be_bytes());
        tcp.extend([5 << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(&self.payload);
        let mut sum = 6 + tcp.len() as u64;
        let (from, to) = (self.from.0.octets(), self.to.0.octets());
        for bytes in [&from[..], &to, &tcp] {
            for pair in bytes.chunks(2) {
                let low = pair.get(1).copied().unwrap_or_default();
                sum += u64::from(u16::from_be_bytes([pair[0], low]));
            }
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let wrong = u16::from(self.checksum == Checksum::Wrong);
        tcp[16..18].copy_from_slice(&(!sum as u16 ^ wrong).to_be_bytes());
        ipv6(self.from.0, self.to.0, 6, &tcp)
    }
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(40 + payload.len());
    packet.extend([0x60, 0, 0, 0]);
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

//! Reading frames, as little as the auditor needs, and on its own: neither with the model's
//! parser nor with the programs'.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Ethernet type of ARP.
pub(crate) const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;

/// What a packet is, in the words of a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// SYN alone.
    Syn,
    /// SYN and ACK.
    SynAck,
    /// RST, with or without ACK.
    Rst,
    /// FIN, with or without payload.
    Fin,
    /// Neither flags nor payload: an acknowledgement, a keepalive, a window probe.
    Ack,
    /// With payload.
    Data,
    /// A UDP datagram.
    Datagram,
    /// ICMP of either version.
    Icmp,
    /// Anything else.
    Other,
}

/// A frame.
pub(crate) struct Ethernet<'a> {
    pub(crate) ethertype: u16,
    pub(crate) payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, payload) = bytes.split_at_checked(14)?;
        Some(Self {
            ethertype: u16::from_be_bytes([header[12], header[13]]),
            payload,
        })
    }
}

/// An IP packet whose lengths are right.
#[derive(Clone)]
pub(crate) struct Ip<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Next header or protocol.
    pub(crate) protocol: u8,
    pub(crate) dscp: u8,
    pub(crate) payload: &'a [u8],
}

impl<'a> Ip<'a> {
    pub(crate) fn parse(ethertype: u16, bytes: &'a [u8]) -> Option<Self> {
        let word = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        match (ethertype, bytes.first()? >> 4) {
            (IPV6, 6) => {
                let (header, payload) = bytes.split_at_checked(40)?;
                let address = |at: usize| {
                    let octets: [u8; 16] = header[at..at + 16].try_into().ok()?;
                    Some(IpAddr::from(Ipv6Addr::from(octets)))
                };
                (word(4) == payload.len()).then_some(Self {
                    source: address(8)?,
                    destination: address(24)?,
                    protocol: header[6],
                    dscp: (header[0] << 4 | header[1] >> 4) >> 2,
                    payload,
                })
            }
            (IPV4, 4) => {
                let length = usize::from(bytes[0] & 15) * 4;
                let (header, payload) = bytes.split_at_checked(length)?;
                let address = |at: usize| {
                    let octets: [u8; 4] = header.get(at..at + 4)?.try_into().ok()?;
                    Some(IpAddr::from(Ipv4Addr::from(octets)))
                };
                let destination = address(16)?;
                (word(2) == bytes.len()).then_some(Self {
                    source: address(12)?,
                    destination,
                    protocol: header[9],
                    dscp: header[1] >> 2,
                    payload,
                })
            }
            _ => None,
        }
    }

    /// Neighbour discovery and multicast listener discovery: what the link itself needs.
    pub(crate) fn is_link_local_signalling(&self) -> bool {
        let icmp = match self.protocol {
            ICMPV6 => Some(self.payload),
            // Listener reports carry a router alert in 8 bytes of hop-by-hop options.
            HOP_BY_HOP if self.payload.first() == Some(&ICMPV6) => self.payload.get(8..),
            _ => None,
        };
        let kind = icmp.and_then(|icmp| icmp.first());
        self.destination.is_ipv6() && kind.is_some_and(|kind| matches!(kind, 130..=137 | 143))
    }

    /// Whether the UDP checksum is there and right, over pseudo header, header and payload.
    pub(crate) fn udp_checksum_is_valid(&self) -> bool {
        let mut sum = u64::from(self.protocol) + self.payload.len() as u64;
        let mut add = |bytes: &[u8]| {
            for pair in bytes.chunks(2) {
                let low = pair.get(1).copied().unwrap_or_default();
                sum += u64::from(u16::from_be_bytes([pair[0], low]));
            }
        };
        for address in [self.source, self.destination] {
            match address {
                IpAddr::V4(address) => add(&address.octets()),
                IpAddr::V6(address) => add(&address.octets()),
            }
        }
        add(self.payload);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum == 0xffff && self.payload.get(6..8).is_some_and(|field| field != [0, 0])
    }

    pub(crate) fn segment(&self) -> Segment {
        match self.protocol {
            6 => tcp(self.payload),
            17 => Segment::Datagram,
            1 | ICMPV6 => Segment::Icmp,
            _ => Segment::Other,
        }
    }

    pub(crate) fn source_port(&self) -> u16 {
        match self.payload {
            [high, low, ..] if matches!(self.protocol, 6 | 17) => u16::from_be_bytes([*high, *low]),
            _ => 0,
        }
    }
}

impl Ip<'_> {
    pub(crate) fn destination_port(&self) -> u16 {
        match self.payload {
            [_, _, high, low, ..] if matches!(self.protocol, 6 | 17) => {
                u16::from_be_bytes([*high, *low])
            }
            _ => 0,
        }
    }
}

impl fmt::Display for Ip<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            destination,
            protocol,
            ..
        } = self;
        write!(f, "{source} > {destination}, protocol {protocol}")
    }
}

/// Where two packets differ.
pub(crate) fn difference(expected: &[u8], got: &[u8]) -> Option<String> {
    let at = expected.iter().zip(got).position(|(a, b)| a != b);
    (expected != got).then(|| {
        let (expected, got) = (expected.len(), got.len());
        format!("other than the model's from byte {at:?} on; {got} bytes, the model's {expected}")
    })
}

/// The same but for the identification of an IPv4 header in front of IPv6: the kernel's GSO
/// counts it up, segment by segment (RFC 6864 leaves it free). The checksum has to be right.
pub(crate) fn difference_but_identification(expected: &[u8], got: &[u8]) -> Option<String> {
    let masked = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        for at in [4, 5, 10, 11] {
            packet[at] = 0;
        }
        packet
    };
    let sum: u32 = got[..20]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    if (sum & 0xffff) + (sum >> 16) != 0xffff {
        return Some("a wrong checksum of the outer header".to_owned());
    }
    difference(&masked(expected), &masked(got))
}

fn tcp(segment: &[u8]) -> Segment {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    let Some(header) = segment.get(..20) else {
        return Segment::Other;
    };
    let payload = segment
        .len()
        .saturating_sub(usize::from(header[12] >> 4) * 4);
    match header[13] {
        flags if flags & RST != 0 => Segment::Rst,
        flags if flags & (SYN | ACK) == SYN | ACK => Segment::SynAck,
        flags if flags & SYN != 0 => Segment::Syn,
        flags if flags & FIN != 0 => Segment::Fin,
        _ if payload == 0 => Segment::Ack,
        _ => Segment::Data,
    }
}

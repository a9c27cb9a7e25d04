//! Packets of a client at the far end of the wire, and the outer headers that they come in.

use dynencap_abi::TunnelKey;
use std::net::IpAddr;

/// Where the tunnels end.
pub(crate) const TUNNEL: [&str; 2] = ["2001:db8:7::7", "10.7.0.7"];

/// Outer headers by which packets come, and replies should go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Via {
    pub(crate) gateway: IpAddr,
    /// Destination port and custom header.
    pub(crate) udp: Option<(u16, Vec<u8>)>,
}

/// Plain IP-in-IP.
pub(crate) fn via(gateway: &str) -> Via {
    Via {
        gateway: gateway.parse().unwrap(),
        udp: None,
    }
}

pub(crate) fn via_udp(gateway: &str, port: u16, custom: &[u8]) -> Via {
    Via {
        udp: Some((port, custom.to_vec())),
        ..via(gateway)
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    let sum = words.fold(0u32, |sum, word| {
        sum + (u32::from(word[0]) << 8) + u32::from(*word.get(1).unwrap_or(&0))
    });
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

/// An IP header in front of `payload`.
pub(crate) fn ip(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    class: u8,
    mut payload: Vec<u8>,
) -> Vec<u8> {
    let mut header = if from.is_ipv4() {
        let length = (20 + payload.len() as u16).to_be_bytes();
        vec![
            0x45, class, length[0], length[1], 0, 1, 0x40, 0, 64, protocol, 0, 0,
        ]
    } else {
        let length = (payload.len() as u16).to_be_bytes();
        vec![
            0x60 | class >> 4,
            class << 4,
            0,
            0,
            length[0],
            length[1],
            protocol,
            64,
        ]
    };
    header.extend(octets(from));
    header.extend(octets(to));
    if from.is_ipv4() {
        let checksum = !(sum(&header) as u16);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    header.append(&mut payload);
    header
}

/// Fills the checksum at `at` of a transport header and payload.
fn checksummed(from: IpAddr, to: IpAddr, protocol: u8, at: usize, mut bytes: Vec<u8>) -> Vec<u8> {
    let mut pseudo = [octets(from), octets(to)].concat();
    pseudo.extend((bytes.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, protocol]);
    pseudo.extend(&bytes);
    let checksum = !(sum(&pseudo) as u16);
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// One end of a flow.
pub(crate) type End = (IpAddr, u16);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

pub(crate) fn tcp(from: End, to: End, class: u8, segment: &Segment) -> Vec<u8> {
    let mut bytes = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    bytes.extend(segment.sequence.to_be_bytes());
    bytes.extend(segment.acknowledgement.to_be_bytes());
    bytes.extend([0x50, segment.flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(&segment.payload);
    ip(
        from.0,
        to.0,
        6,
        class,
        checksummed(from.0, to.0, 6, 16, bytes),
    )
}

pub(crate) fn udp(from: End, to: End, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    ip(from.0, to.0, 17, 0, checksummed(from.0, to.0, 17, 6, bytes))
}

impl Via {
    pub(crate) fn wrap(&self, inner: &[u8]) -> Vec<u8> {
        let end = TUNNEL[usize::from(self.gateway.is_ipv4())].parse().unwrap();
        let protocol = if inner[0] >> 4 == 6 { 41 } else { 4 };
        match &self.udp {
            None => ip(self.gateway, end, protocol, 0, inner.to_vec()),
            Some((port, custom)) => {
                let length = 8 + custom.len() + inner.len();
                let mut bytes = [0xc001u16.to_be_bytes(), port.to_be_bytes()].concat();
                bytes.extend((length as u16).to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(custom);
                bytes.extend(inner);
                ip(self.gateway, end, 17, 0, bytes)
            }
        }
    }

    /// The tunnel by which it comes.
    pub(crate) fn key(&self, inner_is_ipv4: bool) -> TunnelKey {
        let end: IpAddr = TUNNEL[usize::from(self.gateway.is_ipv4())].parse().unwrap();
        TunnelKey {
            address: match end {
                IpAddr::V4(end) => end.to_ipv6_mapped().octets(),
                IpAddr::V6(end) => end.octets(),
            },
            protocol: match (&self.udp, inner_is_ipv4) {
                (Some(_), _) => 17,
                (None, true) => 4,
                (None, false) => 41,
            },
            reserved: 0,
            port: self
                .udp
                .as_ref()
                .map_or([0; 2], |(port, _)| port.to_be_bytes()),
        }
    }
}

/// A packet that left the host: the outer headers, if it has any, and what is inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) via: Option<Via>,
    /// Where the outer headers come from, if it has any.
    pub(crate) outer_from: Option<IpAddr>,
    pub(crate) class: u8,
    pub(crate) from: End,
    pub(crate) to: End,
    /// TCP's, or the payload of UDP.
    pub(crate) segment: Segment,
}

impl Left {
    /// The path that it takes back, if it takes one: from the tunnel's end.
    #[track_caller]
    pub(crate) fn path(&self) -> Option<&Via> {
        if let Some(from) = self.outer_from {
            assert!(TUNNEL.contains(&from.to_string().as_str()), "{from}");
        }
        self.via.as_ref()
    }
}

/// Source, destination, protocol, traffic class, payload.
fn read_ip(bytes: &[u8]) -> (IpAddr, IpAddr, u8, u8, &[u8]) {
    if bytes[0] >> 4 == 4 {
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap());
        (address(12), address(16), bytes[9], bytes[1], &bytes[20..])
    } else {
        let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap());
        let class = bytes[0] << 4 | bytes[1] >> 4;
        (address(8), address(24), bytes[6], class, &bytes[40..])
    }
}

/// `custom_len`: of the tunnels in use. `None`: neither TCP nor UDP.
pub(crate) fn read(bytes: &[u8], custom_len: usize) -> Option<Left> {
    let (from, to, protocol, class, rest) = read_ip(bytes);
    let ends: Vec<IpAddr> = TUNNEL.iter().map(|end| end.parse().unwrap()).collect();
    let (via, inner) = match protocol {
        4 | 41 => (Some(via(&to.to_string())), rest),
        17 if ends.contains(&from) => {
            let port = u16::from_be_bytes([rest[2], rest[3]]);
            let custom = &rest[8..8 + custom_len];
            let via = via_udp(&to.to_string(), port, custom);
            (Some(via), &rest[8 + custom_len..])
        }
        _ => (None, bytes),
    };
    let outer_from = via.is_some().then_some(from);
    if via.is_some() {
        assert_eq!(class & !3, read_ip(inner).3 & !3, "DSCP is copied");
    }
    let (from, to, protocol, class, rest) = read_ip(inner);
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    let word = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().unwrap());
    let segment = match protocol {
        6 => Segment {
            sequence: word(4),
            acknowledgement: word(8),
            flags: rest[13],
            payload: rest[usize::from(rest[12] >> 4) * 4..].to_vec(),
        },
        17 => Segment {
            sequence: 0,
            acknowledgement: 0,
            flags: 0,
            payload: rest[8..].to_vec(),
        },
        _ => return None,
    };
    Some(Left {
        via,
        outer_from,
        class,
        from: (from, port(0)),
        to: (to, port(2)),
        segment,
    })
}

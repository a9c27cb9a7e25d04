//! Views of the IPv4 and IPv6 headers: they read fields and, beyond what section 2 step 6 of
//! the contract calls malformed, judge nothing. Extension headers are left to `extension`.

use crate::checksum;
use crate::ecn::Ecn;
use crate::packet::Packet;
use dynencap_abi::MAX_PAYLOAD_LEN;
use etherparse::{ether_type, ip_number};

pub(crate) const ETHERTYPE_IPV4: u16 = ether_type::IPV4.0;
pub(crate) const ETHERTYPE_IPV6: u16 = ether_type::IPV6.0;

pub(crate) const IPV4: u8 = ip_number::IPV4.0;
pub(crate) const IPV6: u8 = ip_number::IPV6.0;
pub(crate) const TCP: u8 = ip_number::TCP.0;
pub(crate) const UDP: u8 = ip_number::UDP.0;
pub(crate) const SCTP: u8 = ip_number::SCTP.0;

/// Bytes of an IPv4 header without options.
pub(crate) const IPV4_MIN_LEN: usize = 20;
/// Bytes of an IPv6 header.
pub(crate) const IPV6_LEN: usize = dynencap_abi::IPV6_HEADER_LEN;

/// The two octets of a field at a fixed place.
pub(crate) const fn be16<const N: usize>(header: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}

/// IPv4-mapped, as every address of 16 bytes in `abi` holds IPv4.
pub(crate) const fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The packet with the DSCP of a traffic class, its ECN as it was; copied into `buffer` where
/// that changes anything.
pub(crate) fn reclassified<'a>(
    packet: Packet<'a>,
    class: u8,
    buffer: &'a mut Vec<u8>,
) -> Packet<'a> {
    let Some(ip) = Ip::parse(packet.ethertype, packet.bytes) else {
        return packet;
    };
    let before = ip.traffic_class();
    let class = Ecn::of(before).within(class);
    if class == before {
        return packet;
    }
    buffer.clear();
    match ip {
        Ip::V4(ip) => buffer.extend_from_slice(&ip.with_class(class)),
        Ip::V6(ip) => buffer.extend_from_slice(&ip.with_class(class)),
    }
    let rest = packet.bytes.get(buffer.len()..).unwrap_or_default();
    buffer.extend_from_slice(rest);
    Packet {
        bytes: buffer,
        ..packet
    }
}

/// An IP header that is not malformed; the lengths that it states are not yet believed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ip<'a> {
    V4(Ipv4<'a>),
    V6(Ipv6<'a>),
}

impl<'a> Ip<'a> {
    /// The header as the frame's protocol announces it.
    pub(crate) fn parse(ethertype: u16, bytes: &'a [u8]) -> Option<Self> {
        match ethertype {
            ETHERTYPE_IPV4 => Ipv4::parse(bytes).map(Self::V4),
            ETHERTYPE_IPV6 => Ipv6::parse(bytes).map(Self::V6),
            _ => None,
        }
    }

    /// The header as its own version field announces it.
    pub(crate) fn parse_inner(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Ipv4::parse(bytes).map(Self::V4),
            6 => Ipv6::parse(bytes).map(Self::V6),
            _ => None,
        }
    }

    /// The header of what may be an outer packet: long enough, and of the version that the
    /// frame's protocol announces. None of its lengths is believed.
    pub(crate) fn view(ethertype: u16, bytes: &'a [u8]) -> Option<Self> {
        match ethertype {
            ETHERTYPE_IPV4 => Ipv4::view(bytes).map(Self::V4),
            ETHERTYPE_IPV6 => Ipv6::parse(bytes).map(Self::V6),
            _ => None,
        }
    }

    pub(crate) fn ethertype(&self) -> u16 {
        match self {
            Self::V4(_) => ETHERTYPE_IPV4,
            Self::V6(_) => ETHERTYPE_IPV6,
        }
    }

    /// The protocol number that announces this packet inside another.
    pub(crate) fn as_payload(&self) -> u8 {
        match self {
            Self::V4(_) => IPV4,
            Self::V6(_) => IPV6,
        }
    }

    /// The whole packet's length as the header states it.
    pub(crate) fn stated_len(&self) -> usize {
        match self {
            Self::V4(ip) => usize::from(ip.total_len()),
            Self::V6(ip) => IPV6_LEN + usize::from(ip.payload_len()),
        }
    }

    /// Bytes of the header: with options in IPv4, without extension headers in IPv6.
    pub(crate) fn header_len(&self) -> usize {
        match self {
            Self::V4(ip) => ip.header_len(),
            Self::V6(_) => IPV6_LEN,
        }
    }

    /// DSCP and ECN: the traffic class, or the octet that IPv4 once called type of service.
    pub(crate) fn traffic_class(&self) -> u8 {
        match self {
            Self::V4(ip) => ip.header[1],
            Self::V6(ip) => ip.header[0] << 4 | ip.header[1] >> 4,
        }
    }

    pub(crate) fn hop_limit(&self) -> u8 {
        match self {
            Self::V4(ip) => ip.header[8],
            Self::V6(ip) => ip.header[7],
        }
    }

    /// The next header behind the fixed header, or the protocol.
    pub(crate) fn protocol(&self) -> u8 {
        match self {
            Self::V4(ip) => ip.protocol(),
            Self::V6(ip) => ip.next_header(),
        }
    }

    /// IPv4 as IPv4-mapped.
    pub(crate) fn source(&self) -> [u8; 16] {
        match self {
            Self::V4(ip) => mapped(ip.source()),
            Self::V6(ip) => ip.source(),
        }
    }

    /// IPv4 as IPv4-mapped.
    pub(crate) fn destination(&self) -> [u8; 16] {
        match self {
            Self::V4(ip) => mapped(ip.destination()),
            Self::V6(ip) => ip.destination(),
        }
    }
}

/// ```text
///  0       1       2       3
/// |ver|ihl|  tos  | total length  |
/// |identification |0DM| fragment  |
/// |  ttl  |protoc.|   checksum    |
/// |            source             |
/// |          destination          |
/// ```
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ipv4<'a> {
    pub(crate) header: &'a [u8; IPV4_MIN_LEN],
}

impl<'a> Ipv4<'a> {
    pub(crate) fn view(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; IPV4_MIN_LEN] = bytes.first_chunk()?;
        (header[0] >> 4 == 4).then_some(Self { header })
    }

    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let ip = Self::view(bytes)?;
        // BIG TCP does not fit the total length and leaves it 0.
        let big = ip.total_len() == 0 && bytes.len() > MAX_PAYLOAD_LEN;
        let sound = ip.header_len() >= IPV4_MIN_LEN
            && (big || usize::from(ip.total_len()) >= ip.header_len());
        sound.then_some(ip)
    }

    pub(crate) fn header_len(&self) -> usize {
        4 * usize::from(self.header[0] & 0x0f)
    }

    pub(crate) fn total_len(&self) -> u16 {
        be16(self.header, 2)
    }

    pub(crate) fn identification(&self) -> u16 {
        be16(self.header, 4)
    }

    /// MF set, or an offset: the first fragment is one too.
    pub(crate) fn is_fragment(&self) -> bool {
        be16(self.header, 6) & 0x3fff != 0
    }

    pub(crate) fn dont_fragment(&self) -> bool {
        self.header[6] & 0x40 != 0
    }

    pub(crate) fn protocol(&self) -> u8 {
        self.header[9]
    }

    /// The header with another type of service, its checksum updated (RFC 1624) so that a wrong
    /// one stays wrong.
    pub(crate) fn with_class(&self, class: u8) -> [u8; IPV4_MIN_LEN] {
        let mut header = *self.header;
        let before = be16(&header, 0);
        header[1] = class;
        let checksum = checksum::update(be16(&header, 10), before, be16(&header, 0));
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    pub(crate) fn source(&self) -> [u8; 4] {
        let [.., a, b, c, d, _, _, _, _] = *self.header;
        [a, b, c, d]
    }

    pub(crate) fn destination(&self) -> [u8; 4] {
        let [.., a, b, c, d] = *self.header;
        [a, b, c, d]
    }
}

/// ```text
///  0       1       2       3
/// |ver|traffic|   flow label      |
/// |payload length | next  | hops  |
/// |        source (16)            |
/// |        destination (16)       |
/// ```
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ipv6<'a> {
    pub(crate) header: &'a [u8; IPV6_LEN],
}

impl<'a> Ipv6<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; IPV6_LEN] = bytes.first_chunk()?;
        (header[0] >> 4 == 6).then_some(Self { header })
    }

    pub(crate) fn payload_len(&self) -> u16 {
        be16(self.header, 4)
    }

    pub(crate) fn next_header(&self) -> u8 {
        self.header[6]
    }

    /// The header with another traffic class.
    pub(crate) fn with_class(&self, class: u8) -> [u8; IPV6_LEN] {
        let mut header = *self.header;
        header[0] = header[0] & 0xf0 | class >> 4;
        header[1] = header[1] & 0x0f | class << 4;
        header
    }

    pub(crate) fn source(&self) -> [u8; 16] {
        let mut address = [0; 16];
        address.copy_from_slice(&self.header[8..24]);
        address
    }

    pub(crate) fn destination(&self) -> [u8; 16] {
        let mut address = [0; 16];
        address.copy_from_slice(&self.header[24..40]);
        address
    }
}

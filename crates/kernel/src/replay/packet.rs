//! A packet as replay sends it, and what a packet socket wants in front of it: Ethernet
//! header, virtio header, and for super-packets the partial checksum.

use std::io::IoSlice;

/// What is sent: from the IP header on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Ethernet type.
    pub ethertype: u16,
    /// Everything behind the Ethernet header, of any length.
    pub bytes: &'a [u8],
    /// Set for a super-packet.
    pub gso: Option<Gso>,
}

/// How a super-packet is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Payload bytes of a segment.
    pub size: u16,
    /// The transport protocol.
    pub transport: Transport,
    /// Where the transport header starts in the packet.
    pub transport_offset: u16,
}

/// Transport protocols that super-packets have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP segmentation.
    Tcp,
    /// UDP segmentation (`UDP_SEGMENT`); needs Linux 6.2.
    Udp,
}

pub(super) const ETHERNET_LEN: usize = 14;
/// Neither address is any device's, so that no stack answers what it overhears.
const ETHERNET_ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 0xee, 2, 0, 0, 0, 0, 0xdd];

/// `struct virtio_net_hdr`, in this machine's byte order:
///
/// ```text
///  0       1          2         4          6            8             10
///  | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset |
/// ```
type VirtioHeader = [u8; 10];

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// The first segment carries CWR, the others must not.
const GSO_ECN: u8 = 0x80;

const ETH_P_IP: u16 = 0x0800;
const TCP_CWR: u8 = 0x80;

/// A packet in the pieces in which it is sent.
pub(super) struct Framed<'a> {
    virtio: VirtioHeader,
    ethernet: [u8; ETHERNET_LEN],
    before: &'a [u8],
    checksum: [u8; 2],
    checksum_len: usize,
    after: &'a [u8],
    /// How many frames it becomes.
    pub(super) segments: usize,
}

impl<'a> Framed<'a> {
    /// `None`: a super-packet without room for the transport header that it claims.
    pub(super) fn new(packet: &Packet<'a>) -> Option<Self> {
        let mut ethernet = [0; ETHERNET_LEN];
        ethernet[..12].copy_from_slice(&ETHERNET_ADDRESSES);
        ethernet[12..].copy_from_slice(&packet.ethertype.to_be_bytes());
        let plain = Self {
            virtio: [0; 10],
            ethernet,
            before: packet.bytes,
            checksum: [0; 2],
            checksum_len: 0,
            after: &[],
            segments: 1,
        };
        match &packet.gso {
            None => Some(plain),
            Some(gso) => plain.cut_by(packet, gso),
        }
    }

    fn cut_by(self, packet: &Packet<'a>, gso: &Gso) -> Option<Self> {
        let start = usize::from(gso.transport_offset);
        let header = packet.bytes.get(start..)?;
        let (checksum_offset, header_len, gso_type) = match gso.transport {
            Transport::Tcp => {
                let ecn = if header.get(13)? & TCP_CWR != 0 {
                    GSO_ECN
                } else {
                    0
                };
                let kind = if packet.ethertype == ETH_P_IP {
                    GSO_TCPV4
                } else {
                    GSO_TCPV6
                };
                (16, 4 * usize::from(header.get(12)? >> 4), kind | ecn)
            }
            Transport::Udp => (6, 8, GSO_UDP_L4),
        };
        let (before, rest) = packet.bytes.split_at_checked(start + checksum_offset)?;
        let (_, after) = rest.split_at_checked(2)?;
        let payload = header.len().saturating_sub(header_len);
        let headers = ETHERNET_LEN + start + header_len;
        let mut virtio = [0; 10];
        virtio[..2].copy_from_slice(&[NEEDS_CSUM, gso_type]);
        let fields = [
            headers,
            usize::from(gso.size),
            ETHERNET_LEN + start,
            checksum_offset,
        ];
        for (bytes, field) in virtio[2..].chunks_exact_mut(2).zip(fields) {
            bytes.copy_from_slice(&u16::try_from(field).ok()?.to_ne_bytes());
        }
        Some(Self {
            virtio,
            before,
            checksum: pseudo_header_sum(packet, gso)?.to_be_bytes(),
            checksum_len: 2,
            after,
            segments: payload.div_ceil(usize::from(gso.size).max(1)).max(1),
            ..self
        })
    }

    pub(super) fn pieces(&self) -> [IoSlice<'_>; 5] {
        [
            &self.virtio[..],
            &self.ethernet,
            self.before,
            &self.checksum[..self.checksum_len],
            self.after,
        ]
        .map(IoSlice::new)
    }
}

/// The sum that the kernel expects in the checksum field of a packet whose checksum is still
/// to be computed: addresses, protocol and transport length, folded, not complemented.
fn pseudo_header_sum(packet: &Packet<'_>, gso: &Gso) -> Option<u16> {
    let addresses = if packet.ethertype == ETH_P_IP {
        packet.bytes.get(12..20)?
    } else {
        packet.bytes.get(8..40)?
    };
    let protocol = match gso.transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    };
    let length = packet
        .bytes
        .len()
        .checked_sub(gso.transport_offset.into())?;
    let mut sum = u64::try_from(length).ok()? + protocol;
    for pair in addresses.chunks_exact(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_super_packet() -> Vec<u8> {
        let mut bytes = vec![0; 40 + 8 + 100];
        bytes[0] = 0x60;
        bytes[8..24].copy_from_slice(&[0x11; 16]);
        bytes[24..40].copy_from_slice(&[0x22; 16]);
        bytes[46..48].copy_from_slice(&[0xaa, 0xbb]);
        bytes
    }

    #[test]
    fn a_super_packet_carries_the_pseudo_header_sum_in_place_of_its_checksum() {
        let bytes = udp_super_packet();
        let gso = Gso {
            size: 30,
            transport: Transport::Udp,
            transport_offset: 40,
        };
        let packet = Packet {
            ethertype: 0x86dd,
            bytes: &bytes,
            gso: Some(gso),
        };
        let framed = Framed::new(&packet).unwrap();
        assert_eq!(framed.segments, 4);
        let frame: Vec<u8> = framed.pieces().iter().flat_map(|p| p.to_vec()).collect();
        let half = |at| u16::from_ne_bytes([frame[at], frame[at + 1]]);
        assert_eq!(frame[..2], [NEEDS_CSUM, GSO_UDP_L4]);
        assert_eq!([half(2), half(4), half(6), half(8)], [62, 30, 54, 6]);
        // 8 * 0x1111 + 8 * 0x2222 + 108 + 17 = 0x19a15, folded
        assert_eq!(frame[24 + 46..24 + 48], [0x9a, 0x16]);
        let mut expected = bytes.clone();
        expected[46..48].copy_from_slice(&[0x9a, 0x16]);
        assert_eq!(frame[24..], expected);
    }

    #[test]
    fn a_super_packet_that_ends_before_its_checksum_is_refused() {
        let bytes = udp_super_packet();
        for length in 0..48 {
            let packet = Packet {
                ethertype: 0x86dd,
                bytes: &bytes[..length],
                gso: Some(Gso {
                    size: 30,
                    transport: Transport::Udp,
                    transport_offset: 40,
                }),
            };
            assert!(Framed::new(&packet).is_none(), "{length}");
        }
    }
}

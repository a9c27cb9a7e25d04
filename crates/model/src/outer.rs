//! The outer headers (section 2): written once for a packet, their lengths once more for each
//! frame.

use crate::checksum::Sum;
use crate::mtu;
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ip, UDP, be16};
use crate::{flow, wire};
use dynencap_abi::{Config, Exit, IPV6_HEADER_LEN, MAX_HEADER_LEN, MAX_OVERHEAD, UDP_HEADER_LEN};
use etherparse::{IpDscp, IpEcn, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, UdpHeader};

const UNSPECIFIED: [u8; 16] = [0; 16];

/// As one number, which is compared at once.
fn is_set(address: [u8; 16]) -> bool {
    u128::from_ne_bytes(address) != 0
}

/// The outer source in the exit's family, IPv4 as IPv4-mapped; none where none is set.
pub(crate) fn source(config: &Config, exit: &Exit, ip: &Ip<'_>) -> Option<[u8; 16]> {
    if is_set(exit.source) {
        return Some(exit.source);
    }
    let source = match (exit.flags & Exit::IPV4 != 0, ip) {
        (false, Ip::V6(_)) | (true, Ip::V4(_)) => return Some(ip.source()),
        (false, Ip::V4(_)) => config.source,
        (true, Ip::V6(_)) if config.source4 == [0; 4] => UNSPECIFIED,
        (true, Ip::V6(_)) => wire::mapped(config.source4),
    };
    is_set(source).then_some(source)
}

/// The outer headers.
pub(crate) struct Outer {
    octets: [u8; MAX_OVERHEAD],
    len: usize,
    ip_len: usize,
    with_udp: bool,
    /// What the first frame has; IPv4 only.
    identification: u16,
    /// The inner packet's part of the UDP checksum; none where that stays 0.
    inner_sum: Option<Sum>,
}

impl Outer {
    /// The headers for a packet of a flow of this hash, whose IP header is `ip`. `source` is of
    /// the exit's family.
    #[inline]
    pub(crate) fn new(
        config: &Config,
        exit: &Exit,
        source: [u8; 16],
        ip: &Ip<'_>,
        hash: u64,
    ) -> Self {
        let with_udp = exit.flags & Exit::UDP != 0;
        let protocol = IpNumber(if with_udp { UDP } else { ip.as_payload() });
        let hop_limit = match config.hop_limit {
            0 => ip.hop_limit(),
            configured => configured as u8,
        };
        let mut octets = [0; MAX_OVERHEAD];
        let mut identification = 0;
        let ip_len = mtu::outer_ip_len(exit);
        if exit.flags & Exit::IPV4 == 0 {
            let header = Ipv6Header {
                // RFC 6040 §4.1, normal mode: ECN is copied like DSCP.
                traffic_class: ip.traffic_class(),
                flow_label: Ipv6FlowLabel::try_new(flow::flow_label(hash)).unwrap_or_default(),
                payload_length: 0,
                next_header: protocol,
                hop_limit,
                source,
                destination: exit.gateway,
            };
            octets[..IPV6_HEADER_LEN].copy_from_slice(&header.to_bytes());
        } else {
            if let Ip::V4(inner) = ip {
                identification = inner.identification();
            }
            let class = ip.traffic_class();
            let header = Ipv4Header {
                dscp: IpDscp::try_new(class >> 2).unwrap_or_default(),
                ecn: IpEcn::try_new(class & 3).unwrap_or_default(),
                dont_fragment: true,
                time_to_live: hop_limit,
                protocol,
                source: last4(source),
                destination: last4(exit.gateway),
                ..Ipv4Header::default()
            };
            let header = header.to_bytes();
            if let Some(place) = octets.get_mut(..header.len()) {
                place.copy_from_slice(&header);
            }
        }
        if with_udp {
            let udp = UdpHeader {
                source_port: u16::from_be_bytes(flow::source_port_of(exit, hash)),
                destination_port: u16::from_be_bytes(exit.destination_port),
                length: 0,
                // RFC 6935 §5: zero is allowed where the tunnelled packet has its own.
                checksum: 0,
            };
            let custom = ip_len + UDP_HEADER_LEN;
            octets[ip_len..custom].copy_from_slice(&udp.to_bytes());
            // Bytes past `header_len` are zero and not part of the frame.
            octets[custom..custom + MAX_HEADER_LEN].copy_from_slice(&exit.header);
        }
        Self {
            octets,
            len: mtu::overhead(exit),
            ip_len,
            with_udp,
            identification,
            inner_sum: None,
        }
    }

    /// Asks for a valid UDP checksum over the packet whose IP header is `ip`, which has no
    /// extension headers and a correct transport checksum.
    pub(crate) fn sum_inner(&mut self, ip: &Ip<'_>) {
        self.inner_sum = Some(inner_sum(ip));
    }

    /// States the lengths for frame `index`, which holds `len` bytes behind these headers.
    pub(crate) fn carry(&mut self, len: usize, index: usize) {
        let all = self.len + len;
        if self.ip_len == IPV6_HEADER_LEN {
            self.be16_at(4, all - self.ip_len);
        } else {
            self.be16_at(2, all);
            self.be16_at(4, usize::from(self.identification) + index);
            self.be16_at(10, 0);
            let sum = Sum::default().bytes(&self.octets[..20]).finish();
            self.octets[10..12].copy_from_slice(&sum);
        }
        if self.with_udp {
            self.be16_at(self.ip_len + 4, all - self.ip_len);
            if let Some(inner) = self.inner_sum {
                self.be16_at(self.ip_len + 6, 0);
                let checksum = match self.udp_sum(inner).finish() {
                    // 0 would say that there is no checksum.
                    [0, 0] => [0xff, 0xff],
                    checksum => checksum,
                };
                let at = self.ip_len + 6;
                self.octets[at..at + 2].copy_from_slice(&checksum);
            }
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }

    pub(crate) fn ethertype(&self) -> u16 {
        if self.ip_len == IPV6_HEADER_LEN {
            ETHERTYPE_IPV6
        } else {
            ETHERTYPE_IPV4
        }
    }

    /// Pseudo header, UDP header, custom header, and what stands inside.
    fn udp_sum(&self, inner: Sum) -> Sum {
        let addresses = if self.ip_len == IPV6_HEADER_LEN {
            &self.octets[8..40]
        } else {
            &self.octets[12..20]
        };
        let headers = self.octets.get(self.ip_len..self.len).unwrap_or_default();
        let inner = if headers.len() % 2 == 0 {
            inner
        } else {
            inner.shifted()
        };
        Sum::default()
            .bytes(addresses)
            .word(u16::from(UDP))
            .word(be16(&self.octets, self.ip_len + 4))
            .bytes(headers)
            .sum(inner)
    }

    /// Writes the low 16 bits of `value`.
    fn be16_at(&mut self, at: usize, value: usize) {
        if let Some(field) = self.octets.get_mut(at..at + 2) {
            field.copy_from_slice(&(value as u16).to_be_bytes());
        }
    }
}

fn last4([.., a, b, c, d]: [u8; 16]) -> [u8; 4] {
    [a, b, c, d]
}

/// Local checksum offload: what the packet sums to, from its headers alone. From the transport
/// header on it sums to the complement of its pseudo header's sum.
fn inner_sum(ip: &Ip<'_>) -> Sum {
    match ip {
        // The addresses and the payload length stand in both headers and cancel.
        Ip::V6(ip) => Sum::default()
            .word(be16(ip.header, 0))
            .word(be16(ip.header, 2))
            .word(be16(ip.header, 6))
            .word(!u16::from(ip.next_header())),
        // The header sums to nothing, its checksum being correct.
        Ip::V4(ip) => {
            let transport_len = ip.total_len().saturating_sub(ip.header_len() as u16);
            [12, 14, 16, 18]
                .into_iter()
                .fold(Sum::default(), |sum, at| sum.word(!be16(ip.header, at)))
                .word(!u16::from(ip.protocol()))
                .word(!transport_len)
        }
    }
}

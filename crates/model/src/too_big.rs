//! Too big (section 2.2): the sender is told by an ICMP error, as if a router on the way had
//! sent it.

use crate::checksum::Sum;
use crate::extension::Upper;
use crate::owner::TCP_MIN_LEN;
use crate::packet::{Port, Sink};
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ip, TCP, UDP};
use dynencap_abi::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, MIN_IPV4_MTU, MIN_UPLINK_MTU, QUOTE_LEN, Reason,
    UDP_HEADER_LEN,
};
use etherparse::{Ipv4Header, Ipv6Header, ip_number};

const ICMP_HEADER_LEN: usize = 8;
const ICMP_LEN: usize = ICMP_HEADER_LEN + QUOTE_LEN;
/// Hop limit and TTL of an answer that goes no further than this host.
const HOP_LIMIT: u8 = 64;

/// A packet that exceeds its path, all in bytes.
pub(crate) struct TooBig {
    pub(crate) limit: usize,
    pub(crate) need: usize,
    pub(crate) overhead: usize,
}

/// Emits the ICMP error, or says why there is none.
pub(crate) fn tell(
    too_big: &TooBig,
    ip: &Ip<'_>,
    upper: &Upper,
    bytes: &[u8],
    sink: &mut impl Sink,
) -> Reason {
    let Some(quote) = bytes.first_chunk::<QUOTE_LEN>() else {
        return Reason::TooBig;
    };
    if !has_ports(upper, quote) {
        return Reason::TooBig;
    }
    let least = match ip {
        Ip::V4(ip) if !ip.dont_fragment() => return Reason::TooBig,
        Ip::V4(_) => MIN_IPV4_MTU as usize,
        Ip::V6(_) => MIN_UPLINK_MTU as usize,
    };
    let mut told = too_big.limit.saturating_sub(too_big.overhead);
    if told < least {
        told = least;
        if too_big.need - too_big.overhead <= told {
            return Reason::PathTooSmall;
        }
    }
    match ip {
        Ip::V6(ip) => {
            let header = Ipv6Header {
                payload_length: ICMP_LEN as u16,
                next_header: ip_number::IPV6_ICMP,
                hop_limit: HOP_LIMIT,
                source: ip.destination(),
                destination: ip.source(),
                ..Ipv6Header::default()
            };
            let header: [u8; IPV6_HEADER_LEN] = header.to_bytes();
            let mut icmp = [2, 0, 0, 0, 0, 0, 0, 0];
            icmp[4..].copy_from_slice(&(told as u32).to_be_bytes());
            let pseudo = Sum::default()
                .bytes(&header[8..])
                .word(ICMP_LEN as u16)
                .word(u16::from(ip_number::IPV6_ICMP.0));
            let checksum = pseudo.bytes(&icmp).bytes(quote).finish();
            icmp[2..4].copy_from_slice(&checksum);
            sink.frame(Port::Delivered, ETHERTYPE_IPV6, &[&header, &icmp, quote]);
        }
        Ip::V4(ip) => {
            let mut header = Ipv4Header {
                total_len: (IPV4_HEADER_LEN + ICMP_LEN) as u16,
                dont_fragment: true,
                time_to_live: HOP_LIMIT,
                protocol: ip_number::ICMP,
                source: ip.destination(),
                destination: ip.source(),
                ..Ipv4Header::default()
            };
            header.header_checksum = header.calc_header_checksum();
            let header = header.to_bytes();
            let mut icmp = [3, 4, 0, 0, 0, 0, 0, 0];
            icmp[6..].copy_from_slice(&(told as u16).to_be_bytes());
            let checksum = Sum::default().bytes(&icmp).bytes(quote).finish();
            icmp[2..4].copy_from_slice(&checksum);
            sink.frame(Port::Delivered, ETHERTYPE_IPV4, &[&header, &icmp, quote]);
        }
    }
    Reason::TooBigTold
}

/// A TCP or UDP header is there: the sender can find the socket that the quote is about.
fn has_ports(upper: &Upper, bytes: &[u8]) -> bool {
    let len = match upper.protocol {
        TCP => TCP_MIN_LEN,
        UDP => UDP_HEADER_LEN,
        _ => return false,
    };
    upper
        .offset
        .is_some_and(|offset| offset + len <= bytes.len())
}

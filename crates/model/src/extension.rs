//! From the IP header to the transport header: IPv4 fragments and the chain of IPv6
//! extension headers, walked as `abi::flow` lays down.

use crate::wire::{IPV6_LEN, Ip, Ipv6};
use dynencap_abi::MAX_EXTENSION_HEADERS;
use etherparse::ip_number;

const HOP_BY_HOP: u8 = ip_number::IPV6_HEADER_HOP_BY_HOP.0;
const ROUTING: u8 = ip_number::IPV6_ROUTE_HEADER.0;
const FRAGMENT: u8 = ip_number::IPV6_FRAGMENTATION_HEADER.0;
const AUTHENTICATION: u8 = ip_number::AUTHENTICATION_HEADER.0;
const DESTINATION_OPTIONS: u8 = ip_number::IPV6_DESTINATION_OPTIONS.0;

/// No extension header is shorter; the fragment header is never longer.
const MIN_LEN: usize = 8;

/// What the IP headers say of their payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Upper {
    /// The transport protocol, or the next header at which the walk ended.
    pub(crate) protocol: u8,
    /// Where the transport header begins; none for a fragment and where the chain could not
    /// be walked to its end.
    pub(crate) offset: Option<usize>,
    /// An authentication header stands before it: no cutting, which would break its digest.
    pub(crate) authenticated: bool,
}

/// Walks to the transport header.
#[inline]
pub(crate) fn upper(ip: &Ip<'_>, bytes: &[u8]) -> Upper {
    match ip {
        Ip::V4(ip) => Upper {
            protocol: ip.protocol(),
            offset: (!ip.is_fragment()).then_some(ip.header_len()),
            authenticated: false,
        },
        Ip::V6(ip) => walk(ip, bytes),
    }
}

fn walk(ip: &Ipv6<'_>, bytes: &[u8]) -> Upper {
    let mut protocol = ip.next_header();
    let mut offset = IPV6_LEN;
    let mut authenticated = false;
    let mut walked = 0;
    loop {
        if !matches!(
            protocol,
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | AUTHENTICATION | FRAGMENT
        ) {
            return Upper {
                protocol,
                offset: Some(offset),
                authenticated,
            };
        }
        let ended = Upper {
            protocol,
            offset: None,
            authenticated,
        };
        let rest = bytes.get(offset..).unwrap_or_default();
        let Some(&[next, length, ..]) = rest.first_chunk::<MIN_LEN>() else {
            return ended;
        };
        let len = match protocol {
            FRAGMENT => {
                return Upper {
                    protocol: next,
                    offset: None,
                    authenticated,
                };
            }
            AUTHENTICATION => 4 * (usize::from(length) + 2),
            _ => 8 * (usize::from(length) + 1),
        };
        if walked == MAX_EXTENSION_HEADERS || len > rest.len() {
            return ended;
        }
        authenticated |= protocol == AUTHENTICATION;
        walked += 1;
        protocol = next;
        offset += len;
    }
}

//! Overhead of an exit, and the MTU and MSS that follow from it: never constants.

use dynencap_abi::{Exit, IPV4_HEADER_LEN, IPV6_HEADER_LEN, MAX_HEADER_LEN, UDP_HEADER_LEN};

const TCP_HEADER_LEN: u32 = 20;
/// Timestamps with their padding, the options of nearly every segment.
const TCP_OPTIONS_LEN: u32 = 12;

/// The version of the inner packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Who accounts for TCP options in the MSS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MssRule {
    /// The sender of the data, RFC 6691.
    Rfc6691,
    /// The advertised value, as in the talk: 12 bytes less.
    Talk,
}

/// Bytes that the exit's headers add to a packet.
#[must_use]
pub fn overhead(exit: &Exit) -> usize {
    let ip = outer_ip_len(exit);
    if exit.flags & Exit::UDP == 0 {
        ip
    } else {
        ip + UDP_HEADER_LEN + usize::from(exit.header_len).min(MAX_HEADER_LEN)
    }
}

/// Bytes of the exit's outer IP header.
pub(crate) fn outer_ip_len(exit: &Exit) -> usize {
    if exit.flags & Exit::IPV4 == 0 {
        IPV6_HEADER_LEN
    } else {
        IPV4_HEADER_LEN
    }
}

/// The longest inner packet; none if the uplink does not even carry the headers.
#[must_use]
pub fn inner_mtu(uplink_mtu: u32, exit: &Exit) -> Option<u32> {
    inner_mtu_for(uplink_mtu, u32::try_from(overhead(exit)).ok()?)
}

/// The same for an overhead in bytes, of whatever exit.
#[must_use]
pub fn inner_mtu_for(uplink_mtu: u32, overhead: u32) -> Option<u32> {
    uplink_mtu.checked_sub(overhead).filter(|mtu| *mtu > 0)
}

/// What the routes of one overhead carry (T4): the numbers of the talk's
/// `mtu lock 1444 advmss 1372`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteNumbers {
    /// The inner MTU, in bytes from the inner IP header on.
    pub mtu: u32,
    /// `advmss` of IPv4 routes.
    pub mss_v4: u32,
    /// `advmss` of IPv6 routes.
    pub mss_v6: u32,
}

/// The numbers for an overhead; none where a packet of either version has no room for payload.
#[must_use]
pub fn route_numbers(uplink_mtu: u32, overhead: u32, rule: MssRule) -> Option<RouteNumbers> {
    let mtu = inner_mtu_for(uplink_mtu, overhead)?;
    Some(RouteNumbers {
        mtu,
        mss_v4: mss(mtu, IpVersion::V4, rule)?,
        mss_v6: mss(mtu, IpVersion::V6, rule)?,
    })
}

/// The MSS to advertise; none if an inner packet has no room for payload.
#[must_use]
pub fn mss(inner_mtu: u32, version: IpVersion, rule: MssRule) -> Option<u32> {
    let ip = match version {
        IpVersion::V4 => IPV4_HEADER_LEN as u32,
        IpVersion::V6 => IPV6_HEADER_LEN as u32,
    };
    let options = match rule {
        MssRule::Rfc6691 => 0,
        MssRule::Talk => TCP_OPTIONS_LEN,
    };
    inner_mtu
        .checked_sub(ip + TCP_HEADER_LEN + options)
        .filter(|mss| *mss > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use IpVersion::{V4, V6};
    use MssRule::{Rfc6691, Talk};

    fn udp(header_len: u8) -> Exit {
        Exit {
            flags: Exit::GATEWAY | Exit::UDP,
            header_len,
            ..Exit::NONE
        }
    }

    #[test]
    fn overhead_counts_ip_udp_and_custom_header() {
        assert_eq!(overhead(&Exit::NONE), 40);
        for header_len in 0..=32 {
            assert_eq!(overhead(&udp(header_len)), 48 + usize::from(header_len));
        }
        for header_len in 0..=32 {
            let exit = Exit {
                flags: Exit::GATEWAY | Exit::UDP | Exit::IPV4,
                ..udp(header_len)
            };
            assert_eq!(overhead(&exit), 28 + usize::from(header_len));
        }
        let ipv4 = Exit {
            flags: Exit::GATEWAY | Exit::IPV4,
            ..Exit::NONE
        };
        assert_eq!(overhead(&ipv4), 20);
        let stale = Exit {
            flags: Exit::GATEWAY,
            ..udp(32)
        };
        assert_eq!(overhead(&stale), 40);
    }

    #[test]
    fn the_talks_numbers_follow_from_the_exit() {
        let mtu = inner_mtu(1500, &udp(8)).unwrap();
        assert_eq!(mtu, 1444);
        assert_eq!(mss(mtu, V6, Rfc6691), Some(1384));
        assert_eq!(mss(mtu, V6, Talk), Some(1372));
        assert_eq!(mss(mtu, V4, Rfc6691), Some(1404));
        assert_eq!(mss(mtu, V4, Talk), Some(1392));
    }

    #[test]
    fn every_overhead_has_numbers_of_both_versions() {
        assert_eq!(
            route_numbers(1500, 56, Talk),
            Some(RouteNumbers {
                mtu: 1444,
                mss_v4: 1392,
                mss_v6: 1372
            })
        );
        for overhead in 20..=80 {
            let numbers = route_numbers(9000, overhead, Rfc6691).unwrap();
            assert_eq!(numbers.mtu + overhead, 9000);
            assert_eq!(
                (numbers.mss_v4 + 40, numbers.mss_v6 + 60),
                (numbers.mtu, numbers.mtu)
            );
        }
        assert_eq!(route_numbers(140, 80, Rfc6691), None);
        assert_eq!(route_numbers(141, 80, Rfc6691).unwrap().mss_v6, 1);
    }

    #[test]
    fn what_does_not_fit_has_no_value() {
        assert_eq!(inner_mtu(40, &Exit::NONE), None);
        assert_eq!(inner_mtu(41, &Exit::NONE), Some(1));
        assert_eq!(inner_mtu(0, &udp(32)), None);
        assert_eq!(mss(60, V6, Rfc6691), None);
        assert_eq!(mss(61, V6, Rfc6691), Some(1));
        assert_eq!(mss(61, V6, Talk), None);
        assert_eq!(mss(u32::MAX, V4, Rfc6691), Some(u32::MAX - 40));
    }
}

//! Overhead of an exit, and the MTU and MSS that follow from it: never constants.

use dynencap_abi::{Exit, IPV6_HEADER_LEN, MAX_HEADER_LEN, UDP_HEADER_LEN};

const IPV4_HEADER_LEN: u32 = 20;
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
    if exit.flags & Exit::UDP == 0 {
        IPV6_HEADER_LEN
    } else {
        IPV6_HEADER_LEN + UDP_HEADER_LEN + usize::from(exit.header_len).min(MAX_HEADER_LEN)
    }
}

/// The longest inner packet; none if the uplink does not even carry the headers.
#[must_use]
pub fn inner_mtu(uplink_mtu: u32, exit: &Exit) -> Option<u32> {
    uplink_mtu
        .checked_sub(u32::try_from(overhead(exit)).ok()?)
        .filter(|mtu| *mtu > 0)
}

/// The MSS to advertise; none if an inner packet has no room for payload.
#[must_use]
pub fn mss(inner_mtu: u32, version: IpVersion, rule: MssRule) -> Option<u32> {
    let ip = match version {
        IpVersion::V4 => IPV4_HEADER_LEN,
        IpVersion::V6 => u32::try_from(IPV6_HEADER_LEN).ok()?,
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

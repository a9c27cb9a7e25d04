//! TC ingress: takes the outer headers off what is addressed to a tunnel of this host
//! (docs/datapath.md §4; the numbers are that section's).
//!
//! No byte is written in place here, so that the verifier puts no unshare of cloned packets in
//! front of everybody's traffic.

use crate::{
    frame::{self, Frame},
    map::{self, TunnelKey},
};
use dynencap_abi::Reason;

const IPV6_LEN: u32 = 40;
const IPV4_LEN: u32 = 20;
const UDP_LEN: u32 = 8;
const IPIP: u8 = 4;
const UDP: u8 = 17;
const IPV6_IN: u8 = 41;

const FIXED_GSO: u64 = 1;
/// Since 6.3. Its IPv6 counterpart is left out: it changes nothing where outer and inner
/// version are the same, and 6.1 would refuse it.
const DECAP_L3_IPV4: u64 = 1 << 7;

const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

#[inline(always)]
pub(crate) fn run(frame: &mut Frame) -> i32 {
    let reason = match decapsulate(frame) {
        Ok(()) => Reason::Decapsulated,
        Err(reason) => reason,
    };
    map::count(reason);
    frame::verdict(reason)
}

#[inline(always)]
fn decapsulate(frame: &mut Frame) -> Result<(), Reason> {
    // 1, 2
    let len = frame.len();
    match frame.protocol() {
        frame::IPV6 => {}
        frame::IPV4 => return Err(Reason::NotTunnel),
        _ => return Err(Reason::NotIp),
    }
    if len < IPV6_LEN {
        return Err(Reason::NotTunnel);
    }
    let outer = frame.pulled::<40>(0).ok_or(Reason::NotTunnel)?;
    let version_class_label = u32::from_be(outer.read::<u32, 0>());
    if version_class_label >> 28 != 6 {
        return Err(Reason::NotTunnel);
    }
    let payload_len = u32::from(u16::from_be(outer.read::<u16, 4>()));
    let protocol = outer.read::<u8, 6>();
    let address = [
        outer.read::<u32, 24>(),
        outer.read::<u32, 28>(),
        outer.read::<u32, 32>(),
        outer.read::<u32, 36>(),
    ];
    // 3
    let (port, udp_len) = match protocol {
        IPIP | IPV6_IN => (0, payload_len),
        UDP if len < IPV6_LEN + UDP_LEN => return Err(Reason::NotTunnel),
        UDP => {
            let udp = frame.pulled::<8>(IPV6_LEN).ok_or(Reason::NotTunnel)?;
            (
                udp.read::<u16, 2>(),
                u32::from(u16::from_be(udp.read::<u16, 4>())),
            )
        }
        _ => return Err(Reason::NotTunnel),
    };
    // 4
    let key = TunnelKey::new(address, protocol, port);
    let header_len = map::tunnel(&key).ok_or(Reason::NotTunnel)?;
    // 5
    let outer_len = if protocol == UDP {
        IPV6_LEN + UDP_LEN + header_len
    } else {
        IPV6_LEN
    };
    if IPV6_LEN + payload_len != len || udp_len != payload_len || len < outer_len {
        return Err(Reason::BadOuter);
    }
    // 6
    let version = inner_version(frame, outer_len, len - outer_len, protocol)?;
    // 7
    let ecn = Ecn::combine(
        frame,
        version,
        outer_len,
        (version_class_label >> 20) as u8 & CE,
    )?;
    // 8, 9
    take_off(frame, version, outer_len, &ecn).ok_or(Reason::NoRoom)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

#[inline(always)]
fn inner_version(frame: &Frame, at: u32, len: u32, protocol: u8) -> Result<Version, Reason> {
    if len < IPV4_LEN {
        return Err(Reason::BadInner);
    }
    // The first six bytes: version, IHL; IPv4's total length; IPv6's payload length.
    let start: u64 = u64::from_be(frame.read(at).ok_or(Reason::BadInner)?);
    let first = (start >> 56) as u8;
    match first >> 4 {
        6 if protocol != IPIP => {
            let payload_len = u32::from((start >> 16) as u16);
            if len != IPV6_LEN + payload_len {
                return Err(Reason::BadInner);
            }
            Ok(Version::V6)
        }
        4 if protocol != IPV6_IN => {
            let header_len = u32::from(first & 0xf) * 4;
            let total_len = u32::from((start >> 32) as u16);
            if header_len < IPV4_LEN || total_len < header_len || total_len != len {
                return Err(Reason::BadInner);
            }
            Ok(Version::V4)
        }
        _ => Err(Reason::BadInner),
    }
}

/// What becomes of the inner packet's ECN, RFC 6040 §4.2.
enum Ecn {
    Kept,
    /// The first 16 bits of the inner header, before and after.
    Changed {
        before: u16,
        after: u16,
    },
}

impl Ecn {
    #[inline(always)]
    fn combine(frame: &Frame, version: Version, at: u32, outer: u8) -> Result<Self, Reason> {
        // Not-ECT and ECT(0) outside never change what is inside.
        if outer != CE && outer != ECT_1 {
            return Ok(Self::Kept);
        }
        let before = u16::from_be(frame.read(at).ok_or(Reason::BadInner)?);
        // IPv4: the low bits of the class octet; IPv6: that octet stands 4 bits further left.
        let shift = match version {
            Version::V4 => 0,
            Version::V6 => 4,
        };
        let inner = (before >> shift) as u8 & CE;
        let combined = match (inner, outer) {
            (0, CE) => return Err(Reason::EcnDrop),
            (_, CE) => CE,
            (ECT_0, ECT_1) => ECT_1,
            _ => inner,
        };
        if combined == inner {
            return Ok(Self::Kept);
        }
        let after = before & !(u16::from(CE) << shift) | u16::from(combined) << shift;
        Ok(Self::Changed { before, after })
    }
}

#[inline(always)]
fn take_off(frame: &mut Frame, version: Version, outer_len: u32, ecn: &Ecn) -> Option<()> {
    match version {
        Version::V6 => frame.adjust_room(-(outer_len as i32), FIXED_GSO)?,
        Version::V4 => {
            frame.adjust_room(-(outer_len as i32), FIXED_GSO | DECAP_L3_IPV4)?;
            frame.replace_ethertype(frame::IPV4)?;
        }
    }
    if let Ecn::Changed { before, after } = *ecn {
        frame.replace(0, after.to_be())?;
        if version == Version::V4 {
            const CHECKSUM: u32 = 10;
            let checksum = u16::from_be(frame.read(CHECKSUM)?);
            frame.replace(CHECKSUM, rfc1624(checksum, before, after).to_be())?;
        }
    }
    Some(())
}

/// RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
#[inline(always)]
fn rfc1624(checksum: u16, before: u16, after: u16) -> u16 {
    let mut sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

//! TC ingress: takes the outer headers off what is addressed to a tunnel of this host
//! (docs/datapath.md §4; the numbers are that section's). Where a device of the kernel takes them
//! off, they are captured only.
//!
//! No byte is written in place here, so that the verifier puts no unshare of cloned packets in
//! front of everybody's traffic.

use crate::{
    capture::{self, Shape},
    checksum::{Sum, rfc1624},
    custom::{Custom, Tunnel},
    exit::Exit,
    flow::mapped,
    frame::{self, Frame},
    kernels::{self, Headers},
    learn,
    map::{self, TunnelKey},
    stage,
    transport::{FRAGMENT_BITS, IPV4_LEN, IPV6_LEN, UDP, UDP_LEN},
};
use core::mem::MaybeUninit;
use dynencap_abi::{Reason, TunnelSpec};

const ICMPV4: u8 = 1;
const IPIP: u8 = 4;
const IPV6_IN: u8 = 41;
const ICMPV6: u8 = 58;

const FIXED_GSO: u64 = 1;
/// Since 6.3, as the next. Asked for only where outer and inner version differ: where they are
/// the same it changes nothing, and 6.1 would refuse it.
const DECAP_L3_IPV4: u64 = 1 << 7;
const DECAP_L3_IPV6: u64 = 1 << 8;

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

/// The outer IP header.
struct Outer {
    version: Version,
    protocol: u8,
    traffic_class: u8,
    destination: [u32; 4],
    header_len: u32,
    /// Header and payload, as the header says.
    total_len: u32,
    /// What can be judged without a look at the rest: IPv4's checksum, and that it has no options.
    is_sound: bool,
}

#[inline(always)]
fn decapsulate(frame: &mut Frame) -> Result<(), Reason> {
    // 1 to 3
    let len = frame.len();
    let outer = match frame.protocol() {
        frame::IPV6 => Outer::ipv6(frame, len)?,
        frame::IPV4 => Outer::ipv4(frame, len)?,
        _ => return Err(Reason::NotIp),
    };
    // 4
    let announced = outer.total_len.wrapping_sub(outer.header_len);
    let (port, udp_len) = match outer.protocol {
        IPIP | IPV6_IN => (0, announced),
        UDP if outer.header_len < IPV4_LEN || len < outer.header_len + UDP_LEN => {
            return Err(Reason::NotTunnel);
        }
        UDP => {
            let udp = frame
                .pulled::<8>(outer.header_len)
                .ok_or(Reason::NotTunnel)?;
            (
                udp.read::<u16, 2>(),
                u32::from(u16::from_be(udp.read::<u16, 4>())),
            )
        }
        _ => return Err(Reason::NotTunnel),
    };
    // 5
    let key = TunnelKey::new(outer.destination, outer.protocol, port);
    let tunnel = map::tunnel(&key).ok_or(Reason::NotTunnel)?;
    let mut exit = MaybeUninit::<Exit>::uninit();
    if tunnel.has(TunnelSpec::KERNEL) {
        core::hint::cold_path();
        if tunnel.has(TunnelSpec::REFLECT) && map::reflects() {
            let agrees = outer.is_sound && outer.total_len == len && udp_len == announced;
            let is_ipv4 = outer.version == Version::V4;
            let headers = Headers::new(is_ipv4, outer.protocol, outer.header_len, agrees);
            kernels::capture(frame, tunnel, headers, &mut exit);
        }
        return Err(Reason::NotTunnel);
    }
    // 6
    let (custom, outer_len) = custom(frame, tunnel, outer.protocol, outer.header_len, len);
    let agrees = outer.total_len == len && udp_len == announced;
    if !outer.is_sound || !agrees || custom.is_unknown() || len < outer_len {
        return Err(Reason::BadOuter);
    }
    // 7
    let version = inner_version(frame, outer_len, len - outer_len, outer.protocol, custom)?;
    // 8
    let ecn = Ecn::combine(frame, version, outer_len, outer.traffic_class & CE)?;
    // Section 5.2, as long as the headers are there.
    let shape = Shape::new(
        outer.version == Version::V4,
        outer.protocol == UDP,
        custom.len(),
    );
    let is_captured = tunnel.has(TunnelSpec::REFLECT)
        && map::reflects()
        && capture::before_removal(frame, shape, &mut exit);
    // 9, 10
    take_off(frame, outer.version, version, outer_len, &ecn).ok_or(Reason::NoRoom)?;
    if is_captured {
        // SAFETY: `before_removal` wrote it.
        let exit = unsafe { exit.assume_init_ref() };
        if stage::stage(frame, exit) {
            stage::reflect_for_host(frame, exit);
        }
    }
    Ok(())
}

/// Of step 6: the custom header, and how long all outer headers are.
#[inline(always)]
pub(crate) fn custom(
    frame: &Frame,
    tunnel: Tunnel,
    protocol: u8,
    header_len: u32,
    len: u32,
) -> (Custom, u32) {
    if protocol != UDP {
        return (Custom::NONE, header_len);
    }
    let at = header_len + UDP_LEN;
    let custom = Custom::of(tunnel, custom_start(frame, at, len), len - at);
    (custom, at + custom.len())
}

/// The first 8 bytes of a custom header in network order, or as many as there are, and zeros.
#[inline(always)]
fn custom_start(frame: &Frame, at: u32, len: u32) -> u64 {
    if at + 8 <= len {
        return u64::from_be(frame.read::<u64>(at).unwrap_or(0));
    }
    let first = if at < len {
        frame.read::<u8>(at).unwrap_or(0)
    } else {
        0
    };
    let second = if at + 1 < len {
        frame.read::<u8>(at + 1).unwrap_or(0)
    } else {
        0
    };
    u64::from(first) << 56 | u64::from(second) << 48
}

impl Outer {
    /// Steps 2 and 3.
    #[inline(always)]
    fn ipv6(frame: &mut Frame, len: u32) -> Result<Self, Reason> {
        let outer = Self::of_ipv6(frame, len)?;
        if outer.protocol == ICMPV6
            && let Some(reason) = learn::from_icmpv6(frame)
        {
            return Err(reason);
        }
        Ok(outer)
    }

    #[inline(always)]
    fn of_ipv6(frame: &mut Frame, len: u32) -> Result<Self, Reason> {
        if len < IPV6_LEN {
            return Err(Reason::NotTunnel);
        }
        let header = frame.pulled::<40>(0).ok_or(Reason::NotTunnel)?;
        let version_class_label = u32::from_be(header.read::<u32, 0>());
        if version_class_label >> 28 != 6 {
            return Err(Reason::NotTunnel);
        }
        Ok(Self {
            version: Version::V6,
            protocol: header.read::<u8, 6>(),
            traffic_class: (version_class_label >> 20) as u8,
            destination: [
                header.read::<u32, 24>(),
                header.read::<u32, 28>(),
                header.read::<u32, 32>(),
                header.read::<u32, 36>(),
            ],
            header_len: IPV6_LEN,
            total_len: IPV6_LEN + u32::from(u16::from_be(header.read::<u16, 4>())),
            is_sound: true,
        })
    }

    /// Steps 2 and 3.
    #[inline(always)]
    fn ipv4(frame: &mut Frame, len: u32) -> Result<Self, Reason> {
        let outer = Self::of_ipv4(frame, len)?;
        if outer.protocol == ICMPV4
            && outer.header_len == IPV4_LEN
            && let Some(reason) = learn::from_icmpv4(frame)
        {
            return Err(reason);
        }
        Ok(outer)
    }

    #[inline(always)]
    fn of_ipv4(frame: &mut Frame, len: u32) -> Result<Self, Reason> {
        if len < IPV4_LEN {
            return Err(Reason::NotTunnel);
        }
        let header = frame.pulled::<20>(0).ok_or(Reason::NotTunnel)?;
        let version_ihl = header.read::<u8, 0>();
        let is_fragment = u16::from_be(header.read::<u16, 6>()) & FRAGMENT_BITS != 0;
        if version_ihl >> 4 != 4 || is_fragment {
            return Err(Reason::NotTunnel);
        }
        let header_len = u32::from(version_ihl & 0xf) * 4;
        let destination = header.read::<u32, 16>();
        let sum = Sum::ZERO
            .word(header.read::<u32, 0>())
            .word(header.read::<u32, 4>())
            .word(header.read::<u32, 8>())
            .word(header.read::<u32, 12>())
            .word(destination);
        let [high, low] = mapped(destination);
        Ok(Self {
            version: Version::V4,
            protocol: header.read::<u8, 9>(),
            traffic_class: header.read::<u8, 1>(),
            destination: [
                high as u32,
                (high >> 32) as u32,
                low as u32,
                (low >> 32) as u32,
            ],
            header_len,
            total_len: u32::from(u16::from_be(header.read::<u16, 2>())),
            is_sound: header_len == IPV4_LEN && sum.fold() == 0xffff,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

#[inline(always)]
pub(crate) fn inner_version(
    frame: &Frame,
    at: u32,
    len: u32,
    protocol: u8,
    custom: Custom,
) -> Result<Version, Reason> {
    if len < IPV4_LEN {
        return Err(Reason::BadInner);
    }
    // The first six bytes: version, IHL; IPv4's total length; IPv6's payload length.
    let start: u64 = u64::from_be(frame.read(at).ok_or(Reason::BadInner)?);
    let first = (start >> 56) as u8;
    match first >> 4 {
        6 if protocol != IPIP && custom.allows(6) => {
            let payload_len = u32::from((start >> 16) as u16);
            if len != IPV6_LEN + payload_len {
                return Err(Reason::BadInner);
            }
            Ok(Version::V6)
        }
        4 if protocol != IPV6_IN && custom.allows(4) => {
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
fn take_off(
    frame: &mut Frame,
    outer: Version,
    inner: Version,
    outer_len: u32,
    ecn: &Ecn,
) -> Option<()> {
    let (ethertype, flag) = match inner {
        Version::V4 => (frame::IPV4, DECAP_L3_IPV4),
        Version::V6 => (frame::IPV6, DECAP_L3_IPV6),
    };
    if inner == outer {
        frame.adjust_room(-(outer_len as i32), FIXED_GSO)?;
    } else {
        frame.adjust_room(-(outer_len as i32), FIXED_GSO | flag)?;
        frame.replace_ethertype(ethertype)?;
    }
    if let Ecn::Changed { before, after } = *ecn {
        frame.replace(0, after.to_be())?;
        if inner == Version::V4 {
            const CHECKSUM: u32 = 10;
            let checksum = u16::from_be(frame.read(CHECKSUM)?);
            frame.replace(CHECKSUM, rfc1624(checksum, before, after).to_be())?;
        }
    }
    Some(())
}

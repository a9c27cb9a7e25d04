//! Tells the sender of a packet that is too big (docs/datapath.md §2.2): the frame becomes an ICMP
//! error, as if a router had sent it, and is delivered at the device's ingress.

use crate::{
    checksum::Sum,
    frame::{self, Frame},
    transport::Transport,
};
use dynencap_abi::{MIN_IPV4_MTU, MIN_UPLINK_MTU, QUOTE_LEN, Reason};

const ETHERNET_LEN: u32 = 14;
const QUOTED: u32 = QUOTE_LEN as u32;
const ICMP_LEN: u32 = 8;
const IPV6_LEN: u32 = 40;
const IPV4_LEN: u32 = 20;
const HOP_LIMIT: u32 = 64;
const ICMPV6: u32 = 58;
const ICMPV4: u32 = 1;
const DONT_FRAGMENT: u16 = 0x4000;
const IPV4_FLAGS: u32 = 6;

/// `told` and `inner_need` in bytes from the inner IP header on: what fits, and what did not.
/// Only for exits from a storage, and where the configuration asks for it.
#[inline(never)]
pub(crate) fn too_big(
    frame: &mut Frame,
    transport: Transport,
    told: u32,
    inner_need: u32,
) -> Reason {
    let len = frame.len();
    // In the quote: without it nobody knows whose packet that was, and the kernel cuts no frame
    // inside of what its checksum is about.
    if len < QUOTED || !transport.is_there(QUOTED) {
        return Reason::TooBig;
    }
    let is_ipv6 = frame.protocol() == frame::IPV6;
    if !is_ipv6 {
        let flags = u16::from_be(frame.read::<u16>(IPV4_FLAGS).unwrap_or(0));
        if flags & DONT_FRAGMENT == 0 {
            return Reason::TooBig;
        }
    }
    let told = told.max(if is_ipv6 {
        MIN_UPLINK_MTU
    } else {
        MIN_IPV4_MTU
    });
    if inner_need <= told {
        return Reason::PathTooSmall;
    }
    let built = if is_ipv6 {
        icmpv6(frame, told)
    } else {
        icmpv4(frame, told)
    };
    match built {
        Some(()) => Reason::TooBigTold,
        None => Reason::TooBig,
    }
}

/// RFC 4443 §3.2. The new headers go in front of the Ethernet header, whose place they take in
/// part: what is still needed of it is read first.
#[inline(always)]
fn icmpv6(frame: &mut Frame, told: u32) -> Option<()> {
    frame.cut(ETHERNET_LEN + QUOTED)?;
    frame.prepend(IPV6_LEN + ICMP_LEN)?;
    let mut space = frame.space::<158>(-14)?;
    let destination_mac = (space.read::<u32, 48>(), space.read::<u16, 52>());
    let source_mac = (space.read::<u32, 54>(), space.read::<u16, 58>());
    let source = (space.read::<u64, 70>(), space.read::<u64, 78>());
    let destination = (space.read::<u64, 86>(), space.read::<u64, 94>());
    space.write::<u32, 0>(source_mac.0);
    space.write::<u16, 4>(source_mac.1);
    space.write::<u32, 6>(destination_mac.0);
    space.write::<u16, 10>(destination_mac.1);
    space.write::<u16, 12>(frame::IPV6);
    space.write::<u32, 14>((6u32 << 28).to_be());
    space.write::<u32, 18>((ICMP_LEN + QUOTED << 16 | ICMPV6 << 8 | HOP_LIMIT).to_be());
    space.write::<u64, 22>(destination.0);
    space.write::<u64, 30>(destination.1);
    space.write::<u64, 38>(source.0);
    space.write::<u64, 46>(source.1);
    space.write::<u32, 54>((2u32 << 24).to_be());
    space.write::<u32, 58>(told.to_be());
    // From the addresses on: they are the first part of the pseudo header, its rest is the seed.
    let sum = space.sum::<22, 136>((ICMP_LEN + QUOTED + ICMPV6).to_be())?;
    let mut space = frame.space::<58>(-14)?;
    space.write::<u16, 56>(!sum.fold());
    Some(())
}

/// RFC 1191 §4.
#[inline(always)]
fn icmpv4(frame: &mut Frame, told: u32) -> Option<()> {
    frame.cut(ETHERNET_LEN + QUOTED)?;
    frame.prepend(IPV4_LEN + ICMP_LEN)?;
    let mut space = frame.space::<138>(-14)?;
    let destination_mac = (space.read::<u32, 28>(), space.read::<u16, 32>());
    let source_mac = (space.read::<u32, 34>(), space.read::<u16, 38>());
    let source = space.read::<u32, 54>();
    let destination = space.read::<u32, 58>();
    let words = [
        (0x4500_0000 | IPV4_LEN + ICMP_LEN + QUOTED).to_be(),
        u32::from(DONT_FRAGMENT).to_be(),
        (HOP_LIMIT << 24 | ICMPV4 << 16).to_be(),
    ];
    let [a, b, c] = words;
    let sum = Sum::ZERO.word(a).word(b).word(c);
    let checksum = !sum.word(destination).word(source).fold();
    space.write::<u32, 0>(source_mac.0);
    space.write::<u16, 4>(source_mac.1);
    space.write::<u32, 6>(destination_mac.0);
    space.write::<u16, 10>(destination_mac.1);
    space.write::<u16, 12>(frame::IPV4);
    space.write::<u32, 14>(a);
    space.write::<u32, 18>(b);
    space.write::<u32, 22>(c);
    space.write::<u16, 24>(checksum);
    space.write::<u32, 26>(destination);
    space.write::<u32, 30>(source);
    space.write::<u32, 34>((3u32 << 24 | 4 << 16).to_be());
    space.write::<u32, 38>(told.to_be());
    let sum = space.sum::<34, 104>(0)?;
    let mut space = frame.space::<38>(-14)?;
    space.write::<u16, 36>(!sum.fold());
    Some(())
}

//! An outer header turned round: the exit of replies (docs/datapath.md §5.1), from what TC ingress
//! is about to take off, and from what a device of the kernel left in front of a packet (§5.3).

use crate::{
    checksum::Sum,
    custom::Custom,
    exit::{Exit, Gateway},
    flow::mapped,
    frame::{Arrived, Frame, Number},
    map::{self, TunnelKey},
    transport::{FRAGMENT_BITS, IPV4_LEN, IPV6_LEN, UDP, UDP_LEN},
};
use core::mem::MaybeUninit;
use dynencap_abi::TunnelSpec;

const IPIP: u8 = 4;
const IPV6_IN: u8 = 41;
/// Where an outer header can be: behind an Ethernet header, and where the device has none.
const OFFSETS: [u32; 2] = [14, 0];

/// Where outer headers stand; offsets count from the outer IP header.
trait Outer {
    fn read<T: Number>(&self, offset: u32) -> Option<T>;
    fn header(&self, offset: u32, header: &mut [u64; 4], len: u32) -> Option<()>;
}

impl Outer for Frame {
    #[inline(always)]
    fn read<T: Number>(&self, offset: u32) -> Option<T> {
        Frame::read(self, offset)
    }

    #[inline(always)]
    fn header(&self, offset: u32, header: &mut [u64; 4], len: u32) -> Option<()> {
        self.load_header(offset, header, len)
    }
}

struct InFront<'a> {
    packet: &'a Arrived,
    at: u32,
}

impl Outer for InFront<'_> {
    #[inline(always)]
    fn read<T: Number>(&self, offset: u32) -> Option<T> {
        self.packet.read_in_front(self.at + offset)
    }

    #[inline(always)]
    fn header(&self, offset: u32, header: &mut [u64; 4], len: u32) -> Option<()> {
        self.packet
            .load_header_in_front(self.at + offset, header, len)
    }
}

/// What kind of outer headers they are, in one word.
#[derive(Clone, Copy)]
pub(crate) struct Shape(u32);

impl Shape {
    const IPV4: u32 = 1 << 8;
    const UDP: u32 = 1 << 9;

    /// `custom_len` of a header behind UDP.
    #[inline(always)]
    pub(crate) fn new(is_ipv4: bool, is_udp: bool, custom_len: u32) -> Self {
        let ipv4 = if is_ipv4 { Self::IPV4 } else { 0 };
        let udp = if is_udp { Self::UDP } else { 0 };
        Self(custom_len & 0xff | ipv4 | udp)
    }

    #[inline(always)]
    fn custom_len(self) -> u32 {
        self.0 & 0xff
    }
}

/// The exit of replies to what came in these headers, which are sound and still there. If there
/// is none `exit` may hold anything.
#[inline(never)]
pub(crate) fn before_removal(frame: &Frame, shape: Shape, exit: &mut MaybeUninit<Exit>) -> bool {
    turned_round(frame, shape, exit.write(Exit::NONE)).is_some()
}

#[inline(always)]
fn turned_round(outer: &impl Outer, shape: Shape, exit: &mut Exit) -> Option<()> {
    let (gateway, source, header_len) = if shape.0 & Shape::IPV4 != 0 {
        (
            Gateway::ipv4(outer.read(12)?),
            mapped(outer.read(16)?),
            IPV4_LEN,
        )
    } else {
        (
            Gateway::ipv6([outer.read(8)?, outer.read(16)?]),
            [outer.read(24)?, outer.read(32)?],
            IPV6_LEN,
        )
    };
    if gateway.is_none() {
        return None;
    }
    exit.source = source;
    if shape.0 & Shape::UDP == 0 {
        exit.set_captured(gateway, None, 0);
        return Some(());
    }
    let port = outer.read(header_len + 2)?;
    exit.set_captured(gateway, Some(port), shape.custom_len());
    outer.header(header_len + UDP_LEN, &mut exit.header, shape.custom_len())
}

/// The exit of replies to a packet in front of which a device of the kernel left outer headers.
#[inline(always)]
pub(crate) fn in_front(packet: &Arrived, exit: &mut MaybeUninit<Exit>) -> bool {
    in_front_at(packet, OFFSETS[0], exit) || in_front_at(packet, OFFSETS[1], exit)
}

#[inline(never)]
fn in_front_at(packet: &Arrived, at: u32, exit: &mut MaybeUninit<Exit>) -> bool {
    let outer = InFront { packet, at };
    judged(&outer, exit.write(Exit::NONE)).is_some()
}

#[inline(always)]
fn judged(outer: &InFront<'_>, exit: &mut Exit) -> Option<()> {
    // 1
    let first: u8 = outer.read(0)?;
    let is_ipv4 = first == 0x45;
    let (protocol, destination, header_len, payload_len) = if is_ipv4 {
        ipv4(outer)?
    } else if first >> 4 == 6 {
        ipv6(outer)?
    } else {
        return None;
    };
    let port = match protocol {
        IPIP | IPV6_IN => 0,
        UDP => (outer.read::<u64>(header_len)?.to_be() >> 32) as u16,
        _ => return None,
    };
    // 2
    let key = TunnelKey::new(destination, protocol, port.to_be());
    let tunnel = map::tunnel(&key)?;
    if !tunnel.has(TunnelSpec::KERNEL) || !tunnel.has(TunnelSpec::REFLECT) {
        return None;
    }
    // 3
    let custom = if protocol == UDP {
        // Behind whatever header at least as much of the packet follows.
        let start: u64 = outer.read(header_len + UDP_LEN)?;
        Custom::of(tunnel, start.to_be(), 8)
    } else {
        Custom::NONE
    };
    if custom.is_unknown() {
        return None;
    }
    let inner_at = if protocol == UDP {
        header_len + UDP_LEN + custom.len()
    } else {
        header_len
    };
    // 4, 5
    let version = u32::from(outer.read::<u8>(inner_at)? >> 4);
    let inner_len = match version {
        6 if protocol != IPIP => same_ipv6(outer, inner_at)?,
        4 if protocol != IPV6_IN => same_ipv4(outer, inner_at)?,
        _ => return None,
    };
    if !custom.allows(version) || payload_len < inner_len {
        return None;
    }
    // 6
    let shape = Shape::new(is_ipv4, protocol == UDP, custom.len());
    turned_round(outer, shape, exit)
}

/// Protocol, destination, and the lengths of header and payload.
type Header = (u8, [u32; 4], u32, u32);

#[inline(always)]
fn ipv6(outer: &InFront<'_>) -> Option<Header> {
    let payload_len = u32::from(u16::from_be(outer.read(4)?));
    let destination = [
        outer.read(24)?,
        outer.read(28)?,
        outer.read(32)?,
        outer.read(36)?,
    ];
    Some((outer.read(6)?, destination, IPV6_LEN, payload_len))
}

#[inline(always)]
fn ipv4(outer: &InFront<'_>) -> Option<Header> {
    let length_word: u32 = outer.read(0)?;
    let fragment_word: u32 = outer.read(4)?;
    let protocol_word: u32 = outer.read(8)?;
    let destination: u32 = outer.read(16)?;
    if u32::from_be(fragment_word) as u16 & FRAGMENT_BITS != 0 {
        return None;
    }
    let protocol = (u32::from_be(protocol_word) >> 16) as u8;
    let sum = Sum::ZERO
        .word(length_word)
        .word(fragment_word)
        .word(protocol_word)
        .word(outer.read(12)?)
        .word(destination);
    // FOU and GUE change the length, and leave the checksum as it was.
    if protocol != UDP && sum.fold() != 0xffff {
        return None;
    }
    let payload_len = (u32::from_be(length_word) & 0xffff).checked_sub(IPV4_LEN)?;
    let [high, low] = mapped(destination);
    let destination = [
        high as u32,
        (high >> 32) as u32,
        low as u32,
        (low >> 32) as u32,
    ];
    Some((protocol, destination, IPV4_LEN, payload_len))
}

/// The packet's length, if its header is that which stands in front of it at `at`.
#[inline(always)]
fn same_ipv6(outer: &InFront<'_>, at: u32) -> Option<u32> {
    let own = outer.packet;
    if own.protocol() != crate::frame::IPV6 {
        return None;
    }
    // Length, next header, hop limit: the latter goes down on a way through the host.
    const LENGTH_PROTOCOL: u32 = u32::from_be(0xffff_ff00);
    let start: u32 = own.read(4)?;
    let mut difference = u64::from((start ^ outer.read::<u32>(at + 4)?) & LENGTH_PROTOCOL);
    difference |= own.read::<u64>(8)? ^ outer.read::<u64>(at + 8)?;
    difference |= own.read::<u64>(16)? ^ outer.read::<u64>(at + 16)?;
    difference |= own.read::<u64>(24)? ^ outer.read::<u64>(at + 24)?;
    difference |= own.read::<u64>(32)? ^ outer.read::<u64>(at + 32)?;
    if difference != 0 {
        return None;
    }
    Some(IPV6_LEN + (u32::from_be(start) >> 16))
}

/// As [`same_ipv6`].
#[inline(always)]
fn same_ipv4(outer: &InFront<'_>, at: u32) -> Option<u32> {
    let own = outer.packet;
    if own.protocol() != crate::frame::IPV4 {
        return None;
    }
    let length: u16 = own.read(2)?;
    let mut difference = u64::from(length ^ outer.read::<u16>(at + 2)?);
    difference |= u64::from(own.read::<u8>(9)? ^ outer.read::<u8>(at + 9)?);
    difference |= own.read::<u64>(12)? ^ outer.read::<u64>(at + 12)?;
    if difference != 0 {
        return None;
    }
    Some(u32::from(u16::from_be(length)))
}

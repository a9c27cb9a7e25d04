//! The headers that are put in front of a packet: IPv6 or IPv4, and UDP with the custom header.

use crate::{
    checksum::{self, InnerSum, Sum},
    exit::Exit,
    frame::{self, Frame},
};

const IPV6_LEN: i32 = 40;
const IPV4_LEN: i32 = 20;
const UDP_LEN: i32 = 8;
const IPPROTO_UDP: u8 = 17;
const DONT_FRAGMENT: u32 = 0x4000;

const FIXED_GSO: u64 = 1;
const ENCAP_L3_IPV4: u64 = 1 << 1;
const ENCAP_L3_IPV6: u64 = 1 << 2;
const ENCAP_L4_UDP: u64 = 1 << 4;
/// The custom header's length goes here, as if it were an inner link-layer header: GSO then
/// finds the inner packet behind it.
const ENCAP_L2_SHIFT: u32 = 56;

/// What the outer headers take from the packet.
#[derive(Clone, Copy)]
pub(crate) struct Outer {
    /// With an IPv4 header IPv4-mapped.
    pub(crate) source: [u64; 2],
    /// Protocol number of the packet itself: 4 or 41.
    pub(crate) protocol: u8,
    pub(crate) traffic_class: u8,
    pub(crate) hop_limit: u8,
    /// Of the IPv6 header.
    pub(crate) flow_label: u32,
    /// Of the IPv4 header, as it stands in memory.
    pub(crate) identification: u16,
    /// Of the UDP header, as on the wire.
    pub(crate) source_port: u16,
    /// What the IP header announces: payload length of IPv6, total length of IPv4.
    pub(crate) length: u16,
}

impl Outer {
    #[inline(always)]
    pub(crate) fn udp_len(&self, exit: &Exit) -> u16 {
        if exit.is_ipv4() {
            self.length.wrapping_sub(IPV4_LEN as u16)
        } else {
            self.length
        }
    }

    /// Makes the room and fills it, without a UDP checksum (RFC 6935: what is inside has one of
    /// its own). On `None` the frame is to be dropped.
    #[inline(always)]
    pub(crate) fn push_ipv6(&self, frame: &mut Frame, exit: &Exit) -> Option<()> {
        self.make_room_for_ipv6(frame, exit)?;
        self.fill_ipv6(frame, exit)
    }

    /// The first half of [`Outer::push_ipv6`].
    #[inline(always)]
    pub(crate) fn make_room_for_ipv6(&self, frame: &mut Frame, exit: &Exit) -> Option<()> {
        let udp = exit.has_udp().then_some(exit.header_len());
        frame.adjust_room(exit.overhead() as i32, room_for_ipv6(udp))
    }

    /// The second half.
    #[inline(always)]
    pub(crate) fn fill_ipv6(&self, frame: &mut Frame, exit: &Exit) -> Option<()> {
        self.write_ipv6(frame, exit)?;
        if exit.has_udp() {
            self.write_udp(frame, exit, IPV6_LEN, 0)?;
            write_words(frame, exit, IPV6_LEN + UDP_LEN)?;
        }
        Some(())
    }

    /// Whether [`Outer::push_ipv6`] can do it: what most exits are.
    #[inline(always)]
    pub(crate) fn is_plain(exit: &Exit) -> bool {
        !exit.is_ipv4() && exit.header_len() & 7 == 0
    }

    #[inline(always)]
    fn write_ipv6(&self, frame: &mut Frame, exit: &Exit) -> Option<()> {
        let class_label = u32::from(self.traffic_class) << 20 | self.flow_label;
        // Ethernet type and IPv6 header as one, for a single comparison with `data_end`.
        let mut space = frame.space::<42>(-2)?;
        space.write::<u16, 0>(frame::IPV6);
        space.write::<u32, 2>((6 << 28 | class_label).to_be());
        space.write::<u16, 6>(self.length.to_be());
        space.write::<u8, 8>(self.next_header(exit));
        space.write::<u8, 9>(self.hop_limit);
        space.write::<u64, 10>(self.source[0]);
        space.write::<u64, 18>(self.source[1]);
        space.write::<u64, 26>(exit.gateway[0]);
        space.write::<u64, 34>(exit.gateway[1]);
        Some(())
    }

    #[inline(always)]
    fn next_header(&self, exit: &Exit) -> u8 {
        if exit.has_udp() {
            IPPROTO_UDP
        } else {
            self.protocol
        }
    }

    #[inline(always)]
    fn write_udp(&self, frame: &mut Frame, exit: &Exit, at: i32, checksum: u16) -> Option<()> {
        let mut space = frame.space::<8>(at)?;
        space.write::<u16, 0>(self.source_port);
        space.write::<u16, 2>(exit.destination_port());
        space.write::<u16, 4>(self.udp_len(exit).to_be());
        space.write::<u16, 6>(checksum);
        Some(())
    }
}

/// What adjust_room is asked for. FIXED_GSO: the segments keep their size (the MTU was checked),
/// and without it UDP super-packets are refused. The ENCAP flags let the kernel segment behind
/// us. The packet's hash is left as it is: it is the inner flow's, and the outer flow is the
/// same one. `udp` is the custom header's length, where there is a UDP header.
#[inline(always)]
fn room(udp: Option<u32>, version: u64) -> u64 {
    match udp {
        Some(len) => FIXED_GSO | version | ENCAP_L4_UDP | u64::from(len) << ENCAP_L2_SHIFT,
        None => FIXED_GSO | version,
    }
}

/// As [`room`], with an outer IPv6 header.
#[inline(always)]
pub(crate) fn room_for_ipv6(udp: Option<u32>) -> u64 {
    room(udp, ENCAP_L3_IPV6)
}

/// As [`Outer::push_ipv6`] for headers of all kinds, with whatever checksum is asked for.
#[inline(never)]
pub(crate) fn push_any(
    frame: &mut Frame,
    outer: &Outer,
    exit: &Exit,
    inner_sum: InnerSum,
) -> Option<()> {
    if exit.is_ipv4() {
        write_ipv4(frame, outer, exit)?;
    } else {
        outer.make_room_for_ipv6(frame, exit)?;
        outer.write_ipv6(frame, exit)?;
    }
    if !exit.has_udp() {
        return Some(());
    }
    let checksum = checksum::outer_udp(outer, exit, inner_sum);
    let at = if exit.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
    outer.write_udp(frame, exit, at, checksum)?;
    frame.store_header(at + UDP_LEN, &exit.header, exit.header_len())
}

/// An outer IPv4 header. With the flag adjust_room also makes IPv4 the kernel's idea of the
/// frame's protocol, but leaves the Ethernet type to us.
#[inline(always)]
fn write_ipv4(frame: &mut Frame, outer: &Outer, exit: &Exit) -> Option<()> {
    let udp = exit.has_udp().then_some(exit.header_len());
    frame.adjust_room(exit.overhead() as i32, room(udp, ENCAP_L3_IPV4))?;
    let version_tos_length =
        0x4500_0000 | u32::from(outer.traffic_class) << 16 | u32::from(outer.length);
    let identification = u32::from(u16::from_be(outer.identification));
    let ttl_protocol = u32::from(outer.hop_limit) << 24 | u32::from(outer.next_header(exit)) << 16;
    let words = [
        version_tos_length.to_be(),
        (identification << 16 | DONT_FRAGMENT).to_be(),
        ttl_protocol.to_be(),
        (outer.source[1] >> 32) as u32,
        (exit.gateway[1] >> 32) as u32,
    ];
    let [a, b, c, d, e] = words;
    let checksum = !Sum::ZERO.word(a).word(b).word(c).word(d).word(e).fold();
    let mut space = frame.space::<22>(-2)?;
    space.write::<u16, 0>(frame::IPV4);
    space.write::<u32, 2>(a);
    space.write::<u32, 6>(b);
    space.write::<u32, 10>(c);
    space.write::<u16, 12>(checksum);
    space.write::<u32, 14>(d);
    space.write::<u32, 18>(e);
    Some(())
}

/// Writes a custom header of whole words, each at a constant offset: a copy of variable length
/// would be a loop over bytes.
#[inline(always)]
fn write_words(frame: &mut Frame, exit: &Exit, at: i32) -> Option<()> {
    let mut rest = exit.header_len();
    let mut offset = at;
    for word in exit.header {
        if rest < 8 {
            break;
        }
        frame.space::<8>(offset)?.write::<u64, 0>(word);
        rest -= 8;
        offset += 8;
    }
    Some(())
}

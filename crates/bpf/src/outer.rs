//! The headers that are put in front of a packet: IPv6, and UDP with the custom header.

use crate::{
    frame::{Frame, IPV6},
    storage::Exit,
};

const IPV6_LEN: i32 = 40;
const UDP_LEN: i32 = 8;
const IPPROTO_UDP: u8 = 17;

const FIXED_GSO: u64 = 1;
const ENCAP_L3_IPV6: u64 = 1 << 2;
const ENCAP_L4_UDP: u64 = 1 << 4;
/// The custom header's length goes here, as if it were an inner link-layer header: GSO then
/// finds the inner packet behind it.
const ENCAP_L2_SHIFT: u32 = 56;

/// What the outer headers take from the packet.
pub(crate) struct Outer {
    pub(crate) source: [u64; 2],
    /// Protocol number of the packet itself: 4 or 41.
    pub(crate) protocol: u8,
    pub(crate) traffic_class: u8,
    pub(crate) hop_limit: u8,
    pub(crate) flow_label: u32,
    /// As a plain number, for an exit without a source port.
    pub(crate) flow_port: u16,
    /// What the outer IPv6 header announces, UDP included.
    pub(crate) payload_len: u16,
}

impl Outer {
    /// Makes the room and fills it. On `None` the frame is to be dropped.
    #[inline(always)]
    pub(crate) fn push(&self, frame: &mut Frame, exit: &Exit) -> Option<()> {
        // FIXED_GSO: the segments keep their size (the MTU was checked), and without it UDP
        // super-packets are refused. The ENCAP flags let the kernel segment behind us. The
        // packet's hash is left as it is: it is the inner flow's, and the outer flow is the
        // same one.
        let room = if exit.has_udp() {
            FIXED_GSO
                | ENCAP_L3_IPV6
                | ENCAP_L4_UDP
                | u64::from(exit.header_len()) << ENCAP_L2_SHIFT
        } else {
            FIXED_GSO | ENCAP_L3_IPV6
        };
        frame.adjust_room(exit.overhead() as i32, room)?;
        let class_label = u32::from(self.traffic_class) << 20 | self.flow_label;
        let next_header = if exit.has_udp() {
            IPPROTO_UDP
        } else {
            self.protocol
        };
        // Ethernet type and IPv6 header as one, for a single comparison with `data_end`.
        let mut space = frame.space::<42>(-2)?;
        space.write::<u16, 0>(IPV6);
        space.write::<u32, 2>((6 << 28 | class_label).to_be());
        space.write::<u16, 6>(self.payload_len.to_be());
        space.write::<u8, 8>(next_header);
        space.write::<u8, 9>(self.hop_limit);
        space.write::<u64, 10>(self.source[0]);
        space.write::<u64, 18>(self.source[1]);
        space.write::<u64, 26>(exit.gateway[0]);
        space.write::<u64, 34>(exit.gateway[1]);
        if exit.has_udp() {
            self.write_udp(frame, exit)?;
        }
        Some(())
    }

    #[inline(always)]
    fn write_udp(&self, frame: &mut Frame, exit: &Exit) -> Option<()> {
        let source_port = match exit.source_port() {
            0 => self.flow_port.to_be(),
            port => port,
        };
        let mut space = frame.space::<8>(IPV6_LEN)?;
        space.write::<u16, 0>(source_port);
        space.write::<u16, 2>(exit.destination_port());
        space.write::<u16, 4>(self.payload_len.to_be());
        // No checksum, RFC 6935: what is inside has one of its own.
        space.write::<u16, 6>(0);
        write_custom(frame, exit)
    }
}

/// Writes the custom header in whole words and a tail of 4, 2 and 1 bytes, each at a constant
/// offset: a copy of variable length would be a loop over bytes.
#[inline(always)]
fn write_custom(frame: &mut Frame, exit: &Exit) -> Option<()> {
    let mut rest = exit.header_len();
    let mut offset = IPV6_LEN + UDP_LEN;
    for word in exit.header {
        if rest < 8 {
            return write_tail(frame, offset, word, rest);
        }
        frame.space::<8>(offset)?.write::<u64, 0>(word);
        rest -= 8;
        offset += 8;
    }
    Some(())
}

#[inline(always)]
fn write_tail(frame: &mut Frame, mut offset: i32, word: u64, rest: u32) -> Option<()> {
    let mut word = u64::from_le(word);
    if rest & 4 != 0 {
        frame
            .space::<4>(offset)?
            .write::<u32, 0>((word as u32).to_le());
        word >>= 32;
        offset += 4;
    }
    if rest & 2 != 0 {
        frame
            .space::<2>(offset)?
            .write::<u16, 0>((word as u16).to_le());
        word >>= 16;
        offset += 2;
    }
    if rest & 1 != 0 {
        frame.space::<1>(offset)?.write::<u8, 0>(word as u8);
    }
    Some(())
}

//! The Internet checksum (RFC 1071) over words as they stand in memory, and the valid outer UDP
//! checksum by local checksum offload (docs/datapath.md §2): no byte of the payload is read.

use crate::{
    exit::Exit,
    frame::{self, Frame},
    outer::Outer,
    transport::{IPV6_LEN, TCP, Transport, UDP, UDP_LEN},
};

/// A one's complement sum, not yet folded. Whether a 16-bit word is taken alone or as half of a
/// longer one makes no difference, nor does the machine's byte order (RFC 1071 §2).
#[derive(Clone, Copy)]
pub(crate) struct Sum(u64);

impl Sum {
    pub(crate) const ZERO: Self = Self(0);

    #[inline(always)]
    pub(crate) fn half(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    #[inline(always)]
    pub(crate) fn word(self, word: u32) -> Self {
        Self(self.0 + u64::from(word))
    }

    #[inline(always)]
    pub(crate) fn double(self, word: u64) -> Self {
        self.word(word as u32).word((word >> 32) as u32)
    }

    /// Takes a word away: adds its complement.
    #[inline(always)]
    fn less(self, word: u32) -> Self {
        self.word(!word)
    }

    #[inline(always)]
    fn less_half(self, word: u16) -> Self {
        self.half(!word)
    }

    /// The 16-bit sum; 0 only where every word was 0.
    #[inline(always)]
    pub(crate) fn fold(self) -> u16 {
        let mut sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum as u16
    }
}

/// What a packet adds to the sum over whatever it stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct InnerSum(u32);

impl InnerSum {
    /// No valid checksum is asked for.
    pub(crate) const NOT_ASKED: Self = Self(u32::MAX);
    /// It does not follow from the headers.
    const UNKNOWN: u32 = u32::MAX;

    /// Of a packet with a payload of TCP or UDP whose own checksums are right. `None`: it does not
    /// follow from the headers.
    #[inline(always)]
    pub(crate) fn of(frame: &Frame, transport: Transport, len: u32) -> Option<Self> {
        match folded_sum_of_inner(frame, transport, len) {
            Self::UNKNOWN => None,
            sum => Some(Self(sum)),
        }
    }
}

/// A number, not an `Option`: BPF functions return one register.
#[inline(never)]
fn folded_sum_of_inner(frame: &Frame, transport: Transport, len: u32) -> u32 {
    match sum_of_inner(frame, transport, len) {
        Some(sum) => u32::from(sum.fold()),
        None => InnerSum::UNKNOWN,
    }
}

#[inline(always)]
fn sum_of_inner(frame: &Frame, transport: Transport, len: u32) -> Option<Sum> {
    const CHECKSUM: u32 = 6;
    if frame.gso_size() > 0 {
        return None;
    }
    let offset = transport.offset()?;
    let protocol = transport.protocol();
    match protocol {
        TCP => {}
        UDP if offset + UDP_LEN <= len && frame.read::<u16>(offset + CHECKSUM)? != 0 => {}
        _ => return None,
    }
    let protocol = u16::from(protocol).to_be();
    if frame.protocol() == frame::IPV6 {
        if offset != IPV6_LEN {
            return None;
        }
        // Both headers have the addresses and the length; the payload cancels the pseudo header.
        let class_label: u32 = frame.read(0)?;
        let next_header_hop_limit: u16 = frame.read(6)?;
        return Some(
            Sum::ZERO
                .word(class_label)
                .half(next_header_hop_limit)
                .less_half(protocol),
        );
    }
    // The header's own sum is that of a right checksum: nothing.
    let source: u32 = frame.read(12)?;
    let destination: u32 = frame.read(16)?;
    Some(
        Sum::ZERO
            .less(source)
            .less(destination)
            .less_half(protocol)
            .less_half(((len - offset) as u16).to_be()),
    )
}

/// The outer UDP checksum as it stands on the wire, for an outer header that is otherwise
/// complete; 0 where none is asked for.
#[inline(always)]
pub(crate) fn outer_udp(outer: &Outer, exit: &Exit, inner: InnerSum) -> u16 {
    if inner == InnerSum::NOT_ASKED {
        return 0;
    }
    let udp_len = outer.udp_len(exit).to_be();
    let [h0, h1, h2, h3] = exit.header;
    // A packet behind an odd number of bytes adds its sum with the bytes swapped.
    let inner = if exit.header_len() & 1 == 0 {
        inner.0 as u16
    } else {
        (inner.0 as u16).swap_bytes()
    };
    let sum = Sum::ZERO
        .half(udp_len)
        .half(u16::from(UDP).to_be())
        .half(outer.source_port)
        .half(exit.destination_port())
        .half(udp_len)
        .double(h0)
        .double(h1)
        .double(h2)
        .double(h3)
        .half(inner);
    let sum = if exit.is_ipv4() {
        // IPv4-mapped: the prefix's ffff is no part of the pseudo header.
        sum.word((outer.source[1] >> 32) as u32)
            .word((exit.gateway[1] >> 32) as u32)
    } else {
        sum.double(outer.source[0])
            .double(outer.source[1])
            .double(exit.gateway[0])
            .double(exit.gateway[1])
    };
    match !sum.fold() {
        0 => 0xffff,
        checksum => checksum,
    }
}

/// RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
#[inline(always)]
pub(crate) fn rfc1624(checksum: u16, before: u16, after: u16) -> u16 {
    let mut sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_sum_as_in_rfc_1071() {
        // The example of §3: 00 01 f2 03 f4 f5 f6 f7 sums to dd f2.
        let sum = Sum::ZERO.double(u64::from_ne_bytes([0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]));
        assert_eq!(sum.fold().to_ne_bytes(), [0xdd, 0xf2]);
    }

    #[test]
    fn what_is_added_and_taken_away_leaves_nothing() {
        let sum = Sum::ZERO.word(0x1234_5678).half(0xfffe);
        let nothing = sum.less(0x1234_5678).less_half(0xfffe);
        assert_eq!(nothing.fold(), 0xffff);
    }
}

//! ICMP errors to the senders of super-packets, as the kernel engine sees them.
//!
//! The kernel cuts only what carries the sum of its pseudo header in place of a checksum, so a
//! packet socket's super-packet has that, whatever the trace's packet had. An error quotes it. To
//! compare, what the trace had is put back.

use super::{Frames, Port};
use crate::event::{Gso, Transport};
use std::ops::Range;

/// Puts the packet's own checksum back into the errors among these frames.
pub(super) fn restore(frames: &mut Frames, among: Range<usize>, packet: &[u8], gso: &Gso) {
    let place = usize::from(gso.transport_offset)
        + match gso.transport {
            Transport::Tcp => 16,
            Transport::Udp => 6,
        };
    let Some(own) = word(packet, place) else {
        return;
    };
    for at in among {
        let (icmp, bytes) = match frames.own_mut(at) {
            Some((Port::Delivered, 0x86dd, bytes)) => (40, bytes),
            Some((Port::Delivered, _, bytes)) => (20, bytes),
            _ => continue,
        };
        replace(bytes, icmp, icmp + 8 + place, own);
    }
}

/// Writes a word of the quote and updates the error's checksum (RFC 1624, equation 3).
fn replace(bytes: &mut [u8], icmp: usize, place: usize, own: u16) -> Option<()> {
    let checksum = icmp + 2;
    let (old, quoted) = (word(bytes, checksum)?, word(bytes, place)?);
    let mut sum = u32::from(!old) + u32::from(!quoted) + u32::from(own);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let updated = !(sum as u16);
    for (at, value) in [(place, own), (checksum, updated)] {
        bytes
            .get_mut(at..at + 2)?
            .copy_from_slice(&value.to_be_bytes());
    }
    Some(())
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*word))
}

//! Which segments move a connection's path (5.4, line 6): those in the window that are newer than
//! what came by the path in use.

use crate::extension::Upper;
use crate::owner::tcp_header;
use dynencap_abi::REFLECT_WINDOW;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// What a TCP socket expects, of `bpf_tcp_sock`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// The next sequence number that it expects.
    pub rcv_nxt: u32,
    /// The oldest of its own that is not acknowledged.
    pub snd_una: u32,
    /// The next that it will send.
    pub snd_nxt: u32,
}

/// A segment's place in its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    sequence: u32,
    acknowledgement: u32,
    /// Behind payload and FIN.
    end: u32,
    flags: u8,
}

impl Segment {
    pub(super) fn of(upper: &Upper, bytes: &[u8]) -> Option<Self> {
        let tcp = tcp_header(upper, bytes)?;
        let word = |at: usize| {
            let [a, b, c, d] = [tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]];
            u32::from_be_bytes([a, b, c, d])
        };
        let header_len = 4 * usize::from(tcp[12] >> 4);
        let headers = upper.offset?.saturating_add(header_len);
        let payload = bytes.len().saturating_sub(headers) as u32;
        let flags = tcp[13];
        let sequence = word(4);
        Some(Self {
            sequence,
            acknowledgement: word(8),
            end: sequence
                .wrapping_add(payload)
                .wrapping_add(u32::from(flags & FIN != 0)),
            flags,
        })
    }

    /// What `abi::SocketState::newest` holds of it.
    pub(super) fn newest(&self) -> u64 {
        (u64::from(self.end) << 32 | u64::from(self.acknowledgement)).max(1)
    }

    pub(super) fn counts(&self, expected: &Sequence, newest: u64) -> bool {
        let Sequence {
            rcv_nxt,
            snd_una,
            snd_nxt,
        } = *expected;
        self.sequence.wrapping_sub(rcv_nxt) < REFLECT_WINDOW
            && self.acknowledgement.wrapping_sub(snd_una) <= snd_nxt.wrapping_sub(snd_una)
            && self.flags & (ACK | RST | SYN) == ACK
            && self.is_newer(newest)
    }

    fn is_newer(&self, newest: u64) -> bool {
        let (end, acknowledgement) = ((newest >> 32) as u32, newest as u32);
        newest == 0
            || is_behind(self.end, end)
            || self.end == end && is_behind(self.acknowledgement, acknowledgement)
    }
}

/// Whether `a` comes after `b`, modulo 2^32.
fn is_behind(a: u32, b: u32) -> bool {
    (1..=i32::MAX as u32).contains(&a.wrapping_sub(b))
}

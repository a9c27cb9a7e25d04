//! What came out of an engine, held without a copy of what stands unchanged in the batch: a frame
//! is a head of the engine's own and a tail that may lie in the batch still.

use crate::event::Batch;
use std::fmt;
use std::ops::Range;

/// Where a frame was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// On the uplink's wire.
    Wire,
    /// Behind TC ingress, on its way to a local socket.
    Delivered,
}

/// The frames that came out of a batch, in order, in one reused buffer.
#[derive(Debug, Default)]
pub struct Frames {
    /// Heads, one behind the other.
    bytes: Vec<u8>,
    index: Vec<Entry>,
    longest: usize,
}

#[derive(Debug)]
struct Entry {
    /// Where its head ends; it begins where the one before ends.
    head_end: usize,
    /// Place in the batch's bytes.
    tail: Range<usize>,
    port: Port,
    ethertype: u16,
}

/// One frame that came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutFrame<'a> {
    /// Where it was seen.
    pub port: Port,
    /// Ethernet type, host byte order.
    pub ethertype: u16,
    /// From the network header on.
    pub bytes: Bytes<'a>,
}

/// Bytes in two pieces. Where they are cut is nobody's business: they are equal when their bytes
/// are.
#[derive(Clone, Copy, Default)]
pub struct Bytes<'a> {
    head: &'a [u8],
    tail: &'a [u8],
}

impl Frames {
    /// Adds a frame given in parts, each of which is copied.
    pub fn push(&mut self, port: Port, ethertype: u16, parts: &[&[u8]]) {
        self.push_on(port, ethertype, parts, 0..0);
    }

    /// Adds a frame of which only the head is copied; its tail is at this place of the batch's
    /// bytes.
    pub fn push_on(&mut self, port: Port, ethertype: u16, head: &[&[u8]], tail: Range<usize>) {
        let start = self.bytes.len();
        for part in head {
            self.bytes.extend_from_slice(part);
        }
        let length = self.bytes.len() - start + tail.len();
        self.longest = self.longest.max(length);
        self.index.push(Entry {
            head_end: self.bytes.len(),
            tail,
            port,
            ethertype,
        });
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The length of the longest in bytes, from the network header on; 0 where there is none.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The frame at a place, given the batch that it came from.
    #[must_use]
    pub fn frame<'a>(&'a self, at: usize, batch: &'a Batch) -> Option<OutFrame<'a>> {
        let entry = self.index.get(at)?;
        Some(OutFrame {
            port: entry.port,
            ethertype: entry.ethertype,
            bytes: Bytes {
                head: self.bytes.get(self.head(at)?)?,
                tail: batch.bytes(&entry.tail),
            },
        })
    }

    /// Ethernet type, head, and the tail's place in the batch of the frame at a place.
    #[inline]
    pub(crate) fn pieces(&self, at: usize) -> Option<(u16, &[u8], Range<usize>)> {
        let entry = self.index.get(at)?;
        let head = self.bytes.get(self.head(at)?)?;
        Some((entry.ethertype, head, entry.tail.clone()))
    }

    /// All of them in order.
    pub fn iter<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = OutFrame<'a>> {
        (0..self.len()).filter_map(|at| self.frame(at, batch))
    }

    /// Where each was seen, and its length in bytes from the network header on.
    pub fn lengths(&self) -> impl Iterator<Item = (Port, usize)> {
        (0..self.len()).filter_map(|at| self.length(at))
    }

    /// The same for the frame at a place.
    pub(crate) fn length(&self, at: usize) -> Option<(Port, usize)> {
        let entry = self.index.get(at)?;
        let length = self.head(at)?.len() + entry.tail.len();
        Some((entry.port, length))
    }

    /// Port, Ethernet type and bytes of the frame at a place, where it was copied as a whole.
    pub(super) fn own_mut(&mut self, at: usize) -> Option<(Port, u16, &mut [u8])> {
        let head = self.head(at)?;
        let entry = self.index.get(at).filter(|entry| entry.tail.is_empty())?;
        let bytes = self.bytes.get_mut(head)?;
        Some((entry.port, entry.ethertype, bytes))
    }

    /// Where its head lies.
    fn head(&self, at: usize) -> Option<Range<usize>> {
        let start = match at.checked_sub(1) {
            Some(before) => self.index.get(before)?.head_end,
            None => 0,
        };
        Some(start..self.index.get(at)?.head_end)
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.index.clear();
        self.longest = 0;
    }
}

impl<'a> Bytes<'a> {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy in one piece.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        [self.head, self.tail].concat()
    }

    /// Both pieces, either of which may be empty.
    #[must_use]
    pub fn parts(&self) -> [&'a [u8]; 2] {
        [self.head, self.tail]
    }
}

impl<'a> From<&'a [u8]> for Bytes<'a> {
    fn from(tail: &'a [u8]) -> Self {
        Self { head: &[], tail }
    }
}

impl PartialEq for Bytes<'_> {
    fn eq(&self, other: &Self) -> bool {
        let (early, late) = match self.head.len() <= other.head.len() {
            true => (self, other),
            false => (other, self),
        };
        let Some((first, middle)) = late.head.split_at_checked(early.head.len()) else {
            return false;
        };
        let Some((also_middle, last)) = early.tail.split_at_checked(middle.len()) else {
            return false;
        };
        early.head == first && also_middle == middle && last == late.tail
    }
}

impl Eq for Bytes<'_> {}

impl fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.head)
            .entries(self.tail)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Frames, Port};
    use crate::event::Batch;

    #[test]
    fn bytes_are_equal_wherever_they_are_cut() {
        let whole: Vec<u8> = (0..7).collect();
        let cut = |at: usize, whole: &'static [u8]| {
            let (head, tail) = whole.split_at(at);
            Bytes { head, tail }
        };
        let whole: &'static [u8] = whole.leak();
        let other: &'static [u8] = &[0, 1, 2, 3, 9, 5, 6];
        for a in 0..=7 {
            for b in 0..=7 {
                assert_eq!(cut(a, whole), cut(b, whole));
                assert_ne!(cut(a, whole), cut(b, other));
                let shorter = cut(b.min(6), &whole[..6]);
                assert_ne!(cut(a, whole), shorter);
                assert_ne!(shorter, cut(a, whole));
            }
            assert_eq!(cut(a, whole).to_vec(), whole);
        }
    }

    #[test]
    fn a_tail_is_read_from_the_batch() {
        let mut batch = Batch::default();
        let place = batch.store(&[4, 5, 6]);
        let mut frames = Frames::default();
        frames.push(Port::Wire, 0x0800, &[&[1], &[2, 3]]);
        frames.push_on(Port::Delivered, 0x86dd, &[&[9]], place);
        let seen: Vec<_> = frames
            .iter(&batch)
            .map(|frame| (frame.port, frame.ethertype, frame.bytes.to_vec()))
            .collect();
        let expected = [
            (Port::Wire, 0x0800, vec![1, 2, 3]),
            (Port::Delivered, 0x86dd, vec![9, 4, 5, 6]),
        ];
        assert_eq!(seen, expected);
        let lengths: Vec<_> = frames.lengths().collect();
        assert_eq!(lengths, [(Port::Wire, 3), (Port::Delivered, 4)]);
        assert_eq!(frames.longest(), 4);
        // What lies in the batch is not the engine's to change.
        assert!(frames.own_mut(0).is_some() && frames.own_mut(1).is_none());
        frames.clear();
        assert_eq!((frames.len(), frames.longest()), (0, 0));
    }
}

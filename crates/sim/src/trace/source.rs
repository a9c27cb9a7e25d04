//! A window over the input: one reused buffer, filled on demand, that knows its offset
//! in the file. How many bytes make a record is the formats' business.

use std::io::{ErrorKind, Read};
use std::ops::Range;

use super::chunk::{Chunked, Chunks};
use super::error::{Broken, Fault};

/// Large enough that filling costs little per packet, small enough to stay in cache.
pub(super) const INITIAL: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Source<R> {
    input: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Offset in the file of `buffer[start]`.
    offset: u64,
}

impl<C: Chunks> Source<Chunked<C>> {
    /// Turns to the next chunk and gives the window's memory away: what lies in it stays as it
    /// is. What is not taken yet is copied in front of the chunk.
    pub(super) fn turn(&mut self, spare: Vec<u8>) -> Vec<u8> {
        let kept = self.end - self.start;
        let (mut next, start) = match self.input.take_chunk(spare) {
            Some((chunk, at)) if at >= kept => (chunk, at - kept),
            // A packet longer than the room in front of a chunk.
            Some((chunk, at)) => {
                let mut longer = vec![0; kept];
                longer.extend_from_slice(chunk.get(at..).unwrap_or_default());
                (longer, 0)
            }
            None => (vec![0; kept], 0),
        };
        if let (Some(place), Some(left)) = (
            next.get_mut(start..start + kept),
            self.buffer.get(self.start..self.end),
        ) {
            place.copy_from_slice(left);
        }
        self.start = start;
        self.end = next.len();
        std::mem::replace(&mut self.buffer, next)
    }

    /// Gives the window's memory away as it is.
    pub(super) fn close(self) -> Vec<u8> {
        self.buffer
    }
}

impl<R: Read> Source<R> {
    /// `room`: how many bytes the window has at the start.
    pub(super) fn new(input: R, room: usize) -> Source<R> {
        Source {
            input,
            buffer: vec![0; room],
            start: 0,
            end: 0,
            offset: 0,
        }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What is in the window now.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// A range that `take` gave out; valid until the next `fill`.
    #[inline]
    pub(super) fn taken(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }

    /// Widens the window to `wanted` bytes, which the caller has checked against its
    /// limit; returns how many there are, fewer only at the end of the file.
    #[inline]
    pub(super) fn fill(&mut self, wanted: usize) -> Result<usize, Broken> {
        let available = self.end - self.start;
        if available >= wanted {
            return Ok(available);
        }
        self.refill(wanted)
    }

    /// `fill`, where fewer bytes break the file.
    #[inline]
    pub(super) fn require(&mut self, wanted: usize, what: &'static str) -> Result<(), Broken> {
        let found = self.fill(wanted)?;
        if found >= wanted {
            return Ok(());
        }
        let fault = Fault::Truncated {
            what,
            wanted: wanted as u64,
            found: found as u64,
        };
        Err(self.broken(fault))
    }

    /// Moves the window past `length` bytes, returning where they lie in the buffer.
    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Range<usize> {
        let from = self.start;
        self.start = self.end.min(from.saturating_add(length));
        self.offset += (self.start - from) as u64;
        from..self.start
    }

    /// Passes over `length` bytes without holding them; returns how many there were.
    pub(super) fn skip(&mut self, length: u64) -> Result<u64, Broken> {
        let mut left = length;
        while left > 0 {
            let available = self.fill(1)?;
            if available == 0 {
                break;
            }
            let step = usize::try_from(left).map_or(available, |left| left.min(available));
            self.take(step);
            left -= step as u64;
        }
        Ok(length - left)
    }

    /// A fault of what begins at the window's start.
    pub(super) fn broken(&self, fault: Fault) -> Broken {
        Broken {
            offset: self.offset,
            fault,
        }
    }

    /// How much memory the window takes.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    #[cold]
    fn refill(&mut self, wanted: usize) -> Result<usize, Broken> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        while self.end < wanted {
            let Some(free) = self.buffer.get_mut(self.end..) else {
                break;
            };
            let room = free.len();
            match self.input.read(free) {
                Ok(0) => break,
                // A reader that claims more than it was given room for is held to the room.
                Ok(count) => self.end += count.min(room),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    let offset = self.offset + self.end as u64;
                    return Err(Broken {
                        offset,
                        fault: Fault::Read { source },
                    });
                }
            }
        }
        Ok(self.end)
    }
}

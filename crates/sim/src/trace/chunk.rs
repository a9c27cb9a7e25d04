//! Input in chunks: whoever takes the packets of a trace keeps the chunk that they lie in, and
//! nothing of it is copied but the piece of a packet that the next chunk completes.

use std::io::{self, ErrorKind, Read};

/// Bytes of a chunk: many packets, and few enough to stay in a core's cache.
pub const CHUNK: usize = 128 << 10;
/// Free bytes in front of each chunk, for what the chunk before has of a packet.
pub const HEADROOM: usize = 64 << 10;

/// Where chunks come from, in order.
pub trait Chunks {
    /// The next chunk, behind [`HEADROOM`] bytes of any content; `None` at the end, and for ever
    /// after an error. `spare` is memory to be used again.
    ///
    /// # Errors
    /// As reading.
    fn next(&mut self, spare: Vec<u8>) -> io::Result<Option<Vec<u8>>>;
}

/// Reads one chunk; at the end there is none.
///
/// # Errors
/// As reading; a signal is none.
pub fn read_chunk(input: &mut impl Read, mut spare: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    spare.resize(HEADROOM + CHUNK, 0);
    loop {
        let room = spare.get_mut(HEADROOM..).unwrap_or_default();
        match input.read(room) {
            Ok(0) => return Ok(None),
            Ok(count) => {
                spare.truncate(HEADROOM + count.min(CHUNK));
                return Ok(Some(spare));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Chunks as they are asked for.
pub struct Reading<R>(pub R);

impl<R: Read> Chunks for Reading<R> {
    fn next(&mut self, spare: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        read_chunk(&mut self.0, spare)
    }
}

/// Chunks as the input of a [`super::Reader`]: byte by byte where a packet is longer than a
/// chunk, whole where the window turns.
pub struct Chunked<C> {
    chunks: C,
    chunk: Vec<u8>,
    at: usize,
    /// Kept until somebody reads.
    error: Option<io::Error>,
}

impl<C: Chunks> Chunked<C> {
    /// Nothing is read yet.
    pub fn new(chunks: C) -> Self {
        Self {
            chunks,
            chunk: Vec::new(),
            at: 0,
            error: None,
        }
    }

    /// What comes next, as a chunk and where its unread bytes begin.
    pub(super) fn take_chunk(&mut self, spare: Vec<u8>) -> Option<(Vec<u8>, usize)> {
        if self.at == self.chunk.len() {
            self.pull(spare);
        }
        let at = std::mem::take(&mut self.at);
        let chunk = std::mem::take(&mut self.chunk);
        (at < chunk.len()).then_some((chunk, at))
    }

    fn pull(&mut self, spare: Vec<u8>) {
        if self.error.is_some() {
            return;
        }
        match self.chunks.next(spare) {
            Ok(Some(chunk)) => (self.chunk, self.at) = (chunk, HEADROOM),
            Ok(None) => (self.chunk, self.at) = (Vec::new(), 0),
            Err(error) => self.error = Some(error),
        }
    }
}

impl<C: Chunks> Read for Chunked<C> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            let spare = std::mem::take(&mut self.chunk);
            self.at = 0;
            self.pull(spare);
        }
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let mut rest = self.chunk.get(self.at..).unwrap_or_default();
        let count = rest.read(into)?;
        self.at += count;
        Ok(count)
    }
}

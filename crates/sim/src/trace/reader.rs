//! The reader of captures: recognises the format, numbers the packets, and puts file and
//! packet to whatever the formats find broken.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use super::chunk::{Chunked, Chunks, HEADROOM};
use super::error::{Broken, Fault, TraceError};
use super::pcap::Pcap;
use super::pcapng::{self, Pcapng};
use super::source::{INITIAL, Source};
use super::{LinkType, Timestamp};

/// One captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Counted from 1 over the whole file.
    pub number: u64,
    /// When it was captured. Where pcapng states no time (Simple Packet Block) or one
    /// that [`Timestamp`] cannot tell (before 1970), that of the packet before: the order
    /// in time stays that of the file.
    pub time: Timestamp,
    /// Counted from 0 over the whole file, all sections together.
    pub interface: u32,
    /// Of that interface.
    pub link_type: LinkType,
    /// What was captured of it.
    pub bytes: &'a [u8],
    /// Its length on the wire.
    pub original_len: u32,
}

/// A packet as the formats find it: its bytes lie in the source's buffer.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) time: Timestamp,
    pub(super) interface: u32,
    pub(super) link_type: LinkType,
    pub(super) bytes: Range<usize>,
    pub(super) original_len: u32,
}

/// The format of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Classic pcap.
    Pcap,
    /// pcapng.
    Pcapng,
}

#[derive(Debug)]
enum Framing {
    Pcap(Pcap),
    Pcapng(Pcapng),
    /// The end or an error was met: nothing follows, so that an error comes once.
    Ended(Format),
}

/// Reads the packets of a capture, one at a time, in the order of the file.
#[derive(Debug)]
pub struct Reader<R> {
    file: String,
    source: Source<R>,
    framing: Framing,
    number: u64,
    link_types: Vec<LinkType>,
}

impl Reader<Box<dyn Read>> {
    /// Opens the file at this path, or standard input for `-`.
    pub fn open_path(path: &Path) -> Result<Self, TraceError> {
        let file = path.display().to_string();
        if path.as_os_str() == "-" {
            return Reader::open("standard input", Box::new(io::stdin()));
        }
        match File::open(path) {
            Ok(input) => Reader::open(file, Box::new(input)),
            Err(source) => Err(TraceError {
                file,
                packet: 1,
                offset: 0,
                fault: Fault::Read { source },
            }),
        }
    }
}

impl<C: Chunks> Reader<Chunked<C>> {
    /// As [`Reader::open`], to be read chunk by chunk: where the next packet is not
    /// [whole](Reader::next_whole) the window is [turned](Reader::turn), and the
    /// [next](Reader::next_placed) taken in any case.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn open_chunks(name: impl Into<String>, chunks: C) -> Result<Self, TraceError> {
        let mut source = Source::new(Chunked::new(chunks), 0);
        source.turn(Vec::with_capacity(HEADROOM));
        Self::begin(name.into(), source)
    }

    /// The next packet and where it lies in the window, if it comes without more input. Where
    /// not, taking it may move what lies in the window.
    ///
    /// # Errors
    /// As [`Reader::next_placed`].
    #[inline]
    pub fn next_whole(&mut self) -> Option<Result<(usize, Frame<'_>), TraceError>> {
        let found = match &mut self.framing {
            Framing::Pcap(pcap) => pcap.next_whole(&mut self.source)?,
            Framing::Pcapng(pcapng) if pcapng.is_whole(self.source.bytes()) => {
                pcapng.next(&mut self.source).transpose()?
            }
            Framing::Pcapng(_) | Framing::Ended(_) => return None,
        };
        Some(match found {
            Ok(record) => Ok(self.placed(record)),
            Err(broken) => Err(self.fail(broken)),
        })
    }

    /// Turns to the next chunk and gives the memory away in which the packets so far lie, each
    /// at its [place](Reader::next_placed).
    pub fn turn(&mut self, spare: Vec<u8>) -> Vec<u8> {
        self.source.turn(spare)
    }

    /// Ends the reading and gives the memory away, as [`Reader::turn`] does.
    pub fn close(self) -> Vec<u8> {
        self.source.close()
    }
}

impl<R: Read> Reader<R> {
    /// Reads as far as it takes to know the format; `name` stands in errors.
    pub fn open(name: impl Into<String>, input: R) -> Result<Reader<R>, TraceError> {
        Self::begin(name.into(), Source::new(input, INITIAL))
    }

    fn begin(file: String, mut source: Source<R>) -> Result<Reader<R>, TraceError> {
        match recognise(&mut source) {
            Ok(framing) => Ok(Reader {
                file,
                source,
                framing,
                number: 0,
                link_types: Vec::new(),
            }),
            Err(Broken { offset, fault }) => Err(TraceError {
                file,
                packet: 1,
                offset,
                fault,
            }),
        }
    }

    /// The next packet; `None` at the end of the file, and for ever after an error.
    #[inline]
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, TraceError> {
        Ok(self.next_placed()?.map(|(_, frame)| frame))
    }

    /// The next packet, and where it lies in the window.
    #[inline]
    pub fn next_placed(&mut self) -> Result<Option<(usize, Frame<'_>)>, TraceError> {
        let found = match &mut self.framing {
            Framing::Pcap(pcap) => pcap.next(&mut self.source),
            Framing::Pcapng(pcapng) => pcapng.next(&mut self.source),
            Framing::Ended(_) => return Ok(None),
        };
        match found {
            Ok(Some(record)) => Ok(Some(self.placed(record))),
            Ok(None) => {
                self.framing = Framing::Ended(self.format());
                Ok(None)
            }
            Err(broken) => Err(self.fail(broken)),
        }
    }

    /// Numbers a packet that was found.
    #[inline]
    fn placed(&mut self, record: Record) -> (usize, Frame<'_>) {
        self.number += 1;
        if self.link_types.last() != Some(&record.link_type) {
            self.note(record.link_type);
        }
        let place = record.bytes.start;
        let frame = Frame {
            number: self.number,
            time: record.time,
            interface: record.interface,
            link_type: record.link_type,
            bytes: self.source.taken(record.bytes),
            original_len: record.original_len,
        };
        (place, frame)
    }

    /// The file's format.
    pub fn format(&self) -> Format {
        match self.framing {
            Framing::Pcap(_) => Format::Pcap,
            Framing::Pcapng(_) => Format::Pcapng,
            Framing::Ended(format) => format,
        }
    }

    /// The link types of the packets so far, each once, in the order of their coming.
    pub fn link_types(&self) -> &[LinkType] {
        &self.link_types
    }

    /// How much memory the packets' window takes.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.source.held()
    }

    fn note(&mut self, link_type: LinkType) {
        if !self.link_types.contains(&link_type) {
            self.link_types.push(link_type);
        }
    }

    #[cold]
    fn fail(&mut self, Broken { offset, fault }: Broken) -> TraceError {
        self.framing = Framing::Ended(self.format());
        TraceError {
            file: self.file.clone(),
            packet: self.number + 1,
            offset,
            fault,
        }
    }
}

fn recognise<R: Read>(source: &mut Source<R>) -> Result<Framing, Broken> {
    source.require(4, "magic number")?;
    let magic = source.bytes().first_chunk().copied().unwrap_or_default();
    match Pcap::recognise(magic) {
        Some(Ok((order, unit))) => Pcap::open(source, order, unit).map(Framing::Pcap),
        Some(Err(fault)) => Err(source.broken(fault)),
        None if magic == pcapng::SECTION_HEADER.to_be_bytes() => {
            Pcapng::open(source).map(Framing::Pcapng)
        }
        None => Err(source.broken(Fault::Magic { found: magic })),
    }
}

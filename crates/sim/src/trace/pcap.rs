//! Framing of classic pcap files.
//!
//! ```text
//! file    magic 4 | major 2 | minor 2 | zone 4 | accuracy 4 | snap length 4 | link type 4
//! record  seconds 4 | fraction 4 | captured 4 | original 4 | the packet
//! ```

use std::io::Read;

use super::error::{Broken, Fault};
use super::order::ByteOrder;
use super::reader::Record;
use super::source::Source;
use super::{LinkType, Timestamp, captured_limit};

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

pub(super) const MICROSECONDS: u32 = 0xa1b2_c3d4;
pub(super) const NANOSECONDS: u32 = 0xa1b2_3c4d;
const MODIFIED: u32 = 0xa1b2_cd34;

/// Of the link type's word, the length of the frame check sequence and the flag that it
/// is stated; the bits between these and the number are reserved.
const FCS: u32 = 0xf400_0000;

/// What the file header says of all records.
#[derive(Debug)]
pub(super) struct Pcap {
    order: ByteOrder,
    nanoseconds_per_fraction: u64,
    limit: u32,
    link_type: Option<LinkType>,
    link_number: u32,
}

impl Pcap {
    /// Whether these first bytes begin a file of this format, and how.
    pub(super) fn recognise(magic: [u8; 4]) -> Option<Result<(ByteOrder, u64), Fault>> {
        [ByteOrder::Little, ByteOrder::Big]
            .into_iter()
            .find_map(|order| match order.u32(magic) {
                MICROSECONDS => Some(Ok((order, 1000))),
                NANOSECONDS => Some(Ok((order, 1))),
                MODIFIED => Some(Err(Fault::Modified)),
                _ => None,
            })
    }

    pub(super) fn open<R: Read>(
        source: &mut Source<R>,
        order: ByteOrder,
        nanoseconds_per_fraction: u64,
    ) -> Result<Pcap, Broken> {
        source.require(FILE_HEADER, HEADER_NAME)?;
        let [_, version, _, _, snap_length, link] = order
            .words(source.bytes())
            .ok_or_else(|| short(source, FILE_HEADER, HEADER_NAME))?;
        let (major, minor) = match order {
            ByteOrder::Little => (version as u16, (version >> 16) as u16),
            ByteOrder::Big => ((version >> 16) as u16, version as u16),
        };
        if (major, minor) != (2, 4) {
            let offset = source.offset() + 4;
            let fault = Fault::Version {
                format: "pcap",
                expected: "2.4",
                major,
                minor,
            };
            return Err(Broken { offset, fault });
        }
        source.take(FILE_HEADER);
        let link_number = link & !FCS;
        Ok(Pcap {
            order,
            nanoseconds_per_fraction,
            limit: captured_limit(snap_length),
            link_type: LinkType::from_number(link_number),
            link_number,
        })
    }

    /// The next record, where it lies in the window as a whole.
    #[inline]
    pub(super) fn next_whole<R>(&self, source: &mut Source<R>) -> Option<Result<Record, Broken>>
    where
        R: Read,
    {
        let window = source.bytes();
        let words: [u32; 4] = self.order.words(window)?;
        let [_, _, captured, _] = words;
        let is_whole = window.len() - RECORD_HEADER >= captured as usize;
        is_whole.then(|| self.record(words, source))
    }

    #[inline]
    pub(super) fn next<R: Read>(&self, source: &mut Source<R>) -> Result<Option<Record>, Broken> {
        if source.fill(RECORD_HEADER)? == 0 {
            return Ok(None);
        }
        let Some(words) = self.order.words(source.bytes()) else {
            return Err(short(source, RECORD_HEADER, "record header"));
        };
        self.record(words, source).map(Some)
    }

    /// The record that begins with these words.
    #[inline]
    fn record<R: Read>(
        &self,
        [seconds, fraction, captured, original_len]: [u32; 4],
        source: &mut Source<R>,
    ) -> Result<Record, Broken> {
        let Some(link_type) = self.link_type else {
            return Err(source.broken(Fault::LinkType {
                number: self.link_number,
                interface: 0,
            }));
        };
        if captured > self.limit {
            let fault = Fault::CapturedLength {
                limit: self.limit,
                found: captured,
            };
            return Err(Broken {
                offset: source.offset() + 8,
                fault,
            });
        }
        let length = RECORD_HEADER + captured as usize;
        source.require(length, "record")?;
        let mut bytes = source.take(length);
        bytes.start += RECORD_HEADER;
        // A fraction over a second is carried: it tells an instant all the same.
        let time = u64::from(seconds) * 1_000_000_000
            + u64::from(fraction) * self.nanoseconds_per_fraction;
        Ok(Record {
            time: Timestamp(time),
            interface: 0,
            link_type,
            bytes,
            original_len,
        })
    }
}

const HEADER_NAME: &str = "pcap file header";

#[cold]
fn short<R: Read>(source: &Source<R>, wanted: usize, what: &'static str) -> Broken {
    let found = source.bytes().len() as u64;
    source.broken(Fault::Truncated {
        what,
        wanted: wanted as u64,
        found,
    })
}

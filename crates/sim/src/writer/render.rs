//! From a batch that has run to the bytes of the output file, on whatever thread has the time.
//! What a packet carries is not copied: it lies in the batch and is named by its place.

use super::failed;
use crate::director::{Fate, Record};
use crate::engine::Outcomes;
use crate::event::Batch;
use crate::replay::ReplayError;
use crate::trace::{LinkType, Packet, PcapngWriter, WriteError};
use dynencap_abi::Verdict;
use std::io::IoSlice;
use std::ops::Range;
use std::path::PathBuf;

/// What is shorter than this is copied: to name a place costs a writer more.
const SHORT: usize = 128;

/// What a batch adds to the output file.
#[derive(Debug, Default)]
pub(crate) struct Rendered {
    bytes: Vec<u8>,
    /// In order.
    cuts: Vec<Cut>,
}

/// Bytes of the batch that stand in the file between those that were rendered.
#[derive(Debug)]
struct Cut {
    /// In front of which of the rendered bytes.
    at: usize,
    /// Place in the batch's bytes.
    place: Range<usize>,
}

impl Rendered {
    /// Forgets everything, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.cuts.clear();
    }

    /// All bytes in order, given the batch that they were rendered from.
    pub(crate) fn slices<'a>(&'a self, batch: &'a Batch) -> Vec<IoSlice<'a>> {
        let mut slices = Vec::with_capacity(2 * self.cuts.len() + 1);
        let mut from = 0;
        for Cut { at, place } in &self.cuts {
            slices.push(IoSlice::new(self.bytes.get(from..*at).unwrap_or_default()));
            slices.push(IoSlice::new(batch.bytes(place)));
            from = *at;
        }
        slices.push(IoSlice::new(self.bytes.get(from..).unwrap_or_default()));
        slices
    }
}

/// Renders batches, in the order of the trace.
pub(crate) struct Renderer {
    /// Of the file, for errors.
    path: PathBuf,
    /// Into the rendered bytes of the batch at hand.
    writer: PcapngWriter<Vec<u8>>,
}

impl Renderer {
    /// Begins the file of this name.
    pub(super) fn new(path: PathBuf) -> Result<Self, ReplayError> {
        match PcapngWriter::new(Vec::new()) {
            Ok(writer) => Ok(Self { path, writer }),
            Err(error) => Err(failed(&path, error)),
        }
    }

    /// Adds what the batch's frames became in the first engine. Before the first batch stands
    /// the file's header.
    ///
    /// # Errors
    /// A packet that the format has no room for.
    pub(crate) fn render(
        &mut self,
        batch: &Batch,
        records: &[Record],
        first: &Outcomes,
        rendered: &mut Rendered,
    ) -> Result<(), ReplayError> {
        let output = self.writer.output_mut();
        // The header, which nothing was rendered before.
        rendered.bytes.append(output);
        std::mem::swap(output, &mut rendered.bytes);
        let result = self.records(batch, records, first, &mut rendered.cuts);
        std::mem::swap(self.writer.output_mut(), &mut rendered.bytes);
        result.map_err(|error| failed(&self.path, error))
    }

    fn records(
        &mut self,
        batch: &Batch,
        records: &[Record],
        first: &Outcomes,
        cuts: &mut Vec<Cut>,
    ) -> Result<(), WriteError> {
        for record in records {
            let original = Some(record.original_len);
            let Fate::Event(event) = record.fate else {
                let parts = Parts {
                    tail: record.header.clone(),
                    ..Parts::default()
                };
                self.packet(record, original, batch, parts, cuts)?;
                continue;
            };
            let Some(outcome) = first.events.get(event) else {
                continue;
            };
            let passed = outcome
                .reason
                .is_some_and(|r| r.verdict() == Verdict::Passed);
            let unchanged = passed && outcome.segments == 0;
            let header = batch.bytes(&record.header);
            for at in outcome.frames.clone() {
                let Some((ethertype, head, tail)) = first.frames.pieces(at) else {
                    continue;
                };
                let (original, ethertype, trailer) = match unchanged {
                    true => (original, None, batch.bytes(&record.trailer)),
                    false => (None, Some(ethertype), &[][..]),
                };
                let parts = Parts {
                    header,
                    head,
                    tail,
                    trailer,
                    ethertype,
                };
                self.packet(record, original, batch, parts, cuts)?;
            }
        }
        Ok(())
    }

    /// Adds a packet with the link header of the frame that it came in, changed to another
    /// Ethernet type where one is given.
    #[inline]
    fn packet(
        &mut self,
        record: &Record,
        original: Option<u32>,
        batch: &Batch,
        mut parts: Parts<'_>,
        cuts: &mut Vec<Cut>,
    ) -> Result<(), WriteError> {
        let mut link_type = record.link_type;
        let mut field = None;
        if let Some(ethertype) = parts.ethertype.map(u16::to_be_bytes) {
            let place = ethertype_place(link_type, parts.header);
            match place.and_then(|place| parts.header.get(place..place + 2)) {
                Some(same) if same == ethertype => {}
                Some(_) => field = place.map(|place| (place, ethertype)),
                None => (link_type, parts.header) = (LinkType::Raw, &[]),
            }
        }
        let length = parts.header.len() + parts.head.len() + parts.tail.len() + parts.trailer.len();
        let packet = Packet {
            time: record.time,
            link_type,
            bytes: &[],
            original_len: original.unwrap_or_default().max(length as u32),
            comment: None,
        };
        let block = self.writer.enhanced_packet(&packet, length)?;
        let output = self.writer.output_mut();
        block.begin(output);
        let header = output.len();
        output.extend_from_slice(parts.header);
        if let Some((place, ethertype)) = field
            && let Some(field) = output.get_mut(header + place..header + place + 2)
        {
            field.copy_from_slice(&ethertype);
        }
        output.extend_from_slice(parts.head);
        if parts.tail.len() < SHORT {
            output.extend_from_slice(batch.bytes(&parts.tail));
        } else {
            cuts.push(Cut {
                at: output.len(),
                place: parts.tail,
            });
        }
        output.extend_from_slice(parts.trailer);
        block.end(output);
        Ok(())
    }
}

/// The bytes of a packet, one behind the other.
#[derive(Default)]
struct Parts<'a> {
    header: &'a [u8],
    head: &'a [u8],
    /// Place in the batch's bytes.
    tail: Range<usize>,
    trailer: &'a [u8],
    /// To be named by the header.
    ethertype: Option<u16>,
}

/// Where a link header names an Ethernet type, if it can name any.
fn ethertype_place(link_type: LinkType, header: &[u8]) -> Option<usize> {
    match link_type {
        LinkType::Ethernet => header.len().checked_sub(2),
        LinkType::LinuxSll => Some(14),
        LinkType::LinuxSll2 => Some(0),
        // Their headers name no Ethernet type, or only one of the versions.
        _ => None,
    }
}

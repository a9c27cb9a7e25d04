//! The output file: what the first engine put on the wire and delivered, in the link layer
//! that the trace had, where one exists for it.
//!
//! The file appears under its name only when it is complete. A device or pipe of that name is
//! written to as it is.

use crate::compare::Divergence;
use crate::director::{Fate, Record};
use crate::engine::Outcomes;
use crate::event::Batch;
use crate::replay::{Observer, ReplayError};
use crate::trace::{LinkType, Packet, PcapngWriter, WriteError};
use dynencap_abi::Verdict;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

const BUFFER: usize = 1 << 18;

/// Writes every frame that comes out of the first engine.
pub struct OutputFile {
    path: PathBuf,
    /// What is moved to `path` in the end; `None` where that is a device or a pipe, which
    /// must not be replaced.
    partial: Option<PathBuf>,
    /// `None` once it is in place.
    writer: Option<PcapngWriter<BufWriter<File>>>,
    /// Memory of a link header.
    header: Vec<u8>,
}

impl OutputFile {
    /// Begins a file beside `path`, to be moved there by [`OutputFile::finish`].
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> Result<Self, ReplayError> {
        let special = std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir());
        let partial = (!special).then(|| {
            let mut partial = path.as_os_str().to_owned();
            partial.push(format!(".{}.partial", std::process::id()));
            PathBuf::from(partial)
        });
        let output = |source| failed(path, source);
        let opened = match &partial {
            Some(partial) => File::create(partial),
            None => File::options().write(true).open(path),
        };
        let file = opened.map_err(|e| output(e.into()))?;
        let writer = PcapngWriter::new(BufWriter::with_capacity(BUFFER, file)).map_err(output);
        let mut this = Self {
            path: path.to_owned(),
            partial,
            writer: None,
            header: Vec::new(),
        };
        this.writer = Some(writer?);
        Ok(this)
    }

    /// Puts the complete file in its place.
    ///
    /// # Errors
    /// What is still buffered cannot be written, or the file cannot be moved.
    pub fn finish(mut self) -> Result<PathBuf, ReplayError> {
        let path = self.path.clone();
        let done = self.writer.take().map_or(Ok(()), |writer| {
            writer.into_inner().flush()?;
            match &self.partial {
                Some(partial) => std::fs::rename(partial, &path),
                None => Ok(()),
            }
        });
        done.map_err(|e| {
            self.discard();
            failed(&path, e.into())
        })?;
        Ok(path)
    }

    fn discard(&self) {
        if let Some(partial) = &self.partial {
            let _ = std::fs::remove_file(partial);
        }
    }

    #[inline]
    fn write<const N: usize>(
        &mut self,
        record: &Record,
        link_type: LinkType,
        original: Option<u32>,
        parts: [&[u8]; N],
    ) -> Result<(), ReplayError> {
        let Some(writer) = self.writer.as_mut() else {
            return Ok(());
        };
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let packet = Packet {
            time: record.time,
            link_type,
            bytes: &[],
            original_len: original.unwrap_or(length).max(length),
            comment: None,
        };
        writer
            .write_parts(&packet, parts)
            .map_err(|source| failed(&self.path, source))
    }
}

/// The link header for a packet of another Ethernet type than it came with, written into
/// `changed`, and the link type that it is of.
fn header_for<'a>(
    record: &Record,
    header: &'a [u8],
    ethertype: u16,
    changed: &'a mut Vec<u8>,
) -> (LinkType, &'a [u8]) {
    let place = match record.link_type {
        LinkType::Ethernet => header.len().checked_sub(2),
        LinkType::LinuxSll => Some(14),
        LinkType::LinuxSll2 => Some(0),
        // Their headers name no Ethernet type, or only one of the versions.
        _ => None,
    };
    let field = place.and_then(|place| header.get(place..place + 2));
    if field == Some(&ethertype.to_be_bytes()) {
        return (record.link_type, header);
    }
    changed.clear();
    changed.extend_from_slice(header);
    let field = place.and_then(|place| changed.get_mut(place..place + 2));
    match field {
        Some(field) => {
            field.copy_from_slice(&ethertype.to_be_bytes());
            (record.link_type, changed)
        }
        None => (LinkType::Raw, &[]),
    }
}

fn failed(path: &Path, source: WriteError) -> ReplayError {
    ReplayError::Output {
        path: path.display().to_string(),
        source,
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            // Not finished: a half-written file helps nobody.
            self.discard();
        }
    }
}

impl Observer for OutputFile {
    fn batch(
        &mut self,
        batch: &Batch,
        records: &[Record],
        first: &Outcomes,
        _: &[Divergence],
    ) -> Result<(), ReplayError> {
        for record in records {
            let header = batch.bytes(&record.header);
            let Fate::Event(event) = record.fate else {
                self.write(
                    record,
                    record.link_type,
                    Some(record.original_len),
                    [header],
                )?;
                continue;
            };
            let Some(outcome) = first.events.get(event) else {
                continue;
            };
            let passed = outcome
                .reason
                .is_some_and(|r| r.verdict() == Verdict::Passed);
            let unchanged = passed && outcome.segments == 0;
            for frame in outcome
                .frames
                .clone()
                .filter_map(|at| first.frames.frame(at, batch))
            {
                let [head, tail] = frame.bytes.parts();
                if unchanged {
                    let trailer = batch.bytes(&record.trailer);
                    let parts = [header, head, tail, trailer];
                    self.write(record, record.link_type, Some(record.original_len), parts)?;
                } else {
                    let mut changed = std::mem::take(&mut self.header);
                    let (link_type, header) =
                        header_for(record, header, frame.ethertype, &mut changed);
                    let written = self.write(record, link_type, None, [header, head, tail]);
                    self.header = changed;
                    written?;
                }
            }
        }
        Ok(())
    }
}

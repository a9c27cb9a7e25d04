//! The output file: what the first engine put on the wire and delivered, in the link layer
//! that the trace had, where one exists for it.
//!
//! The file appears under its name only when it is complete. A device or pipe of that name is
//! written to as it is. Its bytes are made by the renderer (`writer::render`), batch by batch, on
//! another thread perhaps than the one that writes them.

use crate::event::Batch;
use crate::replay::ReplayError;
use crate::trace::WriteError;
pub(crate) use render::{Rendered, Renderer};
use std::fs::File;
use std::io::{ErrorKind, IoSlice, Write};
use std::path::{Path, PathBuf};

mod render;

/// How many pieces the kernel takes in one call (`UIO_MAXIOV`).
const AT_ONCE: usize = 1024;

/// Writes every frame that comes out of the first engine.
pub struct OutputFile {
    renderer: Renderer,
    sink: Sink,
}

/// What takes the rendered bytes.
pub(crate) struct Sink {
    path: PathBuf,
    /// What is moved to `path` in the end; `None` where that is a device or a pipe, which
    /// must not be replaced.
    partial: Option<PathBuf>,
    /// `None` once it is in place.
    file: Option<File>,
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
        let opened = match &partial {
            Some(partial) => File::create(partial),
            None => File::options().write(true).open(path),
        };
        let file = opened.map_err(|error| failed(path, error.into()))?;
        let sink = Sink {
            path: path.to_owned(),
            partial,
            file: Some(file),
        };
        Ok(Self {
            renderer: Renderer::new(path.to_owned())?,
            sink,
        })
    }

    /// Puts the complete file in its place.
    ///
    /// # Errors
    /// The file cannot be moved.
    pub fn finish(mut self) -> Result<PathBuf, ReplayError> {
        self.sink.finish()
    }
}

impl Sink {
    /// Writes what was rendered from this batch.
    ///
    /// # Errors
    /// As writing.
    pub(crate) fn write(&mut self, rendered: &Rendered, batch: &Batch) -> Result<(), ReplayError> {
        let Some(file) = self.file.as_mut() else {
            return Ok(());
        };
        write_all(file, &mut rendered.slices(batch))
            .map_err(|error| failed(&self.path, error.into()))
    }

    fn finish(&mut self) -> Result<PathBuf, ReplayError> {
        if self.file.take().is_some()
            && let Some(partial) = &self.partial
            && let Err(error) = std::fs::rename(partial, &self.path)
        {
            self.discard();
            return Err(failed(&self.path, error.into()));
        }
        Ok(self.path.clone())
    }

    fn discard(&self) {
        if let Some(partial) = &self.partial {
            let _ = std::fs::remove_file(partial);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Not finished: a half-written file helps nobody.
            self.discard();
        }
    }
}

/// Who makes the bytes of an output, if there is one, and who takes them.
pub(crate) fn parts(output: Option<&mut OutputFile>) -> (Option<&mut Renderer>, Option<&mut Sink>) {
    match output {
        Some(OutputFile { renderer, sink }) => (Some(renderer), Some(sink)),
        None => (None, None),
    }
}

/// Writes all slices.
fn write_all(output: &mut impl Write, mut slices: &mut [IoSlice<'_>]) -> std::io::Result<()> {
    // Empty ones in front would be taken for an output that takes no more.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let at_once = slices.get(..AT_ONCE).unwrap_or(slices);
        let length = at_once.iter().map(|slice| slice.len()).sum();
        match output.write_vectored(at_once) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            // A writer that claims more than it was given is held to that.
            Ok(count) => IoSlice::advance_slices(&mut slices, count.min(length)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn failed(path: &Path, source: WriteError) -> ReplayError {
    ReplayError::Output {
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time, after an interruption, and then no more.
    struct Reluctant {
        taken: Vec<u8>,
        room: usize,
        interrupted: bool,
    }

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> std::io::Result<usize> {
            assert!(slices.len() <= AT_ONCE);
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(ErrorKind::Interrupted.into());
            }
            let mut count = 5.min(self.room);
            self.room -= count;
            let before = self.taken.len();
            for slice in slices {
                let part = slice.get(..count.min(slice.len())).unwrap();
                self.taken.extend_from_slice(part);
                count -= part.len();
            }
            Ok(self.taken.len() - before)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_slices_are_written_however_few_bytes_are_taken() {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(3 * AT_ONCE).collect();
        // Of 0 to 3 bytes each, with empty ones at both ends.
        let mut slices = vec![IoSlice::new(&[])];
        let mut rest = &bytes[..];
        for length in (0..4).cycle() {
            let (slice, behind) = rest.split_at(length.min(rest.len()));
            slices.push(IoSlice::new(slice));
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        slices.push(IoSlice::new(&[]));
        assert!(slices.len() > AT_ONCE);
        for room in [bytes.len(), bytes.len() - 1, 7, 0] {
            let mut output = Reluctant {
                taken: Vec::new(),
                room,
                interrupted: false,
            };
            let written = write_all(&mut output, &mut slices.clone());
            assert!(output.taken == bytes[..room], "{room}");
            let expected = (room < bytes.len()).then_some(ErrorKind::WriteZero);
            assert_eq!(written.err().map(|error| error.kind()), expected, "{room}");
        }
    }
}

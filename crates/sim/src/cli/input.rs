//! Where a trace comes from: a file with a progress bar, or a pipe that a signal can end.

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

const CHUNK: usize = 1 << 18;
/// Chunks read ahead of the replay.
const AHEAD: usize = 2;
/// How often a silent pipe is left to look for a signal.
const LOOK: Duration = Duration::from_millis(100);

/// The trace with a progress bar on what has been read of it.
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) source: Box<dyn Read + Send>,
    pub(crate) bar: ProgressBar,
}

impl Input {
    /// Opens a trace; `interrupted` ends the reading of a pipe.
    pub(crate) fn open(path: &Path, interrupted: &Arc<AtomicBool>) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            let source = Pipe::start(|| Ok(io::stdin()), interrupted)?;
            return Ok(Self::piped("stdin".into(), source));
        }
        let name = path.display().to_string();
        let metadata =
            std::fs::metadata(path).with_context(|| format!("{name}: cannot open the trace"))?;
        anyhow::ensure!(
            !metadata.is_dir(),
            "{name}: expected a capture file, found a directory"
        );
        if !metadata.is_file() {
            // Opening a FIFO waits for its writer.
            let path = PathBuf::from(path);
            let source = Pipe::start(move || File::open(path), interrupted)?;
            return Ok(Self::piped(name, source));
        }
        let file = File::open(path).with_context(|| format!("{name}: cannot open the trace"))?;
        let bar = if io::stderr().is_terminal() {
            let bar = ProgressBar::new(metadata.len());
            let style = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            bar.set_style(ProgressStyle::with_template(style)?);
            bar
        } else {
            ProgressBar::hidden()
        };
        let source = Box::new(bar.wrap_read(file));
        Ok(Self { name, source, bar })
    }

    fn piped(name: String, source: Pipe) -> Self {
        let bar = ProgressBar::hidden();
        Self {
            name,
            source: Box::new(source),
            bar,
        }
    }
}

/// A pipe read on a thread of its own: a read that waits cannot see a signal's flag.
struct Pipe {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: io::Cursor<Vec<u8>>,
    interrupted: Arc<AtomicBool>,
}

impl Pipe {
    fn start<R: Read>(
        open: impl FnOnce() -> io::Result<R> + Send + 'static,
        interrupted: &Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let (sender, chunks) = sync_channel(AHEAD);
        thread::Builder::new().spawn(move || {
            let mut source = match open() {
                Ok(source) => source,
                Err(error) => return drop(sender.send(Err(error))),
            };
            loop {
                let mut chunk = vec![0; CHUNK];
                let read = source.read(&mut chunk).map(|length| {
                    chunk.truncate(length);
                    chunk
                });
                match read {
                    Ok(chunk) if chunk.is_empty() => return,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => {
                        let last = read.is_err();
                        if sender.send(read).is_err() || last {
                            return;
                        }
                    }
                }
            }
        })?;
        Ok(Self {
            chunks,
            chunk: io::Cursor::default(),
            interrupted: Arc::clone(interrupted),
        })
    }
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.chunk.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            match self.chunks.recv_timeout(LOOK) {
                Ok(chunk) => self.chunk = io::Cursor::new(chunk?),
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
                Err(RecvTimeoutError::Timeout) if self.interrupted.load(Ordering::Relaxed) => {
                    // Not `ErrorKind::Interrupted`, after which readers try again.
                    return Err(io::Error::other("interrupted"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

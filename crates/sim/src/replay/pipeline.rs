//! A whole trace through a replay, chunk by chunk, on one thread, two or three: one reads, one
//! directs, one runs the engines. Each hands over to the next in order, so that what comes out
//! does not depend on how many there are; chunks and works go round, so that memory does not
//! grow with the trace.
//!
//! The engines stay on the caller's thread.

use super::{Observer, Replay, ReplayError, Work};
use crate::director::Director;
use crate::engine::EngineKind;
use crate::trace::{Chunked, Chunks, Reader, TraceError};
use std::io;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

/// How many chunks, or works, wait for the next thread at most.
const WAITING: usize = 4;

/// Why a replay ended before its trace did.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    /// Somebody set the flag.
    #[error("interrupted")]
    Interrupted,
    /// The trace is broken, an engine failed, or the output.
    #[error(transparent)]
    Failed(#[from] ReplayError),
}

/// As many threads as can be of use here: three, where there is more than one core.
#[must_use]
pub fn threads_of_use() -> NonZeroUsize {
    const ALL: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);
    match thread::available_parallelism() {
        Ok(cores) if cores > NonZeroUsize::MIN => ALL,
        _ => NonZeroUsize::MIN,
    }
}

impl Replay {
    /// Takes a whole trace through the engines, as far as it can be read. `interrupted` ends it
    /// early; it is set where an engine or the observer fails, so that nobody waits for more of
    /// the trace. More than three `threads` are as good as three.
    ///
    /// The kernel's engine wants batches that its receive buffers hold, and pins its thread:
    /// with it, all is done on one thread and in small batches.
    ///
    /// # Errors
    /// See [`Halt`]. What was read by then has been run, unless an engine or the observer
    /// failed.
    pub fn trace(
        &mut self,
        name: &str,
        chunks: impl Chunks + Send,
        threads: NonZeroUsize,
        interrupted: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<(), Halt> {
        if self.stage.has(EngineKind::Kernel) {
            return self.in_small_batches(name, chunks, interrupted, observer);
        }
        match threads.get() {
            1 => self.on_one_thread(name, chunks, interrupted, observer),
            2 => self.on_threads(name, chunks, interrupted, observer),
            _ => thread::scope(|scope| {
                let (full, filled) = sync_channel(WAITING);
                let (spares, empty) = channel();
                scope.spawn(move || read_ahead(chunks, &full, &empty));
                let ahead = Ahead { filled, spares };
                self.on_threads(name, ahead, interrupted, observer)
            }),
        }
    }

    fn in_small_batches(
        &mut self,
        name: &str,
        chunks: impl Chunks,
        interrupted: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<(), Halt> {
        let mut reader = Reader::open(name, Chunked::new(chunks))
            .map_err(|error| stopped(error, interrupted))?;
        let result = loop {
            if interrupted.load(Ordering::Relaxed) {
                break Err(Halt::Interrupted);
            }
            match reader.next_frame() {
                Ok(Some(frame)) => self.frame(&frame, observer)?,
                Ok(None) => break Ok(()),
                Err(error) => break Err(stopped(error, interrupted)),
            }
        };
        self.flush(observer)?;
        result
    }

    fn on_one_thread(
        &mut self,
        name: &str,
        chunks: impl Chunks,
        interrupted: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<(), Halt> {
        let Self {
            director, stage, ..
        } = self;
        let mut failed = None;
        let directed = direct(director, name, chunks, interrupted, |work| {
            match stage.run(&work, observer) {
                Ok(()) => Some(work),
                Err(error) => {
                    failed = Some(error);
                    None
                }
            }
        });
        failed.map_or(directed, |error| Err(error.into()))
    }

    /// Directs on another thread.
    fn on_threads(
        &mut self,
        name: &str,
        chunks: impl Chunks + Send,
        interrupted: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<(), Halt> {
        let Self {
            director, stage, ..
        } = self;
        let (ready, works) = sync_channel(WAITING);
        let (done, again) = channel();
        thread::scope(|scope| {
            let directing = scope.spawn(move || {
                direct(director, name, chunks, interrupted, |work| {
                    ready.send(work).ok()?;
                    Some(again.try_recv().unwrap_or_default())
                })
            });
            let mut failed = None;
            for work in works {
                if let Err(error) = stage.run(&work, observer) {
                    interrupted.store(true, Ordering::Relaxed);
                    failed = Some(error);
                    break;
                }
                // Who directs may be through already.
                let _ = done.send(work);
            }
            let directed = directing
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic));
            failed.map_or(directed, |error| Err(error.into()))
        })
    }
}

/// Directs a trace chunk by chunk. `pass` takes each work and gives one to be filled next, or
/// `None` where nothing more is wanted.
fn direct(
    director: &mut Director,
    name: &str,
    chunks: impl Chunks,
    interrupted: &AtomicBool,
    mut pass: impl FnMut(Work) -> Option<Work>,
) -> Result<(), Halt> {
    let mut reader =
        Reader::open_chunks(name, chunks).map_err(|error| stopped(error, interrupted))?;
    let mut work = Work::default();
    let result = loop {
        if interrupted.load(Ordering::Relaxed) {
            break Err(Halt::Interrupted);
        }
        if !reader.is_whole() {
            let spare = work.batch.replace_chunk(Vec::new());
            work.batch.replace_chunk(reader.turn(spare));
            if !work.records.is_empty() {
                work.flows = director.flows();
                match pass(work) {
                    Some(next) => work = next,
                    None => return Ok(()),
                }
                work.clear();
            }
        }
        match reader.next_placed() {
            Ok(Some((place, frame))) => {
                let record = director.direct_at(&frame, Some(place), &mut work.batch);
                work.records.push(record);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(stopped(error, interrupted)),
        }
    };
    work.batch.replace_chunk(reader.close());
    work.flows = director.flows();
    pass(work);
    result
}

/// A pipe that was waited for says that it was interrupted, too.
fn stopped(error: TraceError, interrupted: &AtomicBool) -> Halt {
    if interrupted.load(Ordering::Relaxed) {
        Halt::Interrupted
    } else {
        Halt::Failed(ReplayError::Trace(error))
    }
}

type Filled = io::Result<Option<Vec<u8>>>;

fn read_ahead(mut chunks: impl Chunks, full: &SyncSender<Filled>, empty: &Receiver<Vec<u8>>) {
    loop {
        let chunk = chunks.next(empty.try_recv().unwrap_or_default());
        let last = !matches!(chunk, Ok(Some(_)));
        if full.send(chunk).is_err() || last {
            return;
        }
    }
}

/// Chunks that another thread reads.
struct Ahead {
    filled: Receiver<Filled>,
    spares: Sender<Vec<u8>>,
}

impl Chunks for Ahead {
    fn next(&mut self, spare: Vec<u8>) -> Filled {
        // Who reads may be through already.
        let _ = self.spares.send(spare);
        self.filled.recv().unwrap_or(Ok(None))
    }
}

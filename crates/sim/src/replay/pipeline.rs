//! A whole trace through a replay, chunk by chunk, on one thread or two. With two, one is at both
//! ends, reading and showing what came out, and the other is between them, running the engines. So
//! what a packet carries stays with the core that read it: the one between needs its headers
//! alone. Who has more to spare directs. Works go round in order, so that what comes out does not
//! depend on how many threads there are, and memory does not grow with the trace.
//!
//! The engines stay on the caller's thread.

use super::{Observer, Placed, Replay, ReplayError, Work};
use crate::director::Director;
use crate::engine::EngineKind;
use crate::trace::{CHUNK, Chunked, Chunks, HEADROOM, Reader, TraceError};
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, channel, sync_channel};
use std::thread;

/// How many works are on their way at most: enough that neither thread waits for the other's
/// pace, few enough that what was read is still in the cache when it is shown.
const UNDER_WAY: usize = 8;

/// How often a thread looks for what is sent to it before it sleeps.
const LOOKS: u32 = 200;

/// Packets whose headers are fetched together, before each is looked at: what another core wrote
/// is long in coming, and comes together as fast as alone.
const FETCHED: usize = 32;
/// Bytes of a cache line, and how many bytes headers take as a rule.
const LINE: usize = 64;
const HEADERS: usize = 2 * LINE;

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

/// As many threads as can be of use here: two, where there is more than one core.
#[must_use]
pub fn threads_of_use() -> NonZeroUsize {
    const BOTH: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);
    match thread::available_parallelism() {
        Ok(cores) if cores > NonZeroUsize::MIN => BOTH,
        _ => NonZeroUsize::MIN,
    }
}

impl Replay {
    /// Takes a whole trace through the engines, as far as it can be read. `interrupted` ends it
    /// early; it is set where an engine or the observer fails, so that nobody waits for more of
    /// the trace. More than two `threads` are as good as two.
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
        let Self {
            director, stage, ..
        } = self;
        if threads == NonZeroUsize::MIN {
            return feed(name, chunks, interrupted, |mut work| {
                direct(director, &mut work, Read::Here);
                stage.run(&mut work)?;
                work.show(observer)?;
                Ok(Some(work))
            });
        }
        // The interpreter takes longer than all else together.
        let (early, mut late) = match stage.has(EngineKind::Vm) {
            true => (Some(director), None),
            false => (None, Some(director)),
        };
        thread::scope(|scope| {
            let (ready, works) = sync_channel(UNDER_WAY);
            let (done, ran) = channel();
            let ends = Ends {
                ready,
                ran,
                under_way: 0,
                spares: Vec::new(),
                director: early,
                observer,
            };
            let ends = scope.spawn(move || ends.trace(name, chunks, interrupted));
            let mut failed = None;
            while let Some(mut work) = patient(&works) {
                if let Some(director) = &mut late {
                    direct(director, &mut work, Read::Elsewhere);
                }
                if let Err(error) = stage.run(&mut work) {
                    interrupted.store(true, Ordering::Relaxed);
                    failed = Some(error);
                    break;
                }
                // Where an observer failed, nobody takes it.
                let _ = done.send(work);
            }
            drop((works, done));
            let ended = ends.join().unwrap_or_else(|panic| resume_unwind(panic));
            failed.map_or(ended, |error| Err(error.into()))
        })
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
}

/// Receives what is sent next; `None` when nothing will be. To be woken takes about as long as a
/// work: what is sent soon is looked for instead, while nobody else wants the core.
fn patient<T>(from: &Receiver<T>) -> Option<T> {
    for _ in 0..LOOKS {
        match from.try_recv() {
            Ok(received) => return Some(received),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => thread::yield_now(),
        }
    }
    from.recv().ok()
}

/// Which thread read a chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    Here,
    Elsewhere,
}

/// Directs the frames of a work.
fn direct(director: &mut Director, work: &mut Work, read: Read) {
    let chunk = work.batch.replace_chunk(Vec::new());
    for group in work.placed.chunks(FETCHED) {
        if read == Read::Elsewhere {
            let lines = group.iter().flat_map(|placed| {
                let headers = (0..HEADERS).step_by(LINE);
                headers.filter_map(|at| chunk.get(placed.start + at))
            });
            black_box(lines.fold(0, |sum, byte| sum ^ byte));
        }
        for placed in group {
            let frame = placed.frame(&chunk);
            let record = director.direct_at(&frame, Some(placed.start), &mut work.batch);
            work.records.push(record);
        }
    }
    work.batch.replace_chunk(chunk);
    work.flows = director.flows();
}

/// Reads a trace chunk by chunk. `pass` takes the work of each and gives one to be filled next,
/// or `None` where nothing more is wanted.
fn feed(
    name: &str,
    chunks: impl Chunks,
    interrupted: &AtomicBool,
    mut pass: impl FnMut(Work) -> Result<Option<Work>, ReplayError>,
) -> Result<(), Halt> {
    let mut reader =
        Reader::open_chunks(name, chunks).map_err(|error| stopped(error, interrupted))?;
    let mut work = Work::default();
    let result = loop {
        match reader.next_whole() {
            Some(Ok((start, frame))) => {
                work.placed.push(Placed::new(start, &frame));
                continue;
            }
            Some(Err(error)) => break Err(stopped(error, interrupted)),
            None => {}
        }
        if interrupted.load(Ordering::Relaxed) {
            break Err(Halt::Interrupted);
        }
        let spare = work.batch.replace_chunk(Vec::new());
        work.batch.replace_chunk(reader.turn(spare));
        if !work.placed.is_empty() {
            match pass(work)? {
                Some(next) => work = next,
                None => return Ok(()),
            }
            work.clear();
        }
        match reader.next_placed() {
            Ok(Some((start, frame))) => work.placed.push(Placed::new(start, &frame)),
            Ok(None) => break Ok(()),
            Err(error) => break Err(stopped(error, interrupted)),
        }
    };
    work.batch.replace_chunk(reader.close());
    pass(work)?;
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

/// The thread at both ends.
struct Ends<'a> {
    ready: SyncSender<Work>,
    ran: Receiver<Work>,
    under_way: usize,
    spares: Vec<Work>,
    /// Where this is the thread that directs.
    director: Option<&'a mut Director>,
    observer: &'a mut dyn Observer,
}

impl Ends<'_> {
    fn trace(
        mut self,
        name: &str,
        chunks: impl Chunks,
        interrupted: &AtomicBool,
    ) -> Result<(), Halt> {
        let result = feed(name, chunks, interrupted, |work| self.pass(work));
        let Self {
            ready,
            ran,
            observer,
            ..
        } = self;
        // Nothing follows: the other thread ends, and with it what it sends.
        drop(ready);
        match &result {
            // An observer that failed is shown no more.
            Err(Halt::Failed(error)) if !matches!(error, ReplayError::Trace(_)) => return result,
            _ => {}
        }
        for work in ran {
            work.show(observer)?;
        }
        result
    }

    fn pass(&mut self, mut work: Work) -> Result<Option<Work>, ReplayError> {
        if let Some(director) = &mut self.director {
            direct(director, &mut work, Read::Here);
        }
        // Less than was asked for: a pipe, whose next chunk may be long in coming. What has come
        // is shown before it is waited for.
        let drained = work.batch.chunk().len() < HEADROOM + CHUNK;
        if self.ready.send(work).is_err() {
            // The other thread has failed, and says so itself.
            return Ok(None);
        }
        self.under_way += 1;
        while self.under_way > 0 {
            let work = if drained || self.under_way == UNDER_WAY {
                patient(&self.ran)
            } else {
                self.ran.try_recv().ok()
            };
            let Some(work) = work else {
                break;
            };
            self.under_way -= 1;
            work.show(self.observer)?;
            self.spares.push(work);
        }
        Ok(Some(self.spares.pop().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests;

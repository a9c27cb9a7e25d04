//! A whole trace through a replay, chunk by chunk, on one thread or two. With two, one is at both
//! ends, reading and writing, and the other is between them, running the engines. So what a packet
//! carries stays with the core that read it: the one between needs its headers alone. Who has more
//! to spare directs and renders. Works go round in order, so that what comes out does not depend
//! on how many threads there are, and memory does not grow with the trace.
//!
//! The engines and the observer stay on the caller's thread.

use super::around::Around;
use super::{Observer, Placed, Replay, ReplayError, Work};
use crate::director::Glance;
use crate::engine::EngineKind;
use crate::trace::{CHUNK, Chunked, Chunks, Frame, HEADROOM, Reader, TraceError};
use crate::writer::{self, Sink};
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, channel, sync_channel};
use std::thread;

/// How many works are on their way at most: enough that neither thread waits for the other's
/// pace, few enough that what was read is still in the cache when it is written.
const UNDER_WAY: usize = 8;

/// How often a thread looks for what is sent to it before it sleeps.
const LOOKS: u32 = 200;

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
            director,
            stage,
            output,
            ..
        } = self;
        let (renderer, mut sink) = writer::parts(output.as_mut());
        let mut around = Around { director, renderer };
        if threads == NonZeroUsize::MIN {
            return feed(name, chunks, interrupted, false, |mut work| {
                around.direct(&mut work);
                work.run(stage, observer)?;
                around.render(&mut work)?;
                work.write(sink.as_deref_mut())?;
                Ok(Some(work))
            });
        }
        // The interpreter takes longer than all else together.
        let (early, mut late) = match stage.has(EngineKind::Vm) {
            true => (Some(around), None),
            false => (None, Some(around)),
        };
        thread::scope(|scope| {
            let (ready, works) = sync_channel(UNDER_WAY);
            let (done, ran) = channel();
            let ends = Ends {
                ready: Some(ready),
                ran,
                under_way: 0,
                spares: Vec::new(),
                around: early,
                sink,
            };
            let here = sched_getcpu();
            let ends = scope.spawn(move || {
                part_from(here);
                ends.trace(name, chunks, interrupted)
            });
            let mut failed = None;
            // What is made and used up here stays in this core's cache.
            let mut own = Work::default();
            while let Some(mut work) = patient(&works) {
                let result = match &mut late {
                    Some(around) => {
                        own.swap_ends(&mut work);
                        around.direct(&mut own);
                        let ran = own.run(stage, observer);
                        let rendered = ran.and_then(|()| around.render(&mut own));
                        own.swap_ends(&mut work);
                        own.clear();
                        rendered
                    }
                    None => work.run(stage, observer),
                };
                if let Err(error) = result {
                    interrupted.store(true, Ordering::Relaxed);
                    failed = Some(error);
                    break;
                }
                // Where the output failed, nobody takes it.
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

/// Goes to another core than this one, if this thread may, and stays free to go elsewhere. The
/// scheduler leaves two threads that take turns on one core for a good part of a replay.
fn part_from(core: usize) {
    let Ok(all) = sched_getaffinity(None) else {
        return;
    };
    let mut others = all;
    // A set has so many places, and a machine may have more.
    if core < CpuSet::MAX_CPU {
        others.unset(core);
    }
    if others.count() > 0 && sched_setaffinity(None, &others).is_ok() {
        // Where it may be was allowed before.
        let _ = sched_setaffinity(None, &all);
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

/// Reads a trace chunk by chunk, and where asked to has a look at each frame. `pass` takes the
/// work of each chunk and gives one to be filled next, or `None` where nothing more is wanted.
fn feed(
    name: &str,
    chunks: impl Chunks,
    interrupted: &AtomicBool,
    look: bool,
    mut pass: impl FnMut(Work) -> Result<Option<Work>, ReplayError>,
) -> Result<(), Halt> {
    let mut reader =
        Reader::open_chunks(name, chunks).map_err(|error| stopped(error, interrupted))?;
    let take = |work: &mut Work, start, frame: &Frame<'_>| {
        work.placed.push(Placed::new(start, frame));
        if look {
            work.glances.push(Glance::at(frame));
        }
    };
    let mut work = Work::default();
    let result = loop {
        match reader.next_whole() {
            Some(Ok((start, frame))) => {
                take(&mut work, start, &frame);
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
            Ok(Some((start, frame))) => take(&mut work, start, &frame),
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
    /// `None` when nothing follows.
    ready: Option<SyncSender<Work>>,
    ran: Receiver<Work>,
    under_way: usize,
    spares: Vec<Work>,
    /// Where this is the thread that has more to spare.
    around: Option<Around<'a>>,
    sink: Option<&'a mut Sink>,
}

impl Ends<'_> {
    fn trace(
        mut self,
        name: &str,
        chunks: impl Chunks,
        interrupted: &AtomicBool,
    ) -> Result<(), Halt> {
        // Whoever directs on the other thread is glad of what is seen here.
        let look = self.around.is_none();
        let result = feed(name, chunks, interrupted, look, |work| self.pass(work));
        // Nothing follows: the other thread ends, and with it what it sends.
        self.ready = None;
        match &result {
            // An output that failed is written no more.
            Err(Halt::Failed(error)) if !matches!(error, ReplayError::Trace(_)) => return result,
            _ => {}
        }
        while let Ok(mut work) = self.ran.recv() {
            self.write(&mut work)?;
        }
        result
    }

    fn pass(&mut self, mut work: Work) -> Result<Option<Work>, ReplayError> {
        if let Some(around) = &mut self.around {
            around.direct(&mut work);
        }
        // Less than was asked for: a pipe, whose next chunk may be long in coming. What has come
        // is written before it is waited for.
        let drained = work.batch.chunk().len() < HEADROOM + CHUNK;
        let sent = self.ready.as_ref();
        if sent.is_none_or(|ready| ready.send(work).is_err()) {
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
            let Some(mut work) = work else {
                break;
            };
            self.under_way -= 1;
            self.write(&mut work)?;
            self.spares.push(work);
        }
        Ok(Some(self.spares.pop().unwrap_or_default()))
    }

    fn write(&mut self, work: &mut Work) -> Result<(), ReplayError> {
        if let Some(around) = &mut self.around {
            around.render(work)?;
        }
        work.write(self.sink.as_deref_mut())
    }
}

#[cfg(test)]
mod tests;

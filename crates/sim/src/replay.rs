//! The replay: a trace through the director and every engine, batch by batch, compared and
//! counted. Memory does not grow with the trace's length: one batch is held at a time.

use crate::compare::Divergence;
use crate::director::{Director, Glance, Record};
use crate::engine::{Engine, EngineError, Outcomes};
use crate::event::Batch;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::trace::{self, LinkType, Timestamp};
use crate::writer::{self, OutputFile, Rendered, Renderer, Sink};
use stage::Stage;
use std::time::Instant;

mod around;
mod pipeline;
mod prefetch;
mod stage;

pub use pipeline::{Halt, threads_of_use};

/// A batch is run when it holds so many events …
const BATCH_EVENTS: usize = 512;
/// … or so many bytes: the kernel's receive buffers must hold what comes of it.
const BATCH_BYTES: usize = 1 << 20;

/// Why a replay cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// An engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The trace is broken.
    #[error(transparent)]
    Trace(#[from] trace::TraceError),
    /// The output could not be written.
    #[error("{path}")]
    Output {
        /// The file.
        path: String,
        /// Why.
        source: trace::WriteError,
    },
}

/// Looks at each batch once it has run: a person's report, a test.
pub trait Observer {
    /// What the frames of a batch became in the first engine, and where engines differ.
    ///
    /// # Errors
    /// Whatever keeps the replay from going on.
    fn batch(
        &mut self,
        batch: &Batch,
        records: &[Record],
        first: &Outcomes,
        divergences: &[Divergence],
    ) -> Result<(), ReplayError>;
}

/// An observer that does not look.
impl Observer for () {
    fn batch(
        &mut self,
        _: &Batch,
        _: &[Record],
        _: &Outcomes,
        _: &[Divergence],
    ) -> Result<(), ReplayError> {
        Ok(())
    }
}

/// Some frames on their way, and what has become of them so far.
#[derive(Debug, Default)]
struct Work {
    /// From the reader: frames in the batch's chunk.
    placed: Vec<Placed>,
    /// What was seen of them, where they are directed on another thread.
    glances: Vec<Glance>,
    /// From the director.
    batch: Batch,
    records: Vec<Record>,
    /// How many flows there were so far.
    flows: u64,
    /// From the engines: what came out of the first, and where they differ.
    first: Outcomes,
    found: Vec<Divergence>,
    /// From the renderer, where an output is written.
    rendered: Rendered,
}

impl Work {
    fn clear(&mut self) {
        self.placed.clear();
        self.glances.clear();
        self.batch.clear();
        self.records.clear();
        self.first.clear();
        self.found.clear();
        self.rendered.clear();
    }

    /// Exchanges what comes from reading and what goes to writing, and nothing between.
    fn swap_ends(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.placed, &mut other.placed);
        std::mem::swap(&mut self.glances, &mut other.glances);
        std::mem::swap(&mut self.rendered, &mut other.rendered);
        let chunk = self.batch.replace_chunk(Vec::new());
        self.batch.replace_chunk(other.batch.replace_chunk(chunk));
    }

    /// Takes the frames through the engines, and shows what has become of them.
    fn run(&mut self, stage: &mut Stage, observer: &mut dyn Observer) -> Result<(), ReplayError> {
        stage.run(self)?;
        observer.batch(&self.batch, &self.records, &self.first, &self.found)
    }

    /// Makes what the output gets of it, where there is one.
    fn render(&mut self, renderer: Option<&mut Renderer>) -> Result<(), ReplayError> {
        renderer.map_or(Ok(()), |renderer| {
            renderer.render(&self.batch, &self.records, &self.first, &mut self.rendered)
        })
    }

    /// Writes that.
    fn write(&self, sink: Option<&mut Sink>) -> Result<(), ReplayError> {
        sink.map_or(Ok(()), |sink| sink.write(&self.rendered, &self.batch))
    }
}

/// A frame of the trace that lies in its batch's chunk.
#[derive(Clone, Copy, Debug)]
struct Placed {
    start: usize,
    len: u32,
    original_len: u32,
    number: u64,
    time: Timestamp,
    interface: u32,
    link_type: LinkType,
}

impl Placed {
    fn new(start: usize, frame: &trace::Frame<'_>) -> Self {
        Self {
            start,
            // Of a chunk's length at most.
            len: frame.bytes.len() as u32,
            original_len: frame.original_len,
            number: frame.number,
            time: frame.time,
            interface: frame.interface,
            link_type: frame.link_type,
        }
    }

    fn frame<'a>(&self, chunk: &'a [u8]) -> trace::Frame<'a> {
        let end = self.start + self.len as usize;
        trace::Frame {
            number: self.number,
            time: self.time,
            interface: self.interface,
            link_type: self.link_type,
            bytes: chunk.get(self.start..end).unwrap_or_default(),
            original_len: self.original_len,
        }
    }
}

/// A replay under way.
pub struct Replay {
    director: Director,
    work: Work,
    stage: Stage,
    output: Option<OutputFile>,
    started: Instant,
}

impl Replay {
    /// Starts with these engines, of which the first one's totals and frames are reported.
    #[must_use]
    pub fn new(scenario: Scenario, engines: Vec<Box<dyn Engine>>) -> Self {
        Self {
            stage: Stage::new(&scenario.host, engines),
            director: Director::new(scenario),
            work: Work::default(),
            output: None,
            started: Instant::now(),
        }
    }

    /// Writes what comes out of the first engine from now on.
    pub fn write_to(&mut self, output: OutputFile) {
        self.output = Some(output);
    }

    /// The output, to be [finished](OutputFile::finish) or given up.
    pub fn take_output(&mut self) -> Option<OutputFile> {
        self.output.take()
    }

    /// Takes in a frame of the trace, and runs the batch when it is full.
    ///
    /// # Errors
    /// An engine failed, or the observer did.
    pub fn frame(
        &mut self,
        frame: &trace::Frame<'_>,
        observer: &mut dyn Observer,
    ) -> Result<(), ReplayError> {
        let work = &mut self.work;
        let record = self.director.direct(frame, &mut work.batch);
        work.records.push(record);
        let full = work.batch.events().len() >= BATCH_EVENTS
            || work.records.len() >= BATCH_EVENTS
            || work.batch.len_bytes() >= BATCH_BYTES;
        if full { self.flush(observer) } else { Ok(()) }
    }

    /// Runs what has been taken in.
    ///
    /// # Errors
    /// An engine failed, or the observer did.
    pub fn flush(&mut self, observer: &mut dyn Observer) -> Result<(), ReplayError> {
        let (renderer, sink) = writer::parts(self.output.as_mut());
        let work = &mut self.work;
        work.flows = self.director.flows();
        let ran = work.run(&mut self.stage, observer);
        let rendered = ran.and_then(|()| work.render(renderer));
        let written = rendered.and_then(|()| work.write(sink));
        work.clear();
        written
    }

    /// The engines, to be used again. Flows that are opened anew take the places of old ones.
    #[must_use]
    pub fn into_engines(self) -> Vec<Box<dyn Engine>> {
        self.stage.into_engines()
    }

    /// What the frames so far came to. Call [`Replay::flush`] first.
    #[must_use]
    pub fn report(&self, trace: &str) -> Report {
        self.stage.report(trace, self.started.elapsed())
    }
}

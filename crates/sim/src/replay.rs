//! The replay: a trace through the director and every engine, batch by batch, compared and
//! counted. Memory does not grow with the trace's length: one batch is held at a time.

use crate::compare::{self, Divergence, Side};
use crate::director::{Director, Record};
use crate::engine::{Attribution, Engine, EngineError, Outcomes};
use crate::event::{Batch, Event};
use crate::report::{EngineReport, Report, Totals};
use crate::scenario::{Scenario, Segmentation};
use crate::trace;
use dynencap_abi::{Reason, Verdict};
use std::time::{Duration, Instant};

/// A batch is run when it holds so many events …
const BATCH_EVENTS: usize = 512;
/// … or so many bytes: the kernel's receive buffers must hold what comes of it.
const BATCH_BYTES: usize = 1 << 20;

/// How many violated invariants are kept in words; all are counted.
const VIOLATIONS_SHOWN: usize = 20;

struct Running {
    engine: Box<dyn Engine>,
    outcomes: Outcomes,
    totals: Totals,
    busy: Duration,
}

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

/// Looks at each batch once it has run: the output file, a person's report.
pub trait Observer {
    /// What the frames of a batch became in the first engine, and where engines differ.
    ///
    /// # Errors
    /// Whatever keeps the replay from going on, an output that cannot be written for one.
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

/// A replay under way.
pub struct Replay {
    director: Director,
    running: Vec<Running>,
    batch: Batch,
    records: Vec<Record>,
    found: Vec<Divergence>,
    frames_in: u64,
    divergences: u64,
    uplink_mtu: u32,
    segmentation: Segmentation,
    violations: Vec<String>,
    violated: u64,
    started: Instant,
}

impl Replay {
    /// Starts with these engines, of which the first one's totals and frames are reported.
    #[must_use]
    pub fn new(scenario: Scenario, engines: Vec<Box<dyn Engine>>) -> Self {
        let uplink_mtu = scenario.host.config.uplink_mtu;
        let segmentation = scenario.host.segmentation;
        let running = engines.into_iter().map(|engine| Running {
            engine,
            outcomes: Outcomes::default(),
            totals: Totals::default(),
            busy: Duration::ZERO,
        });
        Self {
            director: Director::new(scenario),
            running: running.collect(),
            batch: Batch::default(),
            records: Vec::new(),
            found: Vec::new(),
            frames_in: 0,
            divergences: 0,
            uplink_mtu,
            segmentation,
            violations: Vec::new(),
            violated: 0,
            started: Instant::now(),
        }
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
        self.frames_in += 1;
        let record = self.director.direct(frame, &mut self.batch);
        self.records.push(record);
        let full = self.batch.events().len() >= BATCH_EVENTS
            || self.records.len() >= BATCH_EVENTS
            || self.batch.len_bytes() >= BATCH_BYTES;
        if full { self.flush(observer) } else { Ok(()) }
    }

    /// Runs what has been taken in.
    ///
    /// # Errors
    /// An engine failed, or the observer did.
    pub fn flush(&mut self, observer: &mut dyn Observer) -> Result<(), ReplayError> {
        for running in &mut self.running {
            running.outcomes.clear();
            let start = Instant::now();
            let result = running.engine.run(&self.batch, &mut running.outcomes);
            running.busy += start.elapsed();
            result?;
            running.totals.add_batch(&running.outcomes, self.uplink_mtu);
        }
        self.compare();
        self.check();
        self.divergences += self.found.len() as u64;
        for reason in self
            .records
            .iter()
            .filter_map(|record| record.fate.unseen())
        {
            for running in &mut self.running {
                running.totals.add_unseen(reason);
            }
        }
        if let Some(first) = self.running.first() {
            observer.batch(&self.batch, &self.records, &first.outcomes, &self.found)?;
        }
        self.batch.clear();
        self.records.clear();
        self.found.clear();
        Ok(())
    }

    fn compare(&mut self) {
        let side =
            |running: &'_ Running| (running.engine.kind().name(), running.engine.attribution());
        let reference = self
            .running
            .iter()
            .position(|running| running.engine.attribution() == Attribution::PerEvent)
            .unwrap_or(0);
        let Some(base) = self.running.get(reference) else {
            return;
        };
        let (engine, attribution) = side(base);
        let base = Side {
            engine,
            attribution,
            outcomes: &base.outcomes,
        };
        for (at, other) in self.running.iter().enumerate() {
            if at != reference {
                let (engine, attribution) = side(other);
                let other = Side {
                    engine,
                    attribution,
                    outcomes: &other.outcomes,
                };
                compare::compare(&self.batch, base, other, &mut self.found);
            }
        }
    }

    /// Checks the invariants that show on every batch: `fits`, `total`.
    fn check(&mut self) {
        let mut violations = Vec::new();
        for running in &self.running {
            let name = running.engine.kind().name();
            for fault in &running.outcomes.faults {
                let packet = self.batch.cause(fault.event);
                violations.push(format!("total: {name}, packet {packet}: {}", fault.what));
            }
            for (at, outcome) in running.outcomes.events.iter().enumerate() {
                let Some(reason) = outcome.reason else {
                    continue;
                };
                let frames = outcome.frames.clone();
                let longest = frames
                    .filter_map(|at| running.outcomes.frames.frame(at))
                    .map(|frame| frame.bytes.len())
                    .max()
                    .unwrap_or(0);
                let packet = self.batch.cause(at);
                if reason.verdict() == Verdict::Encapsulated && longest > self.uplink_mtu as usize {
                    violations.push(format!(
                        "fits: {name}, packet {packet}: a frame of {longest} bytes"
                    ));
                }
                let leaves = !outcome.frames.is_empty();
                // Cut first, the last segment may fit where the first does not.
                let mixed = self.segmentation == Segmentation::SegmentFirst && outcome.segments > 0;
                // A sender that is told gets a frame for the one that was dropped.
                let answered = reason == Reason::TooBigTold;
                let expected = reason.verdict() != Verdict::Dropped || answered;
                if leaves != expected && !mixed {
                    violations.push(format!(
                        "total: {name}, packet {packet}: {} with {} frames",
                        reason.name(),
                        outcome.frames.len()
                    ));
                }
            }
            let frames =
                |event: &&Event| matches!(event, Event::Egress { .. } | Event::Ingress { .. });
            let expected = self.batch.events().iter().filter(frames).count() as u64;
            let counted: u64 = running.outcomes.verdicts.iter().sum();
            if counted != expected {
                violations.push(format!(
                    "total: {name}: {counted} verdicts for {expected} frames"
                ));
            }
        }
        self.violated += violations.len() as u64;
        let room = VIOLATIONS_SHOWN.saturating_sub(self.violations.len());
        self.violations.extend(violations.into_iter().take(room));
    }

    /// The engines, to be used again. Flows that are opened anew take the places of old ones.
    #[must_use]
    pub fn into_engines(self) -> Vec<Box<dyn Engine>> {
        self.running
            .into_iter()
            .map(|running| running.engine)
            .collect()
    }

    /// What the frames so far came to. Call [`Replay::flush`] first.
    #[must_use]
    pub fn report(&self, trace: &str) -> Report {
        let engines = self.running.iter().map(|running| {
            let seconds = running.busy.as_secs_f64();
            EngineReport {
                name: running.engine.kind().name(),
                totals: Totals {
                    frames_in: self.frames_in,
                    ..running.totals.clone()
                },
                seconds,
                packets_per_second: self.frames_in as f64 / seconds.max(1e-9),
            }
        });
        let mut violations = self.violations.clone();
        if self.violated > violations.len() as u64 {
            let more = self.violated - violations.len() as u64;
            violations.push(format!("and {more} more times"));
        }
        Report {
            trace: trace.to_owned(),
            flows: self.director.flows(),
            seconds: self.started.elapsed().as_secs_f64(),
            engines: engines.collect(),
            not_run: Vec::new(),
            divergences: self.divergences,
            violations,
            stopped: None,
            written: Vec::new(),
        }
    }
}

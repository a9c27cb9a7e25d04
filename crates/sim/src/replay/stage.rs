//! Behind the director: every engine runs a work, outcomes are compared, checked against the
//! invariants and counted. Who looks at them then is left to the replay.

use super::{ReplayError, Work};
use crate::compare::{self, Divergence, Side};
use crate::engine::{Attribution, Engine, EngineKind, Outcomes};
use crate::event::{Batch, Event};
use crate::report::{EngineReport, Report, Totals};
use crate::scenario::{HostSpec, Segmentation};
use dynencap_abi::{Reason, Verdict};
use std::time::{Duration, Instant};

/// How many violated invariants are kept in words; all are counted.
const VIOLATIONS_SHOWN: usize = 20;

struct Running {
    engine: Box<dyn Engine>,
    outcomes: Outcomes,
    totals: Totals,
    busy: Duration,
}

/// The engines and what they came to so far.
pub(super) struct Stage {
    running: Vec<Running>,
    frames_in: u64,
    flows: u64,
    divergences: u64,
    uplink_mtu: u32,
    segmentation: Segmentation,
    violations: Vec<String>,
    violated: u64,
}

impl Stage {
    pub(super) fn new(host: &HostSpec, engines: Vec<Box<dyn Engine>>) -> Self {
        let running = engines.into_iter().map(|engine| Running {
            engine,
            outcomes: Outcomes::default(),
            totals: Totals::default(),
            busy: Duration::ZERO,
        });
        Self {
            running: running.collect(),
            frames_in: 0,
            flows: 0,
            divergences: 0,
            uplink_mtu: host.config.uplink_mtu,
            segmentation: host.segmentation,
            violations: Vec::new(),
            violated: 0,
        }
    }

    /// Runs a work through every engine, and leaves what came of it there.
    pub(super) fn run(&mut self, work: &mut Work) -> Result<(), ReplayError> {
        let Work {
            batch,
            records,
            flows,
            first,
            found,
            ..
        } = work;
        self.frames_in += records.len() as u64;
        self.flows = *flows;
        for running in &mut self.running {
            running.outcomes.clear();
            let start = Instant::now();
            let result = running.engine.run(batch, &mut running.outcomes);
            running.busy += start.elapsed();
            result?;
            running.totals.add_batch(&running.outcomes, self.uplink_mtu);
        }
        found.clear();
        self.compare(batch, found);
        self.check(batch);
        self.divergences += found.len() as u64;
        for reason in records.iter().filter_map(|record| record.fate.unseen()) {
            for running in &mut self.running {
                running.totals.add_unseen(reason);
            }
        }
        if let Some(running) = self.running.first_mut() {
            std::mem::swap(&mut running.outcomes, first);
        }
        Ok(())
    }

    fn compare(&self, batch: &Batch, found: &mut Vec<Divergence>) {
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
                compare::compare(batch, base, other, found);
            }
        }
    }

    /// Checks the invariants that show on every batch: `fits`, `total`.
    fn check(&mut self, batch: &Batch) {
        let mut violations = Vec::new();
        let mtu = self.uplink_mtu as usize;
        for running in &self.running {
            let name = running.engine.kind().name();
            let any_too_long = running.outcomes.frames.longest() > mtu;
            for fault in &running.outcomes.faults {
                let packet = batch.cause(fault.event);
                violations.push(format!("total: {name}, packet {packet}: {}", fault.what));
            }
            for (at, outcome) in running.outcomes.events.iter().enumerate() {
                let Some(reason) = outcome.reason else {
                    continue;
                };
                let mut lengths = outcome
                    .frames
                    .clone()
                    .filter_map(|at| running.outcomes.frames.length(at));
                if any_too_long
                    && reason.verdict() == Verdict::Encapsulated
                    && let Some((_, length)) = lengths.find(|(_, length)| *length > mtu)
                {
                    let packet = batch.cause(at);
                    violations.push(format!(
                        "fits: {name}, packet {packet}: a frame of {length} bytes"
                    ));
                }
                let leaves = !outcome.frames.is_empty();
                // Cut first, the last segment may fit where the first does not.
                let mixed = self.segmentation == Segmentation::SegmentFirst && outcome.segments > 0;
                // A sender that is told gets a frame for the one that was dropped.
                let answered = reason == Reason::TooBigTold;
                let expected = reason.verdict() != Verdict::Dropped || answered;
                if leaves != expected && !mixed {
                    let packet = batch.cause(at);
                    violations.push(format!(
                        "total: {name}, packet {packet}: {} with {} frames",
                        reason.name(),
                        outcome.frames.len()
                    ));
                }
            }
            let frames =
                |event: &&Event| matches!(event, Event::Egress { .. } | Event::Ingress { .. });
            let expected = batch.events().iter().filter(frames).count() as u64;
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

    pub(super) fn into_engines(self) -> Vec<Box<dyn Engine>> {
        self.running
            .into_iter()
            .map(|running| running.engine)
            .collect()
    }

    /// Whether one of the engines is of this kind.
    pub(super) fn has(&self, kind: EngineKind) -> bool {
        self.running
            .iter()
            .any(|running| running.engine.kind() == kind)
    }

    /// What the works so far came to.
    pub(super) fn report(&self, trace: &str, wall: Duration) -> Report {
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
            flows: self.flows,
            seconds: wall.as_secs_f64(),
            engines: engines.collect(),
            not_run: Vec::new(),
            divergences: self.divergences,
            violations,
            stopped: None,
            written: Vec::new(),
        }
    }
}

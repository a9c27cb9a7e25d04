//! What is shown, in which order, when all goes well and when something fails in the middle:
//! the same on one thread and on two.

use super::*;
use crate::compare::Divergence;
use crate::director::Record;
use crate::engine::{Attribution, Engine, EngineError, Outcomes};
use crate::event::Batch;
use crate::scenario::Scenario;
use crate::trace::{Reading, WriteError};
use crate::workload;
use dynencap_abi::Reason;
use std::io::{self, Read};
use std::time::Duration;

/// Some dozen chunks.
const PACKETS: u32 = 4_000;

/// Passes everything, until it fails. It takes its time, so that works are on their way when it
/// does.
struct Passing {
    works: usize,
    fails_at: Option<usize>,
}

impl Engine for Passing {
    fn kind(&self) -> EngineKind {
        EngineKind::Model
    }

    fn attribution(&self) -> Attribution {
        Attribution::PerEvent
    }

    fn run(&mut self, batch: &Batch, outcomes: &mut Outcomes) -> Result<(), EngineError> {
        if self.fails_at == Some(self.works) {
            return Err(EngineError::Failed {
                engine: "model",
                reason: "on purpose".into(),
            });
        }
        self.works += 1;
        std::thread::sleep(Duration::from_millis(1));
        if let Some(count) = outcomes.verdicts.get_mut(Reason::NoExit as usize) {
            *count += batch.events().len() as u64;
        }
        Ok(())
    }
}

/// Notes which packets it is shown, until it fails, and the number 0 each time that it has.
#[derive(Default)]
struct Shown {
    works: usize,
    fails_at: Option<usize>,
    numbers: Vec<u64>,
}

impl Observer for Shown {
    fn batch(
        &mut self,
        _: &Batch,
        records: &[Record],
        _: &Outcomes,
        _: &[Divergence],
    ) -> Result<(), ReplayError> {
        if self.fails_at == Some(self.works) {
            self.numbers.push(0);
            return Err(ReplayError::Output {
                path: "shown".into(),
                source: WriteError::CommentLength { length: 0 },
            });
        }
        self.works += 1;
        self.numbers
            .extend(records.iter().map(|record| record.number));
        Ok(())
    }
}

/// A trace in whose middle somebody sets the flag.
struct Interrupting<'a> {
    trace: &'a [u8],
    left: usize,
    interrupted: &'a AtomicBool,
}

impl Read for Interrupting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.trace.read(buffer)?;
        match self.left.checked_sub(read) {
            Some(left) => self.left = left,
            None => self.interrupted.store(true, Ordering::Relaxed),
        }
        Ok(read)
    }
}

struct Run {
    engine_fails_at: Option<usize>,
    shown_fails_at: Option<usize>,
    interrupted_after: usize,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            engine_fails_at: None,
            shown_fails_at: None,
            interrupted_after: usize::MAX,
        }
    }
}

impl Run {
    /// Which packets were shown, and how the replay ended.
    fn on(&self, threads: usize) -> (Vec<u64>, String) {
        let mut trace = Vec::new();
        workload::write(PACKETS, &mut trace).unwrap();
        let engine = Passing {
            works: 0,
            fails_at: self.engine_fails_at,
        };
        let mut shown = Shown {
            fails_at: self.shown_fails_at,
            ..Shown::default()
        };
        let interrupted = AtomicBool::new(false);
        let trace = Interrupting {
            trace: &trace,
            left: self.interrupted_after,
            interrupted: &interrupted,
        };
        let mut replay = Replay::new(Scenario::default(), vec![Box::new(engine)]);
        let ended = replay.trace(
            "t.pcap",
            Reading(trace),
            NonZeroUsize::new(threads).unwrap(),
            &interrupted,
            &mut shown,
        );
        let ended = ended.map_or_else(|halt| halt.to_string(), |()| "whole".into());
        (shown.numbers, ended)
    }
}

/// All packets up to one, in order.
fn in_order(numbers: &[u64]) {
    let counted: Vec<u64> = (1..).take(numbers.len()).collect();
    assert!(numbers == counted, "{numbers:?}");
}

#[test]
fn every_packet_is_shown_once_and_in_order() {
    for threads in [1, 2] {
        let (numbers, ended) = Run::default().on(threads);
        assert_eq!(ended, "whole", "{threads} threads");
        assert_eq!(numbers.len(), PACKETS as usize, "{threads} threads");
        in_order(&numbers);
    }
}

#[test]
fn what_was_read_before_an_interrupt_is_shown() {
    for chunks in [0, 1, 5, 11] {
        let run = Run {
            interrupted_after: chunks * CHUNK,
            ..Run::default()
        };
        let one = run.on(1);
        assert_eq!(one.1, "interrupted");
        in_order(&one.0);
        assert!(one.0.len() > 100 * chunks && one.0.len() < PACKETS as usize);
        assert!(one == run.on(2), "{chunks}");
    }
}

#[test]
fn what_ran_before_an_engine_failed_is_shown() {
    for fails_at in [0, 1, 5, 11] {
        let run = Run {
            engine_fails_at: Some(fails_at),
            ..Run::default()
        };
        let one = run.on(1);
        assert!(one.1.contains("on purpose"), "{}", one.1);
        assert_eq!(one.0.is_empty(), fails_at == 0);
        in_order(&one.0);
        assert!(one == run.on(2), "{fails_at}");
    }
}

#[test]
fn an_observer_that_failed_is_shown_no_more() {
    for fails_at in [0, 1, 5, 11] {
        let run = Run {
            shown_fails_at: Some(fails_at),
            ..Run::default()
        };
        let one = run.on(1);
        assert_eq!(one.1, "shown");
        let (last, numbers) = one.0.split_last().unwrap();
        assert_eq!(*last, 0);
        in_order(numbers);
        assert!(one == run.on(2), "{fails_at}");
    }
}

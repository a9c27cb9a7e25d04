//! The engines agree on everything: bytes, reasons, counters, errnos, values.

use crate::host::host;
use crate::run::{cases, describe, differences, outcomes, require};
use crate::step::{Step, batch, step};
use dynencap_abi::Reason;
use dynencap_sim::engine::{Attribution, EngineKind};
use dynencap_sim::scenario::HostSpec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{TestCaseError, TestError, TestRunner};
use std::ops::Range;

#[test]
fn vm_does_as_the_model() {
    let engine = (EngineKind::Vm, Attribution::PerEvent);
    agrees(engine, host(), step(), 1..40, 3000);
}

#[test]
fn kernel_does_as_the_model_on_whole_batches() {
    let engine = (EngineKind::Kernel, Attribution::PerBatch);
    agrees(engine, host(), step(), 200..400, 12);
}

#[test]
fn kernel_does_as_the_model_event_by_event() {
    let engine = (EngineKind::Kernel, Attribution::PerEvent);
    agrees(engine, host(), step(), 200..400, 12);
}

/// Holds an engine against the model on so many histories of such steps.
pub(crate) fn agrees(
    (kind, attribution): (EngineKind, Attribution),
    hosts: impl Strategy<Value = HostSpec>,
    steps: impl Strategy<Value = Step>,
    len: Range<usize>,
    count: u32,
) {
    let history = prop::collection::vec(steps, len);
    let result = cases(kind, count).run(&(hosts, history), |(host, steps)| {
        let kinds = [EngineKind::Model, kind];
        match differences(&host, &batch(&host, &steps), kinds, attribution) {
            Some(found) if !found.is_empty() => {
                Err(TestCaseError::fail(describe(&host, &found, &steps)))
            }
            _ => Ok(()),
        }
    });
    if let Err(TestError::Fail(reason, _)) = result {
        panic!("{reason}");
    }
}

/// What the histories are worth: each reason that packet sockets can bring about.
#[test]
fn histories_reach_every_reason() {
    let mut runner = TestRunner::deterministic();
    let input = (host(), prop::collection::vec(step(), 20..60));
    let mut reached = [0; Reason::COUNT];
    for _ in 0..3000 {
        let (host, steps) = input.new_tree(&mut runner).unwrap().current();
        let attribution = Attribution::PerEvent;
        let mut model = require(EngineKind::Model, &host, attribution).unwrap();
        let came = outcomes(model.as_mut(), &batch(&host, &steps));
        for (sum, count) in reached.iter_mut().zip(came.counters) {
            *sum += count;
        }
    }
    let unreachable = [
        // A second CPU, a kernel without memory; a segmenter, which replay has none of.
        Reason::ExitBusy,
        Reason::NoRoom,
        Reason::AlreadyEncapsulated,
        Reason::Segmenting,
        // A mark without a socket's storage.
        Reason::NoSocket,
        Reason::MarkedWithoutExit,
        // Super-packets of odd shapes, which are `shape`'s, and of over 64 KB, which are captures'.
        Reason::GsoShape,
        Reason::TooLong,
    ];
    let missed: Vec<Reason> = Reason::ALL
        .into_iter()
        .filter(|reason| reached[*reason as usize] == 0 && !unreachable.contains(reason))
        .collect();
    assert_eq!(missed, []);
}

//! The engines agree on everything: bytes, reasons, counters, errnos, values.

use crate::host::host;
use crate::run::{cases, describe, differences};
use crate::step::{batch, step};
use dynencap_sim::engine::{Attribution, EngineKind};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestError};
use std::ops::Range;

#[test]
fn vm_does_as_the_model() {
    agrees(EngineKind::Vm, Attribution::PerEvent, 1..40, 3000);
}

#[test]
fn kernel_does_as_the_model_on_whole_batches() {
    agrees(EngineKind::Kernel, Attribution::PerBatch, 200..400, 12);
}

#[test]
fn kernel_does_as_the_model_event_by_event() {
    agrees(EngineKind::Kernel, Attribution::PerEvent, 200..400, 12);
}

fn agrees(kind: EngineKind, attribution: Attribution, len: Range<usize>, count: u32) {
    let history = prop::collection::vec(step(), len);
    let result = cases(kind, count).run(&(host(), history), |(host, steps)| {
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

//! Engines under test: starting one, or skipping loudly where it cannot run, and running a
//! batch on it.

use crate::step::Step;
use dynencap_abi::object::REFLECT;
use dynencap_sim::compare::{self, Difference, Divergence, Side};
use dynencap_sim::engine::{self, Attribution, Engine, EngineError, EngineKind, Outcomes};
use dynencap_sim::event::Batch;
use dynencap_sim::scenario::HostSpec;
use dynencap_vm::Machine;
use proptest::test_runner::{Config, TestRunner};
use std::io::Write;
use std::sync::OnceLock;

/// The object under test: the committed one, or that of `DYNENCAP_OBJECT`.
fn object() -> Vec<u8> {
    match std::env::var_os("DYNENCAP_OBJECT") {
        Some(path) => std::fs::read(path).unwrap(),
        None => dynencap_sim::built_in_object(),
    }
}

/// Whether the object's programs reflect; where not, the test that asks says so.
pub(crate) fn programs_reflect() -> bool {
    static REFLECTS: OnceLock<bool> = OnceLock::new();
    let reflects = *REFLECTS.get_or_init(|| {
        let machine = Machine::load(&object()).unwrap();
        machine.programs().any(|program| program == REFLECT)
    });
    if !reflects {
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        let why = "the object has no program that reflects";
        let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
    }
    reflects
}

/// A fresh engine; none where it cannot run here and the environment lets it be skipped.
pub(crate) fn require(
    kind: EngineKind,
    host: &HostSpec,
    attribution: Attribution,
) -> Option<Box<dyn Engine>> {
    match engine::start(kind, host, &object(), attribution) {
        Ok(engine) => Some(engine),
        Err(missing @ EngineError::Unavailable { .. }) => {
            let forbidden = std::env::var("DYNENCAP_REQUIRE")
                .is_ok_and(|tiers| tiers.split([',', ' ']).any(|tier| tier == "kernel"));
            assert!(!forbidden, "may not be skipped: {missing}");
            let test = std::thread::current().name().unwrap_or("?").to_owned();
            // Not eprintln!, which the test harness swallows when a test passes.
            let _ = writeln!(std::io::stderr(), "skipped: {test}: {missing}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// What a batch comes to.
pub(crate) fn outcomes(engine: &mut dyn Engine, batch: &Batch) -> Outcomes {
    let mut outcomes = Outcomes::default();
    engine.run(batch, &mut outcomes).unwrap();
    outcomes
}

/// Everything in which two engines differ on a batch; none where one cannot run.
pub(crate) fn differences(
    host: &HostSpec,
    batch: &Batch,
    kinds: [EngineKind; 2],
    attribution: Attribution,
) -> Option<Vec<Divergence>> {
    let mut engines = Vec::new();
    for kind in kinds {
        engines.push(require(kind, host, attribution)?);
    }
    let outcomes: Vec<Outcomes> = engines
        .iter_mut()
        .map(|engine| outcomes(engine.as_mut(), batch))
        .collect();
    let side = |at: usize| Side {
        engine: kinds[at].name(),
        attribution: engines[at].attribution(),
        outcomes: &outcomes[at],
    };
    let mut found = Vec::new();
    compare::compare(batch, side(0), side(1), &mut found);
    // The reference's own faults are differences too.
    assert_eq!(outcomes[0].faults, [], "{}", kinds[0].name());
    Some(found)
}

/// The first of the differences in a form that can be read.
pub(crate) fn describe(host: &HostSpec, found: &[Divergence], steps: &[Step]) -> String {
    let mut text = format!(
        "{} differences with {:?}, {:?}",
        found.len(),
        host.config,
        host.segmentation
    );
    for divergence in found.iter().take(3) {
        let step = usize::try_from(divergence.packet).unwrap().checked_sub(1);
        let step = step.and_then(|at| steps.get(at));
        let head = |bytes: &[u8]| {
            let hex: String = bytes.iter().take(160).map(|b| format!("{b:02x}")).collect();
            format!("{} bytes {hex}", bytes.len())
        };
        let difference = match &divergence.difference {
            Difference::Bytes { field, frames, .. } => {
                format!("{field}\n  {}\n  {}", head(&frames[0]), head(&frames[1]))
            }
            Difference::Frame { frames } => {
                format!("{:?}", frames.each_ref().map(|f| f.as_deref().map(head)))
            }
            other => format!("{other:?}"),
        };
        text += &format!("\n{:?} {difference}\n  by {step:.500?}", divergence.engines);
    }
    text
}

/// A runner of so many cases that keeps no files.
pub(crate) fn cases(kind: EngineKind, cases: u32) -> TestRunner {
    let config = Config {
        cases,
        failure_persistence: None,
        // Each try takes a lab of its own; the event that differs is told in any case.
        max_shrink_iters: match kind {
            EngineKind::Kernel => 0,
            _ => 4000,
        },
        ..Config::default()
    };
    TestRunner::new(config)
}

//! What each engine promises by itself, whatever the others do.

use crate::host::{Options, exit, host, open_host};
use crate::run::{cases, outcomes, require};
use crate::step::{Step, batch, outgoing, step, use_exit};
use dynencap_abi::{Reason, Verdict};
use dynencap_sim::engine::{Attribution, EngineKind, OutFrame, Outcomes, Port};
use dynencap_sim::event::{Batch, Event, FlowId};
use dynencap_sim::scenario::HostSpec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::ops::Range;

const FLOW: FlowId = FlowId(1);

/// Runs a property on an engine, fewer times where each takes a lab.
fn holds<S: Strategy>(
    kind: EngineKind,
    input: impl Fn(Range<usize>) -> S,
    property: impl Fn(EngineKind, S::Value) -> Result<(), TestCaseError>,
) {
    let (count, steps) = match kind {
        EngineKind::Kernel => (3, 100..200),
        _ => (200, 1..40),
    };
    let result = cases(kind, count).run(&input(steps), |value| property(kind, value));
    result.unwrap();
}

fn history(steps: Range<usize>) -> impl Strategy<Value = (HostSpec, Vec<Step>)> {
    (host(), prop::collection::vec(step(), steps))
}

fn sent(flow: FlowId, steps: Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(outgoing(Just(flow)), steps)
}

fn run(kind: EngineKind, host: &HostSpec, batch: &Batch) -> Option<Outcomes> {
    let mut engine = require(kind, host, Attribution::PerEvent)?;
    Some(outcomes(engine.as_mut(), batch))
}

fn frames<'a>(batch: &'a Batch, outcomes: &'a Outcomes, event: usize) -> Vec<OutFrame<'a>> {
    let places = outcomes.events[event].frames.clone();
    places
        .filter_map(|at| outcomes.frames.frame(at, batch))
        .collect()
}

/// What an engine puts on the wire, it gives back as it was when it comes in.
fn transparent(
    kind: EngineKind,
    (host, exit, steps): (HostSpec, Options, Vec<Step>),
) -> Result<(), TestCaseError> {
    let Some(mut engine) = require(kind, &host, Attribution::PerEvent) else {
        return Ok(());
    };
    let mut all = use_exit(FLOW, &exit);
    for step in &steps {
        all.extend([step.clone(), step.clone().on(FlowId::BARE)]);
    }
    let outgoing = batch(&host, &all);
    let out = outcomes(engine.as_mut(), &outgoing);
    let first = out.events.len() - 2 * steps.len();
    let mut incoming = Batch::default();
    let mut originals = Vec::new();
    for event in (first..out.events.len()).step_by(2) {
        if out.events[event].reason != Some(Reason::Encapsulated) {
            continue;
        }
        let (wrapped, plain) = (
            frames(&outgoing, &out, event),
            frames(&outgoing, &out, event + 1),
        );
        prop_assert_eq!(wrapped.len(), plain.len());
        for frame in wrapped {
            prop_assert_eq!(frame.port, Port::Wire);
            let packet = incoming.store(&frame.bytes.to_vec());
            let ethertype = frame.ethertype;
            incoming.push(0, Event::Ingress { ethertype, packet });
        }
        originals.extend(plain);
    }
    let back = outcomes(engine.as_mut(), &incoming);
    for (event, original) in originals.iter().enumerate() {
        prop_assert_eq!(back.events[event].reason, Some(Reason::Decapsulated));
        let expected = OutFrame {
            port: Port::Delivered,
            ..*original
        };
        prop_assert_eq!(frames(&incoming, &back, event), [expected]);
    }
    Ok(())
}

/// Every frame gets one verdict, and leaves unless that is a drop.
fn total(kind: EngineKind, (host, steps): (HostSpec, Vec<Step>)) -> Result<(), TestCaseError> {
    let batch = batch(&host, &steps);
    let Some(out) = run(kind, &host, &batch) else {
        return Ok(());
    };
    prop_assert_eq!(&out.faults, &[]);
    prop_assert_eq!(out.events.len(), batch.events().len());
    let mut expected = 0;
    for (at, event) in batch.events().iter().enumerate() {
        let outcome = &out.events[at];
        if !matches!(event, Event::Egress { .. } | Event::Ingress { .. }) {
            prop_assert!(outcome.reason.is_none() && outcome.frames.is_empty());
            continue;
        }
        expected += 1;
        let answered = |r: Reason| r == Reason::TooBigTold;
        let leaves = outcome
            .reason
            .map(|r| r.verdict() != Verdict::Dropped || answered(r));
        // Of segments cut first, the last may fit where the others do not.
        if outcome.segments == 0 {
            prop_assert_eq!(
                leaves,
                Some(!outcome.frames.is_empty()),
                "{}: {:?}",
                at,
                outcome
            );
        } else {
            prop_assert!(leaves.is_some());
        }
    }
    prop_assert_eq!(out.verdicts.iter().sum::<u64>(), expected);
    prop_assert!(out.counters.iter().sum::<u64>() >= expected);
    Ok(())
}

/// Nothing that was encapsulated exceeds the uplink's MTU.
fn fits(kind: EngineKind, (host, steps): (HostSpec, Vec<Step>)) -> Result<(), TestCaseError> {
    let batch = batch(&host, &steps);
    let Some(out) = run(kind, &host, &batch) else {
        return Ok(());
    };
    for (at, outcome) in out.events.iter().enumerate() {
        if outcome.reason == Some(Reason::Encapsulated) {
            prop_assert!(!outcome.frames.is_empty());
            for frame in frames(&batch, &out, at) {
                prop_assert!(frame.bytes.len() <= host.config.uplink_mtu as usize);
            }
        }
    }
    Ok(())
}

/// The same events lead to the same outcomes.
fn deterministic(
    kind: EngineKind,
    (host, steps): (HostSpec, Vec<Step>),
) -> Result<(), TestCaseError> {
    let batch = batch(&host, &steps);
    let (Some(one), Some(two)) = (run(kind, &host, &batch), run(kind, &host, &batch)) else {
        return Ok(());
    };
    prop_assert_eq!(&one.events, &two.events);
    prop_assert!(one.frames.iter(&batch).eq(two.frames.iter(&batch)));
    prop_assert_eq!((one.counters, one.verdicts), (two.counters, two.verdicts));
    Ok(())
}

/// A socket without options sends what it sends, whatever its neighbours have set.
fn bystander(
    kind: EngineKind,
    (host, exit, steps): (HostSpec, Options, Vec<Step>),
) -> Result<(), TestCaseError> {
    let mut all = use_exit(FLOW, &exit);
    all.extend(steps.iter().map(|step| step.clone().on(FlowId(2))));
    let batch = batch(&host, &all);
    let Some(out) = run(kind, &host, &batch) else {
        return Ok(());
    };
    for (at, event) in batch.events().iter().enumerate() {
        let Event::Egress {
            ethertype,
            packet,
            gso: None,
            ..
        } = event
        else {
            continue;
        };
        let reason = out.events[at].reason;
        prop_assert!(
            matches!(reason, Some(Reason::NoExit | Reason::NotIp)),
            "{:?}",
            reason
        );
        let expected = OutFrame {
            port: Port::Wire,
            ethertype: *ethertype,
            bytes: batch.bytes(packet).into(),
        };
        prop_assert_eq!(frames(&batch, &out, at), [expected]);
    }
    Ok(())
}

macro_rules! promises {
    ($($engine:ident $kind:ident;)*) => {$(
        mod $engine {
            use super::*;
            const KIND: EngineKind = EngineKind::$kind;

            #[test]
            fn transparent() {
                holds(KIND, |n| (open_host(), exit(), sent(FLOW, n)), super::transparent);
            }

            #[test]
            fn total() {
                holds(KIND, history, super::total);
            }

            #[test]
            fn fits() {
                holds(KIND, history, super::fits);
            }

            #[test]
            fn deterministic() {
                holds(KIND, history, super::deterministic);
            }

            #[test]
            fn bystander() {
                holds(KIND, |n| (open_host(), exit(), sent(FLOW, n)), super::bystander);
            }
        }
    )*};
}

promises! {
    model Model;
    vm Vm;
    kernel Kernel;
}

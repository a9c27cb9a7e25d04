//! Super-packets that the kernel's GSO cannot cut: no engine may encapsulate one, since it
//! would be lost behind the program without a word.

use crate::host::{exit, open_host};
use crate::packet::{self, TCP, UDP};
use crate::run::{cases, outcomes, require};
use crate::step::{Step, batch, cut, odd_network, use_exit};
use dynencap_abi::Reason;
use dynencap_sim::engine::{Attribution, EngineKind};
use dynencap_sim::event::FlowId;
use dynencap_sim::scenario::Segmentation;
use proptest::prelude::*;

const FLOW: FlowId = FlowId(1);

fn odd() -> impl Strategy<Value = Step> {
    let protocol = prop::sample::select(&[TCP, UDP][..]);
    let packet = packet::with_network(odd_network(), protocol);
    (packet, cut()).prop_map(|(packet, cut)| Step::SendSuper {
        flow: FLOW,
        packet,
        cut,
    })
}

fn are_dropped(kind: EngineKind, count: u32) {
    let history = prop::collection::vec(odd(), 1..40);
    let input = (open_host(), exit(), history);
    let result = cases(kind, count).run(&input, |(mut host, exit, history)| {
        host.segmentation = Segmentation::GsoAware;
        let mut steps = use_exit(FLOW, &exit);
        let calls = steps.len();
        steps.extend(history);
        let batch = batch(&host, &steps);
        let Some(mut engine) = require(kind, &host, Attribution::PerEvent) else {
            return Ok(());
        };
        let outcomes = outcomes(engine.as_mut(), &batch);
        prop_assert_eq!(&outcomes.faults, &[]);
        let sent = outcomes.events.len() - (steps.len() - calls);
        for outcome in &outcomes.events[sent..] {
            prop_assert_eq!(outcome.reason, Some(Reason::GsoShape));
            prop_assert!(outcome.frames.is_empty());
        }
        Ok(())
    });
    result.unwrap();
}

#[test]
fn uncuttable_super_packets_are_dropped_by_the_model() {
    are_dropped(EngineKind::Model, 300);
}

#[test]
fn uncuttable_super_packets_are_dropped_by_the_vm() {
    are_dropped(EngineKind::Vm, 300);
}

#[test]
fn uncuttable_super_packets_are_dropped_by_the_kernel() {
    are_dropped(EngineKind::Kernel, 4);
}

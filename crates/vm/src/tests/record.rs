//! What a run executed, and how the table of sequences writes it.

use super::{EXIT, insn, machine, mov, run, wide};
use crate::fault::FaultKind;
use crate::machine::Listed;
use aya_obj::generated::bpf_insn;

/// r0 = 5; over the next; r0 = 1; r0 *= r0; exit.
fn program() -> Vec<bpf_insn> {
    let over = insn(0x05, 0, 0, 1, 0);
    let square = insn(0x2f, 0, 0, 0, 0);
    [&wide(0, 5)[..], &[over, mov(0, 1), square, EXIT]].concat()
}

#[test]
fn a_recorded_run_tells_its_slots_and_does_what_any_does() {
    let mut machine = machine(&program());
    let plain = (run(&mut machine), machine.meter());
    assert_eq!(machine.executed(), None);
    machine.record_executed();
    for _ in 0..2 {
        assert_eq!((run(&mut machine), machine.meter()), plain);
        assert_eq!(machine.executed(), Some(("main", &[0, 2, 4, 5][..])));
    }
}

#[test]
fn a_run_that_faults_tells_how_far_it_came() {
    let mut machine = machine(&[mov(0, 1), insn(0x05, 0, 0, -2, 0)]);
    machine.record_executed();
    machine.set_budget(3);
    assert_eq!(run(&mut machine), Err(FaultKind::Budget { budget: 3 }));
    assert_eq!(machine.executed(), Some(("main", &[0, 1, 0][..])));
}

#[test]
fn a_listing_is_in_the_tables_words() {
    let machine = machine(&program());
    let listed = |step: &str, slots, goes_on| Listed {
        step: step.to_owned(),
        slots,
        goes_on,
    };
    let expected = [
        listed("LoadImm64 i 0 15", 2, true),
        listed("Invalid i 0 15", 1, false),
        listed("Jump i 0 15", 1, false),
        listed("Mov64 i 0 15", 1, true),
        listed("Mul64 r 0 0", 1, true),
        listed("Exit i 0 15", 1, false),
    ];
    assert_eq!(machine.listing("main").unwrap(), expected);
    assert_eq!(machine.listing("other"), None);
}

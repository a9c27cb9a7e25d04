//! What a run executed, slot by slot, and what stands there: from this the table of sequences
//! ([`crate::sequence`]) is made.

use super::Machine;
use crate::insn::{Insn, NONE, Op};

/// The slots that one run executed.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    program: usize,
    pub(super) slots: Vec<usize>,
}

impl Record {
    pub(super) fn begin(&mut self, program: usize) {
        self.program = program;
        self.slots.clear();
    }
}

/// An instruction of a program, as a sequence may contain it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// How the table of sequences writes it.
    pub step: String,
    /// How many slots it takes.
    pub slots: usize,
    /// Whether the one behind it may be executed next.
    pub goes_on: bool,
}

impl Listed {
    fn new(insn: &Insn) -> Self {
        let op = Op::of_code(insn.code).unwrap_or(Op::Invalid);
        let form = if insn.src == NONE { 'i' } else { 'r' };
        Self {
            step: format!("{op:?} {form} {} {}", insn.dst, insn.src),
            slots: insn.slots(),
            goes_on: !matches!(op, Op::Jump | Op::CallLocal | Op::Exit | Op::Invalid),
        }
    }
}

impl Machine {
    /// From now on [`Machine::executed`] tells of each run, which makes runs slow.
    pub fn record_executed(&mut self) {
        self.record = Some(Record::default());
    }

    /// The program and the slots that the last run of any program executed, one after the other,
    /// also of a run that faulted. `None` where nothing is recorded.
    #[must_use]
    pub fn executed(&self) -> Option<(&str, &[usize])> {
        let record = self.record.as_ref()?;
        let program = self.programs.get(record.program)?;
        Some((&program.name, &record.slots))
    }

    /// What stands in a program's slots, if there is such a program.
    #[must_use]
    pub fn listing(&self, program: &str) -> Option<Vec<Listed>> {
        let index = self.program_index(program).ok()?;
        let code = &self.programs.get(index)?.code;
        Some(code.iter().map(|at| Listed::new(&at.0[0])).collect())
    }
}

//! Sequences do what their instructions do one by one, faults and counts included.

use crate::fault::FaultKind;
use crate::insn::{Insn, Op};
use crate::interpreter::{Cpu, Helpers, Stop};
use crate::memory::{Memory, context_address, frame_pointer};
use crate::object::Program;
use crate::sequence::{TABLE, join, single};
use std::collections::HashSet;

/// More than any case executes.
const FAR: u64 = 1000;
const CASES: u64 = 24;

/// Answers with what it was asked.
struct Echo;

impl Helpers for Echo {
    fn call(&mut self, helper: i32, r: &[u64; 5], _: &mut Memory) -> Result<u64, FaultKind> {
        match helper {
            0 => Err(FaultKind::UnknownHelper { helper }),
            _ => Ok(r
                .iter()
                .fold(helper as u64, |sum, r| sum.rotate_left(9) ^ r)),
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 31)
    }

    /// Numbers, and addresses that may be read.
    fn value(&mut self) -> u64 {
        let small = self.next() % 24 * 8;
        match self.next() % 8 {
            0 => self.next(),
            1 => small,
            2..5 => context_address() + small % 64,
            _ => frame_pointer(0) - 256 + small,
        }
    }
}

fn load(dst: u8, imm: u64) -> [Insn; 2] {
    let load = Insn {
        code: Op::LoadImm64.code(true),
        dst,
        src: 15,
        offset: 0,
        imm,
    };
    [load, Insn::INVALID]
}

/// Registers with something in them, the sequence, and the end.
fn case(sequence: u128, random: &mut Random) -> Vec<Insn> {
    let mut code: Vec<Insn> = (0..10).flat_map(|r| load(r, random.value())).collect();
    let steps = (0..8).map(|at| (sequence >> (16 * at)) as u16);
    let steps: Vec<u16> = steps.take_while(|step| *step != 0).collect();
    let is_wide = |step: &&u16| **step & 0xff == Op::LoadImm64.code(true) + 1;
    let end = code.len() + steps.len() + steps.iter().filter(is_wide).count();
    for step in steps {
        let number = (step & 0xff) - 1;
        let within = |first: Op, last: Op| (first.code(false)..=last.code(true)).contains(&number);
        let jumps = within(Op::JumpEq64, Op::JumpSLe32)
            || within(Op::Jump, Op::Jump)
            || within(Op::CallLocal, Op::CallLocal);
        let in_frame =
            within(Op::StoreFrame8, Op::StoreFrame64) || within(Op::LoadFrame8, Op::LoadFrame64);
        let insn = Insn {
            code: number,
            dst: (step >> 8 & 15) as u8,
            src: (step >> 12) as u8,
            offset: match (jumps, in_frame) {
                (true, _) => end as u32,
                (_, true) => (-8 * (1 + (random.next() % 63) as i32)).cast_unsigned(),
                _ => (random.next() % 32) as u32,
            },
            imm: match random.next() % 4 {
                0 => random.next() as i32 as u64,
                _ => random.next() % 32,
            },
        };
        match number == Op::LoadImm64.code(true) {
            true => code.extend(load(insn.dst, random.value())),
            false => code.push(insn),
        }
    }
    code.push(Insn {
        code: Op::Exit.code(true),
        ..Insn::INVALID
    });
    code
}

/// How it ended, and everything that it left behind.
fn run(code: &[Insn], limit: impl Fn(u64) -> u64) -> (Result<Stop, FaultKind>, String) {
    let program = Program::from_code("sequence", code);
    let (mut cpu, mut memory) = (Cpu::new(), Memory::new());
    memory.begin(192, u64::MAX);
    let result = loop {
        let limit = limit(cpu.meter.instructions);
        match cpu.run(&program, &mut memory, &mut Echo, limit) {
            Ok(Stop::Paused) => {}
            ended => break ended,
        }
    };
    (result, format!("{cpu:?} {memory:?}"))
}

#[test]
fn a_sequence_does_what_its_instructions_do() {
    let mut random = Random(1);
    let mut exited = 0;
    for sequence in TABLE {
        for _ in 0..CASES {
            let code = case(*sequence, &mut random);
            assert!(join(&code)[20].0[0].code >= Op::CODES, "{sequence:#x}");
            let together = run(&code, |_| FAR);
            let apart = run(&code, |executed| executed + 1);
            assert_eq!(together, apart, "{sequence:#x}");
            exited += usize::from(together.0.is_ok());
        }
    }
    // Enough of them come to the end.
    assert!(exited > TABLE.len() * CASES as usize / 4, "{exited}");
}

#[test]
fn the_table_holds_each_sequence_once() {
    let distinct: HashSet<_> = TABLE.iter().collect();
    assert_eq!(distinct.len(), TABLE.len());
}

#[test]
fn single_instructions_stay_what_they_were() {
    let code = case(TABLE[0], &mut Random(2));
    for (window, insn) in single(&code).iter().zip(&code) {
        assert_eq!(window.0[0].code, insn.code);
    }
}

//! Which instructions are executed two at a time, in one dispatch. Finding out what comes next
//! is a third of what an interpreted instruction costs.
//!
//! A pair stands in the slot of its first instruction and leaves both slots' operands alone, so
//! that a jump to the second finds it there (perhaps as the first of another pair), pcs mean
//! what they meant, and an instruction counts as one in or out of a pair.

use crate::insn::{Insn, Op};

/// Those that may come first: they neither jump nor end.
pub(crate) const FIRSTS: [Op; 18] = [
    Op::Mov64,
    Op::Mov32,
    Op::LoadFrame64,
    Op::LoadFrame32,
    Op::StoreFrame64,
    Op::StoreFrame32,
    Op::Load64,
    Op::Load32,
    Op::Store64,
    Op::LoadImm64,
    Op::Add64,
    Op::And64,
    Op::Rsh64,
    Op::Xor64,
    Op::Mul64,
    Op::And32,
    Op::Or32,
    Op::Lsh32,
];

/// Those that may come second.
pub(crate) const SECONDS: [Op; 22] = [
    Op::Mov64,
    Op::Mov32,
    Op::LoadFrame64,
    Op::LoadFrame32,
    Op::StoreFrame64,
    Op::StoreFrame32,
    Op::Load64,
    Op::Load32,
    Op::Store64,
    Op::LoadImm64,
    Op::Add64,
    Op::And64,
    Op::Rsh64,
    Op::Xor64,
    Op::Mul64,
    Op::And32,
    Op::Or32,
    Op::Lsh32,
    Op::JumpEq64,
    Op::JumpNe64,
    Op::JumpEq32,
    Op::JumpNe32,
];

/// The number of a pair, behind all single instructions; `None` where there is no such pair.
pub(crate) const fn code(first: u16, second: u16) -> Option<u16> {
    match (place(&FIRSTS, first), place(&SECONDS, second)) {
        (Some(first), Some(second)) => {
            Some(Op::Invalid.code() + 1 + first * SECONDS.len() as u16 + second)
        }
        _ => None,
    }
}

const fn place(ops: &[Op], code: u16) -> Option<u16> {
    let mut at = 0;
    while at < ops.len() {
        if ops[at].code() == code {
            return Some(at as u16);
        }
        at += 1;
    }
    None
}

/// The number of a single instruction, as a pattern.
pub(crate) struct Single<const OP: u16>;

impl<const OP: u16> Single<OP> {
    pub(crate) const CODE: u16 = OP;
}

/// The number of a pair that exists, as a pattern.
pub(crate) struct Pair<const FIRST: u16, const SECOND: u16>;

impl<const FIRST: u16, const SECOND: u16> Pair<FIRST, SECOND> {
    pub(crate) const CODE: u16 = match code(FIRST, SECOND) {
        Some(code) => code,
        None => u16::MAX,
    };
}

/// The same program with pairs in it.
pub(crate) fn join(code: &[Insn]) -> Vec<Insn> {
    let mut joined = code.to_vec();
    for (at, insn) in joined.iter_mut().enumerate() {
        let behind = match insn.code == Op::LoadImm64.code() {
            true => at + 2,
            false => at + 1,
        };
        let second = code.get(behind).map(|second| second.code);
        if let Some(pair) = second.and_then(|second| self::code(insn.code, second)) {
            insn.code = pair;
        }
    }
    joined
}

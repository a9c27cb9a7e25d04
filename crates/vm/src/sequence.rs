//! Which instructions are executed several at a time, in one dispatch: finding out what comes
//! next costs more than most instructions do.
//!
//! A sequence takes the place of its first instruction and leaves all slots as they are, so that
//! a jump into it finds what it expects (perhaps the first of another sequence), pcs mean what
//! they meant, and an instruction counts as one in or out of a sequence. Conditional jumps may
//! stand anywhere in one. A sequence names its registers: so the compiler keeps values in the
//! host's from one instruction to the next, where otherwise each would wait for what the one
//! before it stored.

mod table;

use crate::insn::{Insn, Op};
use std::collections::HashMap;
use std::sync::LazyLock;
pub(crate) use table::sequences;

/// How many instructions a sequence has at most.
pub const LONGEST: usize = 8;

/// An instruction with those that follow it where nothing jumps, each of which is complete: a
/// 64-bit immediate load's second slot is left out. Two cache lines that are fetched together, for
/// each dispatch.
#[derive(Clone, Copy, Debug)]
#[repr(align(128))]
pub(crate) struct Window(pub(crate) [Insn; LONGEST]);

const _: () = assert!(size_of::<Window>() == 128);

macro_rules! table {
    ($([$($op:ident $form:ident $d:literal $s:literal),*])*) => {
        &[$(pack(&[$(step(Op::$op.code(form!($form)), $d, $s)),*])),*]
    };
}

/// The form of an operand, as [`Op::code`] takes it.
macro_rules! form {
    (r) => {
        false
    };
    (i) => {
        true
    };
}
pub(crate) use form;

/// All sequences, each in one number.
pub(crate) const TABLE: &[u128] = sequences!(table);

/// An instruction of a sequence: its code, less than 255, and its registers, less than 16; not 0.
pub(crate) const fn step(code: u16, dst: u8, src: u8) -> u16 {
    (code + 1) | (dst as u16) << 8 | (src as u16) << 12
}

/// The instructions of a sequence in one number.
pub(crate) const fn pack(steps: &[u16]) -> u128 {
    let mut packed = 0;
    let mut at = 0;
    while at < steps.len() {
        packed |= (steps[at] as u128) << (16 * at);
        at += 1;
    }
    packed
}

/// The sequences' numbers, behind those of all single instructions.
static NUMBERS: LazyLock<HashMap<u128, u16>> =
    LazyLock::new(|| TABLE.iter().copied().zip(Op::CODES..).collect());

/// The numbers of a single instruction, as patterns.
pub(crate) struct Single<const OP: u8>;

impl<const OP: u8> Single<OP> {
    pub(crate) const REGISTER: u16 = Op::number_code(OP, false);
    pub(crate) const IMMEDIATE: u16 = Op::number_code(OP, true);
}

/// The number of a packed sequence, as a pattern.
pub(crate) struct Sequence<const PACKED: u128>;

impl<const PACKED: u128> Sequence<PACKED> {
    pub(crate) const CODE: u16 = {
        let mut at = 0;
        while at < TABLE.len() && TABLE[at] != PACKED {
            at += 1;
        }
        Op::CODES + at as u16
    };
}

/// Every instruction by itself.
pub(crate) fn single(code: &[Insn]) -> Vec<Window> {
    (0..code.len()).map(|at| window(code, at)).collect()
}

fn window(code: &[Insn], at: usize) -> Window {
    let mut next = at;
    Window(std::array::from_fn(|_| {
        let insn = code.get(next).copied().unwrap_or(Insn::INVALID);
        next += insn.slots();
        insn
    }))
}

/// The same with sequences: those that take the fewest dispatches to the end.
pub(crate) fn join(code: &[Insn]) -> Vec<Window> {
    let mut joined = single(code);
    // How many dispatches are left at each slot.
    let mut left = vec![0u32; code.len() + 1];
    for (at, window) in joined.iter_mut().enumerate().rev() {
        let (mut packed, mut next) = (0, at);
        let mut best = (u32::MAX, Insn::INVALID.code);
        for (nth, insn) in window.0.iter().enumerate() {
            packed |= u128::from(step(insn.code, insn.dst, insn.src)) << (16 * nth);
            next += insn.slots();
            let number = match nth {
                0 => Some(insn.code),
                _ => NUMBERS.get(&packed).copied(),
            };
            let after = left.get(next).copied().unwrap_or_default();
            // Where both are as good, the longer.
            if let Some(number) = number.filter(|_| after <= best.0) {
                best = (after, number);
            }
        }
        if let Some(left) = left.get_mut(at) {
            *left = best.0 + 1;
        }
        let [first, ..] = &mut window.0;
        first.code = best.1;
    }
    joined
}

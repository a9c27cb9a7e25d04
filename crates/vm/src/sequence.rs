//! Which instructions are executed several at a time, in one dispatch: finding out what comes
//! next costs more than most instructions do.
//!
//! A sequence takes the place of its first instruction and leaves all slots as they are, so that
//! a jump into it finds what it expects (perhaps the first of another sequence), pcs mean what
//! they meant, and an instruction counts as one in or out of a sequence. Conditional jumps may
//! stand anywhere in one.

use crate::insn::{Insn, Op};

/// The longest sequence.
pub(crate) const LONGEST: usize = 8;

/// An instruction with those that follow it where nothing jumps, each of which is complete: a
/// 64-bit immediate load's second slot is left out. Two cache lines that are fetched together, for
/// each dispatch.
#[derive(Clone, Copy, Debug)]
#[repr(align(128))]
pub(crate) struct Window(pub(crate) [Insn; LONGEST]);

const _: () = assert!(size_of::<Window>() == 128);

/// Calls a macro with all sequences: operations, and whether the operand of each is a register
/// or an immediate. Those that dynencap's programs run most often, found by counting.
macro_rules! sequences {
    ($with:ident $($first:tt)*) => {
        $with! {
            $($first)*
            [Add32 i, JumpNe32 r, Load8 r, StoreFrame64 r, JumpEq32 i, LoadFrame64 r, JumpNe32 i]
            [Add64 i, Mov64 r, CallLocal i]
            [Add64 r, Load64 r, StoreFrame64 r, Load64 r, StoreFrame64 r, Load64 r]
            [Add64 r, Mov64 r, Rsh64 i, Xor64 r, Mul64 r, Mov64 r]
            [Add64 r, Mul64 r, Load64 r]
            [And32 i, JumpNe32 i, Load32 r, JumpNe32 i]
            [JumpEq64 i, Load32 r, JumpNe32 i, LoadFrame64 r, LoadFrame64 r, LoadFrame64 r,
                LoadFrame32 r, LoadFrame64 r]
            [JumpEq64 i, Load64 r, Add64 i, Store64 r, JumpEq32 i, JumpEq32 i]
            [JumpGt32 r, Mov32 i, JumpNe32 i]
            [JumpNe32 i, And32 i, JumpLt32 i]
            [JumpNe32 i, StoreFrame32 r, LoadFrame64 r, Mov64 r, Rsh64 i, StoreFrame64 r, And32 i,
                LoadFrame64 r]
            [Load32 r, And32 i, JumpEq32 i, JumpEq32 i]
            [Load32 r, And32 i, JumpNe32 i, And32 i, JumpNe32 i, Load32 r, JumpNe32 i]
            [Load32 r, And32 i]
            [Load32 r, JumpEq32 i, JumpEq32 i]
            [Load32 r, Load32 r, Mov64 r, Add64 i, JumpGt64 r]
            [Load32 r, Mov32 i, JumpNe32 i, Mov32 i, Xor32 i, And32 r, StoreFrame64 r, Load64 r]
            [Load32 r, Mov32 r, Add32 i, Mov32 i, StoreFrame32 r, Mov32 i, JumpGt32 r]
            [Load32 r, Swap32 i, StoreFrame64 r, And32 i, JumpNe32 i, Load16 r, Swap16 i, Load32 r]
            [Load64 r, JumpNe64 i]
            [Load64 r, Load64 r]
            [Load64 r, Store64 r, Mov32 i, LoadFrame64 r, JumpEq64 i, Load32 r, Load32 r, Mov64 r]
            [Load64 r, StoreFrame64 r, Load64 r]
            [Load8 r, Lsh32 i, Or32 r, StoreFrame64 r, Load32 r, Lsh64 i, Load32 r, Lsh64 i]
            [LoadFrame32 r, Add32 i, LoadFrame64 r, Mov32 i, CallHelper i, LoadFrame64 r, Mov32 i,
                LoadFrame64 r]
            [LoadFrame32 r, Add32 r, Mov32 i, JumpEq64 i, Mov32 i]
            [LoadFrame32 r, Exit i]
            [LoadFrame64 r, And32 i, LoadFrame64 r, Or32 r, LoadFrame64 r, Store64 r,
                LoadFrame64 r, Store64 r]
            [LoadFrame64 r, JumpEq64 i]
            [LoadFrame64 r, Load16 r, Swap16 i, JumpLt32 r, Mov32 i, StoreFrame64 r,
                LoadFrame32 r, LoadFrame64 r]
            [LoadFrame64 r, Load32 r, Add64 r, Mov64 r, Add64 i, Load32 r, JumpGt64 r, Load32 r]
            [LoadFrame64 r, Load64 r, Load64 r]
            [LoadFrame64 r, Load8 r, Mov32 r, And32 i, JumpNe32 i, Lsh32 i, And32 i, JumpLt32 i]
            [LoadFrame64 r, LoadFrame32 r, JumpEq64 i, Mov32 i, LoadFrame64 r, And32 i, Lsh32 i,
                LoadFrame64 r]
            [LoadFrame64 r, LoadFrame64 r, JumpEq32 i]
            [LoadFrame64 r, Mov64 r, Swap16 i, Swap32 i, Lsh32 i, Or32 r, Jump i]
            [LoadFrame64 r, Store64 r, LoadFrame64 r, Store64 r, LoadFrame32 r, Store8 r, Mov32 i,
                Store16 r]
            [LoadFrame64 r, Store64 r]
            [LoadImm64 i, Mov64 r, And64 r, LoadImm64 i, JumpNe64 r, Load64 r, Load32 r, Lsh64 i]
            [LoadImm64 i, Mov64 r, And64 r]
            [LoadImm64 i, Mov64 r, Mov64 i, Mov64 i, CallHelper i, Mov64 r, JumpEq64 i, Mov64 r]
            [LoadImm64 i, Mov64 r, Mov64 i]
            [LoadImm64 i, Mul64 r, Xor64 r, Mov64 r, Rsh64 i, Xor64 r]
            [LoadImm64 i, Mul64 r]
            [LoadImm64 i, Or64 r, StoreFrame64 r, Or64 r, StoreFrame64 r, Mov32 i, StoreFrame32 r,
                Mov64 i]
            [LoadImm64 i, StoreFrame64 r, And64 r, StoreFrame64 r, Mov64 r, Rsh64 i, Load32 r,
                StoreFrame32 r]
            [Mov32 i, CallHelper i, JumpEq64 i]
            [Mov32 i, CallHelper i, JumpNe64 i]
            [Mov32 i, JumpEq64 i, Load32 r, Lsh64 i, Or64 r, Load64 r, JumpEq64 r]
            [Mov32 i, JumpEq64 i, Mov32 r, StoreFrame64 r, Mov64 r, Add64 i, LoadImm64 i,
                CallHelper i]
            [Mov32 i, JumpEq64 i]
            [Mov32 i, Load64 r, JumpEq64 i]
            [Mov32 i, LoadFrame32 r, Add32 r, LoadFrame32 r, StoreFrame32 r, Add32 r, Lsh64 i,
                Arsh64 i]
            [Mov32 i, LoadFrame32 r, JumpEq32 i]
            [Mov32 i, LoadFrame32 r, JumpLt32 i, Load32 r, Load32 r, StoreFrame64 r, Add64 i,
                JumpLe64 r]
            [Mov32 i, Lsh32 r, And32 i, Mov32 i, JumpEq32 i]
            [Mov32 i, Mov32 i]
            [Mov32 i, Store16 r, Store16 r, Store16 r, Rsh64 i, Store16 r, LoadFrame32 r,
                JumpEq32 i]
            [Mov32 i, StoreFrame32 r, Rsh64 i, Mov32 i, StoreFrame32 r]
            [Mov32 i, StoreFrame32 r]
            [Mov32 r, And32 i, LoadFrame64 r, Xor64 r, LoadImm64 i, LoadFrame64 r, Mul64 r]
            [Mov32 r, And32 i]
            [Mov32 r, JumpEq32 i, JumpEq32 i, Load32 r, Mov32 r, And32 i, Mul64 i, Mov64 r]
            [Mov32 r, JumpEq32 i, JumpNe32 i, Mov32 i, LoadFrame64 r, JumpEq64 i, Mov64 i,
                Atomic64 r]
            [Mov64 i, Atomic64 r, LoadFrame64 r, Load64 r, Add64 i, Store64 r, Mov32 i,
                StoreFrame32 r]
            [Mov64 i, StoreFrame64 r, JumpNe64 i, Mov64 i, StoreFrame64 r, StoreFrame64 r,
                LoadFrame64 r, StoreFrame64 r]
            [Mov64 i, StoreFrame64 r, Load64 r, Load64 r, Mov64 r, Mov64 i, StoreFrame64 r, Mov64 r]
            [Mov64 i, StoreFrame64 r]
            [Mov64 r, Add64 i, JumpGt64 r]
            [Mov64 r, Add64 i, LoadImm64 i, CallHelper i]
            [Mov64 r, Add64 i, LoadImm64 i, StoreFrame64 r, CallHelper i, LoadFrame64 r, Mov64 r,
                JumpEq64 i]
            [Mov64 r, Add64 i, Mov64 r, Mov64 r, Mov32 i, CallLocal i]
            [Mov64 r, Add64 i]
            [Mov64 r, LoadFrame32 r, Mov32 i, CallHelper i, LoadFrame64 r, LoadFrame64 r,
                JumpNe64 i]
            [Mov64 r, Mov64 r, Mov32 i, StoreFrame32 r, Load32 r, Mov32 r, And32 i, Mul64 i]
            [Mov64 r, Mov64 r]
            [Mov64 r, StoreFrame64 r, Load32 r, And32 i, JumpNe32 i]
            [Mul32 i, StoreFrame32 r, Add32 r, Add32 i, JumpGt32 i, Load32 r, And32 i, JumpNe32 i]
            [Mul64 r, LoadImm64 i, LoadFrame64 r, And64 r, Mov32 i, Mov32 i, JumpEq64 i]
            [Mul64 r, Mov64 r, Rsh64 i, Xor64 r]
            [Or64 r, JumpNe64 r, LoadImm64 i, Mov64 r, And64 r, Load64 r, Load32 r, JumpEq64 i]
            [Or64 r, Load16 r, StoreFrame32 r, Load8 r, StoreFrame32 r, LoadFrame64 r, Load8 r,
                StoreFrame64 r]
            [Or64 r, Mov32 i, JumpEq64 i, StoreFrame64 r, StoreFrame64 r, LoadFrame64 r, Mov32 r,
                StoreFrame64 r]
            [Or64 r, Mov64 r, JumpEq64 i]
            [Rsh32 i, And32 r, Load32 r]
            [Rsh64 i, JumpEq64 i, Mov32 r, StoreFrame64 r, Mov32 r]
            [Rsh64 i, StoreFrame64 r, Mov32 r, And32 i, Mov32 i, JumpEq64 i, Mov32 r, Or32 i]
            [Rsh64 i, Xor32 r, Or32 i, Swap16 i, LoadFrame64 r, Mov32 r, And32 i]
            [Store32 r, Mov32 i, Jump i]
            [Store8 r, Or32 i, Swap32 i, Store32 r, Swap16 i, Store16 r, Load64 r, Store64 r]
            [Store8 r, Swap32 i, Store32 r, Swap16 i, Store16 r, JumpEq64 i]
            [StoreFrame32 r, Load32 r, Load64 r, Mov64 r, Swap16 i, LoadFrame64 r, Mov64 r,
                LoadFrame64 r]
            [StoreFrame32 r, LoadImm64 i, Mov64 r, And64 r, Mov32 i, JumpEq64 i]
            [StoreFrame32 r, Mov32 i, Mov32 r, Rsh32 i, Mov32 r, And32 i, JumpEq32 i]
            [StoreFrame32 r, StoreFrame32 r, Mov32 r, Add32 r, Add32 i, JumpGt32 i, Load32 r,
                JumpGt32 r]
            [StoreFrame64 r, JumpEq64 i, Mov64 i, JumpEq64 i, LoadFrame64 r, Lsh64 i, Or64 i]
            [StoreFrame64 r, Load64 r, StoreFrame64 r, Load64 r, Load64 r, Load64 r, Load64 r,
                Load64 r]
            [StoreFrame64 r, Load64 r, StoreFrame64 r, Load64 r, StoreFrame64 r, Load64 r,
                Load32 r, JumpNe32 r]
            [StoreFrame64 r, LoadFrame64 r, Load64 r, Load64 r, StoreFrame64 r, StoreFrame64 r]
            [StoreFrame64 r, LoadFrame64 r, StoreFrame64 r, LoadFrame64 r, StoreFrame64 r,
                LoadFrame64 r, StoreFrame64 r, LoadFrame64 r]
            [StoreFrame64 r, LoadImm64 i, Mul64 r]
            [StoreFrame64 r, StoreFrame64 r, JumpGt32 i, Load32 r, Load8 r, Mov32 r, And32 i,
                JumpEq32 i]
            [StoreFrame64 r, StoreFrame64 r, LoadImm64 i, And64 r, JumpEq64 i, Mov32 i,
                StoreFrame32 r]
            [StoreFrame64 r, StoreFrame64 r]
            [StoreFrame64 r, Xor64 r, LoadFrame64 r, Load64 r, Mov64 r, JumpEq64 i]
            [Swap32 i, And32 i, LoadFrame64 r, Load64 r, Xor64 r, LoadImm64 i, LoadFrame64 r,
                Mul64 r]
            [Xor32 i, And32 r, JumpNe32 i]
            [Xor64 r, Rsh32 i, LoadFrame64 r, Xor64 r, Mov64 r, Rsh64 i, Xor64 r, And32 i]
        }
    };
}
pub(crate) use sequences;

macro_rules! table {
    ($([$($op:ident $form:ident),*])*) => {
        &[$(pack(&[$(Op::$op.code(form!($form))),*])),*]
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

const TABLE: &[u128] = sequences!(table);

/// The codes of a sequence's instructions in one number.
pub(crate) const fn pack(codes: &[u8]) -> u128 {
    let mut packed = 0;
    let mut at = 0;
    while at < codes.len() {
        packed |= place(codes[at], at);
        at += 1;
    }
    packed
}

/// What a code is in the number of its sequence; no code is 0 there.
const fn place(code: u8, at: usize) -> u128 {
    (code as u128 + 1) << (16 * at)
}

const _: () = assert!(Op::CODES as usize + TABLE.len() <= 1 << u8::BITS);

/// The number of a sequence, behind those of all single instructions.
const fn find(packed: u128) -> Option<u8> {
    let mut at = 0;
    while at < TABLE.len() {
        if TABLE[at] == packed {
            return Some(Op::CODES + at as u8);
        }
        at += 1;
    }
    None
}

/// The numbers of a single instruction, as patterns.
pub(crate) struct Single<const OP: u8>;

impl<const OP: u8> Single<OP> {
    pub(crate) const REGISTER: u8 = Op::number_code(OP, false);
    pub(crate) const IMMEDIATE: u8 = Op::number_code(OP, true);
}

/// The number of a packed sequence, as a pattern.
pub(crate) struct Sequence<const PACKED: u128>;

impl<const PACKED: u128> Sequence<PACKED> {
    pub(crate) const CODE: u8 = match find(PACKED) {
        Some(code) => code,
        None => 0,
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
            packed |= place(insn.code, nth);
            next += insn.slots();
            let number = match nth {
                0 => Some(insn.code),
                _ => find(packed),
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

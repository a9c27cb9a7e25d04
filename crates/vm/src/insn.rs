//! Decodes eBPF instructions (RFC 9669, v4) once, into a form that the interpreter can
//! dispatch on without looking at bits. Owns opcode numbers; knows nothing of execution. Which
//! instructions run several at a time is left to [`crate::sequence`], what an instruction is to
//! `op`.
//!
//! Decoding is total: what is no instruction becomes [`Op::Invalid`], a fault only if it is
//! reached. Slots keep their index, so that line info and jumps need no translation.

mod op;

use crate::memory::{FRAME_LEN, map_handle, map_region_address};
use aya_obj::generated::bpf_insn;
pub(crate) use op::{Atomic, Op};

/// Not a register: the source of an instruction whose operand is the immediate.
pub(crate) const NONE: u8 = 15;
/// The frame pointer: read-only.
pub(crate) const FRAME_POINTER: u8 = 10;
/// A jump to nowhere: no program has that many instructions.
const NOWHERE: u32 = u32::MAX;

/// One decoded instruction slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Insn {
    /// What is dispatched on: [`Op::code`], or that of a sequence ([`crate::sequence`]).
    pub(crate) code: u16,
    pub(crate) dst: u8,
    pub(crate) src: u8,
    /// Loads, stores: the offset. Jumps, local calls: the target's slot.
    pub(crate) offset: u32,
    /// Of [`Op::Invalid`], the opcode as it stood, for reports.
    pub(crate) imm: u64,
}

impl Insn {
    /// What stands behind a program's end.
    pub(crate) const INVALID: Self = invalid(0);

    /// How many slots it takes.
    pub(crate) const fn slots(&self) -> usize {
        if self.code == Op::LoadImm64.code(true) {
            2
        } else {
            1
        }
    }
}

/// Decodes a whole program, local functions included.
pub(crate) fn decode(raw: &[bpf_insn]) -> Vec<Insn> {
    let mut out = Vec::with_capacity(raw.len());
    let mut index = 0;
    while let Some(insn) = raw.get(index) {
        out.push(decode_one(raw, index, insn));
        if insn.code == 0x18 && index + 1 < raw.len() {
            out.push(invalid(0));
            index += 1;
        }
        index += 1;
    }
    out
}

const fn invalid(opcode: u8) -> Insn {
    Insn {
        code: Op::Invalid.code(true),
        dst: 0,
        src: NONE,
        offset: NOWHERE,
        imm: opcode as u64,
    }
}

fn decode_one(raw: &[bpf_insn], index: usize, insn: &bpf_insn) -> Insn {
    let (dst, src) = (insn.dst_reg(), insn.src_reg());
    if dst > FRAME_POINTER || src > FRAME_POINTER {
        return invalid(insn.code);
    }
    let decoded = match insn.code & 7 {
        0 => load_imm64(raw, index, insn),
        1 => load(insn),
        2 => store(insn).map(|op| (op, NONE, imm(insn))),
        3 => store_register(insn),
        4 | 7 => arithmetic(insn),
        _ => jump(insn),
    };
    let Some((op, src, imm)) = decoded else {
        return invalid(insn.code);
    };
    let writes_register = matches!(insn.code & 7, 0 | 1 | 4 | 7);
    if writes_register && dst == FRAME_POINTER {
        return invalid(insn.code);
    }
    let offset = match op {
        Op::Jump if insn.code & 7 == 6 => target(index, insn.imm),
        Op::CallLocal => target(index, insn.imm),
        _ if matches!(insn.code & 7, 5 | 6) => target(index, i32::from(insn.off)),
        _ => i32::from(insn.off).cast_unsigned(),
    };
    let base = if insn.code & 7 == 1 { src } else { dst };
    let op = match base {
        FRAME_POINTER => in_frame(op, insn.off),
        _ => op,
    };
    Insn {
        code: op.code(src == NONE),
        dst,
        src,
        offset,
        imm,
    }
}

/// The operation for an access relative to the frame pointer that stays within the frame.
fn in_frame(op: Op, offset: i16) -> Op {
    let (len, in_frame) = match op {
        Op::Load8 => (1, Op::LoadFrame8),
        Op::Load16 => (2, Op::LoadFrame16),
        Op::Load32 => (4, Op::LoadFrame32),
        Op::Load64 => (8, Op::LoadFrame64),
        Op::Store8 => (1, Op::StoreFrame8),
        Op::Store16 => (2, Op::StoreFrame16),
        Op::Store32 => (4, Op::StoreFrame32),
        Op::Store64 => (8, Op::StoreFrame64),
        _ => return op,
    };
    let within = -(FRAME_LEN as i16)..=-len;
    if within.contains(&offset) {
        in_frame
    } else {
        op
    }
}

fn imm(insn: &bpf_insn) -> u64 {
    i64::from(insn.imm).cast_unsigned()
}

fn target(index: usize, relative: i32) -> u32 {
    i64::try_from(index)
        .ok()
        .and_then(|index| u32::try_from(index + 1 + i64::from(relative)).ok())
        .unwrap_or(NOWHERE)
}

type Decoded = Option<(Op, u8, u64)>;

fn load_imm64(raw: &[bpf_insn], index: usize, insn: &bpf_insn) -> Decoded {
    let high = raw.get(index + 1)?;
    if insn.code != 0x18 || high.code != 0 {
        return None;
    }
    let (low, high) = (insn.imm.cast_unsigned(), high.imm.cast_unsigned());
    let value = match insn.src_reg() {
        0 => u64::from(high) << 32 | u64::from(low),
        1 => map_handle(low),
        2 => map_region_address(low).wrapping_add(u64::from(high)),
        _ => return None,
    };
    Some((Op::LoadImm64, NONE, value))
}

fn load(insn: &bpf_insn) -> Decoded {
    let op = match insn.code {
        0x71 => Op::Load8,
        0x69 => Op::Load16,
        0x61 => Op::Load32,
        0x79 => Op::Load64,
        0x91 => Op::LoadSx8,
        0x89 => Op::LoadSx16,
        0x81 => Op::LoadSx32,
        _ => return None,
    };
    Some((op, insn.src_reg(), 0))
}

fn store(insn: &bpf_insn) -> Option<Op> {
    Some(match insn.code & !1 {
        0x72 => Op::Store8,
        0x6a => Op::Store16,
        0x62 => Op::Store32,
        0x7a => Op::Store64,
        _ => return None,
    })
}

fn store_register(insn: &bpf_insn) -> Decoded {
    let atomic = match insn.code {
        0xc3 => Op::Atomic32,
        0xdb => Op::Atomic64,
        _ => return Some((store(insn)?, insn.src_reg(), 0)),
    };
    Atomic::from_imm(imm(insn))?;
    Some((atomic, insn.src_reg(), imm(insn)))
}

fn arithmetic(insn: &bpf_insn) -> Decoded {
    let wide = insn.code & 7 == 7;
    let register = insn.code & 8 != 0;
    let pick = |op64, op32| Some(if wide { op64 } else { op32 });
    let signed = |plain: Option<Op>, other: Option<Op>| match insn.off {
        0 => plain,
        1 => other,
        _ => None,
    };
    let operation = insn.code & 0xf0;
    // Only division and moves give the offset a meaning.
    if insn.off != 0 && !matches!(operation, 0x30 | 0x90 | 0xb0) {
        return None;
    }
    let op = match operation {
        0x00 => pick(Op::Add64, Op::Add32),
        0x10 => pick(Op::Sub64, Op::Sub32),
        0x20 => pick(Op::Mul64, Op::Mul32),
        0x30 => signed(pick(Op::Div64, Op::Div32), pick(Op::SDiv64, Op::SDiv32)),
        0x40 => pick(Op::Or64, Op::Or32),
        0x50 => pick(Op::And64, Op::And32),
        0x60 => pick(Op::Lsh64, Op::Lsh32),
        0x70 => pick(Op::Rsh64, Op::Rsh32),
        0x80 if !register => pick(Op::Neg64, Op::Neg32),
        0x90 => signed(pick(Op::Mod64, Op::Mod32), pick(Op::SMod64, Op::SMod32)),
        0xa0 => pick(Op::Xor64, Op::Xor32),
        0xb0 => match (insn.off, register, wide) {
            (0, _, _) => pick(Op::Mov64, Op::Mov32),
            (8, true, _) => pick(Op::MovSx8To64, Op::MovSx8To32),
            (16, true, _) => pick(Op::MovSx16To64, Op::MovSx16To32),
            (32, true, true) => Some(Op::MovSx32To64),
            _ => None,
        },
        0xc0 => pick(Op::Arsh64, Op::Arsh32),
        0xd0 => byte_swap(insn, wide, register),
        _ => None,
    }?;
    Some(if register && operation != 0xd0 {
        (op, insn.src_reg(), 0)
    } else {
        (op, NONE, imm(insn))
    })
}

/// The host's order is little-endian: "to little" truncates, "to big" and `bswap` swap.
fn byte_swap(insn: &bpf_insn, wide: bool, register: bool) -> Option<Op> {
    match (wide, register, insn.imm) {
        (false, false, 16) => Some(Op::Truncate16),
        (false, false, 32) => Some(Op::Truncate32),
        (false, false, 64) => Some(Op::Truncate64),
        (true, false, 16) | (false, true, 16) => Some(Op::Swap16),
        (true, false, 32) | (false, true, 32) => Some(Op::Swap32),
        (true, false, 64) | (false, true, 64) => Some(Op::Swap64),
        _ => None,
    }
}

fn jump(insn: &bpf_insn) -> Decoded {
    let wide = insn.code & 7 == 5;
    let pick = |op64, op32| Some(if wide { op64 } else { op32 });
    let op = match insn.code & 0xf0 {
        0x00 if insn.code & 8 == 0 => Some(Op::Jump),
        0x10 => pick(Op::JumpEq64, Op::JumpEq32),
        0x20 => pick(Op::JumpGt64, Op::JumpGt32),
        0x30 => pick(Op::JumpGe64, Op::JumpGe32),
        0x40 => pick(Op::JumpSet64, Op::JumpSet32),
        0x50 => pick(Op::JumpNe64, Op::JumpNe32),
        0x60 => pick(Op::JumpSGt64, Op::JumpSGt32),
        0x70 => pick(Op::JumpSGe64, Op::JumpSGe32),
        0x80 if insn.code == 0x85 => match insn.src_reg() {
            0 => Some(Op::CallHelper),
            1 => Some(Op::CallLocal),
            _ => None,
        },
        0x90 if insn.code == 0x95 => Some(Op::Exit),
        0xa0 => pick(Op::JumpLt64, Op::JumpLt32),
        0xb0 => pick(Op::JumpLe64, Op::JumpLe32),
        0xc0 => pick(Op::JumpSLt64, Op::JumpSLt32),
        0xd0 => pick(Op::JumpSLe64, Op::JumpSLe32),
        _ => None,
    }?;
    Some(if insn.code & 8 != 0 {
        (op, insn.src_reg(), 0)
    } else {
        (op, NONE, imm(insn))
    })
}

// A cache line holds four.
const _: () = assert!(size_of::<Insn>() == 16);

//! What follows from an object's bytes: instructions and stack of each program.
//!
//! The stack is read off the code: the lowest address below the frame pointer that is touched
//! or handed on, summed over the deepest chain of calls. That is the kernel's own measure, but
//! for its rounding of each frame; where a pointer into the stack is computed at run time the
//! kernel sees more.

use anyhow::Context;
use aya_obj::Object;
use aya_obj::generated::bpf_insn;
use std::collections::{BTreeMap, HashSet};

/// The frame pointer.
const R10: u8 = 10;
/// `dst += imm`, `dst = src`.
const ADD_IMM: u8 = 0x07;
const MOV: u8 = 0xbf;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const JUMP: u8 = 0x05;
/// `src` of a call to a function of the program's own, and of a load of such a function's address.
const PSEUDO_CALL: u8 = 1;
const PSEUDO_FUNC: u8 = 4;
const LOAD_WIDE: u8 = 0x18;

/// Of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Slots of 8 bytes, the program's functions included.
    pub(crate) instructions: usize,
    /// Bytes.
    pub(crate) stack: usize,
}

/// Each program's, by name.
pub(crate) fn sizes(bytes: &[u8]) -> anyhow::Result<BTreeMap<String, Size>> {
    let mut object = Object::parse(bytes)?;
    let text: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    object.relocate_calls(&text)?;
    let mut sizes = BTreeMap::new();
    for (name, program) in &object.programs {
        let function = object
            .functions
            .get(&program.function_key())
            .with_context(|| format!("{name} has no code"))?;
        let code = &function.instructions;
        let size = Size {
            instructions: code.len(),
            stack: stack(code),
        };
        sizes.insert(name.clone(), size);
    }
    Ok(sizes)
}

/// Bytes of stack on the deepest chain of calls.
fn stack(code: &[bpf_insn]) -> usize {
    let mut starts: Vec<usize> = (0..code.len()).filter_map(|at| target(code, at)).collect();
    starts.push(0);
    starts.sort_unstable();
    starts.dedup();
    let end_of = |start: usize| {
        let next = starts.partition_point(|other| *other <= start);
        starts.get(next).copied().unwrap_or(code.len())
    };
    let mut known = BTreeMap::new();
    depth(code, 0, &end_of, &mut known)
}

/// The verifier lets no function call itself; one that does is counted once here.
fn depth(
    code: &[bpf_insn],
    start: usize,
    end_of: &impl Fn(usize) -> usize,
    known: &mut BTreeMap<usize, usize>,
) -> usize {
    if let Some(depth) = known.get(&start) {
        return *depth;
    }
    known.insert(start, 0);
    let end = end_of(start);
    let deepest = (start..end)
        .filter_map(|at| target(code, at))
        .map(|called| depth(code, called, end_of, known))
        .max();
    let own = code.get(start..end).map_or(0, frame);
    let all = own + deepest.unwrap_or(0);
    known.insert(start, all);
    all
}

/// Where the function begins that this instruction calls or points to.
fn target(code: &[bpf_insn], at: usize) -> Option<usize> {
    let insn = code.get(at)?;
    let calls = insn.code == CALL && insn.src_reg() == PSEUDO_CALL
        || insn.code == LOAD_WIDE && insn.src_reg() == PSEUDO_FUNC;
    let to = isize::try_from(insn.imm).ok()? + isize::try_from(at).ok()? + 1;
    calls.then_some(usize::try_from(to).ok()?)
}

/// Bytes of one function's frame.
fn frame(code: &[bpf_insn]) -> usize {
    // What is known to lie at a fixed distance from the frame pointer, by register.
    let mut fixed: [Option<i64>; 16] = [None; 16];
    let mut lowest = 0;
    let start = {
        let mut start = [None; 16];
        start[usize::from(R10)] = Some(0);
        start
    };
    fixed.copy_from_slice(&start);
    let mut skip = false;
    for insn in code {
        if std::mem::take(&mut skip) {
            continue;
        }
        skip = insn.code == LOAD_WIDE;
        let (dst, src) = (usize::from(insn.dst_reg()), usize::from(insn.src_reg()));
        let offset = i64::from(insn.off);
        match insn.code & 7 {
            // Loads, stores.
            1 => {
                lowest = lowest.min(fixed[src].map_or(0, |at| at + offset));
                fixed[dst] = None;
            }
            2 | 3 => lowest = lowest.min(fixed[dst].map_or(0, |at| at + offset)),
            0 => fixed[dst] = None,
            // Arithmetic.
            7 | 4 => {
                fixed[dst] = match insn.code {
                    MOV if insn.off == 0 => fixed[src],
                    ADD_IMM => fixed[dst].map(|at| at + i64::from(insn.imm)),
                    _ => None,
                };
                lowest = lowest.min(fixed[dst].unwrap_or(0));
            }
            _ => match insn.code {
                CALL => fixed[..6].fill(None),
                // What follows is reached from elsewhere.
                EXIT | JUMP => fixed = start,
                _ => {}
            },
        }
    }
    usize::try_from(-lowest).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> bpf_insn {
        bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: aya_obj::generated::__BindgenBitfieldUnit::new([src << 4 | dst]),
            off,
            imm,
        }
    }

    #[test]
    fn a_frame_is_what_is_touched_or_handed_on() {
        let table: [(&[bpf_insn], usize); 6] = [
            (&[insn(EXIT, 0, 0, 0, 0)], 0),
            (&[insn(0x7b, 10, 1, -24, 0)], 24),
            (&[insn(0x79, 1, 10, -8, 0), insn(0x63, 10, 1, -4, 0)], 8),
            (&[insn(MOV, 2, 10, 0, 0), insn(ADD_IMM, 2, 0, 0, -72)], 72),
            // Through another register, below a pointer of one's own.
            (
                &[
                    insn(MOV, 2, 10, 0, 0),
                    insn(ADD_IMM, 2, 0, 0, -16),
                    insn(0x73, 2, 1, -4, 0),
                ],
                20,
            ),
            // A call forgets what the register held.
            (
                &[
                    insn(MOV, 2, 10, 0, 0),
                    insn(CALL, 0, 0, 0, 6),
                    insn(ADD_IMM, 2, 0, 0, -72),
                ],
                0,
            ),
        ];
        for (code, expected) in table {
            assert_eq!(stack(code), expected);
        }
    }

    #[test]
    fn frames_add_up_along_the_deepest_chain() {
        let code = [
            // 0: 8 bytes, calls 3 and 5.
            insn(0x7b, 10, 1, -8, 0),
            insn(CALL, 0, 1, 0, 1),
            insn(CALL, 0, 1, 0, 2),
            // 3: 16 bytes.
            insn(0x7b, 10, 1, -16, 0),
            insn(EXIT, 0, 0, 0, 0),
            // 5: 32 bytes, calls 3.
            insn(0x7b, 10, 1, -32, 0),
            insn(CALL, 0, 1, 0, -4),
            insn(EXIT, 0, 0, 0, 0),
        ];
        assert_eq!(stack(&code), 8 + 32 + 16);
    }
}

//! The instruction set, one table for each group. Expected values are RFC 9669's.

use super::{EXIT, call, copy, insn, machine, mov, wide};
use crate::fault::FaultKind;
use crate::helper::Hook;
use aya_obj::generated::bpf_insn;

const MIN64: u64 = 1 << 63;

/// The whole r0.
fn value(program: &[bpf_insn]) -> Result<u64, FaultKind> {
    let mut machine = machine(program);
    machine
        .run(0, (Hook::Tc, None), u64::MAX, &mut |_| {})
        .map(|run| run.value)
        .map_err(|fault| fault.kind)
}

/// r0 = a; r1 = b; the instruction; exit.
fn binary(a: u64, b: u64, middle: bpf_insn) -> u64 {
    let program = [&wide(0, a)[..], &wide(1, b), &[middle, EXIT]].concat();
    value(&program).unwrap()
}

/// Operation, offset, a, b, result in 64 and in 32 bits.
#[rustfmt::skip]
const ARITHMETIC: &[(u8, i16, u64, u64, u64, u64)] = &[
    (0x00, 0, u64::MAX, 2, 1, 1),
    (0x10, 0, 1, 2, u64::MAX, 0xffff_ffff),
    (0x20, 0, 0x1_0000_0003, 5, 0x5_0000_000f, 15),
    (0x30, 0, 0xffff_ffff_ffff_fff9, 2, 0x7fff_ffff_ffff_fffc, 0x7fff_fffc),
    (0x30, 0, 7, 0, 0, 0),
    (0x30, 1, 0xffff_ffff_ffff_fff9, 2, 0xffff_ffff_ffff_fffd, 0xffff_fffd),
    (0x30, 1, 7, 0, 0, 0),
    (0x30, 1, MIN64, u64::MAX, MIN64, 0),
    (0x40, 0, 0xf0_0000_00f0, 0x0f, 0xf0_0000_00ff, 0xff),
    (0x50, 0, 0xff_0000_00f0, 0xf0_0000_003c, 0xf0_0000_0030, 0x30),
    (0x60, 0, 1, 33, 1 << 33, 2),
    (0x70, 0, 0x8000_0000_8000_0000, 4, 0x0800_0000_0800_0000, 0x0800_0000),
    (0x90, 0, 17, 5, 2, 2),
    (0x90, 0, 0x1_0000_0005, 0, 0x1_0000_0005, 5),
    (0x90, 1, 0xffff_ffff_ffff_fff9, 2, u64::MAX, 0xffff_ffff),
    (0x90, 1, MIN64, u64::MAX, 0, 0),
    (0xa0, 0, 0xff, 0x0f, 0xf0, 0xf0),
    (0xb0, 0, 1, 0x1_0000_0002, 0x1_0000_0002, 2),
    (0xb0, 8, 1, 0x80, 0xffff_ffff_ffff_ff80, 0xffff_ff80),
    (0xb0, 16, 1, 0x8000, 0xffff_ffff_ffff_8000, 0xffff_8000),
    (0xc0, 0, 0x8000_0000_8000_0000, 4, 0xf800_0000_0800_0000, 0xf800_0000),
];

#[test]
fn arithmetic_follows_the_rfc_in_both_widths() {
    for &(operation, off, a, b, wide, narrow) in ARITHMETIC {
        let in64 = binary(a, b, insn(operation | 0x0f, 0, 1, off, 0));
        assert_eq!(
            in64, wide,
            "64 bits, {operation:#x}/{off} of {a:#x}, {b:#x}"
        );
        let in32 = binary(a, b, insn(operation | 0x0c, 0, 1, off, 0));
        assert_eq!(
            in32, narrow,
            "32 bits, {operation:#x}/{off} of {a:#x}, {b:#x}"
        );
    }
    assert_eq!(binary(5, 0, insn(0x87, 0, 0, 0, 0)), 5u64.wrapping_neg());
    assert_eq!(binary(5, 0, insn(0x84, 0, 0, 0, 0)), 0xffff_fffb);
    assert_eq!(
        binary(0, 0x8000_0000, insn(0xbf, 0, 1, 32, 0)),
        0xffff_ffff_8000_0000
    );
}

#[test]
fn immediates_are_sign_extended_to_64_bits_and_cut_to_32() {
    assert_eq!(binary(0, 0, insn(0x07, 0, 0, 0, -1)), u64::MAX);
    assert_eq!(binary(0, 0, insn(0x04, 0, 0, 0, -1)), 0xffff_ffff);
    assert_eq!(binary(0, 0, insn(0xb7, 0, 0, 0, -2)), u64::MAX - 1);
    assert_eq!(binary(0, 0, insn(0xb4, 0, 0, 0, -2)), 0xffff_fffe);
}

#[test]
fn byte_swaps_truncate_or_swap() {
    let a = 0x0102_0304_0506_0708;
    let table = [
        (0xd4, 16, 0x0708),
        (0xd4, 32, 0x0506_0708),
        (0xd4, 64, a),
        (0xdc, 16, 0x0807),
        (0xdc, 32, 0x0807_0605),
        (0xdc, 64, 0x0807_0605_0403_0201),
        (0xd7, 16, 0x0807),
        (0xd7, 32, 0x0807_0605),
        (0xd7, 64, 0x0807_0605_0403_0201),
    ];
    for (code, bits, expected) in table {
        assert_eq!(
            binary(a, 0, insn(code, 0, 0, 0, bits)),
            expected,
            "{code:#x} {bits}"
        );
    }
}

#[test]
fn conditions_compare_signed_and_unsigned_in_both_widths() {
    let minus_one = u64::MAX;
    // Operation, a, b, taken in 64 bits, taken in 32 bits.
    let table = [
        (0x10, 1, 1, true, true),
        (0x10, 0x1_0000_0001, 1, false, true),
        (0x20, minus_one, 1, true, true),
        (0x20, 0x1_0000_0000, 1, true, false),
        (0x30, 1, 1, true, true),
        (0x40, 6, 2, true, true),
        (0x40, 0x2_0000_0000, 0x2_0000_0000, true, false),
        (0x50, 1, 2, true, true),
        (0x60, minus_one, 1, false, false),
        (0x60, 0xffff_ffff, 1, true, false),
        (0x70, 1, minus_one, true, true),
        (0xa0, 1, minus_one, true, true),
        (0xb0, 2, 1, false, false),
        (0xc0, minus_one, 1, true, true),
        (0xc0, 0xffff_ffff, 1, false, true),
        (0xd0, minus_one, minus_one, true, true),
    ];
    for (operation, a, b, wide_taken, narrow_taken) in table {
        for (class, taken) in [(0x0d, wide_taken), (0x0e, narrow_taken)] {
            let jump = insn(operation | class, 0, 1, 2, 0);
            let program = [
                &wide(0, a)[..],
                &wide(1, b),
                &[jump, mov(0, 0), EXIT, mov(0, 1), EXIT],
            ]
            .concat();
            let expected = Ok(u64::from(taken));
            assert_eq!(
                value(&program),
                expected,
                "{operation:#x}/{class:#x} {a:#x} {b:#x}"
            );
        }
    }
    // An immediate is sign-extended before a 64-bit comparison.
    let program = [
        mov(0, 1),
        mov(1, -1),
        insn(0x15, 1, 0, 1, -1),
        mov(0, 0),
        EXIT,
    ];
    assert_eq!(value(&program), Ok(1));
}

#[test]
fn jumps_reach_backwards_and_far() {
    let ja = insn(0x05, 0, 0, 1, 0);
    assert_eq!(value(&[mov(0, 1), ja, mov(0, 2), EXIT]), Ok(1));
    let gotol = insn(0x06, 0, 0, 0, 1);
    assert_eq!(value(&[mov(0, 1), gotol, mov(0, 2), EXIT]), Ok(1));
    // A loop of three rounds.
    let back = insn(0x55, 0, 0, -2, 3);
    assert_eq!(
        value(&[mov(0, 0), insn(0x07, 0, 0, 0, 1), back, EXIT]),
        Ok(3)
    );
}

#[test]
fn loads_and_stores_keep_width_and_sign() {
    let slot = |code| insn(code, 0, 10, -8, 0);
    let stored = 0x8182_8384_8586_8788;
    let table = [
        (0x71, 0x88),
        (0x69, 0x8788),
        (0x61, 0x8586_8788),
        (0x79, stored),
        (0x91, 0xffff_ffff_ffff_ff88),
        (0x89, 0xffff_ffff_ffff_8788),
        (0x81, 0xffff_ffff_8586_8788),
    ];
    for (code, expected) in table {
        let program = [
            &wide(1, stored)[..],
            &[insn(0x7b, 10, 1, -8, 0), slot(code), EXIT],
        ];
        assert_eq!(value(&program.concat()), Ok(expected), "{code:#x}");
    }
    let immediates = [
        (0x72, 0x00ff),
        (0x6a, 0xfffe_u64 << 8 | 0xff00_0000),
        (0x62, 0xffff_ffff),
        (0x7a, u64::MAX),
    ];
    for (code, _) in immediates {
        let program = [
            mov(1, 0),
            insn(0x7b, 10, 1, -8, 0),
            insn(code, 10, 0, -8, -1),
            slot(0x79),
            EXIT,
        ];
        let bytes = match code {
            0x72 => 1,
            0x6a => 2,
            0x62 => 4,
            _ => 8,
        };
        assert_eq!(
            value(&program),
            Ok(u64::MAX >> (64 - 8 * bytes)),
            "{code:#x}"
        );
    }
}

#[test]
fn atomics_change_memory_and_fetch_the_old_value() {
    // Kind, memory, register, r0 before; memory and register after.
    let table: [(i32, u64, u64, u64); 9] = [
        (0x00, 5 + 3, 3, 9),
        (0x40, 5 | 3, 3, 9),
        (0x50, 5 & 3, 3, 9),
        (0xa0, 5 ^ 3, 3, 9),
        (0x01, 5 + 3, 5, 9),
        (0x41, 5 | 3, 5, 9),
        (0x51, 5 & 3, 5, 9),
        (0xa1, 5 ^ 3, 5, 9),
        (0xe1, 3, 5, 9),
    ];
    for (class, kind_wide) in [(0xdb, true), (0xc3, false)] {
        for (kind, memory, register, _) in table {
            let prefix = [
                insn(0x7a, 10, 0, -8, 5),
                mov(1, 3),
                insn(class, 10, 1, -8, kind),
            ];
            let read_memory = [&prefix[..], &[insn(0x79, 0, 10, -8, 0), EXIT]].concat();
            assert_eq!(value(&read_memory), Ok(memory), "{kind:#x} {kind_wide}");
            let read_register = [&prefix[..], &[copy(0, 1), EXIT]].concat();
            assert_eq!(value(&read_register), Ok(register), "{kind:#x} {kind_wide}");
        }
        for (expected, after) in [(5, 3), (4, 5)] {
            let prefix = [
                insn(0x7a, 10, 0, -8, 5),
                mov(1, 3),
                mov(0, expected),
                insn(class, 10, 1, -8, 0xf1),
            ];
            assert_eq!(value(&[&prefix[..], &[EXIT]].concat()), Ok(5));
            let read = [&prefix[..], &[insn(0x79, 0, 10, -8, 0), EXIT]].concat();
            assert_eq!(value(&read), Ok(after));
        }
    }
}

#[test]
fn a_local_call_has_its_own_frame_and_gives_back_r6_to_r9() {
    let local = |imm| insn(0x85, 0, 1, 0, imm);
    let program = [
        insn(0x7a, 10, 0, -8, 7),
        mov(6, 30),
        local(3),
        insn(0x79, 0, 10, -8, 0),
        insn(0x0f, 0, 6, 0, 0),
        EXIT,
        insn(0x7a, 10, 0, -8, 9),
        mov(6, 1),
        EXIT,
    ];
    assert_eq!(value(&program), Ok(37));
}

#[test]
fn what_a_program_must_not_do_is_a_fault() {
    let recursion = [insn(0x85, 0, 1, 0, -1), EXIT];
    assert_eq!(value(&recursion), Err(FaultKind::Depth { limit: 8 }));
    let endless = [insn(0x05, 0, 0, -1, 0)];
    assert_eq!(
        value(&endless),
        Err(FaultKind::Budget { budget: 1_000_000 })
    );
    assert_eq!(value(&[mov(0, 0)]), Err(FaultKind::ProgramCounter));
    let beyond = [insn(0x05, 0, 0, -9, 0), EXIT];
    assert_eq!(value(&beyond), Err(FaultKind::ProgramCounter));
    // Arithmetic on r10, registers that do not exist, a second slot, legacy packet loads.
    for (code, dst, src) in [
        (0xb7, 10, 0),
        (0xbf, 11, 0),
        (0xbf, 0, 12),
        (0x00, 0, 0),
        (0x20, 0, 0),
    ] {
        let outcome = value(&[insn(code, dst, src, 0, 0), EXIT]);
        assert_eq!(outcome, Err(FaultKind::Opcode { code }));
    }
    assert_eq!(
        value(&[call(9999), EXIT]),
        Err(FaultKind::UnknownHelper { helper: 9999 })
    );
}

#[test]
fn the_meter_counts_instructions_and_helper_calls() {
    let program = [&wide(1, 9)[..], &[call(5), call(8), mov(0, 0), EXIT]].concat();
    let run = machine(&program)
        .run_tc("main", &mut super::frame())
        .unwrap();
    assert_eq!((run.meter.instructions, run.meter.helpers), (5, 2));
}

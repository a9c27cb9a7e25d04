//! What a program may touch: packet bounds, stale pointers, red zones, context fields, helper
//! arguments.

use super::{EXIT, add, add_map, call, copy, frame, insn, machine, map_fd, mov, run};
use crate::fault::{Access, FaultKind};
use crate::skb::Skb;
use aya_obj::generated::bpf_insn;

const LOAD_DATA: bpf_insn = insn(0x61, 7, 6, 76, 0);

fn faults(program: &[bpf_insn]) -> FaultKind {
    run(&mut machine(program)).unwrap_err()
}

#[test]
fn the_packet_reads_and_writes_between_data_and_data_end() {
    let program = [copy(6, 1), LOAD_DATA, insn(0x71, 0, 7, 59, 0), EXIT];
    assert_eq!(run(&mut machine(&program)), Ok(59));
    let program = [
        copy(6, 1),
        LOAD_DATA,
        insn(0x72, 7, 0, 3, 99),
        mov(0, 0),
        EXIT,
    ];
    let mut skb = frame();
    machine(&program).run_tc("main", &mut skb).unwrap();
    assert_eq!(skb.data()[..5], [0, 1, 2, 99, 4]);
}

#[test]
fn accesses_past_data_end_fault() {
    let read = [copy(6, 1), LOAD_DATA, insn(0x61, 0, 7, 57, 0), EXIT];
    assert!(matches!(
        faults(&read),
        FaultKind::Memory {
            len: 4,
            access: Access::Read,
            ..
        }
    ));
    let write = [copy(6, 1), LOAD_DATA, insn(0x72, 7, 0, 60, 1), EXIT];
    assert!(matches!(
        faults(&write),
        FaultKind::Memory {
            len: 1,
            access: Access::Write,
            ..
        }
    ));
    let before = [copy(6, 1), LOAD_DATA, insn(0x71, 0, 7, -1, 0), EXIT];
    assert!(matches!(
        faults(&before),
        FaultKind::Memory {
            access: Access::Read,
            ..
        }
    ));
}

#[test]
fn only_the_linear_part_is_reachable_until_it_is_pulled() {
    let peek = [copy(6, 1), LOAD_DATA, insn(0x71, 0, 7, 40, 0), EXIT];
    let pull = [
        copy(6, 1),
        mov(2, 41),
        call(39),
        LOAD_DATA,
        insn(0x71, 0, 7, 40, 0),
        EXIT,
    ];
    let mut skb = frame();
    skb.set_linear_len(34);
    let fault = machine(&peek).run_tc("main", &mut skb).unwrap_err();
    assert!(matches!(fault.kind, FaultKind::Memory { .. }));
    let run = machine(&pull).run_tc("main", &mut skb).unwrap();
    assert_eq!(run.action, 40);
}

#[test]
fn a_packet_pointer_from_before_a_helper_faults() {
    for helper in [39, 50] {
        let program = [
            copy(6, 1),
            LOAD_DATA,
            mov(2, 0),
            mov(3, 1),
            mov(4, 0),
            call(helper),
            insn(0x71, 0, 7, 0, 0),
            EXIT,
        ];
        let fault = machine(&program).run_tc("main", &mut frame()).unwrap_err();
        assert_eq!(fault.pc, 6, "helper {helper}");
        assert!(matches!(fault.kind, FaultKind::Memory { .. }));
    }
}

#[test]
fn red_zones_stand_behind_map_values_and_frames() {
    let program = |offset| {
        [
            &map_fd(1, 0)[..],
            &[
                insn(0x62, 10, 0, -4, 0),
                copy(2, 10),
                add(2, -4),
                call(1),
                insn(0x7a, 0, 0, offset, 1),
                mov(0, 0),
                EXIT,
            ],
        ]
        .concat()
    };
    for (offset, ok) in [
        (0, true),
        (8, true),
        (16, false),
        (12, false),
        (24, false),
        (-8, false),
    ] {
        let mut machine = machine(&program(offset));
        add_map(&mut machine, 2, 4, 16, 4);
        assert_eq!(run(&mut machine).is_ok(), ok, "{offset}");
    }
    assert_eq!(
        run(&mut machine(&[insn(0x72, 10, 0, -512, 0), mov(0, 0), EXIT])),
        Ok(0)
    );
    for offset in [-513, 0, 1] {
        let fault = faults(&[insn(0x72, 10, 0, offset, 0), EXIT]);
        assert!(matches!(fault, FaultKind::Memory { .. }), "{offset}");
    }
}

#[test]
fn the_context_lets_only_some_fields_be_written() {
    let program = [insn(0x62, 1, 0, 8, 77), mov(0, 0), EXIT];
    let mut skb = frame();
    machine(&program).run_tc("main", &mut skb).unwrap();
    assert_eq!(skb.mark, 77);
    for field in [0, 4, 16, 76, 80, 168, 176] {
        let fault = faults(&[insn(0x62, 1, 0, field, 1), EXIT]);
        assert!(
            matches!(
                fault,
                FaultKind::Memory {
                    access: Access::Write,
                    ..
                }
            ),
            "{field}"
        );
    }
}

#[test]
fn helpers_check_their_arguments() {
    let argument = |helper| FaultKind::HelperArgument { helper, reason: "" };
    let cases = [
        // skb_load_bytes to nowhere; not the context; store from nowhere; no map; no socket.
        (26, vec![mov(2, 0), mov(3, 0), mov(4, 4)]),
        (
            26,
            vec![mov(1, 8), mov(2, 0), copy(3, 10), add(3, -8), mov(4, 8)],
        ),
        (26, vec![mov(2, 0), copy(3, 10), add(3, -8), mov(4, 9)]),
        (26, vec![mov(2, 0), copy(3, 10), add(3, -8), mov(4, 0)]),
        (9, vec![mov(2, 0), mov(3, 0), mov(4, 4), mov(5, 0)]),
        (1, vec![mov(1, 5), copy(2, 10), add(2, -4)]),
        (107, vec![mov(2, 0), mov(3, 0), mov(4, 0)]),
        (6, vec![mov(1, 0), mov(2, 8)]),
    ];
    for (helper, mut program) in cases {
        program.extend([call(helper), EXIT]);
        let FaultKind::HelperArgument { helper, .. } = faults(&program) else {
            panic!("helper {helper} took a bad argument");
        };
        assert_eq!(
            FaultKind::HelperArgument { helper, reason: "" },
            argument(helper)
        );
    }
}

#[test]
fn load_bytes_beyond_the_frame_clears_the_target_and_refuses() {
    let program = [
        insn(0x7a, 10, 0, -8, -1),
        mov(2, 55),
        copy(3, 10),
        add(3, -8),
        mov(4, 8),
        call(26),
        insn(0x79, 1, 10, -8, 0),
        insn(0x0f, 0, 1, 0, 0),
        EXIT,
    ];
    assert_eq!(run(&mut machine(&program)), Ok(-14i32 as u32));
}

#[test]
fn checksum_helpers_agree_with_a_full_sum() {
    // An IPv4 header (RFC 1071's rule): change the TTL word with l3_csum_replace.
    let mut bytes = vec![0; 34];
    bytes[14..34].copy_from_slice(&[
        0x45, 0, 0, 0x14, 0x12, 0x34, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ]);
    let sum = |bytes: &[u8]| {
        let mut total: u32 = bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum();
        while total > 0xffff {
            total = (total >> 16) + (total & 0xffff);
        }
        total as u16
    };
    let check = !sum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&check.to_be_bytes());
    let from = i32::from(u16::from_le_bytes([64, 6]));
    let to = i32::from(u16::from_le_bytes([9, 6]));
    let program = [
        copy(6, 1),
        LOAD_DATA,
        insn(0x72, 7, 0, 22, 9),
        mov(2, 24),
        mov(3, from),
        mov(4, to),
        mov(5, 2),
        call(10),
        EXIT,
    ];
    let mut skb = Skb::new(&bytes, 0x0800);
    let run = machine(&program).run_tc("main", &mut skb).unwrap();
    assert_eq!(run.action, 0);
    assert_eq!(sum(&skb.data()[14..34]), 0xffff);
    assert_eq!(skb.data()[22], 9);
}

#[test]
fn socket_storage_takes_no_keys_and_other_maps_no_sockets() {
    let program = |helper| {
        let program = [
            &map_fd(1, 0)[..],
            &[
                insn(0x62, 10, 0, -4, 0),
                copy(2, 10),
                add(2, -4),
                mov(3, 0),
                mov(4, 0),
                call(helper),
                EXIT,
            ],
        ];
        program.concat()
    };
    for (helper, ty, entries) in [(1, 24, 0), (2, 24, 0), (3, 24, 0), (107, 1, 2), (108, 1, 2)] {
        let mut machine = machine(&program(helper));
        add_map(&mut machine, ty, 4, 8, entries);
        let fault = run(&mut machine).unwrap_err();
        let is_argument =
            matches!(fault, FaultKind::HelperArgument { helper: h, .. } if h == helper);
        assert!(is_argument, "helper {helper}: {fault}");
    }
}

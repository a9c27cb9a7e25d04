//! Any bytes as a program: an outcome, never a panic.

use super::{add_map, frame, insn, machine};
use crate::socket::SocketKind;
use aya_obj::generated::bpf_insn;
use proptest::prelude::*;

/// Mostly opcodes that exist, on registers that exist, with small numbers, so that runs go
/// beyond the first instruction.
fn any_insn() -> impl Strategy<Value = bpf_insn> {
    let helper = prop::sample::select(vec![
        1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 23, 26, 28, 38, 39, 41, 43, 49, 50, 57, 68, 95, 107, 108,
        186, 187, 59, 79, 80, 83, 84, 85, 86, 96, 98, 99, 123, 152,
    ]);
    let number = prop_oneof![-64..64i32, any::<i32>(), Just(0x1000), Just(i32::MIN)];
    let offset = prop_oneof![-24..200i16, any::<i16>()];
    prop_oneof![
        8 => (any::<u8>(), 0..12u8, 0..12u8, offset.clone(), number.clone())
            .prop_map(|(code, dst, src, off, imm)| insn(code, dst, src, off, imm)),
        4 => (0..11u8, 0..11u8).prop_map(|(dst, src)| insn(0xbf, dst, src, 0, 0)),
        4 => (0..11u8, number).prop_map(|(dst, imm)| insn(0xb7, dst, 0, 0, imm)),
        2 => (0..11u8, 1..3i32).prop_map(|(dst, map)| insn(0x18, dst, 1, 0, map)),
        2 => (0..11u8, offset).prop_map(|(dst, off)| insn(0x61, dst, 6, off, 0)),
        3 => helper.prop_map(|id| insn(0x85, 0, 0, 0, id)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_program_ends_in_an_outcome(body in prop::collection::vec(any_insn(), 1..60)) {
        let mut program = vec![insn(0xbf, 6, 1, 0, 0)];
        program.extend(body);
        let mut machine = machine(&program);
        add_map(&mut machine, 1, 4, 8, 2);
        add_map(&mut machine, 24, 4, 8, 0);
        machine.set_budget(2000);
        let socket = machine.open_socket(SocketKind { family: 10, ty: 1, protocol: 6 });
        let mut skb = frame();
        skb.socket = Some(socket);
        if let Ok(run) = machine.run_tc("main", &mut skb) {
            prop_assert!(run.meter.instructions <= 2000);
        }
        let _ = machine.set_option("main", socket, 0xe9ca, 1, &[0; 16]);
        let mut buffer = [0; 20];
        let _ = machine.get_option("main", socket, 0xe9ca, 1, 0, &mut buffer);
        let _ = machine.create_socket("main", SocketKind { family: 10, ty: 1, protocol: 6 });
        let _ = machine.run_sock_ops("main", 4, [1, 2, 3, 4], socket);
        let _ = crate::gso::segment(&skb, &mut |_| {});
    }

    /// Pairs are what their instructions are one by one: the same end, count and frame.
    #[test]
    fn pairs_do_what_their_instructions_do(body in prop::collection::vec(any_insn(), 1..60)) {
        let mut program = vec![insn(0xbf, 6, 1, 0, 0)];
        program.extend(body);
        let run = |every: Option<u64>| {
            let mut machine = machine(&program);
            add_map(&mut machine, 1, 4, 8, 2);
            add_map(&mut machine, 24, 4, 8, 0);
            machine.set_budget(2000);
            let socket = machine.open_socket(SocketKind { family: 10, ty: 1, protocol: 6 });
            let mut skb = frame();
            skb.socket = Some(socket);
            let run = match every {
                None => machine.run_tc("main", &mut skb),
                Some(every) => machine.run_tc_interleaved("main", &mut skb, every, &mut |_| {}),
            };
            (run, skb.data().to_vec(), machine.map_entries("map0").ok())
        };
        let joined = run(None);
        prop_assert_eq!(&joined, &run(Some(1)));
        prop_assert_eq!(&joined, &run(Some(7)));
    }
}

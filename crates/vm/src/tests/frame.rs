//! Helpers that change a frame's ends, sum bytes or send it elsewhere: what they refuse, and
//! what they do.

use super::{EXIT, add, call, copy, frame, insn, machine, mov, run, wide};
use crate::fault::FaultKind;
use crate::helper::{Direction, Redirect};
use crate::room::{MAX_LEN, adjust};
use crate::skb::{Gso, GsoKind, Skb};
use aya_obj::generated::bpf_insn;

const TAIL: i32 = 38;
const HEAD: i32 = 43;
const REDIRECT: i32 = 23;
const NEIGHBOUR: i32 = 152;
const EINVAL: i32 = -22;
const ENOTSUPP: i32 = -524;

/// `helper(ctx, len, flags)`.
fn resize(helper: i32, skb: &mut Skb, len: i32, flags: i32) -> i32 {
    let program = [mov(2, len), mov(3, flags), call(helper), EXIT];
    machine(&program).run_tc("main", skb).unwrap().action
}

fn with(change: impl Fn(&mut Skb)) -> Skb {
    let mut skb = frame();
    change(&mut skb);
    skb
}

fn super_packet(len: usize) -> Skb {
    let mut skb = Skb::new(&vec![0; len], 0x86dd);
    skb.gso = Some(Gso {
        size: 1000,
        kind: GsoKind::Tcp6,
    });
    skb
}

#[test]
fn the_tail_moves_within_the_kernels_limits() {
    let encapsulated = with(|skb| adjust(skb, 40, 1, 1 << 2).unwrap());
    let with_transport = with(|skb| skb.transport = Some(54));
    let with_checksum = with(|skb| (skb.transport, skb.partial_checksum) = (Some(40), Some(58)));
    let max = MAX_LEN as i32;
    #[rustfmt::skip]
    let table = [
        ("flags", frame(), 60, 1, EINVAL),
        ("above SKB_MAX_ALLOC", frame(), max + 1, 0, EINVAL),
        ("up to it", frame(), max, 0, 0),
        ("into the link layer's header", frame(), 13, 0, EINVAL),
        ("down to it", frame(), 14, 0, 0),
        ("into what precedes the transport header", with_transport.clone(), 53, 0, EINVAL),
        ("down to the transport header", with_transport, 54, 0, 0),
        ("into a checksum yet to be filled", with_checksum.clone(), 57, 0, EINVAL),
        ("behind it", with_checksum, 58, 0, 0),
        ("encapsulated", encapsulated.clone(), 60, 0, ENOTSUPP),
        ("encapsulated, and flags", encapsulated, 60, 1, EINVAL),
    ];
    for (name, mut skb, len, flags, answer) in table {
        let before = skb.data().to_vec();
        assert_eq!(resize(TAIL, &mut skb, len, flags), answer, "{name}");
        if answer == 0 {
            let kept = before.len().min(len as usize);
            assert_eq!(skb.len(), len as usize, "{name}");
            assert_eq!(skb.data()[..kept], before[..kept], "{name}");
            assert!(skb.data()[kept..].iter().all(|byte| *byte == 0), "{name}");
            assert_eq!(skb.linear_len(), skb.len(), "{name}");
        } else {
            assert_eq!(skb.data(), before, "{name}");
        }
    }
}

#[test]
fn a_new_tail_makes_a_super_packet_an_ordinary_one() {
    let mut skb = super_packet(40_000);
    assert_eq!(resize(TAIL, &mut skb, 100, 0), 0);
    assert_eq!((skb.gso, skb.len()), (None, 100));
}

#[test]
fn the_head_grows_within_the_kernels_limits() {
    let max = MAX_LEN as i32;
    #[rustfmt::skip]
    let table = [
        ("flags", frame(), 14, 1, EINVAL),
        ("above SKB_MAX_ALLOC", frame(), max - 59, 0, EINVAL),
        ("up to it", frame(), max - 60, 0, 0),
        ("past 32 bits", frame(), -60, 0, EINVAL),
        ("past 32 bits, a super-packet", super_packet(60), -60, 0, EINVAL),
        ("a super-packet may grow", super_packet(60_000), 100, 0, 0),
        ("but not without end", super_packet(60), 1 << 22, 0, -12),
        ("by nothing", frame(), 0, 0, 0),
    ];
    for (name, mut skb, amount, flags, answer) in table {
        let before = skb.data().to_vec();
        assert_eq!(resize(HEAD, &mut skb, amount, flags), answer, "{name}");
        let added = if answer == 0 { amount as usize } else { 0 };
        assert!(skb.data()[..added].iter().all(|byte| *byte == 0), "{name}");
        assert_eq!(skb.data()[added..], before, "{name}");
        assert_eq!(skb.network_offset(), 14 + added, "{name}");
    }
}

#[test]
fn what_the_stack_noted_moves_with_the_bytes() {
    let mut skb = with(|skb| (skb.transport, skb.partial_checksum) = (Some(54), Some(58)));
    adjust(&mut skb, 40, 1, 1 << 2).unwrap();
    assert_eq!((skb.transport, skb.partial_checksum), (Some(94), Some(98)));
    adjust(&mut skb, -40, 1, 1 << 8).unwrap();
    assert_eq!((skb.transport, skb.partial_checksum), (Some(54), Some(58)));
    // With UDP the outer one is the transport header.
    let mut skb = with(|skb| skb.transport = Some(54));
    adjust(&mut skb, 28, 1, 1 << 1 | 1 << 4).unwrap();
    assert_eq!(skb.transport, Some(34));
}

/// Sixteen bytes on the stack at -16, then `csum_diff`; the 16-bit sum.
fn csum_diff(from: (i32, i32), to: (i32, i32), seed: i32) -> Result<i32, FaultKind> {
    let pointer = |register, offset| match offset {
        0 => [mov(register, 0), add(register, 0)],
        _ => [copy(register, 10), add(register, offset)],
    };
    let bytes = 0x0807_0605_0403_0201;
    let program: Vec<bpf_insn> = [
        &wide(1, bytes)[..],
        &[insn(0x7b, 10, 1, -16, 0)],
        &wide(1, !bytes),
        &[insn(0x7b, 10, 1, -8, 0)],
        &pointer(1, from.0),
        &[mov(2, from.1)],
        &pointer(3, to.0),
        &[mov(4, to.1), mov(5, seed), call(28), EXIT],
    ]
    .concat();
    run(&mut machine(&program)).map(u32::cast_signed)
}

#[test]
fn csum_diff_sums_what_comes_less_what_goes() {
    // The words of 01 02 03 04, in memory order: 0x0201 and 0x0403.
    let table = [
        ("pushed", (0, 0), (-16, 4), 0, Ok(0x0604)),
        ("pulled", (-16, 4), (0, 0), 0, Ok(!0x0604 & 0xffff)),
        ("replaced", (-16, 4), (-12, 4), 0, Ok(0x0808)),
        ("by the same", (-16, 8), (-16, 8), 0, Ok(0xffff)),
        ("by its complement", (0, 0), (-16, 16), 0, Ok(0xffff)),
        ("seeded", (0, 0), (-16, 4), 0x1_0001, Ok(0x0606)),
        ("nothing", (0, 0), (0, 0), 7, Ok(7)),
        ("not whole words, from", (-16, 6), (0, 0), 0, Ok(EINVAL)),
        ("not whole words, to", (0, 0), (-16, 3), 0, Ok(EINVAL)),
        ("too much", (-16, 512), (-16, 4), 0, Ok(EINVAL)),
    ];
    for (name, from, to, seed, answer) in table {
        assert_eq!(csum_diff(from, to, seed), answer, "{name}");
    }
    let beyond = csum_diff((-16, 20), (0, 0), 0);
    assert!(matches!(
        beyond,
        Err(FaultKind::HelperArgument { helper: 28, .. })
    ));
}

#[test]
fn a_redirect_names_device_and_direction() {
    let to = |ifindex, direction| Some(Redirect { ifindex, direction });
    // Flags; returned verdict: the helper's own, or another; action and redirect.
    let table = [
        (0, None, 7, to(9, Direction::Egress)),
        (1, None, 7, to(9, Direction::Ingress)),
        (2, None, 2, None),
        (4, None, 2, None),
        (-1, None, 2, None),
        // The kernel acts on the verdict alone.
        (0, Some(0), 0, None),
        (2, Some(7), 7, None),
    ];
    for (flags, verdict, action, redirect) in table {
        let mut program = vec![mov(1, 9), mov(2, flags), call(REDIRECT)];
        program.extend(verdict.map(|verdict| mov(0, verdict)));
        program.push(EXIT);
        let run = machine(&program).run_tc("main", &mut frame()).unwrap();
        assert_eq!((run.action, run.redirect), (action, redirect), "{flags}");
    }
    // A refused redirect does not undo the one before.
    let program = [
        mov(1, 9),
        mov(2, 1),
        call(REDIRECT),
        mov(1, 5),
        mov(2, 8),
        call(REDIRECT),
        mov(0, 7),
        EXIT,
    ];
    let run = machine(&program).run_tc("main", &mut frame()).unwrap();
    assert_eq!(run.redirect, to(9, Direction::Ingress));
}

#[test]
fn a_redirect_to_the_neighbour_checks_its_parameters() {
    let neighbour = |ifindex| {
        Some(Redirect {
            ifindex,
            direction: Direction::Neighbour,
        })
    };
    for (len, flags, action, redirect) in [
        (0, 0, 7, neighbour(9)),
        (20, 0, 7, neighbour(9)),
        (19, 0, 2, None),
        (0, 1, 2, None),
    ] {
        let program = [
            mov(1, 9),
            copy(2, 10),
            add(2, -24),
            mov(3, len),
            mov(4, flags),
            call(NEIGHBOUR),
            EXIT,
        ];
        let run = machine(&program).run_tc("main", &mut frame()).unwrap();
        assert_eq!((run.action, run.redirect), (action, redirect), "{len}");
    }
}

#[test]
fn a_frame_tells_where_it_came_in() {
    for (field, value) in [(36, 3), (40, 4)] {
        let program = [insn(0x61, 0, 1, field, 0), EXIT];
        let mut skb = with(|skb| (skb.ingress_ifindex, skb.ifindex) = (3, 4));
        let run = machine(&program).run_tc("main", &mut skb).unwrap();
        assert_eq!(run.action, value);
    }
}

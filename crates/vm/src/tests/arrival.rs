//! `cgroup_skb/ingress`: what a packet that reaches its socket looks like there, what stands in
//! front of it, and which helpers there are.

use super::{EXIT, add, call, copy, insn, machine, mov};
use crate::fault::FaultKind;
use crate::machine::Machine;
use crate::skb::Skb;
use crate::socket::{SocketId, SocketKind, TcpState};
use aya_obj::generated::bpf_insn;

const LOAD_RELATIVE: i32 = 68;
const SETSOCKOPT: i32 = 49;
const GETSOCKOPT: i32 = 57;
const TCP_SOCK: i32 = 96;
const MARK: i16 = 8;
const TC_INDEX: i16 = 44;
const DATA: i16 = 76;
const SK: i16 = 168;

const fn kind(family: u32) -> SocketKind {
    SocketKind {
        family,
        ty: 1,
        protocol: 6,
    }
}

/// Runs `main` over a packet of 40 bytes behind 14 + 8; its mark is what the program gave.
fn arrived(program: &[bpf_insn], prepare: impl Fn(&mut Machine, SocketId)) -> (bool, u32) {
    let mut machine = machine(program);
    let socket = machine.open_socket(kind(10));
    prepare(&mut machine, socket);
    let in_front: Vec<u8> = (0..22).collect();
    let mut skb = Skb::arrived(&in_front, &[0xaa; 40], 0x86dd);
    skb.socket = Some(socket);
    skb.tc_index = 0x8123;
    let run = machine.run_arrival("main", &mut skb).unwrap();
    (run.passes, skb.mark)
}

/// `r0` becomes the packet's mark; it passes.
const GIVE: [bpf_insn; 3] = [insn(0x63, 6, 0, MARK, 0), mov(0, 1), EXIT];

fn gives(program: &[bpf_insn]) -> u32 {
    let program = [&[copy(6, 1)], program, &GIVE].concat();
    let (passes, mark) = arrived(&program, |_, _| {});
    assert!(passes);
    mark
}

#[test]
fn the_packet_begins_with_its_ip_header_and_brings_its_ticket() {
    let first_byte = [insn(0x61, 2, 1, DATA, 0), insn(0x71, 0, 2, 0, 0)];
    assert_eq!(gives(&first_byte), 0xaa);
    assert_eq!(gives(&[insn(0x61, 0, 1, 0, 0)]), 40, "length");
    assert_eq!(gives(&[insn(0x61, 0, 1, TC_INDEX, 0)]), 0x8123);
    assert_eq!(arrived(&[mov(0, 0), EXIT], |_, _| {}), (false, 0));
}

#[test]
fn what_stood_in_front_is_read_from_the_link_layer_header_on() {
    // offset, what the helper answers, the first byte that it read.
    for (offset, answer, byte) in [
        (0, 0, 0),
        (14, 0, 14),
        (21, 0, 21),
        (22, 0, 0xaa),
        (61, 0, 0xaa),
        (62, -14, 0),
        (0x1_0000, -14, 0),
    ] {
        let read = [
            mov(2, offset),
            copy(3, 10),
            add(3, -8),
            mov(4, 1),
            mov(5, 0),
            call(LOAD_RELATIVE),
        ];
        let answered = gives(&read);
        assert_eq!(answered as i32, answer, "{offset}");
        let byte_read = [&read[..], &[insn(0x71, 0, 10, -8, 0)]].concat();
        assert_eq!(gives(&byte_read), byte, "{offset}");
    }
}

#[test]
fn a_frame_of_tc_arrives_behind_its_ethernet_header() {
    let mut skb = Skb::new(&[7; 60], 0x86dd);
    skb.arrive();
    assert_eq!((skb.len(), skb.network_offset()), (46, 0));
    assert_eq!(skb.link_header_on().len(), 60);
}

#[test]
fn only_mark_priority_scratch_and_time_are_writable() {
    for (field, ok) in [
        (MARK, true),
        (32, true),
        (48, true),
        (64, true),
        (152, true),
        (TC_INDEX, false),
        (4, false),
        (72, false),
    ] {
        let mut machine = machine(&[insn(0x62, 1, 0, field, 1), mov(0, 1), EXIT]);
        let mut skb = Skb::arrived(&[], &[0; 40], 0x86dd);
        skb.socket = Some(machine.open_socket(kind(2)));
        let run = machine.run_arrival("main", &mut skb);
        assert_eq!(run.is_ok(), ok, "{field}");
    }
}

#[test]
fn the_hook_is_for_full_sockets_of_ip() {
    for (family, state, runs) in [
        (2, TcpState::Listen, true),
        (10, TcpState::Close, true),
        (17, TcpState::Close, false),
        (2, TcpState::TimeWait, false),
    ] {
        let mut machine = machine(&[mov(0, 0), EXIT]);
        let socket = machine.open_socket(kind(family));
        machine.set_state(socket, state);
        let mut skb = Skb::arrived(&[], &[0; 40], 0x86dd);
        skb.socket = Some(socket);
        let run = machine.run_arrival("main", &mut skb).unwrap();
        assert_eq!(run.passes, !runs);
        assert_eq!(run.meter.instructions > 0, runs);
    }
}

#[test]
fn a_frames_room_and_options_are_none_of_its_business() {
    for (helper, known) in [
        (26, true),
        (79, true),
        (83, true),
        (9, false),
        (39, false),
        (50, false),
        (SETSOCKOPT, false),
    ] {
        let mut machine = machine(&[call(helper), mov(0, 1), EXIT]);
        let mut skb = Skb::arrived(&[], &[0; 40], 0x86dd);
        skb.socket = Some(machine.open_socket(kind(2)));
        let kind = machine.run_arrival("main", &mut skb).err().map(|f| f.kind);
        let unknown = matches!(kind, Some(FaultKind::UnknownHelper { .. }));
        assert_eq!(unknown, !known, "{helper}");
    }
}

#[test]
fn the_next_number_that_tcp_expects_is_read() {
    const EXPECTED: i16 = 16;
    let program = [
        &[
            copy(6, 1),
            insn(0x79, 1, 1, SK, 0),
            call(TCP_SOCK),
            insn(0x61, 0, 0, EXPECTED, 0),
        ],
        &GIVE[..],
    ]
    .concat();
    let (_, mark) = arrived(&program, |machine, socket| {
        machine.set_expected(socket, 77);
    });
    assert_eq!(mark, 77);
}

/// Level, option, value; what the socket has then, and what the helper answered, as a
/// `sock_ops` program sees it by `getsockopt`.
#[test]
fn a_traffic_class_is_set_at_the_level_of_the_sockets_family() {
    for (family, level, option, value, answer, class) in [
        (2, 0, 1, 0xb8, 0, 0xb8),
        (10, 41, 67, 0xb8, 0, 0xb8),
        // ECN is TCP's.
        (10, 41, 67, 0xbb, 0, 0xb8),
        (2, 41, 67, 0xb8, -22, 0),
        (10, 0, 1, 0xb8, -22, 0),
        (2, 0, 1, 0x100, -22, 0),
        (2, 0, 2, 0xb8, -22, 0),
    ] {
        let call_with = |helper| {
            [
                copy(1, 6),
                mov(2, level),
                mov(3, option),
                copy(4, 10),
                add(4, -8),
                mov(5, 4),
                call(helper),
            ]
        };
        let program = [
            &[copy(6, 1), insn(0x62, 10, 0, -8, value)][..],
            &call_with(SETSOCKOPT),
            &[copy(7, 0)],
            &call_with(GETSOCKOPT),
            &[insn(0x63, 6, 7, 4, 0), mov(0, 1), EXIT],
        ]
        .concat();
        let mut machine = machine(&program);
        let socket = machine.open_socket(kind(family));
        let run = machine.run_sock_ops("main", 5, [0; 4], socket).unwrap();
        assert_eq!(run.reply, answer);
        assert_eq!(machine.traffic_class(socket), class);
    }
}

//! The hooks of sockets' lives, cgroups as helpers see them, and which helper is whose.

use super::{EXIT, add_map, call, copy, frame, insn, machine, map_fd, mov};
use crate::fault::FaultKind;
use crate::hook::CreateSocket;
use crate::option::SetOption;
use crate::socket::{Endpoints, SocketKind, TcpState};
use aya_obj::generated::bpf_insn;

const STREAM: SocketKind = SocketKind {
    family: 2,
    ty: 1,
    protocol: 6,
};
const ANCESTOR: i32 = 123;
const FRAME_ANCESTOR: i32 = 83;

#[test]
fn a_created_socket_has_what_the_program_wrote() {
    let program = [
        insn(0x62, 1, 0, 0, 3),
        insn(0x62, 1, 0, 16, 0x55),
        insn(0x62, 1, 0, 20, 6),
        mov(0, 1),
        EXIT,
    ];
    let mut machine = machine(&program);
    let CreateSocket::Created(socket) = machine.create_socket("main", STREAM).unwrap() else {
        panic!("refused");
    };
    assert_eq!(machine.mark(socket), 0x55);
    assert_eq!(machine.priority(socket), 6);
    assert_eq!(machine.bound_device(socket), 3);
    // The hook is for IPv4 and IPv6.
    let packet = SocketKind {
        family: 17,
        ..STREAM
    };
    let CreateSocket::Created(socket) = machine.create_socket("main", packet).unwrap() else {
        panic!("refused");
    };
    assert_eq!(machine.mark(socket), 0);
}

#[test]
fn creation_is_refused_by_verdict_or_errno() {
    let table: [(&[bpf_insn], _); 4] = [
        (&[mov(0, 0), EXIT], Some(1)),
        (&[mov(1, -12), call(187), mov(0, 0), EXIT], Some(12)),
        (&[mov(1, -12), call(187), mov(0, 1), EXIT], Some(12)),
        (&[mov(0, 1), EXIT], None),
    ];
    for (program, errno) in table {
        let outcome = machine(program).create_socket("main", STREAM).unwrap();
        let refused = match outcome {
            CreateSocket::Refused(errno) => Some(errno),
            CreateSocket::Created(_) => None,
        };
        assert_eq!(refused, errno);
    }
}

#[test]
fn creation_reads_kind_and_cgroup_and_makes_storage() {
    // mark = family << 8 | protocol, by the context; a storage of the socket itself.
    let program = [
        &[
            copy(6, 1),
            insn(0x61, 7, 6, 4, 0),
            insn(0x67, 7, 0, 0, 8),
            insn(0x61, 8, 6, 12, 0),
            insn(0x4f, 7, 8, 0, 0),
            insn(0x63, 6, 7, 16, 0),
        ][..],
        &map_fd(1, 0),
        &[
            copy(2, 6),
            mov(3, 0),
            mov(4, 1),
            call(107),
            copy(6, 0),
            mov(1, 1),
            call(ANCESTOR),
            insn(0x7b, 6, 0, 0, 0),
            mov(0, 1),
            EXIT,
        ],
    ]
    .concat();
    let mut machine = machine(&program);
    add_map(&mut machine, 24, 4, 8, 0);
    machine.set_task_cgroup(&[1, 77]);
    let CreateSocket::Created(socket) = machine.create_socket("main", STREAM).unwrap() else {
        panic!("refused");
    };
    assert_eq!(machine.mark(socket), 0x0206);
    assert_eq!(machine.meter().helpers, 2);
    assert_eq!(
        machine.storage("map0", socket).unwrap(),
        Some(77u64.to_le_bytes().to_vec())
    );
}

#[test]
fn only_device_mark_and_priority_of_a_new_socket_are_writable() {
    for (field, ok) in [
        (0, true),
        (4, false),
        (12, false),
        (16, true),
        (20, true),
        (24, false),
        (72, false),
    ] {
        let program = [insn(0x62, 1, 0, field, 1), mov(0, 1), EXIT];
        let outcome = machine(&program).create_socket("main", STREAM);
        assert_eq!(outcome.is_ok(), ok, "{field}");
    }
    // A context ends where its structure ends.
    for (field, ok) in [(76, true), (80, false)] {
        let program = [insn(0x61, 0, 1, field, 0), mov(0, 1), EXIT];
        let outcome = machine(&program).create_socket("main", STREAM);
        assert_eq!(outcome.is_ok(), ok, "{field}");
    }
}

#[test]
fn an_ancestor_is_found_at_its_level_alone() {
    let path = [1, 20, 300];
    for (level, id) in [(0, 1), (1, 20), (2, 300), (3, 0), (-1, 0), (i32::MIN, 0)] {
        // The task's, by a socket option's program.
        let program = [
            mov(1, level),
            call(ANCESTOR),
            // SO_MARK of the answer: an errno is the easiest to see.
            insn(0x87, 0, 0, 0, 0),
            copy(1, 0),
            call(187),
            mov(0, 1),
            EXIT,
        ];
        let mut option = machine(&program);
        option.set_task_cgroup(&path);
        let socket = option.open_socket(STREAM);
        let outcome = option.set_option("main", socket, 1, 2, b"").unwrap();
        let refused = match outcome {
            SetOption::Refused(errno) => errno,
            _ => 0,
        };
        assert_eq!(refused, id, "task, level {level}");
        // The frame's socket's: where it was made, whoever has it now.
        let program = [mov(2, level), call(FRAME_ANCESTOR), EXIT];
        let mut tc = machine(&program);
        tc.set_task_cgroup(&path);
        let socket = tc.open_socket(STREAM);
        tc.set_task_cgroup(&[1]);
        let mut skb = frame();
        skb.socket = Some(socket);
        let run = tc.run_tc("main", &mut skb).unwrap();
        assert_eq!(run.action, id, "frame, level {level}");
    }
}

#[test]
fn a_frame_belongs_to_its_full_sockets_cgroup() {
    for (helper, expected) in [(79, [8, 8, 0, 8, 0]), (FRAME_ANCESTOR, [7, 7, 0, 7, 0])] {
        let mut machine = machine(&[mov(2, 1), call(helper), EXIT]);
        machine.set_task_cgroup(&[1, 7, 8]);
        let listener = machine.open_socket(STREAM);
        machine.set_state(listener, TcpState::Listen);
        machine.set_task_cgroup(&[1]);
        let ends = Endpoints {
            local: ([10, 0, 0, 1], 80).into(),
            remote: Some(([10, 0, 0, 2], 9).into()),
        };
        let request = machine.open_request(listener, ends);
        let time_wait = machine.open_time_wait(listener);
        let child = machine.clone_socket(listener);
        let sockets = [
            Some(listener),
            Some(request),
            Some(time_wait),
            Some(child),
            None,
        ];
        for (socket, id) in sockets.into_iter().zip(expected) {
            let mut skb = frame();
            skb.socket = socket;
            let run = machine.run_tc("main", &mut skb).unwrap();
            assert_eq!(run.action, id, "helper {helper}, {socket:?}");
        }
    }
}

/// Reads a field of `struct bpf_sock_ops` and answers with it.
fn answer(field: i16) -> Vec<bpf_insn> {
    vec![
        insn(0x61, 2, 1, field, 0),
        insn(0x63, 1, 2, 4, 0),
        mov(0, 1),
        EXIT,
    ]
}

#[test]
fn sock_ops_shows_event_arguments_and_socket() {
    #[rustfmt::skip]
    let table = [
        ("op", 0, 4),
        ("args", 4, 11), ("args", 8, 12), ("args", 16, 14),
        ("family", 20, 10),
        ("remote IPv4", 24, 0x0200_000a), ("local IPv4", 28, 0x0100_000a),
        ("remote IPv6", 32 + 12, 0x0200_000a), ("local IPv6", 48 + 12, 0x0100_000a),
        ("remote port, network order, upper half", 64, i32::from(4000u16.to_be()) << 16),
        ("local port", 68, 80),
        ("is_fullsock", 72, 1),
        ("state", 88, 1),
        ("snd_nxt", 104, 500), ("snd_una", 108, 100),
    ];
    for (name, field, value) in table {
        let mut machine = machine(&answer(field));
        let kind = SocketKind {
            family: 10,
            ..STREAM
        };
        let socket = machine.open_socket(kind);
        machine.set_state(socket, TcpState::Established);
        machine.set_sequence(socket, 100, 500);
        let ends = Endpoints {
            local: ([10, 0, 0, 1], 80).into(),
            remote: Some(([10, 0, 0, 2], 4000).into()),
        };
        machine.set_endpoints(socket, Some(ends));
        let run = machine
            .run_sock_ops("main", 4, [11, 12, 13, 14], socket)
            .unwrap();
        assert_eq!(run.reply, value, "{name}");
    }
}

#[test]
fn sock_ops_answers_with_reply_or_refuses() {
    // Without a reply the first argument stands there; 0 is a refusal.
    let table = [(vec![mov(0, 1), EXIT], 11), (vec![mov(0, 0), EXIT], -1)];
    for (program, reply) in table {
        let mut machine = machine(&program);
        let socket = machine.open_socket(STREAM);
        let run = machine.run_sock_ops("main", 4, [11, 0, 0, 0], socket);
        assert_eq!(run.unwrap().reply, reply);
    }
    for (field, ok) in [(0, false), (4, true), (8, false), (20, false), (184, false)] {
        let mut machine = machine(&[insn(0x62, 1, 0, field, 1), mov(0, 1), EXIT]);
        let socket = machine.open_socket(STREAM);
        let outcome = machine.run_sock_ops("main", 4, [0; 4], socket);
        assert_eq!(outcome.is_ok(), ok, "{field}");
    }
}

#[test]
fn callbacks_come_once_they_are_asked_for() {
    // Any event but a change of state asks for it; that one counts, in the mark, by its new state.
    let program = [
        copy(6, 1),
        insn(0x61, 2, 6, 0, 0),
        insn(0x15, 2, 0, 4, 10),
        mov(2, 4),
        call(59),
        mov(0, 1),
        EXIT,
        insn(0x61, 3, 6, 4, 0),
        insn(0x67, 3, 0, 0, 8),
        insn(0x61, 4, 6, 8, 0),
        insn(0x4f, 3, 4, 0, 0),
        insn(0x63, 10, 3, -4, 0),
        copy(1, 6),
        mov(2, 1),
        mov(3, 36),
        copy(4, 10),
        super::add(4, -4),
        mov(5, 4),
        call(49),
        mov(0, 1),
        EXIT,
    ];
    let mut machine = machine(&program);
    let socket = machine.open_socket(STREAM);
    machine.set_state(socket, TcpState::Established);
    let run = machine.change_state("main", socket, TcpState::FinWait1);
    assert_eq!((run.unwrap(), machine.mark(socket)), (None, 0));
    machine.run_sock_ops("main", 4, [0; 4], socket).unwrap();
    let run = machine.change_state("main", socket, TcpState::Close);
    assert!(run.unwrap().is_some());
    // FIN_WAIT1 is 4, CLOSE is 7.
    assert_eq!(machine.mark(socket), 0x0407);
    assert_eq!(machine.state(socket), Some(TcpState::Close));
}

#[test]
fn cb_flags_set_gives_back_what_it_does_not_know() {
    for (state, flags, answer) in [
        (TcpState::Established, 4, 0x4_0000),
        (TcpState::Established, 0x7f, 0x7f_0000),
        (TcpState::Established, 0x184, 0x4_0180),
        (TcpState::NewSynRecv, 4, -22),
        (TcpState::TimeWait, 4, -22),
    ] {
        let program = [
            copy(6, 1),
            mov(2, flags),
            call(59),
            // The context shows the new flags at once: into the upper half of the reply.
            insn(0x61, 2, 6, 84, 0),
            insn(0x67, 2, 0, 0, 16),
            insn(0x4f, 0, 2, 0, 0),
            insn(0x63, 6, 0, 4, 0),
            mov(0, 1),
            EXIT,
        ];
        let mut machine = machine(&program);
        let socket = machine.open_socket(STREAM);
        machine.set_state(socket, state);
        let run = machine.run_sock_ops("main", 4, [0; 4], socket).unwrap();
        assert_eq!(run.reply, answer, "{state:?} {flags:#x}");
    }
}

#[test]
fn setsockopt_knows_the_mark_of_full_sockets() {
    // Level, name, length of the value; the answer.
    let table = [
        (TcpState::Established, 1, 36, 4, 0),
        (TcpState::Established, 1, 36, 3, -22),
        (TcpState::Established, 1, 36, 8, -22),
        (TcpState::Established, 1, 99, 4, -22),
        (TcpState::Established, 2, 36, 4, -22),
        (TcpState::NewSynRecv, 1, 36, 4, -22),
    ];
    for (state, level, name, len, answer) in table {
        let program = [
            copy(6, 1),
            insn(0x7a, 10, 0, -8, 0x1234),
            mov(2, level),
            mov(3, name),
            copy(4, 10),
            super::add(4, -8),
            mov(5, len),
            call(49),
            insn(0x63, 6, 0, 4, 0),
            mov(0, 1),
            EXIT,
        ];
        let mut machine = machine(&program);
        let socket = machine.open_socket(STREAM);
        machine.set_state(socket, state);
        let run = machine.run_sock_ops("main", 4, [0; 4], socket).unwrap();
        assert_eq!(run.reply, answer, "{state:?} {level} {name} {len}");
        let mark = if answer == 0 { 0x1234 } else { 0 };
        assert_eq!(machine.mark(socket), mark);
    }
}

#[test]
fn each_hook_has_its_own_helpers() {
    // The helper; TC, setsockopt, getsockopt, sock_create, sock_ops.
    #[rustfmt::skip]
    let table = [
        (5, [true, true, true, true, true]),
        (23, [true, false, false, false, false]),
        (38, [true, false, false, false, false]),
        (49, [false, true, false, false, true]),
        (50, [true, false, false, false, false]),
        (57, [false, true, false, false, true]),
        (59, [false, false, false, false, true]),
        (79, [true, false, false, false, false]),
        (80, [false, true, true, true, false]),
        (83, [true, false, false, false, false]),
        (84, [true, false, false, false, false]),
        (86, [true, false, false, false, false]),
        (95, [true, false, false, false, false]),
        (96, [true, true, true, false, true]),
        (107, [true, true, true, true, true]),
        (108, [true, true, true, false, true]),
        (123, [false, true, true, true, false]),
        (186, [false, true, true, true, false]),
        (187, [false, true, true, true, false]),
    ];
    for (helper, known) in table {
        let program = [call(helper), mov(0, 1), EXIT];
        let fresh = || {
            let mut machine = machine(&program);
            let socket = machine.open_socket(STREAM);
            (machine, socket)
        };
        let (mut m, socket) = fresh();
        let runs = [
            m.run_tc("main", &mut frame()).err(),
            m.set_option("main", socket, 1, 2, b"").err(),
            m.get_option("main", socket, 1, 2, 0, &mut []).err(),
            m.create_socket("main", STREAM).err(),
            m.run_sock_ops("main", 4, [0; 4], socket).err(),
        ];
        let is_known = runs.map(|fault| {
            let kind = fault.map(|fault| fault.kind);
            kind != Some(FaultKind::UnknownHelper { helper })
        });
        assert_eq!(is_known, known, "helper {helper}");
    }
}

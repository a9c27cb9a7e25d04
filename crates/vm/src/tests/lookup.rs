//! Looking sockets up, holding and giving back references, and what stands behind a pointer to
//! each kind of socket.

use super::{EXIT, add, add_map, call, copy, frame, insn, machine, map_fd, mov};
use crate::fault::FaultKind;
use crate::machine::Machine;
use crate::socket::{Endpoints, SocketId, SocketKind, TcpState};
use aya_obj::generated::bpf_insn;
use std::net::SocketAddr;

const TCP: i32 = 84;
const UDP: i32 = 85;
const RELEASE: i32 = 86;
const FULLSOCK: i32 = 95;
const TCP_SOCK: i32 = 96;
const LISTENER: i32 = 98;
const COMMON: i32 = 99;
const MARK: i16 = 16;
/// Any negative number: BPF_F_CURRENT_NETNS.
const HERE: i32 = -1;

const fn kind(family: u32, protocol: u32) -> SocketKind {
    SocketKind {
        family,
        ty: if protocol == 6 { 1 } else { 2 },
        protocol,
    }
}

const TCP4: SocketKind = kind(2, 6);
const TCP6: SocketKind = kind(10, 6);
const UDP4: SocketKind = kind(2, 17);
const UDP6: SocketKind = kind(10, 17);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn endpoints(local: &str, remote: Option<&str>) -> Option<Endpoints> {
    Some(Endpoints {
        local: address(local),
        remote: remote.map(address),
    })
}

fn open(
    machine: &mut Machine,
    kind: SocketKind,
    state: TcpState,
    local: &str,
    remote: Option<&str>,
    mark: u32,
) -> SocketId {
    let socket = machine.open_socket(kind);
    machine.set_state(socket, state);
    machine.set_endpoints(socket, endpoints(local, remote));
    machine.set_mark(socket, mark);
    socket
}

/// The tuple as `struct bpf_sock_tuple`.
fn tuple(source: &str, destination: &str) -> Vec<u8> {
    let (source, destination) = (address(source), address(destination));
    let octets = |address: SocketAddr| match address {
        SocketAddr::V4(address) => address.ip().octets().to_vec(),
        SocketAddr::V6(address) => address.ip().octets().to_vec(),
    };
    [
        octets(source),
        octets(destination),
        source.port().to_be_bytes().to_vec(),
        destination.port().to_be_bytes().to_vec(),
    ]
    .concat()
}

/// Looks a tuple up and returns the socket's mark, or -1.
fn lookup(helper: i32, tuple: &[u8], netns: i32, flags: i32) -> Vec<bpf_insn> {
    let mut program = vec![copy(6, 1)];
    for (index, bytes) in tuple.chunks(4).enumerate() {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        let at = -40 + 4 * index as i16;
        program.push(insn(0x62, 10, 0, at, i32::from_le_bytes(word)));
    }
    program.extend([
        copy(1, 6),
        copy(2, 10),
        add(2, -40),
        mov(3, tuple.len() as i32),
        mov(4, netns),
        mov(5, flags),
        call(helper),
        // if r0 == 0 { return -1 }
        insn(0x55, 0, 0, 2, 0),
        mov(0, -1),
        EXIT,
        // The mark and the state, which a common socket has too.
        insn(0x61, 7, 0, MARK, 0),
        copy(1, 0),
        call(RELEASE),
        copy(0, 7),
        EXIT,
    ]);
    program
}

/// All kinds of sockets; each has its mark.
fn host() -> Machine {
    use TcpState::*;
    let mut machine = machine(&[]);
    let m = &mut machine;
    open(
        m,
        TCP4,
        Established,
        "10.0.0.1:80",
        Some("10.0.0.2:4000"),
        1,
    );
    let listener = open(m, TCP4, Listen, "10.0.0.1:80", None, 2);
    open(m, TCP6, Listen, "[::]:80", None, 3);
    let request = m.open_request(
        listener,
        endpoints("10.0.0.1:80", Some("10.0.0.2:4001")).unwrap(),
    );
    m.set_mark(request, 4);
    open(m, TCP4, TimeWait, "10.0.0.1:80", Some("10.0.0.2:4002"), 5);
    open(m, TCP4, Close, "10.0.0.1:80", Some("10.0.0.2:4003"), 6);
    let only = open(m, TCP6, Listen, "[::]:81", None, 7);
    m.set_ipv6_only(only, true);
    let mapped = Some("[::ffff:10.0.0.2]:4000");
    open(m, TCP6, Established, "[::ffff:10.0.0.1]:82", mapped, 8);
    let bound = open(m, TCP4, Listen, "0.0.0.0:83", None, 9);
    m.bind_to_device(bound, 3);
    open(m, TCP6, FinWait1, "[fd::1]:80", Some("[fd::2]:4000"), 10);
    open(m, UDP4, Close, "10.0.0.1:53", None, 20);
    open(m, UDP4, Close, "0.0.0.0:53", None, 21);
    open(
        m,
        UDP4,
        Established,
        "10.0.0.1:53",
        Some("10.0.0.2:4000"),
        22,
    );
    open(m, UDP6, Close, "[::]:54", None, 23);
    let bound = open(m, UDP6, Close, "[::]:54", None, 24);
    m.bind_to_device(bound, 3);
    open(
        m,
        UDP4,
        Established,
        "10.0.0.1:55",
        Some("10.0.0.2:4000"),
        25,
    );
    machine
}

#[test]
fn lookups_find_what_the_kernel_finds() {
    #[rustfmt::skip]
    let table = [
        ("connected before listening", TCP, "10.0.0.2:4000", "10.0.0.1:80", 1),
        ("listening, of its address", TCP, "10.0.0.2:9", "10.0.0.1:80", 2),
        ("listening, on all, for IPv4 too", TCP, "10.0.0.2:9", "10.0.0.9:80", 3),
        ("listening, on all", TCP, "[fd::2]:9", "[fd::1]:80", 3),
        ("listening, not for IPv4", TCP, "10.0.0.2:9", "10.0.0.9:81", -1),
        ("a request: its listener", TCP, "10.0.0.2:4001", "10.0.0.1:80", 2),
        ("a request, in common", COMMON, "10.0.0.2:4001", "10.0.0.1:80", 4),
        ("TIME_WAIT hides the listener", TCP, "10.0.0.2:4002", "10.0.0.1:80", -1),
        ("TIME_WAIT, in common", COMMON, "10.0.0.2:4002", "10.0.0.1:80", 5),
        ("a closed one is not there", TCP, "10.0.0.2:4003", "10.0.0.1:80", 2),
        ("IPv4 by an IPv6 socket", TCP, "10.0.0.2:4000", "10.0.0.1:82", 8),
        ("but not as IPv4-mapped", TCP, "[::ffff:10.0.0.2]:4000", "[::ffff:10.0.0.1]:82", -1),
        ("bound to another device", TCP, "10.0.0.2:9", "10.0.0.1:83", -1),
        ("IPv6", TCP, "[fd::2]:4000", "[fd::1]:80", 10),
        ("the other way round", TCP, "10.0.0.1:80", "10.0.0.2:4000", -1),
        ("TCP is not UDP", TCP, "10.0.0.2:4000", "10.0.0.1:53", -1),
        ("UDP, connected", UDP, "10.0.0.2:4000", "10.0.0.1:53", 22),
        ("UDP, of its address", UDP, "10.0.0.2:4001", "10.0.0.1:53", 20),
        ("UDP, on all", UDP, "10.0.0.2:4000", "10.0.0.9:53", 21),
        ("UDP, for IPv4 too", UDP, "10.0.0.2:4000", "10.0.0.1:54", 23),
        ("UDP, connected elsewhere", UDP, "10.0.0.3:4000", "10.0.0.1:55", -1),
        ("UDP is not TCP", UDP, "10.0.0.2:4000", "10.0.0.1:80", -1),
    ];
    let mut machine = host();
    for (name, helper, source, destination, mark) in table {
        let code = lookup(helper, &tuple(source, destination), HERE, 0);
        let found = run(&mut machine, &code, &mut frame());
        assert_eq!(found, Ok(mark), "{name}");
    }
    // At the device to which they are bound.
    let mut skb = frame();
    skb.ifindex = 3;
    for (helper, destination, mark) in [(TCP, "10.0.0.1:83", 9), (UDP, "10.0.0.1:54", 24)] {
        let code = lookup(helper, &tuple("10.0.0.2:9", destination), HERE, 0);
        assert_eq!(run(&mut machine, &code, &mut skb), Ok(mark));
    }
}

#[test]
fn lookups_refuse_other_lengths_flags_and_namespaces() {
    let four = tuple("10.0.0.2:4000", "10.0.0.1:80");
    let six = tuple("[fd::2]:4000", "[fd::1]:80");
    let table = [
        ("good", &four[..], HERE, 0, 1),
        ("good", &six, HERE, 0, 10),
        ("any negative number is here", &four, i32::MIN, 0, 1),
        ("flags", &four, HERE, 1, -1),
        ("a namespace that has no id", &four, 0, 0, -1),
        ("short", &four[..8], HERE, 0, -1),
        ("short", &six[..32], HERE, 0, -1),
    ];
    let mut machine = host();
    for (name, tuple, netns, flags, mark) in table {
        let code = lookup(TCP, tuple, netns, flags);
        assert_eq!(run(&mut machine, &code, &mut frame()), Ok(mark), "{name}");
    }
}

/// Runs code as the machine's only program.
fn run(
    machine: &mut Machine,
    code: &[bpf_insn],
    skb: &mut crate::skb::Skb,
) -> Result<i32, FaultKind> {
    machine.programs = vec![crate::object::Program::from_raw("main", code)];
    machine
        .run_tc("main", skb)
        .map(|run| run.action)
        .map_err(|fault| fault.kind)
}

#[test]
fn a_reference_is_given_back_once() {
    let mut machine = host();
    let found = tuple("10.0.0.2:4000", "10.0.0.1:80");
    let kept = lookup(TCP, &found, HERE, 0);
    let release = kept.len() - 3;
    let without: Vec<_> = [&kept[..release], &[mov(0, 0), EXIT]].concat();
    assert_eq!(
        run(&mut machine, &without, &mut frame()),
        Err(FaultKind::References { count: 1 })
    );
    // The next run begins without.
    assert_eq!(run(&mut machine, &[mov(0, 0), EXIT], &mut frame()), Ok(0));
    let twice: Vec<_> = [
        &kept[..release - 1],
        &[copy(8, 0), copy(1, 0), call(RELEASE), copy(1, 8)],
        &[call(RELEASE), EXIT],
    ]
    .concat();
    let no_reference = |outcome| {
        matches!(
            outcome,
            Err(FaultKind::HelperArgument {
                helper: RELEASE,
                ..
            })
        )
    };
    assert!(no_reference(run(&mut machine, &twice, &mut frame())));
    // The frame's own socket was never looked up.
    let own = [insn(0x79, 1, 1, 168, 0), call(RELEASE), EXIT];
    let mut skb = frame();
    skb.socket = Some(machine.open_socket(TCP4));
    assert!(no_reference(run(&mut machine, &own, &mut skb)));
    // A tcp_sock is the same socket.
    let by_tcp_sock: Vec<_> = [
        &kept[..release - 1],
        &[copy(1, 0), call(TCP_SOCK), copy(1, 0), call(RELEASE), EXIT],
    ]
    .concat();
    assert_eq!(run(&mut machine, &by_tcp_sock, &mut frame()), Ok(0));
}

/// Of the frame's socket: a listener, its request, TIME_WAIT, a connection, a UDP socket.
fn kinds(machine: &mut Machine) -> [(&'static str, SocketId); 5] {
    let listener = open(machine, TCP4, TcpState::Listen, "10.0.0.1:80", None, 2);
    let remote = Some("10.0.0.2:4001");
    let request = machine.open_request(listener, endpoints("10.0.0.1:80", remote).unwrap());
    let connection = open(machine, TCP4, TcpState::FinWait2, "10.0.0.1:80", remote, 1);
    machine.set_sequence(connection, 1000, 5000);
    let time_wait = machine.open_time_wait(connection);
    let datagrams = open(machine, UDP4, TcpState::Close, "10.0.0.1:80", None, 0);
    [
        ("listener", listener),
        ("request", request),
        ("TIME_WAIT", time_wait),
        ("connection", connection),
        ("UDP", datagrams),
    ]
}

#[test]
fn only_full_sockets_have_what_full_sockets_have() {
    // helper(skb->sk) and then: null is -1, else a field of what came.
    let through = |helper, field| {
        vec![
            insn(0x79, 1, 1, 168, 0),
            call(helper),
            insn(0x55, 0, 0, 2, 0),
            mov(0, -1),
            EXIT,
            insn(0x61, 0, 0, field, 0),
            EXIT,
        ]
    };
    let (state, snd_nxt, snd_una) = (72, 20, 24);
    let table = [
        ("sk_fullsock", through(FULLSOCK, state), [10, -1, -1, 5, 7]),
        ("snd_nxt", through(TCP_SOCK, snd_nxt), [0, -1, -1, 5000, -1]),
        ("snd_una", through(TCP_SOCK, snd_una), [0, -1, -1, 1000, -1]),
        ("listener", through(LISTENER, state), [10, 10, -1, -1, -1]),
    ];
    for (name, code, expected) in table {
        let mut machine = machine(&[]);
        for ((kind, socket), value) in kinds(&mut machine).into_iter().zip(expected) {
            let mut skb = frame();
            skb.socket = Some(socket);
            let outcome = run(&mut machine, &code, &mut skb);
            assert_eq!(outcome, Ok(value), "{name} of {kind}");
        }
    }
}

#[test]
fn only_full_sockets_have_storage() {
    let get = |flags| {
        let tail = [
            mov(3, 0),
            mov(4, flags),
            call(107),
            insn(0x15, 0, 0, 1, 0),
            mov(0, 1),
            EXIT,
        ];
        [&[insn(0x79, 2, 1, 168, 0)][..], &map_fd(1, 0), &tail].concat()
    };
    let delete = [
        &[insn(0x79, 2, 1, 168, 0)][..],
        &map_fd(1, 0),
        &[call(108), EXIT],
    ]
    .concat();
    let steps = [
        ("not there yet", get(0), [0; 5]),
        ("unknown flags", get(2), [0; 5]),
        ("made", get(1), [1, 0, 0, 1, 1]),
        ("there", get(0), [1, 0, 0, 1, 1]),
        ("deleted", delete.clone(), [0, -22, -22, 0, 0]),
        ("gone", delete, [-2, -22, -22, -2, -2]),
    ];
    let mut machine = machine(&[]);
    add_map(&mut machine, 24, 4, 8, 0);
    let sockets = kinds(&mut machine);
    for (name, code, expected) in steps {
        for ((kind, socket), value) in sockets.into_iter().zip(expected) {
            let mut skb = frame();
            skb.socket = Some(socket);
            let outcome = run(&mut machine, &code, &mut skb);
            assert_eq!(outcome, Ok(value), "{name}: {kind}");
        }
    }
}

#[test]
fn a_socket_shows_its_addresses() {
    let read = |code, field| vec![insn(0x79, 6, 1, 168, 0), insn(code, 0, 6, field, 0), EXIT];
    let (word, half) = (0x61, 0x69);
    #[rustfmt::skip]
    let table = [
        ("local address", word, 24, 0x0100_000a),
        ("local port, host order", word, 44, 80),
        ("remote port, network order", half, 48, i32::from(4000u16.to_be())),
        ("remote address", word, 52, 0x0200_000a),
        ("family", word, 4, 10),
        ("IPv4-mapped prefix", word, 28 + 8, -65536),
        ("IPv4-mapped address", word, 28 + 12, 0x0100_000a),
        ("remote, IPv4-mapped", word, 56 + 12, 0x0200_000a),
    ];
    let mut machine = machine(&[]);
    let remote = Some("10.0.0.2:4000");
    let socket = open(
        &mut machine,
        TCP6,
        TcpState::Established,
        "10.0.0.1:80",
        remote,
        0,
    );
    for (name, code, field, value) in table {
        let mut skb = frame();
        skb.socket = Some(socket);
        let outcome = run(&mut machine, &read(code, field), &mut skb);
        assert_eq!(outcome, Ok(value), "{name}");
    }
}

#[test]
fn addresses_leave_with_their_socket() {
    let mut machine = machine(&[]);
    let code = lookup(UDP, &tuple("10.0.0.2:4000", "10.0.0.1:80"), HERE, 0);
    let socket = open(&mut machine, UDP4, TcpState::Close, "10.0.0.1:80", None, 5);
    assert_eq!(run(&mut machine, &code, &mut frame()), Ok(5));
    machine.set_endpoints(socket, endpoints("10.0.0.1:81", None));
    assert_eq!(run(&mut machine, &code, &mut frame()), Ok(-1));
    machine.set_endpoints(socket, endpoints("10.0.0.1:80", None));
    assert_eq!(run(&mut machine, &code, &mut frame()), Ok(5));
    machine.close_socket(socket);
    machine.open_socket(UDP4);
    assert_eq!(run(&mut machine, &code, &mut frame()), Ok(-1));
}

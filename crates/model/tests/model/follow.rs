//! Section 5.4 on connections: which segments move the replies to another path.

use crate::reflecting::*;
use crate::support::*;
use dynencap_abi::option::*;
use dynencap_abi::{Config, Event, Exit, MARK_SENTINEL, PathKey, Policy, REFLECT_WINDOW};
use dynencap_model::{Host, Sequence, Socket, TcpState};

const OLD: u8 = 3;
const NEW: u8 = 4;
/// As far as the client may acknowledge.
const UNACKED: u32 = EXPECTED.snd_nxt.wrapping_sub(EXPECTED.snd_una);

/// A host that follows, and a connection of which this segment came by the old path.
fn established(first: &[u8]) -> (Host, Socket) {
    let mut host = reflecting();
    trust(&mut host, true);
    let mut socket = connection(&mut host, OLD);
    get(&mut host, &mut socket, Some(via(OLD)), first);
    (host, socket)
}

fn by(host: &mut Host, socket: &mut Socket, path: u8, bytes: &[u8]) -> Vec<Event> {
    let before = *host.events();
    let mark = get(host, socket, Some(via(path)), bytes);
    assert_eq!(mark, 0x4200_0042, "a connection's packets keep their mark");
    happened(host, &before)
}

fn gateway(socket: &Socket) -> u8 {
    socket.exit().unwrap().gateway[15]
}

#[test]
fn a_newer_segment_in_the_window_moves_the_path() {
    // 100 bytes from 0 on came by the old path, acknowledging 50.
    let first = from_client(ACK, 0, 50, &[0; 100]);
    let half = 1 << 31;
    #[rustfmt::skip]
    let cases = [
        // name, flags, sequence, acknowledged, payload, moves
        ("what follows", ACK, 100, 50, 10, true),
        ("far ahead", ACK, REFLECT_WINDOW - 1, 50, 10, true),
        ("out of the window", ACK, REFLECT_WINDOW, 50, 10, false),
        ("below the window", ACK, u32::MAX, 50, 200, false),
        ("a copy of the newest", ACK, 0, 50, 100, false),
        ("late", ACK, 0, 50, 50, false),
        ("late, acknowledging more", ACK, 0, 51, 50, false),
        ("the same, acknowledging more", ACK, 0, 51, 100, true),
        ("no payload, acknowledging more", ACK, 100, 51, 0, true),
        ("no payload, nothing new", ACK, 100, 50, 0, false),
        ("acknowledging less", ACK, 100, 49, 0, false),
        ("acknowledging less, with payload", ACK, 100, 49, 1, true),
        ("a FIN", ACK | FIN, 100, 50, 0, true),
        ("all acknowledged", ACK, 100, UNACKED, 10, true),
        ("what was not sent yet", ACK, 100, UNACKED + 1, 10, false),
        ("what was acknowledged before", ACK, 100, u32::MAX, 10, false),
        ("acknowledging half the space", ACK, 100, half, 10, false),
        ("no ACK", PSH, 100, 50, 10, false),
        ("a reset", ACK | RST, 100, 50, 10, false),
        ("a SYN", ACK | SYN, 100, 50, 10, false),
        ("a bare reset", RST, 100, 50, 0, false),
    ];
    for (name, flags, sequence, acknowledged, len, moves) in cases {
        let (mut host, mut socket) = established(&first);
        let newest = socket.reflecting().unwrap().newest;
        let segment = from_client(flags, sequence, acknowledged, &vec![0; len]);
        let events = by(&mut host, &mut socket, NEW, &segment);
        let expected = if moves {
            Event::ReflectMoved
        } else {
            Event::ReflectIgnored
        };
        assert_eq!(events, [expected], "{name}");
        assert_eq!(gateway(&socket), if moves { NEW } else { OLD }, "{name}");
        let now = socket.reflecting().unwrap().newest;
        assert_eq!(now != newest, moves, "{name}");
        if moves {
            let end = EXPECTED.rcv_nxt.wrapping_add(sequence + len as u32);
            let end = end.wrapping_add(u32::from(flags & FIN != 0));
            assert_eq!((now >> 32) as u32, end, "{name}");
            let acknowledged = EXPECTED.snd_una.wrapping_add(acknowledged);
            assert_eq!(now as u32, acknowledged, "{name}");
        }
        // By the path in use the same segment is no event, whatever it is.
        let (mut host, mut socket) = established(&first);
        assert_eq!(by(&mut host, &mut socket, OLD, &segment), [], "{name}");
        assert_eq!(socket.reflecting().unwrap().newest, now, "{name}");
    }
}

#[test]
fn before_anything_came_any_segment_in_the_window_counts() {
    let mut host = reflecting();
    trust(&mut host, true);
    let mut socket = connection(&mut host, OLD);
    assert_eq!(socket.reflecting().unwrap().newest, 0);
    let bare = from_client(ACK, 0, 0, &[]);
    assert_eq!(
        by(&mut host, &mut socket, NEW, &bare),
        [Event::ReflectMoved]
    );
}

#[test]
fn newest_is_never_0_once_something_came() {
    let mut host = reflecting();
    trust(&mut host, true);
    let mut socket = connection(&mut host, OLD);
    // Its end and its acknowledgement number are 0.
    let bytes = from_client(ACK, 0, 0x100, &[0; 16]);
    get(&mut host, &mut socket, Some(via(OLD)), &bytes);
    assert_eq!(socket.reflecting().unwrap().newest, 1);
}

#[test]
fn half_the_sequence_space_ahead_is_late() {
    let mut host = reflecting();
    trust(&mut host, true);
    for (distance, newer) in [
        (1u32 << 31, false),
        ((1 << 31) - 1, true),
        (0, false),
        (1, true),
    ] {
        let mut socket = connection(&mut host, OLD);
        let old = from_client(ACK, 0, 0, &[0; 50]);
        get(&mut host, &mut socket, Some(via(OLD)), &old);
        // The socket moved on meanwhile.
        let mut receiver = dynencap_model::Receiver {
            socket: &mut socket,
            sequence: Sequence {
                rcv_nxt: EXPECTED.rcv_nxt.wrapping_add(50).wrapping_add(distance),
                ..EXPECTED
            },
            connected: false,
        };
        let segment = from_client(ACK, 50u32.wrapping_add(distance), 0, &[]);
        let incoming = dynencap_model::Incoming {
            packet: packet(V6, &segment),
            mark: 0,
            captured: Some(via(NEW)),
            front: &[],
        };
        host.reflect(&mut receiver, &incoming);
        assert_eq!(
            gateway(&socket),
            if newer { NEW } else { OLD },
            "{distance}"
        );
    }
}

#[test]
fn payload_is_what_stands_behind_the_tcp_header() {
    let first = from_client(ACK, 0, 50, &[0; 100]);
    for (data_offset, newer) in [(5, true), (6, false), (7, false), (15, false), (0, true)] {
        let (mut host, mut socket) = established(&first);
        // 4 bytes behind the fixed header: payload, or options.
        let mut segment = from_client(ACK, 100, 50, &[0; 4]);
        segment[52] = data_offset << 4;
        let events = by(&mut host, &mut socket, NEW, &segment);
        let expected = if newer {
            Event::ReflectMoved
        } else {
            Event::ReflectIgnored
        };
        assert_eq!(events, [expected], "{data_offset}");
    }
}

#[test]
fn who_may_move_a_connection() {
    let next = from_client(ACK, 100, 50, b"next");
    let first = from_client(ACK, 0, 50, &[0; 100]);
    type Change = fn(&mut Host, &mut Socket);
    let refused = Some(Event::ReflectRefused);
    let moved = Some(Event::ReflectMoved);
    let cases: [(&str, Change, Option<Event>); 16] = [
        ("a peer that is trusted", |_, _| (), moved),
        (
            "one that may only reflect",
            |h, _| grant(h, 7, 128, address(NEW), 2),
            refused,
        ),
        (
            "one that may only follow",
            |h, _| grant(h, 7, 128, address(NEW), 4),
            refused,
        ),
        (
            "one that may be chosen",
            |h, _| grant(h, 7, 128, address(NEW), 1),
            refused,
        ),
        (
            "one that may nothing",
            |h, _| grant(h, 7, 128, address(NEW), 0),
            refused,
        ),
        (
            "nobody's policy follows nobody",
            |h, _| {
                h.remove_policy(SERVER);
            },
            refused,
        ),
        (
            "turned off on the connection",
            |h, s| set_reflection(h, s, 0),
            None,
        ),
        (
            "DSCP alone",
            |h, s| set_reflection(h, s, REFLECT_DSCP),
            None,
        ),
        ("reflection is off", |h, _| h.set_config(config()), None),
        (
            "not established yet",
            |_, s| s.set_state(TcpState::Connecting),
            None,
        ),
        ("closed", |_, s| s.set_state(TcpState::Close), None),
        (
            "the application chose",
            |h, s| h.set_option(s, &CGROUP, ENCAP_GW, &GATEWAY).unwrap(),
            None,
        ),
        (
            "it chose none: anew, if followed",
            |h, s| h.set_option(s, &CGROUP, ENCAP_GW, &[]).unwrap(),
            moved,
        ),
        (
            "it chose none, and nobody is followed",
            |h, s| {
                h.set_option(s, &CGROUP, ENCAP_GW, &[]).unwrap();
                grant(h, 7, 128, address(NEW), 2);
            },
            refused,
        ),
        (
            "the policy turned it off",
            |h, s| {
                h.set_option(s, &CGROUP, ENCAP_REFLECT, &[]).unwrap();
                h.set_policy(SERVER, policy(7));
            },
            None,
        ),
        (
            "the policy has it on",
            |h, s| {
                h.set_option(s, &CGROUP, ENCAP_REFLECT, &[]).unwrap();
                let reflect = REFLECT_PATH;
                h.set_policy(
                    SERVER,
                    Policy {
                        reflect,
                        ..policy(7)
                    },
                );
            },
            moved,
        ),
    ];
    for (name, change, expected) in cases {
        let (mut host, mut socket) = established(&first);
        grant(&mut host, 7, 128, GATEWAY, 1);
        change(&mut host, &mut socket);
        let events = by(&mut host, &mut socket, NEW, &next);
        assert_eq!(events, Vec::from_iter(expected), "{name}");
        let there = gateway(&socket) == NEW;
        assert_eq!(there, expected == moved, "{name}");
    }
}

#[test]
fn a_move_writes_exit_and_path_and_leaves_the_mark() {
    let (mut host, mut socket) = established(&from_client(ACK, 0, 0, b"x"));
    let mark = socket.mark();
    let mut header = [0; 32];
    header[..2].copy_from_slice(b"vn");
    let longer = Exit {
        header,
        header_len: 2,
        destination_port: [1, 1],
        flags: Exit::UDP | via(NEW).flags,
        ..via(NEW)
    };
    get(
        &mut host,
        &mut socket,
        Some(longer),
        &from_client(ACK, 1, 0, b"y"),
    );
    assert_eq!(socket.exit(), Some(&longer));
    assert_eq!(socket.mark(), mark);
    let key = PathKey {
        gateway: address(NEW),
        destination_port: [1, 1],
        flags: Exit::UDP,
        reserved: 0,
    };
    assert_eq!(host.path(&key).unwrap().header_len, 2);
    // Another header alone is another path.
    let mut other = longer;
    other.header[0] = b'w';
    get(
        &mut host,
        &mut socket,
        Some(other),
        &from_client(ACK, 2, 0, b"z"),
    );
    assert_eq!(socket.exit(), Some(&other));
    assert_eq!(count(&host, Event::ReflectMoved), 2);
}

#[test]
fn a_connection_whose_entry_was_lost_is_found_again() {
    for (rights, marked, expected) in [
        (2, true, Event::ReflectMoved),
        (4, true, Event::ReflectRefused),
        (2, false, Event::ReflectRefused),
        (2 | 4, false, Event::ReflectMoved),
    ] {
        let mut host = reflecting();
        trust(&mut host, false);
        let mut waiting = listener(&mut host, &CGROUP);
        let syn = from_client(SYN, 0, 0, &[]);
        let mark = get(&mut host, &mut waiting, Some(via(OLD)), &syn);
        host.evict_reflected(&replies(&syn)).unwrap();
        let mut socket = waiting.accept();
        socket.set_mark(if marked { mark } else { mark & !MARK_SENTINEL });
        host.accepted(&mut socket, &replies(&syn));
        grant(&mut host, 7, 128, address(OLD), rights);
        let data = from_client(ACK, 0, 0, b"data");
        assert_eq!(by(&mut host, &mut socket, OLD, &data), [expected]);
        let spoofed = from_client(ACK, REFLECT_WINDOW, 0, b"data");
        let ignored = by(&mut host, &mut socket, NEW, &spoofed);
        assert_eq!(ignored, [Event::ReflectIgnored]);
    }
}

#[test]
fn an_active_connection_reflects_when_it_is_asked_to() {
    let data = from_client(ACK, 0, 0, b"data");
    let active = || {
        let mut socket = Socket::in_cgroup(STREAM, &CGROUP);
        socket.set_state(TcpState::Open);
        socket
    };
    let mut host = reflecting();
    trust(&mut host, true);
    host.set_policy(
        SERVER,
        Policy {
            reflect: REFLECT_PATH,
            ..policy(7)
        },
    );
    let mut plain = active();
    assert_eq!(by(&mut host, &mut plain, NEW, &data), []);
    assert_eq!(plain.exit(), None);
    let mut asked = active();
    set_reflection(&mut host, &mut asked, REFLECT_PATH);
    assert_eq!(by(&mut host, &mut asked, NEW, &data), [Event::ReflectMoved]);
    assert_eq!(gateway(&asked), NEW);
    assert_eq!(asked.reflecting().unwrap().cgroup, SERVER);
    // The cgroup's default is none for connections that it begins, whatever they have storage for.
    let mut chose = active();
    grant(&mut host, 7, 128, GATEWAY, 1);
    for value in [&GATEWAY[..], &[]] {
        host.set_option(&mut chose, &CGROUP, ENCAP_GW, value)
            .unwrap();
    }
    assert_eq!(by(&mut host, &mut chose, NEW, &data), []);
    assert_eq!(chose.exit(), Some(&Exit::NONE));
    let mut other = active();
    set_reflection(&mut host, &mut other, REFLECT_DSCP);
    assert_eq!(by(&mut host, &mut other, NEW, &data), []);
}

#[test]
fn without_a_capture_nothing_moves() {
    let (mut host, mut socket) = established(&from_client(ACK, 0, 0, b"x"));
    let newest = socket.reflecting().unwrap().newest;
    let before = *host.events();
    get(&mut host, &mut socket, None, &from_client(ACK, 1, 0, b"y"));
    assert_eq!(happened(&host, &before), []);
    assert_eq!(
        (gateway(&socket), socket.reflecting().unwrap().newest),
        (OLD, newest)
    );
    let config = *host.config();
    host.set_config(Config { flags: 0, ..config });
}

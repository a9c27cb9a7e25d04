//! Section 5.4 on listeners, and 5.5: what a SYN brings comes to the connection.

use crate::reflecting::*;
use crate::support::*;
use dynencap_abi::option::*;
use dynencap_abi::{
    Config, Event, Exit, MARK_MASK, MARK_SENTINEL, PathKey, Policy, Reflected, SocketState,
};
use dynencap_model::{Host, Socket, TcpState};

const MARK: u32 = 0x4200_0042;
const PATH_MARK: u32 = MARK | MARK_SENTINEL | 40 << 16;

fn syn() -> Vec<u8> {
    from_client(SYN, 0, 0, &[])
}

fn waiting(host: &mut Host, bits: u32) -> Socket {
    let mut socket = Socket::in_cgroup(STREAM, &CGROUP);
    socket.set_state(TcpState::Listen);
    if bits != u32::MAX {
        set_reflection(host, &mut socket, bits);
    }
    socket
}

#[test]
fn a_listener_captures_what_it_was_asked_to() {
    const PATH: u32 = REFLECT_PATH;
    const DSCP: u32 = REFLECT_DSCP;
    const UNSET: u32 = u32::MAX;
    #[rustfmt::skip]
    let cases = [
        // name, bits of the socket, of the policy, captured, exit of the entry, its flags
        ("nothing asked", UNSET, 0, true, None),
        ("turned off against the policy", 0, PATH, true, None),
        ("by the policy", UNSET, PATH, true, Some((true, PATH))),
        ("by the socket", PATH, 0, true, Some((true, PATH))),
        ("nothing captured", PATH, 0, false, None),
        ("DSCP alone", DSCP, 0, true, Some((false, DSCP))),
        ("DSCP without a capture", DSCP, PATH, false, Some((false, DSCP))),
        ("path and mark", PATH | REFLECT_MARK, 0, true, Some((true, PATH | REFLECT_MARK))),
        ("path and mark, no capture", PATH | REFLECT_MARK, 0, false,
            Some((false, PATH | REFLECT_MARK))),
        ("unknown bits of a policy", UNSET, 0xff, true, Some((true, 7))),
    ];
    for (name, own, default, captured, expected) in cases {
        let mut host = reflecting();
        trust(&mut host, false);
        let reflect = default;
        host.set_policy(
            SERVER,
            Policy {
                reflect,
                ..policy(7)
            },
        );
        let mut socket = waiting(&mut host, own);
        let before = *host.events();
        let mark = get(&mut host, &mut socket, captured.then(|| via(3)), &syn());
        let entry = expected.map(|(path, flags)| Reflected {
            exit: if path { via(3) } else { Exit::NONE },
            cgroup: SERVER,
            mark: MARK & !MARK_MASK,
            flags,
            class: 0xb8,
            reserved: [0; 7],
        });
        assert_eq!(host.reflected(&replies(&syn())), entry.as_ref(), "{name}");
        let path = expected.is_some_and(|(path, _)| path);
        assert_eq!(mark, if path { PATH_MARK } else { MARK }, "{name}");
        let cgroup = socket
            .reflecting()
            .map_or(0, |reflecting| reflecting.cgroup);
        assert_eq!(
            cgroup,
            if expected.is_some() { SERVER } else { 0 },
            "{name}"
        );
        let event = expected.map(|_| Event::ReflectCaptured);
        assert_eq!(happened(&host, &before), Vec::from_iter(event), "{name}");
    }
}

#[test]
fn whom_the_policy_does_not_let_reflect_is_answered_without() {
    for (bits, entered) in [(REFLECT_PATH, false), (REFLECT_PATH | REFLECT_DSCP, true)] {
        for rights in [0, 1, 4, 1 | 4] {
            let mut host = reflecting();
            trust(&mut host, false);
            grant(&mut host, 7, 128, address(3), rights);
            let mut socket = waiting(&mut host, bits);
            let before = *host.events();
            let mark = get(&mut host, &mut socket, Some(via(3)), &syn());
            assert_eq!(mark, MARK);
            let entry = host.reflected(&replies(&syn()));
            assert_eq!(entry.map(|entry| entry.exit), entered.then_some(Exit::NONE));
            assert!(happened(&host, &before).contains(&Event::ReflectRefused));
            assert_eq!(happened(&host, &before).len(), 1 + usize::from(entered));
        }
    }
    let mut host = reflecting();
    let config = *host.config();
    host.set_config(Config {
        flags: config.flags | Config::DENY_BY_DEFAULT,
        ..config
    });
    let mut socket = Socket::in_cgroup(STREAM, &CGROUP);
    socket.set_state(TcpState::Listen);
    get(&mut host, &mut socket, Some(via(3)), &syn());
    assert_eq!(host.reflected(&replies(&syn())), None);
}

#[test]
fn the_last_segment_before_the_connection_decides() {
    let mut host = reflecting();
    let mut socket = waiting(&mut host, REFLECT_PATH);
    get(&mut host, &mut socket, Some(via(3)), &syn());
    let third = from_client(ACK, 1, 1, &[]);
    let before = *host.events();
    get(&mut host, &mut socket, Some(via(4)), &third);
    let exit = |host: &Host| host.reflected(&replies(&syn())).map(|entry| entry.exit);
    assert_eq!(exit(&host), Some(via(4)));
    assert_eq!(happened(&host, &before), [], "the key was there");
    // Without a path it is answered without one.
    get(&mut host, &mut socket, None, &third);
    assert_eq!(exit(&host), None);
}

#[test]
fn an_entry_of_another_cgroup_is_not_removed() {
    let mut host = reflecting();
    let mut theirs = listener(&mut host, &OTHER);
    get(&mut host, &mut theirs, Some(via(3)), &syn());
    let mut ours = waiting(&mut host, REFLECT_PATH);
    get(&mut host, &mut ours, None, &syn());
    let entry = host.reflected(&replies(&syn())).unwrap();
    assert_eq!(entry.cgroup, OTHER[2]);
    // Nor taken over.
    get(&mut host, &mut theirs, Some(via(3)), &syn());
    ours = listener(&mut host, &CGROUP);
    let other = {
        let mut bytes = syn();
        bytes[41] ^= 1;
        bytes
    };
    get(&mut host, &mut ours, Some(via(3)), &other);
    let mut child = ours.accept();
    host.accepted(&mut child, &replies(&syn()));
    assert_eq!(child.exit(), Some(&Exit::NONE));
    assert!(host.reflected(&replies(&syn())).is_some());
    assert_eq!(count(&host, Event::ReflectTaken), 0);
}

#[test]
fn the_connection_takes_over_what_was_captured_for_it() {
    const ALL: u32 = REFLECT_PATH | REFLECT_DSCP | REFLECT_MARK;
    let planned = 80 << 16;
    #[rustfmt::skip]
    let cases = [
        // bits, captured, mark afterwards, class afterwards
        (REFLECT_PATH, true, 0x1100_0011 | MARK_SENTINEL | planned, 0),
        (ALL, true, MARK & !MARK_MASK | MARK_SENTINEL | planned, 0xb8),
        (ALL, false, MARK & !MARK_MASK | planned, 0xb8),
        (REFLECT_DSCP, true, 0x1100_0011 | planned, 0xb8),
        (REFLECT_MARK, false, MARK & !MARK_MASK | planned, 0),
    ];
    for (bits, captured, mark, class) in cases {
        let mut host = reflecting();
        let mut socket = waiting(&mut host, bits);
        get(&mut host, &mut socket, captured.then(|| via(3)), &syn());
        let mut child = socket.accept();
        child.set_mark(0x1100_0011 | planned);
        let before = *host.events();
        host.accepted(&mut child, &replies(&syn()));
        let path = captured && bits & REFLECT_PATH != 0;
        let exit = if path { via(3) } else { Exit::NONE };
        assert_eq!(child.exit(), Some(&exit), "{bits}");
        assert_eq!(
            (child.mark(), child.traffic_class()),
            (mark, class),
            "{bits}"
        );
        assert_eq!(host.reflected(&replies(&syn())), None);
        assert_eq!(happened(&host, &before), [Event::ReflectTaken]);
        let key = PathKey {
            gateway: address(3),
            destination_port: [0; 2],
            flags: 0,
            reserved: 0,
        };
        assert_eq!(host.path(&key).is_some(), path);
        let flags = child.reflecting().unwrap().flags;
        assert_eq!(
            flags & SocketState::REFLECT_PASSIVE,
            SocketState::REFLECT_PASSIVE
        );
    }
}

#[test]
fn a_connection_without_an_entry_is_passive_all_the_same() {
    let mut host = reflecting();
    let mut socket = waiting(&mut host, REFLECT_PATH);
    get(&mut host, &mut socket, Some(via(3)), &syn());
    host.evict_reflected(&replies(&syn())).unwrap();
    let mut child = socket.accept();
    host.accepted(&mut child, &replies(&syn()));
    assert_eq!(child.exit(), Some(&Exit::NONE));
    let passive = |socket: &Socket| {
        let flags = socket.reflecting().map_or(0, |reflecting| reflecting.flags);
        flags & SocketState::REFLECT_PASSIVE != 0
    };
    assert!(passive(&child) && !passive(&socket));
    assert_eq!(count(&host, Event::ReflectTaken), 0);
    // A listener for which nothing was ever captured.
    let mut child = waiting(&mut host, REFLECT_PATH).accept();
    host.accepted(&mut child, &replies(&syn()));
    assert!(!passive(&child));
    // Reflection is off.
    host.set_config(config());
    let mut child = socket.accept();
    host.accepted(&mut child, &replies(&syn()));
    assert!(!passive(&child));
}

#[test]
fn accepting_forgets_the_flow_that_was_closing() {
    let mut host = reflecting();
    let flow = replies(&syn());
    host.closed(&ip_exit(), flow);
    let mut child = waiting(&mut host, 0).accept();
    host.accepted(&mut child, &flow);
    assert_eq!(host.kept(&flow), None);
}

#[test]
fn a_listeners_newest_is_no_connections() {
    let mut host = reflecting();
    let mut first = connection(&mut host, 3);
    get(
        &mut host,
        &mut first,
        Some(via(3)),
        &from_client(ACK, 0, 0, b"x"),
    );
    assert_ne!(first.reflecting().unwrap().newest, 0);
    host.accepted(&mut first, &replies(&syn()));
    assert_eq!(first.reflecting().unwrap().newest, 0);
}

//! Sections 1 and 7: what a cgroup's policy allows, when it is asked, and default exits.

use crate::support::*;
use dynencap_abi::option::*;
use dynencap_abi::{
    Config, Event, Exit, MARK_SENTINEL, PathKey, Policy, PolicyExitKey, PortRange, Reason,
};
use dynencap_model::{Errno, Host, Socket, SocketKind};

const DENIED: Result<(), Errno> = Err(Errno(EPERM));

fn prefix(policy: u32, bits: u32, address: [u8; 16]) -> PolicyExitKey {
    PolicyExitKey {
        prefix_len: 32 + bits,
        policy,
        address,
    }
}

fn denying(host: &mut Host) {
    host.set_config(Config {
        flags: Config::DENY_BY_DEFAULT,
        ..config()
    });
}

fn set(host: &mut Host, caller: &[u64], name: i32, value: &[u8]) -> Result<(), Errno> {
    host.set_option(&mut socket(), caller, name, value)
}

fn send(host: &mut Host, socket: &Socket) -> Reason {
    let bytes = sound_transport(V6, TCP, b"hello");
    let mut frames = Vec::new();
    host.egress(Some(socket), packet(V6, &bytes), &mut frames)
        .reason
}

#[test]
fn without_a_policy_the_default_decides() {
    for deny in [false, true] {
        let mut host = host();
        if deny {
            denying(&mut host);
        }
        let expected = if deny { DENIED } else { Ok(()) };
        assert_eq!(set(&mut host, &CGROUP, ENCAP_GW, &GATEWAY), expected);
        assert_eq!(set(&mut host, &CGROUP, ENCAP_GW, &GATEWAY4), expected);
        assert_eq!(set(&mut host, &CGROUP, ENCAP_UDP, &[0, 0, 0, 1]), expected);
        assert_eq!(set(&mut host, &CGROUP, ENCAP_GW, &[]), Ok(()));
        assert_eq!(set(&mut host, &CGROUP, ENCAP_UDP, &[]), Ok(()));
        // Egress asks again: here for an exit that was set before the default changed.
        let expected = if deny {
            Reason::PolicyDenied
        } else {
            Reason::Encapsulated
        };
        assert_eq!(send(&mut host, &ip_exit()), expected);
    }
}

#[test]
fn the_nearest_cgroup_among_sixteen_levels_decides() {
    let path: Vec<u64> = (1..=20).collect();
    let mut host = host();
    let in_force = |host: &Host, path: &[u64]| host.policies().in_force(path).map(|p| p.id);
    host.set_policy(17, policy(17));
    assert_eq!(in_force(&host, &path), None, "level 16 is not searched");
    host.set_policy(1, policy(1));
    assert_eq!(in_force(&host, &path), Some(1));
    host.set_policy(16, policy(16));
    assert_eq!(in_force(&host, &path), Some(16), "level 15 is");
    host.set_policy(3, policy(3));
    assert_eq!(in_force(&host, &path), Some(16));
    assert_eq!(in_force(&host, &path[..3]), Some(3));
    assert_eq!(host.remove_policy(16).map(|p| p.id), Some(16));
    assert_eq!(in_force(&host, &path), Some(3));
    assert_eq!(in_force(&host, &[99]), None);
}

#[test]
fn the_longest_prefix_that_matches_a_gateway_decides() {
    let mut host = host();
    host.set_policy(300, policy(7));
    let try_gateway = |host: &mut Host, value: &[u8]| set(host, &CGROUP, ENCAP_GW, value);
    assert_eq!(try_gateway(&mut host, &GATEWAY), DENIED, "no prefix");
    host.set_policy_exit(&prefix(8, 0, [0; 16]), 1).unwrap();
    assert_eq!(try_gateway(&mut host, &GATEWAY), DENIED, "another policy's");
    host.set_policy_exit(&prefix(7, 32, address(0xff)), 1)
        .unwrap();
    assert_eq!(try_gateway(&mut host, &GATEWAY), Ok(()));
    assert_eq!(try_gateway(&mut host, &GATEWAY4), DENIED);
    host.set_policy_exit(&prefix(7, 121, address(0x80)), 0)
        .unwrap();
    assert_eq!(try_gateway(&mut host, &GATEWAY), DENIED, "longer denies");
    assert_eq!(try_gateway(&mut host, &address(0x7f)), Ok(()));
    host.set_policy_exit(&prefix(7, 128, GATEWAY), 1).unwrap();
    assert_eq!(try_gateway(&mut host, &GATEWAY), Ok(()), "longest allows");
    host.set_policy_exit(&prefix(7, 128, GATEWAY), 2).unwrap();
    assert_eq!(
        try_gateway(&mut host, &GATEWAY),
        DENIED,
        "no right to choose"
    );
    assert_eq!(host.remove_policy_exit(&prefix(7, 128, GATEWAY)), Some(2));
    assert_eq!(try_gateway(&mut host, &GATEWAY), DENIED);
    let four = prefix(7, 96 + 24, mapped(GATEWAY4));
    host.set_policy_exit(&four, 1).unwrap();
    assert_eq!(try_gateway(&mut host, &GATEWAY4), Ok(()));
    assert_eq!(try_gateway(&mut host, &[203, 0, 112, 99]), DENIED);
    assert_eq!(
        host.set_policy_exit(&prefix(7, 129, GATEWAY), 1),
        Err(Errno(EINVAL))
    );
}

#[test]
fn udp_needs_a_port_of_the_list_and_leave_for_a_header() {
    let range = |first, last| PortRange { first, last };
    let mut ports = [PortRange::default(); 8];
    ports[0] = range(100, 200);
    ports[1] = range(300, 300);
    ports[7] = range(9, 9);
    let with = |count: u32, flags| Policy {
        ports,
        port_count: count,
        flags,
        ..policy(7)
    };
    let headers = Policy::CUSTOM_HEADERS;
    let cases: [(u32, u32, u16, &[u8], bool); 12] = [
        (2, 0, 99, &[], false),
        (2, 0, 100, &[], true),
        (2, 0, 200, &[], true),
        (2, 0, 201, &[], false),
        (2, 0, 300, &[], true),
        (1, 0, 300, &[], false),
        (0, 0, 100, &[], false),
        (7, 0, 9, &[], false),
        (8, 0, 9, &[], true),
        (u32::MAX, 0, 9, &[], true),
        (2, 0, 100, b"h", false),
        (2, headers, 100, b"h", true),
    ];
    for (count, flags, port, header, allowed) in cases {
        let mut host = host();
        host.set_policy(300, with(count, flags));
        let value = [&[0, 0], &port.to_be_bytes()[..], header].concat();
        let result = set(&mut host, &CGROUP, ENCAP_UDP, &value);
        let case = format!("{count} {flags} {port} {header:?}");
        assert_eq!(result, if allowed { Ok(()) } else { DENIED }, "{case}");
    }
}

#[test]
fn where_an_exit_is_required_it_cannot_be_cleared() {
    let mut host = host();
    allow_gateways(&mut host, 7);
    host.set_policy(
        300,
        Policy {
            flags: Policy::REQUIRED,
            ..policy(7)
        },
    );
    let mut socket = Socket::in_cgroup(STREAM, &CGROUP);
    assert_eq!(host.set_option(&mut socket, &CGROUP, ENCAP_GW, &[]), DENIED);
    for gateway in [&GATEWAY[..], &GATEWAY4] {
        let changed = host.set_option(&mut socket, &CGROUP, ENCAP_GW, gateway);
        assert_eq!(changed, Ok(()));
    }
    let before = (*socket.exit().unwrap(), socket.mark());
    assert_eq!(host.set_option(&mut socket, &CGROUP, ENCAP_GW, &[]), DENIED);
    assert_eq!((*socket.exit().unwrap(), socket.mark()), before);
    assert_eq!(
        host.set_option(&mut socket, &CGROUP, ENCAP_UDP, &[]),
        Ok(())
    );
}

#[test]
fn form_is_judged_before_policy() {
    let mut host = host();
    denying(&mut host);
    let cases: [(i32, &[u8], i32); 6] = [
        (ENCAP_GW, &[1; 5], EINVAL),
        (ENCAP_UDP, &[1, 2, 0, 0], EINVAL),
        (ENCAP_REFLECT, &[1, 0, 0], EINVAL),
        (ENCAP_REFLECT, &8u32.to_ne_bytes(), EINVAL),
        (ENCAP_INFO, &[], ENOPROTOOPT),
        (ENCAP_GW, &GATEWAY, EPERM),
    ];
    for (name, value, errno) in cases {
        assert_eq!(set(&mut host, &CGROUP, name, value), Err(Errno(errno)));
    }
    let events = host.events();
    assert_eq!(events[Event::OptionRefused as usize], 5);
    assert_eq!(events[Event::OptionDenied as usize], 1);
    assert_eq!(set(&mut host, &CGROUP, ENCAP_GW, &[]), Ok(()));
    let _ = host.option(&socket(), ENCAP_GW, 16);
    assert_eq!(host.events()[Event::OptionSet as usize], 1);
    assert_eq!(host.events().iter().sum::<u64>(), 7, "reading is no event");
}

#[test]
fn the_source_is_the_policys_of_the_gateways_family() {
    let mut host = host();
    allow_gateways(&mut host, 7);
    let sources = Policy {
        source: address(0x71),
        source4: [203, 0, 113, 71],
        ..policy(7)
    };
    host.set_policy(300, sources);
    let mut socket = Socket::in_cgroup(STREAM, &CGROUP);
    let mut source = |host: &mut Host, value: &[u8]| {
        host.set_option(&mut socket, &CGROUP, ENCAP_GW, value)
            .unwrap();
        socket.exit().unwrap().source
    };
    assert_eq!(source(&mut host, &GATEWAY), address(0x71));
    assert_eq!(source(&mut host, &GATEWAY4), mapped([203, 0, 113, 71]));
    assert_eq!(source(&mut host, &[]), [0; 16]);
    host.set_policy(
        300,
        Policy {
            source: [0; 16],
            source4: [0; 4],
            ..sources
        },
    );
    assert_eq!(source(&mut host, &GATEWAY), [0; 16]);
    assert_eq!(source(&mut host, &GATEWAY4), [0; 16]);
}

#[test]
fn egress_checks_the_whole_exit_with_the_sockets_own_cgroup() {
    type Change = fn(&mut Host, &mut Exit, &mut Policy);
    let cases: [(&str, Change, Reason); 8] = [
        ("as it was set", |_, _, _| {}, Reason::Encapsulated),
        (
            "gateway",
            |_, exit, _| exit.gateway = [0x30; 16],
            Reason::PolicyDenied,
        ),
        ("port", |_, _, p| p.port_count = 0, Reason::PolicyDenied),
        ("header", |_, _, p| p.flags = 0, Reason::PolicyDenied),
        (
            "header without UDP",
            |_, exit, p| {
                p.flags = 0;
                exit.flags = Exit::GATEWAY;
            },
            Reason::Encapsulated,
        ),
        (
            "source that the policy does not give",
            |_, exit, _| exit.source = address(9),
            Reason::PolicyDenied,
        ),
        (
            "source that the policy gives and the exit has not",
            |_, _, p| p.source = address(9),
            Reason::PolicyDenied,
        ),
        (
            "source that both have",
            |_, exit, p| {
                p.source = address(9);
                exit.source = address(9);
            },
            Reason::Encapsulated,
        ),
    ];
    for (name, change, expected) in cases {
        let mut host = host();
        allow_gateways(&mut host, 7);
        let mut exit = *udp_exit(b"head").exit().unwrap();
        let mut policy = policy(7);
        change(&mut host, &mut exit, &mut policy);
        host.set_policy(300, policy);
        let mut socket = Socket::in_cgroup(STREAM, &CGROUP);
        socket.set_exit(exit);
        assert_eq!(send(&mut host, &socket), expected, "{name}");
    }
    let mut set = socket();
    set.set_exit(Exit {
        source: address(9),
        ..*ip_exit().exit().unwrap()
    });
    assert_eq!(send(&mut host(), &set), Reason::PolicyDenied, "no policy");
}

#[test]
fn a_change_of_policy_takes_effect_when_the_generation_is_raised() {
    let mut host = host();
    allow_gateways(&mut host, 7);
    host.set_policy(300, policy(7));
    let mut socket = Socket::in_cgroup(STREAM, &CGROUP);
    host.set_option(&mut socket, &CGROUP, ENCAP_GW, &GATEWAY)
        .unwrap();
    assert_eq!(send(&mut host, &socket), Reason::Encapsulated);
    host.set_policy(300, policy(8));
    assert_eq!(send(&mut host, &socket), Reason::Encapsulated, "cached");
    let raised = Config {
        policy_generation: 1,
        ..config()
    };
    host.set_config(raised);
    assert_eq!(send(&mut host, &socket), Reason::PolicyDenied);
    assert_eq!(send(&mut host, &socket), Reason::PolicyDenied, "again");
    host.set_policy(300, policy(7));
    assert_eq!(
        send(&mut host, &socket),
        Reason::Encapsulated,
        "a no is not cached"
    );
    host.set_policy(300, policy(8));
    assert_eq!(send(&mut host, &socket), Reason::Encapsulated, "a yes is");
    socket.set_exit(*socket.clone().exit().unwrap());
    assert_eq!(send(&mut host, &socket), Reason::PolicyDenied, "a new exit");
}

#[test]
fn handing_a_socket_on_does_not_hand_on_rights() {
    let mut host = host();
    allow_gateways(&mut host, 7);
    host.set_policy(300, policy(7));
    host.set_policy(400, policy(8));
    let mut socket = Socket::in_cgroup(STREAM, &[1, 400]);
    assert_eq!(
        host.set_option(&mut socket, &[1, 400], ENCAP_GW, &GATEWAY),
        DENIED
    );
    let by_other = host.set_option(&mut socket, &CGROUP, ENCAP_GW, &GATEWAY);
    assert_eq!(by_other, Ok(()), "the caller's cgroup judges the call");
    assert_eq!(
        send(&mut host, &socket),
        Reason::PolicyDenied,
        "the socket's judges the packet"
    );
    let child = socket.accept();
    assert_eq!(child.cgroup(), [1, 400]);
}

#[test]
fn sockets_begin_with_their_cgroups_default_exit() {
    let mut host = host();
    allow_gateways(&mut host, 7);
    let default = Policy {
        flags: Policy::DEFAULT_EXIT | Policy::CUSTOM_HEADERS,
        source: address(0x71),
        default_exit: *udp_exit(b"head").exit().unwrap(),
        reserve: 80,
        ..policy(7)
    };
    host.set_policy(300, default);
    let socket = host.create_socket(&CGROUP, STREAM).unwrap();
    let expected = Exit {
        source: address(0x71),
        ..default.default_exit
    };
    assert_eq!(socket.exit(), Some(&expected));
    assert_eq!(socket.mark(), MARK_SENTINEL | 52 << 16);
    assert_eq!(socket.cgroup(), CGROUP);
    assert_eq!(send(&mut host, &socket), Reason::Encapsulated);
    let key = PathKey {
        gateway: GATEWAY,
        destination_port: [0x17, 0xc0],
        flags: Exit::UDP,
        reserved: 0,
    };
    assert_eq!(host.path(&key).unwrap().header_len, 4);

    let mptcp = SocketKind {
        protocol: IPPROTO_MPTCP,
        ..STREAM
    };
    assert_eq!(host.create_socket(&CGROUP, mptcp).err(), Some(Errno(EPERM)));
    let unix = SocketKind {
        family: 1,
        ..STREAM
    };
    assert_eq!(host.create_socket(&CGROUP, unix).unwrap().exit(), None);
    let outside = host.create_socket(&[1], STREAM).unwrap();
    assert_eq!((outside.exit(), outside.mark()), (None, 0));
    assert_eq!(host.events()[Event::DefaultExit as usize], 1);
    assert_eq!(host.events()[Event::SocketRefused as usize], 1);
}

#[test]
fn a_default_exit_that_its_own_policy_denies_sends_nothing() {
    let mut host = host();
    host.set_policy(
        300,
        Policy {
            flags: Policy::DEFAULT_EXIT,
            default_exit: *ip_exit().exit().unwrap(),
            ..policy(7)
        },
    );
    let socket = host.create_socket(&CGROUP, STREAM).unwrap();
    assert_eq!(send(&mut host, &socket), Reason::PolicyDenied);
}

#[test]
fn an_overhead_is_reserved_without_an_exit() {
    let mut host = host();
    host.set_policy(
        300,
        Policy {
            reserve: 56,
            ..policy(7)
        },
    );
    let socket = host.create_socket(&CGROUP, STREAM).unwrap();
    assert_eq!((socket.exit(), socket.mark()), (None, 56 << 16));
    let mptcp = SocketKind {
        protocol: IPPROTO_MPTCP,
        ..STREAM
    };
    assert_eq!(host.create_socket(&CGROUP, mptcp).unwrap().mark(), 56 << 16);
    assert_eq!(send(&mut host, &socket), Reason::NoExit);
    assert_eq!(host.events().iter().sum::<u64>(), 0);
}

#[test]
fn choosing_an_exit_puts_its_kind_into_paths() {
    let mut host = host();
    let mut socket = socket();
    let key = |gateway, port, flags| PathKey {
        gateway,
        destination_port: port,
        flags,
        reserved: 0,
    };
    let udp = key(GATEWAY, [0x17, 0xc0], Exit::UDP);
    let mut set = |host: &mut Host, name, value: &[u8]| {
        host.set_option(&mut socket, &[], name, value).unwrap();
    };
    set(&mut host, ENCAP_UDP, &[0, 0, 0x17, 0xc0, 1, 2]);
    assert_eq!(host.path(&udp), None, "no gateway yet");
    set(&mut host, ENCAP_GW, &GATEWAY);
    assert_eq!(host.path(&udp).unwrap().header_len, 2);
    set(&mut host, ENCAP_UDP, &[0, 9, 0x17, 0xc0, 1, 2, 3]);
    assert_eq!(host.path(&udp).unwrap().header_len, 3);
    assert_eq!(host.path(&key(GATEWAY, [0; 2], 0)), None);
    set(&mut host, ENCAP_UDP, &[]);
    assert_eq!(host.path(&key(GATEWAY, [0; 2], 0)).unwrap().header_len, 0);
    assert_eq!(host.path(&udp).unwrap().header_len, 3);
    set(&mut host, ENCAP_GW, &GATEWAY4);
    assert!(host.path(&key(mapped(GATEWAY4), [0; 2], 0)).is_some());
}

//! Section 5.4 on UDP: the peers of a socket, and the one of a connected socket.

use crate::reflecting::*;
use crate::support::*;
use dynencap_abi::option::*;
use dynencap_abi::{Event, Exit, FlowKey, Policy, Reason, Reflected, SocketState};
use dynencap_model::{Frame, Host, Socket};

/// A datagram from a client at this address.
fn ask(last: u8) -> Vec<u8> {
    let mut bytes = ipv6_packet(UDP, &udp_datagram(b"ask"));
    bytes[8..24].copy_from_slice(&address(last));
    bytes
}

fn answer(last: u8) -> Vec<u8> {
    let mut bytes = from_server(UDP, &udp_datagram(b"answer"));
    bytes[24..40].copy_from_slice(&address(last));
    bytes
}

fn server(host: &mut Host, cgroup: &[u64]) -> Socket {
    let mut socket = Socket::in_cgroup(DATAGRAMS, cgroup);
    set_reflection(
        host,
        &mut socket,
        REFLECT_PATH | REFLECT_DSCP | REFLECT_MARK,
    );
    socket
}

/// The reason, and the last byte of where it went.
fn send(host: &mut Host, socket: &Socket, bytes: &[u8]) -> (Reason, Option<u8>) {
    let mut frames: Vec<Frame> = Vec::new();
    let egress = host.egress(Some(socket), packet(V6, bytes), &mut frames);
    let to = (egress.reason == Reason::Encapsulated).then(|| frames[0].bytes[39]);
    (egress.reason, to)
}

fn entry(host: &Host, flow: &FlowKey) -> Option<u8> {
    host.reflected(flow).map(|entry| entry.exit.gateway[15])
}

fn by(host: &mut Host, socket: &mut Socket, path: u8, bytes: &[u8]) -> Vec<Event> {
    let before = *host.events();
    get(host, socket, Some(via(path)), bytes);
    happened(host, &before)
}

#[test]
fn each_peer_is_answered_by_the_path_it_came_by() {
    let mut host = reflecting();
    let mut socket = server(&mut host, &CGROUP);
    assert_eq!(send(&mut host, &socket, &answer(1)).0, Reason::NoGateway);
    for (peer, path) in [(1, 0x31), (2, 0x32), (3, 0x31)] {
        let events = by(&mut host, &mut socket, path, &ask(peer));
        assert_eq!(events, [Event::ReflectCaptured]);
        let sent = send(&mut host, &socket, &answer(peer));
        assert_eq!(sent, (Reason::Encapsulated, Some(path)));
    }
    let expected = Reflected {
        exit: via(0x31),
        cgroup: SERVER,
        mark: 0x4200_0042,
        flags: REFLECT_PATH,
        class: 0xb8,
        reserved: [0; 7],
    };
    assert_eq!(host.reflected(&replies(&ask(1))), Some(&expected));
    assert_eq!(socket.reflecting().unwrap().cgroup, SERVER);
    assert_eq!(send(&mut host, &socket, &answer(9)).0, Reason::NoGateway);
    // DSCP is not taken over, the counters are the socket's.
    let mut frames: Vec<Frame> = Vec::new();
    host.egress(Some(&socket), packet(V6, &answer(1)), &mut frames);
    assert_eq!(frames[0].bytes[40..], answer(1));
    let info = host.option(&socket, ENCAP_INFO, 32).unwrap();
    assert_eq!(info[..8], 4u64.to_ne_bytes());
}

#[test]
fn a_peer_moves_only_to_whom_the_policy_follows() {
    let mut host = reflecting();
    trust(&mut host, true);
    let mut socket = server(&mut host, &CGROUP);
    let flow = replies(&ask(1));
    by(&mut host, &mut socket, 0x31, &ask(1));
    assert_eq!(by(&mut host, &mut socket, 0x31, &ask(1)), []);
    assert_eq!(
        by(&mut host, &mut socket, 0x32, &ask(1)),
        [Event::ReflectMoved]
    );
    assert_eq!(entry(&host, &flow), Some(0x32));
    for rights in [0, 1, 2, 4] {
        grant(&mut host, 7, 128, address(0x33), rights);
        assert_eq!(
            by(&mut host, &mut socket, 0x33, &ask(1)),
            [Event::ReflectRefused]
        );
        assert_eq!(entry(&host, &flow), Some(0x32), "{rights}");
    }
    grant(&mut host, 7, 128, address(0x33), 2);
    assert_eq!(
        by(&mut host, &mut socket, 0x33, &ask(2)),
        [Event::ReflectCaptured]
    );
}

#[test]
fn without_being_asked_a_server_does_not_reflect() {
    let mut host = reflecting();
    trust(&mut host, true);
    let mut socket = Socket::in_cgroup(DATAGRAMS, &CGROUP);
    assert_eq!(by(&mut host, &mut socket, 0x31, &ask(1)), []);
    assert_eq!(socket.reflecting(), None);
    set_reflection(&mut host, &mut socket, REFLECT_DSCP);
    assert_eq!(by(&mut host, &mut socket, 0x31, &ask(1)), []);
    host.set_option(&mut socket, &CGROUP, ENCAP_REFLECT, &[])
        .unwrap();
    let reflect = REFLECT_PATH;
    host.set_policy(
        SERVER,
        Policy {
            reflect,
            ..policy(7)
        },
    );
    assert_eq!(
        by(&mut host, &mut socket, 0x31, &ask(1)),
        [Event::ReflectCaptured]
    );
}

#[test]
fn one_cgroups_peers_are_no_others() {
    let mut host = reflecting();
    let mut ours = server(&mut host, &CGROUP);
    let mut theirs = server(&mut host, &OTHER);
    by(&mut host, &mut ours, 0x31, &ask(2));
    by(&mut host, &mut theirs, 0x32, &ask(1));
    assert_eq!(
        send(&mut host, &ours, &answer(1)),
        (Reason::NoGateway, None)
    );
    assert_eq!(
        send(&mut host, &theirs, &answer(1)),
        (Reason::Encapsulated, Some(0x32))
    );
    // The key is one: the later cgroup has it, and to follow is not asked for.
    assert_eq!(by(&mut host, &mut ours, 0x31, &ask(1)), []);
    assert_eq!(
        send(&mut host, &ours, &answer(1)),
        (Reason::Encapsulated, Some(0x31))
    );
    assert_eq!(
        send(&mut host, &theirs, &answer(1)),
        (Reason::NoGateway, None)
    );
}

#[test]
fn an_exit_of_its_own_goes_first() {
    let mut host = reflecting();
    let mut socket = server(&mut host, &CGROUP);
    by(&mut host, &mut socket, 0x31, &ask(1));
    host.set_option(&mut socket, &CGROUP, ENCAP_GW, &GATEWAY)
        .unwrap();
    assert_eq!(
        send(&mut host, &socket, &answer(1)),
        (Reason::Encapsulated, Some(0x99))
    );
}

#[test]
fn a_connected_socket_keeps_its_peers_exit_itself() {
    let mut host = reflecting();
    trust(&mut host, true);
    let mut socket = server(&mut host, &CGROUP);
    let by = |socket: &mut Socket, host: &mut Host, path: u8| {
        let before = *host.events();
        get_connected(host, socket, true, Some(via(path)), &ask(1));
        happened(host, &before)
    };
    let mark = socket.mark();
    assert_eq!(by(&mut socket, &mut host, 0x31), [Event::ReflectCaptured]);
    assert_eq!(socket.exit(), Some(&via(0x31)));
    assert_eq!(socket.mark(), mark);
    assert_eq!(host.reflected(&replies(&ask(1))), None);
    assert_eq!(by(&mut socket, &mut host, 0x31), []);
    assert_eq!(by(&mut socket, &mut host, 0x32), [Event::ReflectMoved]);
    assert_eq!(
        send(&mut host, &socket, &answer(1)),
        (Reason::Encapsulated, Some(0x32))
    );
    grant(&mut host, 7, 128, address(0x33), 2);
    assert_eq!(by(&mut socket, &mut host, 0x33), [Event::ReflectRefused]);
    assert_eq!(socket.exit(), Some(&via(0x32)));
    grant(&mut host, 7, 128, address(0x33), 4);
    assert_eq!(by(&mut socket, &mut host, 0x33), [Event::ReflectRefused]);
    // An exit of the application's own stays.
    grant(&mut host, 7, 128, GATEWAY, 1);
    host.set_option(&mut socket, &CGROUP, ENCAP_GW, &GATEWAY)
        .unwrap();
    assert_eq!(by(&mut socket, &mut host, 0x32), []);
    host.set_option(&mut socket, &CGROUP, ENCAP_GW, &[])
        .unwrap();
    grant(&mut host, 7, 128, address(0x33), 2);
    assert_eq!(by(&mut socket, &mut host, 0x33), [Event::ReflectCaptured]);
    let own = SocketState::REFLECT_SET | 7;
    assert_eq!(socket.reflecting().unwrap().flags, own);
}

#[test]
fn packet_sockets_answer_from_the_kernels_entries() {
    let mut host = reflecting();
    let config = *host.config();
    host.set_config(dynencap_abi::Config {
        flags: config.flags | dynencap_abi::Config::ALLOW_PACKET_SOCKETS,
        ..config
    });
    let mut outer = ipv6_packet(41, &ask(1));
    outer[8..24].copy_from_slice(&address(0x31));
    outer[24..40].copy_from_slice(&GATEWAY);
    host.ingress(packet(V6, &outer), &mut Vec::new());
    let mut lab = Socket::in_cgroup(
        dynencap_model::SocketKind {
            family: AF_PACKET,
            ty: SOCK_RAW,
            protocol: 0,
        },
        &CGROUP,
    );
    assert_eq!(send(&mut host, &lab, &answer(1)), (Reason::NoExit, None));
    set_reflection(&mut host, &mut lab, REFLECT_PATH);
    assert_eq!(
        send(&mut host, &lab, &answer(1)),
        (Reason::Encapsulated, Some(0x31))
    );
    // Nobody else, whatever its storage.
    let mut other = server(&mut host, &CGROUP);
    assert_eq!(
        send(&mut host, &other, &answer(1)),
        (Reason::NoGateway, None)
    );
    by(&mut host, &mut other, 0x32, &ask(1));
    assert_eq!(send(&mut host, &lab, &answer(1)), (Reason::NoGateway, None));
    let mut chosen = lab.clone();
    chosen.set_exit(Exit {
        gateway: GATEWAY,
        flags: Exit::GATEWAY,
        ..Exit::NONE
    });
    assert_eq!(
        send(&mut host, &chosen, &answer(1)),
        (Reason::Encapsulated, Some(0x99))
    );
}

#[test]
fn raw_sockets_get_copies_that_are_not_for_them() {
    let mut host = reflecting();
    let mut raw = Socket::in_cgroup(
        dynencap_model::SocketKind {
            family: AF_INET6,
            ty: SOCK_RAW,
            protocol: 58,
        },
        &CGROUP,
    );
    let reflect = REFLECT_PATH;
    host.set_policy(
        SERVER,
        Policy {
            reflect,
            ..policy(7)
        },
    );
    grant(&mut host, 7, 32, GATEWAY, 2);
    for state in [
        dynencap_model::TcpState::Close,
        dynencap_model::TcpState::Listen,
    ] {
        raw.set_state(state);
        assert_eq!(by(&mut host, &mut raw, 0x31, &ask(1)), []);
        let syn = from_client(SYN, 0, 0, &[]);
        assert_eq!(by(&mut host, &mut raw, 0x31, &syn), []);
    }
    let mut server = Socket::in_cgroup(DATAGRAMS, &CGROUP);
    let syn = from_client(SYN, 0, 0, &[]);
    assert_eq!(by(&mut host, &mut server, 0x31, &syn), []);
    assert_eq!(
        by(&mut host, &mut server, 0x31, &ask(1)),
        [Event::ReflectCaptured]
    );
}

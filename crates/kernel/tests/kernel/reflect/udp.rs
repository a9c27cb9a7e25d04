//! UDP: each peer of an unconnected socket is answered by its own path, a connected socket by
//! its peer's; and what belongs to one cgroup is no other's.

use super::{
    follow::allow,
    packet::{Left, Via, via, via_udp},
    stage::{GATEWAYS, SERVER, Stage, datagram, gateway},
};
use crate::{
    client::{get, mark, set},
    require::require,
};
use dynencap_abi::{
    Event, Reason, TunnelSpec,
    option::{ENCAP_GW, ENCAP_REFLECT, REFLECT_PATH},
};
use std::{
    hint,
    net::UdpSocket,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

const PORT: u16 = 7001;
const FIRST: u16 = 42000;
const SECOND: u16 = 42001;

fn bind(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind((address, PORT)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    socket
}

fn reflects(socket: &UdpSocket) {
    set(socket, ENCAP_REFLECT, &REFLECT_PATH.to_ne_bytes()).unwrap();
}

/// The server answers its next datagram; how that leaves.
#[track_caller]
fn echo(stage: &Stage, socket: &UdpSocket) -> Left {
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    socket.send_to(&buffer[..length], from).unwrap();
    stage.left()
}

#[track_caller]
fn assert_echo(stage: &Stage, socket: &UdpSocket, port: u16, by: &Via, expected: Option<&Via>) {
    let address = socket.local_addr().unwrap().ip().to_string();
    stage.send(&by.wrap(&datagram(port, (&address, PORT), b"ping")));
    let left = echo(stage, socket);
    assert_eq!(left.to.1, port);
    assert_eq!(left.segment.payload, b"ping");
    assert_eq!(left.path(), expected);
}

#[test]
fn each_peer_is_answered_by_its_own_path() {
    if !require(&[]) {
        return;
    }
    for address in SERVER {
        let mut stage = Stage::new(0);
        let gateways = if address.contains(':') {
            [GATEWAYS[0], GATEWAYS[1]]
        } else {
            ["10.9.0.1", "10.9.0.2"]
        };
        let paths = [
            via(gateways[0]),
            via_udp(gateways[1], 6080, &[1, 2, 3, 4, 5, 6, 7, 8]),
        ];
        for path in &paths {
            stage.tunnel(path, !address.contains(':'), TunnelSpec::FIXED);
        }
        let socket = stage.on_host(|| bind(address));
        reflects(&socket);
        for (port, path) in [(FIRST, 0), (SECOND, 1), (FIRST, 0), (SECOND, 1)] {
            let path = &paths[path];
            assert_echo(&stage, &socket, port, path, Some(path));
        }
        assert_eq!(stage.event(Event::ReflectCaptured), 2);
        assert_eq!(stage.loaded.reflected().unwrap().len(), 2);
        // Without a policy no peer's replies move.
        assert_echo(&stage, &socket, FIRST, &paths[1], Some(&paths[0]));
        assert_eq!(stage.event(Event::ReflectRefused), 1);
        assert_eq!(stage.event(Event::ReflectMoved), 0);
        // Packets by an exit of a peer count in the socket's storage.
        assert_eq!(crate::client::info(&socket).encapsulated, 5);
        assert_eq!(mark(&socket), 0);
        // Others are answered as ever.
        stage.send(&datagram(42002, (address, PORT), b"ping"));
        assert_eq!(echo(&stage, &socket).via, None);
        assert!(stage.counted(Reason::NoGateway) >= 1);
    }
}

#[test]
fn a_peer_that_may_be_followed_is_followed() {
    if !require(&[]) {
        return;
    }
    let mut stage = Stage::new(0);
    let [first, second, third] = GATEWAYS.map(via);
    stage.tunnel(&first, false, TunnelSpec::FIXED);
    let cgroup = stage.cgroup();
    allow(&mut stage, cgroup, REFLECT_PATH);
    let socket = stage.on_host(|| bind(SERVER[0]));
    assert_echo(&stage, &socket, FIRST, &first, Some(&first));
    assert_echo(&stage, &socket, FIRST, &second, Some(&second));
    assert_echo(&stage, &socket, FIRST, &third, Some(&second));
    assert_echo(&stage, &socket, SECOND, &third, Some(&third));
    assert_eq!(stage.event(Event::ReflectCaptured), 2);
    assert_eq!(stage.event(Event::ReflectMoved), 1);
    assert_eq!(stage.event(Event::ReflectRefused), 1);
}

#[test]
fn a_connected_socket_has_its_peers_path_as_its_own() {
    if !require(&[]) {
        return;
    }
    let mut stage = Stage::new(0);
    let [first, second, third] = GATEWAYS.map(via);
    stage.tunnel(&first, false, TunnelSpec::FIXED);
    let cgroup = stage.cgroup();
    allow(&mut stage, cgroup, 0);
    let socket = stage.on_host(|| {
        let socket = bind(SERVER[0]);
        socket.connect((super::stage::CLIENT[0], FIRST)).unwrap();
        socket
    });
    // Its cgroup reflects nothing by itself.
    assert_echo(&stage, &socket, FIRST, &first, None);
    reflects(&socket);
    assert_echo(&stage, &socket, FIRST, &first, Some(&first));
    assert_eq!(get(&socket, ENCAP_GW, 16).unwrap(), gateway(&first));
    assert_echo(&stage, &socket, FIRST, &second, Some(&second));
    assert_echo(&stage, &socket, FIRST, &third, Some(&second));
    assert_eq!(stage.loaded.reflected().unwrap(), []);
    for (event, count) in [
        (Event::ReflectCaptured, 1),
        (Event::ReflectMoved, 1),
        (Event::ReflectRefused, 1),
    ] {
        assert_eq!(stage.event(event), count, "{event:?}");
    }
}

#[test]
fn entries_of_one_cgroup_are_invisible_to_another() {
    if !require(&[]) {
        return;
    }
    let mut stage = Stage::new(0);
    let path = via(GATEWAYS[0]);
    stage.tunnel(&path, false, TunnelSpec::FIXED);
    let ids = ["one", "two"].map(|name| stage.make_cgroup(name));
    let socket = stage.inside("one", || bind(SERVER[0]));
    stage.inside("one", || reflects(&socket));
    assert_echo(&stage, &socket, FIRST, &path, Some(&path));
    let entries = stage.loaded.reflected().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].1.cgroup, ids[0]);
    drop(socket);

    // The same port, another tenant: the other's entry is still there and not for it.
    let socket = stage.inside("two", || bind(SERVER[0]));
    stage.send(&datagram(FIRST, (SERVER[0], PORT), b"ping"));
    assert_eq!(echo(&stage, &socket).via, None);
    // Not even once it reflects, until its own peer comes by a path.
    stage.inside("two", || reflects(&socket));
    stage.send(&path.wrap(&datagram(SECOND, (SERVER[0], PORT), b"ping")));
    assert_eq!(echo(&stage, &socket).via.as_ref(), Some(&path));
    stage.send(&datagram(FIRST, (SERVER[0], PORT), b"ping"));
    assert_eq!(echo(&stage, &socket).via, None);
    let entries = stage.loaded.reflected().unwrap();
    let owners: Vec<u64> = entries.iter().map(|(_, entry)| entry.cgroup).collect();
    assert_eq!(owners.len(), 2);
    assert!(ids.iter().all(|id| owners.contains(id)));
}

/// The helper that makes a socket's storage answers one of two CPUs that come at once with null.
#[test]
fn the_first_datagrams_of_two_peers_that_come_at_once_are_both_captured() {
    const SOCKETS: u16 = 2000;
    if !require(&[]) {
        return;
    }
    let path = via(GATEWAYS[0]);
    let mut stage = Stage::sized(0, 2 * u32::from(SOCKETS));
    stage.tunnel(&path, false, TunnelSpec::FIXED);
    let cgroup = stage.cgroup();
    // Asked for by policy: nothing makes the storage before they come.
    allow(&mut stage, cgroup, REFLECT_PATH);
    let ports = || 20_000..20_000 + SOCKETS;
    let sockets: Vec<UdpSocket> = stage.on_host(|| {
        let bind = |port| UdpSocket::bind((SERVER[0], port)).unwrap();
        ports().map(bind).collect()
    });
    // Sleepers would wake one after the other.
    let arrived = AtomicUsize::new(0);
    thread::scope(|scope| {
        for peer in [FIRST, SECOND] {
            let (stage, path, arrived) = (&stage, &path, &arrived);
            scope.spawn(move || {
                for (turn, port) in (1..).zip(ports()) {
                    let packet = path.wrap(&datagram(peer, (SERVER[0], port), b"ping"));
                    arrived.fetch_add(1, Ordering::SeqCst);
                    while arrived.load(Ordering::SeqCst) < 2 * turn {
                        hint::spin_loop();
                    }
                    stage.send(&packet);
                }
            });
        }
    });
    for socket in &sockets {
        socket
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        for _ in [FIRST, SECOND] {
            socket.recv(&mut [0; 64]).unwrap();
        }
    }
    let captured = stage.event(Event::ReflectCaptured);
    assert_eq!(captured, 2 * u64::from(SOCKETS));
}

//! Connections that are over: their exits are kept under the flow of their packets.

use crate::{
    client::{assert_events, listener, octets, on_loopback, policy, put, set},
    replay,
    require::require,
};
use dynencap_abi::{Event, Exit, FlowKey, option::ENCAP_GW};
use dynencap_kernel::Replay;
use socket2::{Domain, Socket, Type};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

const GATEWAY: &str = "2001:db8:9::9";

fn exit() -> Vec<u8> {
    let exit = Exit {
        gateway: octets(GATEWAY),
        flags: Exit::GATEWAY,
        ..Exit::NONE
    };
    exit.to_bytes().to_vec()
}

/// The flow of the packets from `source` to `destination`; a mapped address is IPv4's.
fn flow(source: SocketAddr, destination: SocketAddr) -> FlowKey {
    let is_ipv4 = source.ip().to_canonical().is_ipv4();
    let octets = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    FlowKey {
        source: octets(source.ip()),
        destination: octets(destination.ip()),
        source_port: source.port().to_be_bytes(),
        destination_port: destination.port().to_be_bytes(),
        protocol: 6,
        version: if is_ipv4 { 4 } else { 6 },
        reserved: [0; 2],
    }
}

fn kept(replay: &mut Replay, flow: &FlowKey) -> Option<Vec<u8>> {
    let loaded = replay.loaded_mut().unwrap();
    loaded.closing_exit(flow).unwrap().map(|exit| exit.to_vec())
}

fn address(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

/// With a reset, so that the connection is over on both sides when this returns.
fn abort(socket: Socket) {
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_connections_exit_is_kept_over_each_ip_version() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    for (listen, connect, domain) in [
        ("[::1]:0", "::1", Domain::IPV6),
        ("127.0.0.1:0", "127.0.0.1", Domain::IPV4),
        ("127.0.0.1:0", "::ffff:127.0.0.1", Domain::IPV6),
    ] {
        let flow = on_loopback(&replay, || {
            let (listener, mut to) = listener(listen);
            to.set_ip(connect.parse().unwrap());
            let client = Socket::new(domain, Type::STREAM, None).unwrap();
            client.connect(&to.into()).unwrap();
            set(&client, ENCAP_GW, &octets(GATEWAY)).unwrap();
            let flow = flow(address(&client), to);
            let (server, _) = listener.accept().unwrap();
            // The client closes first and is in TIME_WAIT when the server has closed too.
            drop(client);
            drop(server);
            flow
        });
        // The last segment may still be on its way through the loopback's backlog.
        let found = (0..100).find_map(|_| {
            kept(&mut replay, &flow).or_else(|| {
                std::thread::sleep(Duration::from_millis(50));
                None
            })
        });
        assert_eq!(found, Some(exit()), "{connect}");
        let other = kept(&mut replay, &flow.reversed());
        assert_eq!(other, None, "the server had no exit");
    }
    let events = [(Event::OptionSet, 3), (Event::ExitKept, 3)];
    assert_events(&mut replay, &events);
}

#[test]
fn a_connections_exit_has_the_source_of_its_policy_in_the_gateways_family() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let id = replay.make_cgroup("tenant").unwrap();
    let mut rules = policy(7);
    rules.source = octets("2001:db8:5::7");
    put(&mut replay, id, &rules, &[("::", 0, 1)]);
    let ipv6 = exit_kept_of(&mut replay, "tenant", &octets(GATEWAY));
    assert_eq!(ipv6[16..32], octets("2001:db8:5::7"));
    let ipv4 = exit_kept_of(&mut replay, "tenant", &[192, 0, 2, 9]);
    assert_eq!(ipv4[..16], octets("192.0.2.9"));
    assert_eq!(ipv4[16..32], [0; 16], "none for IPv4");
    assert_eq!(ipv4[68], Exit::GATEWAY | Exit::IPV4);

    rules.source4 = [192, 0, 2, 7];
    put(&mut replay, id, &rules, &[]);
    let ipv4 = exit_kept_of(&mut replay, "tenant", &[192, 0, 2, 9]);
    assert_eq!(ipv4[16..32], octets("192.0.2.7"));
}

/// What is kept of a connection made in that cgroup, which sets this gateway and is over.
fn exit_kept_of(replay: &mut Replay, cgroup: &str, gateway: &[u8]) -> Vec<u8> {
    replay.enter_cgroup(cgroup).unwrap();
    let flow = on_loopback(replay, || {
        let (_listener, to) = listener("[::1]:0");
        let client = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        client.connect(&to.into()).unwrap();
        set(&client, ENCAP_GW, gateway).unwrap();
        let flow = flow(address(&client), to);
        abort(client);
        flow
    });
    replay.enter_cgroup("").unwrap();
    kept(replay, &flow).unwrap()
}

#[test]
fn an_accepted_connection_keeps_what_it_has_of_its_listener() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let flow = on_loopback(&replay, || {
        let (listener, to) = listener("[::1]:0");
        set(&listener, ENCAP_GW, &octets(GATEWAY)).unwrap();
        let client = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        client.connect(&to.into()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let flow = flow(to, address(&client));
        abort(server);
        flow
    });
    assert_eq!(kept(&mut replay, &flow), Some(exit()));
    assert_eq!(kept(&mut replay, &flow.reversed()), None);
}

#[test]
fn a_new_connection_of_the_same_flow_forgets_what_was_kept() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let (listener, to, from) = on_loopback(&replay, || {
        let (listener, to) = listener("[::1]:0");
        let client = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        client.connect(&to.into()).unwrap();
        set(&client, ENCAP_GW, &octets(GATEWAY)).unwrap();
        let from = address(&client);
        abort(client);
        (listener, to, from)
    });
    let flow = flow(from, to);
    assert_eq!(kept(&mut replay, &flow), Some(exit()));
    let client = on_loopback(&replay, || {
        let client = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        client.bind(&from.into()).unwrap();
        client.connect(&to.into()).unwrap();
        client
    });
    assert_eq!(kept(&mut replay, &flow), None);
    // One without an exit leaves nothing behind.
    abort(client);
    assert_eq!(kept(&mut replay, &flow), None);
    drop(listener);
}

#[test]
fn a_connection_that_never_came_to_be_is_kept_too() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let flow = on_loopback(&replay, || {
        let (listener, to) = listener("[::1]:0");
        drop(listener);
        let client = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        client
            .bind(&"[::1]:0".parse::<SocketAddr>().unwrap().into())
            .unwrap();
        set(&client, ENCAP_GW, &octets(GATEWAY)).unwrap();
        let flow = flow(address(&client), to);
        assert!(client.connect(&to.into()).is_err());
        flow
    });
    assert_eq!(kept(&mut replay, &flow), Some(exit()));
}

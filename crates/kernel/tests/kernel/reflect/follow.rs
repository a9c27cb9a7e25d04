//! The client's path changes in mid-connection: who may move the replies, and which segment does.

use super::{
    packet::{ACK, RST, SYN, Segment, Via, tcp, via},
    stage::{Client, GATEWAYS, SERVER, Stage},
    tcp::{PORT, accept, assert_via, server},
};
use crate::{
    client::{octets, policy},
    require::require,
};
use dynencap_abi::{
    Config, Event, POLICY_EXIT_CHOOSE, POLICY_EXIT_FOLLOW, POLICY_EXIT_REFLECT, PolicyExitKey,
    TunnelSpec, option::REFLECT_PATH,
};
use std::io::Write;

/// The first two gateways may be followed, the third may only begin a connection.
pub(super) fn allow(stage: &mut Stage, cgroup: u64, reflect: u32) {
    let follow = POLICY_EXIT_REFLECT | POLICY_EXIT_FOLLOW;
    for (gateway, bits) in [
        (GATEWAYS[0], follow),
        (GATEWAYS[1], follow),
        (GATEWAYS[2], POLICY_EXIT_REFLECT),
    ] {
        let key = PolicyExitKey {
            prefix_len: 32 + 128,
            policy: 7,
            address: octets(gateway),
        };
        stage.loaded.set_policy_exit(&key, bits).unwrap();
    }
    let mut rules = policy(7);
    rules.reflect = reflect;
    stage.loaded.set_policy(cgroup, &rules).unwrap();
    stage.loaded.raise_policy_generation().unwrap();
}

/// A stage whose own cgroup reflects by policy.
fn stage() -> Stage {
    let mut stage = Stage::new(0);
    for gateway in GATEWAYS {
        stage.tunnel(&via(gateway), false, TunnelSpec::FIXED);
    }
    let cgroup = stage.cgroup();
    allow(&mut stage, cgroup, REFLECT_PATH);
    stage
}

#[test]
fn replies_move_with_the_newest_segment_and_with_no_other() {
    if !require(&[]) {
        return;
    }
    let stage = stage();
    let [first, second, _] = GATEWAYS.map(via);
    let listener = server(&stage, SERVER[0]);
    let mut client = Client::new(&stage, 41000, (SERVER[0], PORT));
    assert_eq!(client.connect(&first).as_ref(), Some(&first));
    let mut server = accept(&listener);
    // Acknowledged at once, so that the server repeats nothing.
    let next = |client: &mut Client<'_>, server: &mut std::net::TcpStream, path: &Via| {
        server.write_all(b"x").unwrap();
        let left = client.receive();
        assert_via(&left, path);
        client.send(path, ACK, &[]);
    };
    next(&mut client, &mut server, &first);

    // New data by another path: the very ACK of it goes there.
    let late = client.packet(ACK, b"by the first");
    client.send(&second, ACK, b"by the second");
    assert_via(&stage.left(), &second);
    assert_eq!(stage.event(Event::ReflectMoved), 1);
    // What was under way by the first path comes late: it fills the hole, and moves nothing.
    stage.send(&first.wrap(&late));
    let answer = stage.left();
    assert_via(&answer, &second);
    assert_eq!(answer.segment.acknowledgement, client.sequence);
    assert_eq!(stage.event(Event::ReflectIgnored), 1);
    next(&mut client, &mut server, &second);

    // Forged: out of the window, behind it, for what was never sent, a reset, a SYN.
    let forge = |sequence: u32, acknowledgement: u32, flags: u8| {
        let segment = Segment {
            sequence,
            acknowledgement,
            flags,
            payload: Vec::new(),
        };
        stage.send(&first.wrap(&tcp(client.own, client.server, 0, &segment)));
    };
    let (sequence, expected) = (client.sequence, client.expected);
    for (sequence, acknowledgement, flags) in [
        (sequence.wrapping_add(1 << 20), expected, ACK),
        (sequence.wrapping_sub(1), expected, ACK),
        (sequence, expected.wrapping_add(1000), ACK),
        (sequence, expected.wrapping_sub(1000), ACK),
        (sequence.wrapping_add(7), expected, RST | ACK),
        (sequence.wrapping_add(7), expected, SYN | ACK),
    ] {
        forge(sequence, acknowledgement, flags);
    }
    assert_eq!(stage.event(Event::ReflectIgnored), 7);
    assert_eq!(stage.event(Event::ReflectMoved), 1);
    // Challenge ACKs, if any, go the same way.
    while let Some(left) = stage.left_within(std::time::Duration::from_millis(100)) {
        assert_via(&left, &second);
    }

    // A bare ACK of something new is newer too.
    server.write_all(b"y").unwrap();
    assert_via(&client.receive(), &second);
    client.send(&first, ACK, &[]);
    next(&mut client, &mut server, &first);
    assert_eq!(stage.event(Event::ReflectMoved), 2);
    assert_eq!(stage.event(Event::ReflectRefused), 0);
}

#[test]
fn only_who_may_be_followed_is_followed() {
    if !require(&[]) {
        return;
    }
    let mut stage = stage();
    let [first, second, third] = GATEWAYS.map(via);
    let listener = server(&stage, SERVER[0]);
    let reply = |client: &mut Client<'_>, server: &mut std::net::TcpStream, path: &Via| {
        client.send(path, ACK, b"hello");
        assert_eq!(client.receive().segment.payload, [0; 0]);
        server.write_all(b"x").unwrap();
        client.receive().path().cloned()
    };
    let mut client = Client::new(&stage, 41001, (SERVER[0], PORT));
    // It may begin a connection.
    assert_eq!(client.connect(&third).as_ref(), Some(&third));
    let mut server = accept(&listener);
    assert_eq!(
        reply(&mut client, &mut server, &second),
        Some(second.clone())
    );
    assert_eq!(
        reply(&mut client, &mut server, &third),
        Some(second.clone())
    );
    assert_eq!(stage.event(Event::ReflectMoved), 1);
    assert_eq!(stage.event(Event::ReflectRefused), 1);
    drop(server);

    // Without a policy nobody is followed.
    let cgroup = stage.cgroup();
    stage.loaded.remove_policy(cgroup).unwrap();
    stage.loaded.raise_policy_generation().unwrap();
    let mut client = Client::new(&stage, 41002, (SERVER[0], PORT));
    assert_eq!(client.connect(&first).as_ref(), Some(&first));
    let mut server = accept(&listener);
    assert_eq!(
        reply(&mut client, &mut server, &second),
        Some(first.clone())
    );
    assert_eq!(stage.event(Event::ReflectMoved), 1);
    assert_eq!(stage.event(Event::ReflectRefused), 2);
}

#[test]
fn a_gateway_that_a_policy_does_not_let_reflect_is_not_captured() {
    if !require(&[]) {
        return;
    }
    let mut stage = stage();
    let key = PolicyExitKey {
        prefix_len: 32 + 128,
        policy: 7,
        address: octets(GATEWAYS[0]),
    };
    // That applications may choose it says nothing.
    stage
        .loaded
        .set_policy_exit(&key, POLICY_EXIT_CHOOSE)
        .unwrap();
    let listener = server(&stage, SERVER[0]);
    let mut client = Client::new(&stage, 41003, (SERVER[0], PORT));
    assert_eq!(client.connect(&via(GATEWAYS[0])), None);
    let mut server = accept(&listener);
    server.write_all(b"x").unwrap();
    assert_eq!(client.receive().via, None);
    assert_eq!(stage.event(Event::ReflectCaptured), 0);
    assert!(stage.event(Event::ReflectRefused) >= 2, "SYN and ACK");
    drop(server);

    // One that was let and is no longer: nothing leaves, least of all in the clear.
    let second = via(GATEWAYS[1]);
    let mut client = Client::new(&stage, 41004, (SERVER[0], PORT));
    assert_eq!(client.connect(&second).as_ref(), Some(&second));
    let mut server = accept(&listener);
    let key = PolicyExitKey {
        address: octets(GATEWAYS[1]),
        ..key
    };
    stage
        .loaded
        .set_policy_exit(&key, POLICY_EXIT_CHOOSE)
        .unwrap();
    stage.loaded.raise_policy_generation().unwrap();
    server.write_all(b"x").unwrap();
    stage.nothing_left_for(41004);
}

#[test]
fn without_a_policy_reflection_is_what_everything_else_is() {
    if !require(&[]) {
        return;
    }
    let mut stage = Stage::new(Config::DENY_BY_DEFAULT);
    let path = via(GATEWAYS[0]);
    stage.tunnel(&path, false, TunnelSpec::FIXED);
    let listener = stage.on_host(|| std::net::TcpListener::bind((SERVER[0], PORT)).unwrap());
    let bits = REFLECT_PATH.to_ne_bytes();
    let option = dynencap_abi::option::ENCAP_REFLECT;
    assert_eq!(
        crate::client::set(&listener, option, &bits),
        Err(dynencap_abi::option::EPERM)
    );
    assert_eq!(crate::client::set(&listener, option, &[0; 4]), Ok(()));
    assert_eq!(crate::client::set(&listener, option, &[]), Ok(()));
    let mut client = Client::new(&stage, 41005, (SERVER[0], PORT));
    assert_eq!(client.connect(&path), None);
}

//! TCP: from the SYN-ACK to the last ACK a connection's packets mirror the outer headers of its
//! SYN, whatever the server does.

use super::{
    packet::{ACK, FIN, Left, RST, SYN, Via, via, via_udp},
    stage::{Client, GATEWAYS, SERVER, Stage, gateway},
};
use crate::{
    client::{get, mark, policy, set},
    require::require,
};
use dynencap_abi::{
    Event, Reason, TunnelSpec,
    option::{ENCAP_GW, ENCAP_REFLECT, ENCAP_UDP, REFLECT_DSCP, REFLECT_MARK, REFLECT_PATH},
};
use dynencap_kernel::Feature;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

pub(crate) const PORT: u16 = 7000;
/// 4 bytes of GUE with 4 of private data, for IPv6.
const GUE: [u8; 8] = [0x01, 41, 0, 0, 0xca, 0xfe, 0xba, 0xbe];
/// Geneve with VNI 0x123456 and one option, for IPv6.
const GENEVE: [u8; 16] = [
    2, 0, 0x86, 0xdd, 0x12, 0x34, 0x56, 0, 0x01, 0x02, 0x03, 1, 9, 8, 7, 6,
];

/// A server on the host that reflects.
pub(crate) fn server(stage: &Stage, address: &str) -> TcpListener {
    stage.on_host(|| {
        let listener = TcpListener::bind((address, PORT)).unwrap();
        set(&listener, ENCAP_REFLECT, &REFLECT_PATH.to_ne_bytes()).unwrap();
        listener
    })
}

pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    let (server, _) = listener.accept().unwrap();
    server.set_nodelay(true).unwrap();
    server
}

#[track_caller]
pub(crate) fn assert_via(left: &Left, via: &Via) {
    assert_eq!(left.path(), Some(via));
}

/// A connection by each path, to a server there, with nothing left over from those before.
#[track_caller]
fn each_mirrors(cases: &[(Via, u8, &str)]) {
    let mut stage = Stage::new(0);
    for (number, (path, format, server_at)) in (1..).zip(cases) {
        mirrors(&mut stage, number, path, *format, server_at);
    }
}

/// The connection of this number, from its SYN to TIME_WAIT's last ACK.
#[track_caller]
fn mirrors(stage: &mut Stage, number: u16, path: &Via, format: u8, server_at: &str) {
    stage.tunnel(path, !server_at.contains(':'), format);
    let listener = server(stage, server_at);
    let mut client = Client::new(stage, 40000 + number, (server_at, PORT));
    let answer = client.connect(path);
    assert_eq!(answer.as_ref(), Some(path));

    // The server speaks first.
    let mut server = accept(&listener);
    server.write_all(b"welcome").unwrap();
    let greeting = client.receive();
    assert_via(&greeting, path);
    assert_eq!(greeting.segment.payload, b"welcome");
    client.send(path, ACK, b"hello");
    assert_via(&client.receive(), path);
    let mut read = [0; 5];
    server.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"hello");

    // It closes; the ACK of the client's FIN comes from TIME_WAIT.
    drop(server);
    let fin = client.receive();
    assert_eq!(fin.segment.flags & FIN, FIN);
    assert_via(&fin, path);
    client.send(path, ACK, &[]);
    client.send(path, FIN | ACK, &[]);
    let last = client.receive();
    assert_via(&last, path);
    assert_eq!(last.segment.payload, [0; 0]);
    assert_eq!(stage.event(Event::ReflectCaptured), u64::from(number));
    assert_eq!(stage.event(Event::ReflectTaken), u64::from(number));
    assert_eq!(stage.loaded.reflected().unwrap(), []);
    assert_eq!(stage.counted(Reason::NoGateway), 0);
}

#[test]
fn every_packet_from_the_syn_ack_to_the_last_leaves_as_the_syn_came() {
    if !require(&[]) {
        return;
    }
    let [gateway, ..] = GATEWAYS;
    let vxlan = [0x0c, 0, 0, 2, 0x12, 0x34, 0x56, 0];
    let fixed = TunnelSpec::FIXED;
    each_mirrors(&[
        (via(gateway), fixed, SERVER[0]),
        (via("10.9.0.1"), fixed, SERVER[1]),
        (via_udp(gateway, 6080, &[]), fixed, SERVER[0]),
        (via_udp(gateway, 4790, &vxlan), fixed, SERVER[0]),
        (via_udp(gateway, 6080, &GUE), TunnelSpec::GUE, SERVER[0]),
        (
            via_udp(gateway, 6081, &GENEVE),
            TunnelSpec::GENEVE,
            SERVER[0],
        ),
    ]);
}

#[test]
fn the_outer_headers_may_be_of_the_other_ip_version() {
    if !require(&[Feature::DecapsulateIpv4]) {
        return;
    }
    let [gateway, ..] = GATEWAYS;
    let geneve = via_udp("10.9.0.1", 6081, &GENEVE);
    each_mirrors(&[
        (via(gateway), TunnelSpec::FIXED, SERVER[1]),
        (via("10.9.0.1"), TunnelSpec::FIXED, SERVER[0]),
        (geneve, TunnelSpec::GENEVE, SERVER[0]),
    ]);
}

#[test]
fn syn_cookies_and_retransmitted_syn_acks_leave_as_the_syn_came() {
    if !require(&[]) {
        return;
    }
    let path = via(GATEWAYS[0]);
    let mut stage = Stage::new(0);
    stage.tunnel(&path, false, TunnelSpec::FIXED);
    for (number, cookies) in (1..).zip(["2", "0"]) {
        stage.sysctl("ipv4/tcp_syncookies", cookies);
        let listener = server(&stage, SERVER[0]);
        let mut client = Client::new(&stage, 40010 + number, (SERVER[0], PORT));
        client.send(&path, SYN, &[]);
        let first = client.receive();
        assert_via(&first, &path);
        if cookies == "0" {
            let again = client.receive();
            assert_eq!(again, first, "after a second");
        }
        client.send(&path, ACK, b"hello");
        let mut server = accept(&listener);
        assert_via(&client.receive(), &path);
        server.write_all(b"welcome").unwrap();
        assert_via(&client.receive(), &path);
        assert_eq!(stage.event(Event::ReflectTaken), u64::from(number));
    }
}

#[test]
fn a_syn_ack_by_cookie_has_no_exit_of_the_connection_before() {
    if !require(&[]) {
        return;
    }
    let [first, second, _] = GATEWAYS.map(via);
    let mut stage = Stage::new(0);
    stage.tunnel(&first, false, TunnelSpec::FIXED);
    stage.sysctl("ipv4/tcp_syncookies", "2");
    let listener = server(&stage, SERVER[0]);
    let mut client = Client::new(&stage, 40012, (SERVER[0], PORT));
    assert_eq!(client.connect(&first).as_ref(), Some(&first));
    // The client closes first, so that nothing but the exit is left of the connection.
    let server = accept(&listener);
    client.send(&first, FIN | ACK, &[]);
    assert_via(&client.receive(), &first);
    drop(server);
    assert_via(&client.receive(), &first);
    client.send(&first, ACK, &[]);
    assert_eq!(stage.event(Event::ExitKept), 1);

    let mut client = Client::new(&stage, 40012, (SERVER[0], PORT));
    client.sequence = 900_000;
    assert_eq!(client.connect(&second).as_ref(), Some(&second));
    accept(&listener).write_all(b"welcome").unwrap();
    assert_via(&client.receive(), &second);
}

#[test]
fn the_reset_of_a_refused_connection_leaves_as_the_syn_came() {
    if !require(&[]) {
        return;
    }
    let path = via(GATEWAYS[0]);
    let mut stage = Stage::new(0);
    stage.tunnel(&path, false, TunnelSpec::FIXED);
    let mut client = Client::new(&stage, 40002, (SERVER[0], PORT));
    client.send(&path, SYN, &[]);
    let reset = client.receive();
    assert_eq!(reset.segment.flags & RST, RST);
    assert_via(&reset, &path);
    // What came in the clear is answered in the clear.
    let other = Client::new(&stage, 40003, (SERVER[0], PORT)).packet(SYN, &[]);
    stage.send(&other);
    assert_eq!(stage.left().via, None);
    // The root's policy speaks for the kernel.
    let id = 1;
    stage.loaded.set_policy(id, &policy(9)).unwrap();
    let mut client = Client::new(&stage, 40004, (SERVER[0], PORT));
    client.send(&path, SYN, &[]);
    assert_eq!(client.receive().via, None);
    assert_eq!(stage.event(Event::ReflectRefused), 1);
}

#[test]
fn what_was_not_asked_for_is_not_reflected() {
    if !require(&[]) {
        return;
    }
    let path = via(GATEWAYS[0]);
    // Neither asked for by the socket nor by a policy; off; a tunnel that is not reflected.
    let mut stage = Stage::new(0);
    stage.tunnel(&path, false, TunnelSpec::FIXED);
    for case in 0..3 {
        let listener = server(&stage, SERVER[0]);
        match case {
            0 => set(&listener, ENCAP_REFLECT, &[]).unwrap(),
            1 => set(&listener, ENCAP_REFLECT, &[0; 4]).unwrap(),
            _ => {
                let spec = TunnelSpec {
                    header_len: 0,
                    flags: 0,
                    format: TunnelSpec::FIXED,
                    reserved: 0,
                };
                stage.loaded.add_tunnel(&path.key(false), &spec).unwrap();
            }
        }
        let mut client = Client::new(&stage, 40020 + case, (SERVER[0], PORT));
        assert_eq!(client.connect(&path), None, "{case}");
        let mut server = accept(&listener);
        server.write_all(b"welcome").unwrap();
        assert_eq!(client.receive().via, None, "{case}");
        assert_eq!(stage.loaded.reflected().unwrap(), []);
        assert_eq!(stage.event(Event::ReflectCaptured), 0);
    }
}

#[test]
fn a_listener_is_the_default_of_its_connections_and_each_may_choose() {
    if !require(&[]) {
        return;
    }
    let path = via_udp(GATEWAYS[0], 6080, &[]);
    let mut stage = Stage::new(0);
    stage.tunnel(&path, false, TunnelSpec::FIXED);
    let listener = server(&stage, SERVER[0]);
    let mut client = Client::new(&stage, 40006, (SERVER[0], PORT));
    client.connect(&path);
    let mut server = accept(&listener);
    let reads = get(&server, ENCAP_REFLECT, 4).unwrap();
    assert_eq!(reads, REFLECT_PATH.to_ne_bytes(), "inherited");
    assert_eq!(get(&server, ENCAP_GW, 16).unwrap(), gateway(&path));
    assert_eq!(get(&server, ENCAP_UDP, 4).unwrap(), [0, 0, 0x17, 0xc0]);
    assert_eq!(mark(&server), 0x00b0_0000, "sentinel and 48 bytes");

    // What the application chooses is not followed away from it.
    let chosen = via(GATEWAYS[1]);
    set(&server, ENCAP_UDP, &[]).unwrap();
    set(&server, ENCAP_GW, &gateway(&chosen)).unwrap();
    server.write_all(b"one").unwrap();
    let left = client.receive();
    assert_eq!(left.via.map(|via| via.gateway), Some(chosen.gateway));
    client.send(&path, ACK, b"hello");
    let left = client.receive();
    assert_eq!(left.via.map(|via| via.gateway), Some(chosen.gateway));
    assert_eq!(stage.event(Event::ReflectMoved), 0);
    // Another listener's connections are none of this one's.
    let other = stage.on_host(|| TcpListener::bind((SERVER[0], PORT + 1)).unwrap());
    let mut client = Client::new(&stage, 40007, (SERVER[0], PORT + 1));
    assert_eq!(client.connect(&path), None);
    drop(other);
}

#[test]
fn the_mark_of_a_request_is_that_of_its_exit_where_the_kernel_takes_it() {
    if !require(&[]) {
        return;
    }
    let path = via(GATEWAYS[0]);
    let mut stage = Stage::new(0);
    stage.tunnel(&path, false, TunnelSpec::FIXED);
    for (port, accept_mark) in [(40030, "0"), (40031, "1")] {
        stage.sysctl("ipv4/tcp_fwmark_accept", accept_mark);
        let listener = server(&stage, SERVER[0]);
        let mut client = Client::new(&stage, port, (SERVER[0], PORT));
        assert_eq!(client.connect(&path).as_ref(), Some(&path));
        assert_eq!(mark(&accept(&listener)), 0x00a8_0000);
    }
}

#[test]
fn dscp_and_mark_are_those_of_the_syn() {
    if !require(&[]) {
        return;
    }
    let bits = REFLECT_PATH | REFLECT_DSCP | REFLECT_MARK;
    let without_path = REFLECT_DSCP | REFLECT_MARK;
    let paths = [via(GATEWAYS[0]), via("10.9.0.1")];
    let mut stage = Stage::new(0);
    stage.mark_what_comes(0x1200_0034);
    for (port, asked, server_at, path, ours) in [
        (40040, bits, SERVER[0], &paths[0], 0x00a8_0000),
        (40041, bits, SERVER[1], &paths[1], 0x0094_0000),
        (40042, without_path, SERVER[0], &paths[0], 0),
        (40043, without_path, SERVER[1], &paths[1], 0),
    ] {
        stage.tunnel(path, !server_at.contains(':'), TunnelSpec::FIXED);
        let listener = server(&stage, server_at);
        set(&listener, ENCAP_REFLECT, &asked.to_ne_bytes()).unwrap();
        let mut client = Client::new(&stage, port, (server_at, PORT));
        // DSCP 46, and ECN that is the packet's own.
        client.class = 0xb8 | 1;
        client.send(path, SYN, &[]);
        let answer = client.receive();
        assert_eq!(answer.class, 0xb8, "{asked}");
        client.send(path, ACK, &[]);
        let mut server = accept(&listener);
        server.write_all(b"welcome").unwrap();
        let left = client.receive();
        assert_eq!(left.class, 0xb8, "{asked}");
        assert_eq!(left.via.is_some(), asked & REFLECT_PATH != 0);
        assert_eq!(mark(&server), 0x1200_0034 | ours);
    }
}

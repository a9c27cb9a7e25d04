//! TCP: from the SYN-ACK to the last ACK a connection's packets mirror the outer headers of its
//! SYN, whatever the server does.

use super::{
    packet::{ACK, FIN, Left, RST, SYN, Via, via, via_udp},
    stage::{Client, GATEWAYS, SERVER, Stage},
};
use crate::{
    client::{get, set},
    require::require,
};
use dynencap_abi::{
    Event, Reason, TunnelSpec,
    option::{ENCAP_GW, ENCAP_REFLECT, ENCAP_UDP, REFLECT_PATH},
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

const PORT: u16 = 7000;
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

fn accept(listener: &TcpListener) -> TcpStream {
    let (server, _) = listener.accept().unwrap();
    server.set_nodelay(true).unwrap();
    server
}

#[track_caller]
fn assert_via(left: &Left, via: &Via) {
    assert_eq!(left.via.as_ref(), Some(via));
}

#[test]
fn every_packet_from_the_syn_ack_to_the_last_leaves_as_the_syn_came() {
    if !require(&[]) {
        return;
    }
    let [gateway, ..] = GATEWAYS;
    for (path, format, server_at) in [
        (via(gateway), TunnelSpec::FIXED, SERVER[0]),
        (via(gateway), TunnelSpec::FIXED, SERVER[1]),
        (via("10.9.0.1"), TunnelSpec::FIXED, SERVER[0]),
        (via("10.9.0.1"), TunnelSpec::FIXED, SERVER[1]),
        (via_udp(gateway, 6080, &[]), TunnelSpec::FIXED, SERVER[0]),
        (
            via_udp(gateway, 4790, &[0x0c, 0, 0, 2, 0x12, 0x34, 0x56, 0]),
            TunnelSpec::FIXED,
            SERVER[0],
        ),
        (via_udp(gateway, 6080, &GUE), TunnelSpec::GUE, SERVER[0]),
        (
            via_udp("10.9.0.1", 6081, &GENEVE),
            TunnelSpec::GENEVE,
            SERVER[0],
        ),
    ] {
        let mut stage = Stage::new(0);
        stage.tunnel(&path, !server_at.contains(':'), format);
        let listener = server(&stage, server_at);
        let mut client = Client::new(&stage, 40000, (server_at, PORT));
        let answer = client.connect(&path);
        assert_eq!(answer.as_ref(), Some(&path));

        // The server speaks first.
        let mut server = accept(&listener);
        server.write_all(b"welcome").unwrap();
        let greeting = client.receive();
        assert_via(&greeting, &path);
        assert_eq!(greeting.segment.payload, b"welcome");
        client.send(&path, ACK, b"hello");
        assert_via(&client.receive(), &path);
        let mut read = [0; 5];
        server.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"hello");

        // It closes; the ACK of the client's FIN comes from TIME_WAIT.
        drop(server);
        let fin = client.receive();
        assert_eq!(fin.segment.flags & FIN, FIN);
        assert_via(&fin, &path);
        client.send(&path, ACK, &[]);
        client.send(&path, FIN | ACK, &[]);
        let last = client.receive();
        assert_via(&last, &path);
        assert_eq!(last.segment.payload, [0; 0]);
        assert_eq!(stage.event(Event::ReflectCaptured), 1);
        assert_eq!(stage.event(Event::ReflectTaken), 1);
        assert_eq!(stage.loaded.reflected().unwrap(), []);
        assert_eq!(stage.counted(Reason::NoGateway), 0);
    }
}

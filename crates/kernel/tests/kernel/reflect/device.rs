//! Devices of the kernel take the headers off: TC ingress has captured them, and the ticket comes out
//! with the packet inside.

use super::{
    packet::{ACK, RST, SYN, TUNNEL, Via, via, via_udp},
    stage::{Client, GATEWAYS, SERVER, Stage, datagram},
    tcp::{PORT, accept, assert_via, server},
};
use crate::{client::set, require::require};
use dynencap_abi::{
    Event, Reason, TunnelSpec,
    option::{ENCAP_REFLECT, REFLECT_PATH},
};
use std::{
    io::{Read, Write},
    net::UdpSocket,
};

const KERNELS: u8 = TunnelSpec::KERNEL | TunnelSpec::REFLECT;

/// A host where `device` takes off what comes by this path.
fn behind(device: &[&str], path: &Via, flags: u8) -> Stage {
    let mut stage = Stage::new(0);
    for command in device {
        stage.ip(command);
    }
    stage.tunnel_with(path, false, TunnelSpec::FIXED, flags);
    stage
}

/// VXLAN-GPE takes off a header with any network's number.
fn vxlan() -> [String; 3] {
    [
        format!("-6 route add local {}/128 dev lo", TUNNEL[0]),
        "link add vx0 type vxlan dstport 4790 gpe external udp6zerocsumrx".to_owned(),
        "link set vx0 up".to_owned(),
    ]
}

fn gpe(next_protocol: u8) -> Via {
    let header = [0x0c, 0, 0, next_protocol, 0x12, 0x34, 0x56, 0];
    via_udp(GATEWAYS[0], 4790, &header)
}

/// TCP, UDP and the kernel's own reset go back by the path.
#[track_caller]
fn mirrors(stage: &Stage, path: &Via, address: &str) {
    let listener = server(stage, address);
    let mut client = Client::new(stage, 40020, (address, PORT));
    assert_eq!(client.connect(path).as_ref(), Some(path));
    let mut server = accept(&listener);
    server.write_all(b"welcome").unwrap();
    assert_via(&client.receive(), path);
    client.send(path, ACK, b"hello");
    assert_via(&client.receive(), path);
    let mut read = [0; 5];
    server.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"hello");

    let socket = stage.on_host(|| UdpSocket::bind((address, PORT)).unwrap());
    set(&socket, ENCAP_REFLECT, &REFLECT_PATH.to_ne_bytes()).unwrap();
    stage.send(&path.wrap(&datagram(40021, (address, PORT), b"ping")));
    let (length, from) = socket.recv_from(&mut read).unwrap();
    socket.send_to(&read[..length], from).unwrap();
    let left = stage.left();
    assert_eq!(left.segment.payload, b"ping");
    assert_via(&left, path);

    let mut client = Client::new(stage, 40022, (address, PORT + 1));
    client.send(path, SYN, &[]);
    let reset = client.receive();
    assert_eq!(reset.segment.flags & RST, RST);
    assert_via(&reset, path);

    for event in [Event::ReflectCaptured, Event::ReflectTaken] {
        assert!(stage.event(event) > 0, "{event:?}");
    }
    assert_eq!(stage.counted(Reason::Decapsulated), 0);
}

#[test]
fn behind_seg6local_replies_leave_as_packets_came() {
    if !require(&[]) {
        return;
    }
    let path = via(GATEWAYS[0]);
    let route = format!(
        "-6 route add {}/128 encap seg6local action End.DT6 table 255 dev up0",
        TUNNEL[0]
    );
    mirrors(&behind(&[&route], &path, KERNELS), &path, SERVER[0]);
}

#[test]
fn behind_vxlan_replies_leave_as_packets_came() {
    if !require(&[]) {
        return;
    }
    let device = vxlan();
    for (path, address) in [(gpe(2), SERVER[0]), (gpe(1), SERVER[1])] {
        let stage = behind(
            &device.each_ref().map(|command| &command[..]),
            &path,
            KERNELS,
        );
        mirrors(&stage, &path, address);
    }
}

#[test]
fn what_is_not_to_be_reflected_is_not() {
    if !require(&[]) {
        return;
    }
    let device = vxlan();
    let path = gpe(2);
    let stage = behind(
        &device.each_ref().map(|command| &command[..]),
        &path,
        TunnelSpec::KERNEL,
    );
    let _listener = server(&stage, SERVER[0]);
    let mut client = Client::new(&stage, 40023, (SERVER[0], PORT));
    assert_eq!(client.connect(&path), None);
    assert_eq!(stage.event(Event::ReflectCaptured), 0);
}

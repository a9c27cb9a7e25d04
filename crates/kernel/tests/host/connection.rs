//! TCP connections with a mark take their MSS from the route.

use crate::{
    require::require,
    stage::{SERVER_V4, SERVER_V6, Stage, inside},
};
use dynencap_abi::MARK_SENTINEL;
use dynencap_kernel::{
    host::{self, Plan},
    sys,
};
use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
};
use tokio::net::TcpSocket;

/// A connection from a socket with that mark.
fn connect(to: SocketAddr, mark: u32) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    runtime.block_on(async {
        let socket = match to.ip() {
            IpAddr::V4(_) => TcpSocket::new_v4(),
            IpAddr::V6(_) => TcpSocket::new_v6(),
        }
        .unwrap();
        sys::set_option(
            socket.as_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            &mark.to_ne_bytes(),
        )
        .unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    })
}

fn mss(stream: &TcpStream) -> u32 {
    let value = sys::option(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_MAXSEG, 4).unwrap();
    u32::from_ne_bytes(value.try_into().unwrap())
}

#[test]
fn marked_connections_have_the_mss_of_their_overhead() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    let plan = Plan::new("up0", [40, 48, 56, 80]);
    inside(&stage.host, || host::install(&plan)).unwrap();
    for (server, headers) in [(SERVER_V4, 40), (SERVER_V6, 60)] {
        let address = SocketAddr::new(server.parse().unwrap(), 4433);
        let listener = inside(&stage.peer, || TcpListener::bind(address)).unwrap();
        // All of them at once.
        let mut open = Vec::new();
        for overhead in [0, 40, 48, 56, 80] {
            let mark = match overhead {
                0 => 0,
                _ => Plan::mark(overhead) | MARK_SENTINEL | 0x55,
            };
            let client = inside(&stage.host, || connect(address, mark));
            let (accepted, _) = listener.accept().unwrap();
            open.push((overhead, client, accepted));
        }
        for (overhead, client, accepted) in &open {
            let expected = 1500 - u32::from(*overhead) - headers;
            // What the client sends, by its route's MTU; what it advertised, by its route's MSS.
            assert_eq!((*overhead, mss(client)), (*overhead, expected));
            assert_eq!((*overhead, mss(accepted)), (*overhead, expected));
        }
    }
}

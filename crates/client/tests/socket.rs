//! Sockets where nothing is installed: the errors are typed. What sockets do where dynencap is
//! installed is tested with the programs (crates/ctl, crates/e2e).

#![allow(
    clippy::unwrap_used,
    reason = "a test: clippy exempts only functions marked as such"
)]

use dynencap::{Error, Exit, ExitSocket, Reflect};
use std::{
    net::{TcpListener, UdpSocket},
    os::unix::net::UnixDatagram,
};

#[test]
fn without_the_programs_every_call_says_so() {
    let exit: Exit = "2001:db8::1/udp:6080".parse().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    if udp.exit().is_ok() {
        eprintln!("skipped: dynencap is installed for this test's cgroup");
        return;
    }
    let sockets: [&dyn ExitSocket; 2] = [&udp, &tcp];
    for socket in sockets {
        assert!(matches!(socket.set_exit(&exit), Err(Error::NotInstalled)));
        assert!(matches!(socket.clear_exit(), Err(Error::NotInstalled)));
        assert!(matches!(socket.exit(), Err(Error::NotInstalled)));
        assert!(matches!(socket.exit_info(), Err(Error::NotInstalled)));
        for reflect in [None, Some(Reflect::PATH)] {
            let set = socket.set_reflect(reflect);
            assert!(matches!(set, Err(Error::NotInstalled)));
        }
        assert!(matches!(socket.reflect(), Err(Error::NotInstalled)));
    }
    let local = UnixDatagram::unbound().unwrap();
    assert!(matches!(local.set_exit(&exit), Err(Error::Unsupported)));
    let text = udp.set_exit(&exit).unwrap_err().to_string();
    assert!(text.contains("dynencap is not installed here"), "{text}");
}

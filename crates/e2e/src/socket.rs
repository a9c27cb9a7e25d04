//! Sockets of the agents: made without connecting, so that options can be set before, and
//! options by number.

use dynencap_kernel::sys;
use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr, os::fd::AsFd};

/// `SOL_SOCKET`.
pub const SOL_SOCKET: i32 = 1;
/// `SO_MARK`.
pub const SO_MARK: i32 = 36;
/// `SOL_TCP`.
pub const SOL_TCP: i32 = 6;
/// `SOL_UDP`.
pub const SOL_UDP: i32 = 17;

/// A TCP socket of the address's family.
#[must_use]
pub fn tcp(peer: SocketAddr) -> Socket {
    Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP)).expect("socket")
}

/// A UDP socket of the address's family.
#[must_use]
pub fn udp(peer: SocketAddr) -> Socket {
    Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP)).expect("socket")
}

/// A listener on every address of both families.
#[must_use]
pub fn listener(port: u16) -> Socket {
    let any: SocketAddr = (std::net::Ipv6Addr::UNSPECIFIED, port).into();
    let socket = tcp(any);
    socket.set_only_v6(false).expect("IPV6_V6ONLY");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&any.into()).expect("bind");
    socket.listen(1024).expect("listen");
    socket
}

/// The errno of a call that may fail.
pub fn errno<T>(result: io::Result<T>) -> Result<T, i32> {
    result.map_err(|error| error.raw_os_error().unwrap_or(-1))
}

/// `setsockopt`.
pub fn set(socket: impl AsFd, level: i32, name: i32, value: &[u8]) -> Result<(), i32> {
    errno(sys::set_option(socket.as_fd(), level, name, value))
}

/// `getsockopt`.
pub fn get(socket: impl AsFd, level: i32, name: i32, capacity: usize) -> Result<Vec<u8>, i32> {
    errno(sys::option(socket.as_fd(), level, name, capacity))
}

/// `SO_MARK`.
#[must_use]
pub fn mark(socket: impl AsFd) -> u32 {
    let bytes = get(socket, SOL_SOCKET, SO_MARK, 4).expect("SO_MARK");
    u32::from_ne_bytes(bytes.try_into().expect("4 bytes"))
}

/// What is asked of `TCP_INFO`.
#[derive(Clone, Copy, Debug)]
pub struct TcpInfo {
    /// The segment size in use.
    pub snd_mss: u32,
    /// Segments sent again, over the connection's life.
    pub retransmits: u32,
    /// Path MTU that the connection goes by.
    pub pmtu: u32,
}

/// Reads `TCP_INFO` (linux/tcp.h, `struct tcp_info`: eight bytes, then words).
#[must_use]
pub fn tcp_info(socket: impl AsFd) -> TcpInfo {
    const TCP_INFO: i32 = 11;
    let bytes = get(socket, SOL_TCP, TCP_INFO, 104).expect("TCP_INFO");
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    TcpInfo {
        snd_mss: word(16),
        pmtu: word(60),
        retransmits: word(100),
    }
}

//! The system calls that `std` does not wrap: network namespaces and a few socket options.
//! Owns all of the recorder's unsafe code; what is sent through the sockets is the scenes' affair.

#![expect(
    unsafe_code,
    reason = "setns, AF_PACKET and UDP_SEGMENT have no safe wrapper in std"
)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::net::{TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Moves the calling thread into a new, empty network namespace.
pub(super) fn unshare_network() -> io::Result<()> {
    // SAFETY: takes no pointer and changes only the calling thread's namespace.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Moves the calling thread into an existing network namespace.
pub(super) fn enter_network(namespace: &File) -> io::Result<()> {
    // SAFETY: takes no pointer; the descriptor is open for as long as `namespace` is borrowed, and
    // CLONE_NEWNET makes the kernel refuse any descriptor but a network namespace's.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Makes one `send` of many datagrams: the kernel cuts it every `size` bytes.
pub(super) fn segment_sends(socket: &UdpSocket, size: u16) -> io::Result<()> {
    set_option(
        socket,
        libc::SOL_UDP,
        libc::UDP_SEGMENT,
        &libc::c_int::from(size),
    )
}

/// Makes closing `stream` send RST instead of FIN.
pub(super) fn abort_on_close(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set_option(stream, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// The two versions of ICMP.
#[derive(Clone, Copy)]
pub(super) enum Icmp {
    V4,
    V6,
}

/// A socket for echo requests: the kernel fills in identifier and checksum.
pub(super) fn echo(version: Icmp) -> io::Result<UdpSocket> {
    let (family, protocol) = match version {
        Icmp::V4 => (libc::AF_INET, libc::IPPROTO_ICMP),
        Icmp::V6 => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
    };
    // UdpSocket only wraps connect, send and recv, which a datagram socket of any protocol has.
    open(family, libc::SOCK_DGRAM, protocol).map(UdpSocket::from)
}

/// A socket that reads the frames that arrive at `interface` and writes frames to it.
pub(super) fn packet(interface: &str, patience: Duration) -> io::Result<File> {
    let name = CString::new(interface)?;
    // SAFETY: `name` is a live, NUL-terminated string that the call only reads.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // Protocol 0 receives nothing until bind names both the protocol and the device, so that no
    // frame of another device slips in between.
    let socket = open(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    set_option(
        &socket,
        libc::SOL_PACKET,
        PACKET_IGNORE_OUTGOING,
        &1 as &libc::c_int,
    )?;
    let patience = libc::timeval {
        tv_sec: patience.as_secs() as libc::time_t,
        tv_usec: patience.subsec_micros() as libc::suseconds_t,
    };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &patience)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index as libc::c_int,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a live sockaddr_ll, and the length given is its own.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    })?;
    Ok(File::from(socket))
}

/// `linux/if_packet.h`, since Linux 4.20.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

fn open(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let descriptor = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the call above succeeded, so the descriptor is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn set_option<T: Copy>(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: `value` is a live T, the length given is its own, and the kernel only reads it.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
    .map(drop)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

//! Packet sockets: making, binding, and sending whole frames from pieces.

use super::{check, zero};
use std::{
    ffi::CString,
    io::{self, IoSlice},
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// A device by its index, meaningful in its own namespace alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link(i32);

impl Link {
    /// The device of that name in the calling thread's namespace.
    pub fn named(name: &str) -> io::Result<Self> {
        let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: a terminated string that lives through the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        match i32::try_from(index) {
            Ok(0) => Err(io::Error::last_os_error()),
            Ok(index) => Ok(Self(index)),
            Err(_) => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    }

    /// The index as BPF maps hold it.
    #[must_use]
    pub fn index(self) -> u32 {
        self.0.unsigned_abs()
    }
}

fn address(link: Link, ethertype: u16) -> libc::sockaddr_ll {
    // SAFETY: sockaddr_ll is made of integers.
    let mut address: libc::sockaddr_ll = unsafe { zero() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = link.0;
    address.sll_halen = 6;
    address
}

/// A raw packet socket that receives nothing until it is bound.
pub fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd =
        check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets a packet socket receive the frames of `ethertype` (`ETH_P_ALL`: all) that arrive on
/// `link`.
pub fn bind_packet(socket: BorrowedFd<'_>, link: Link, ethertype: u16) -> io::Result<()> {
    let address = address(link, ethertype);
    // SAFETY: the address is a live sockaddr_ll and the length is its size.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Sends one frame, given in pieces, out of `link`. The kernel copies it before it returns.
pub fn send_frame(
    socket: BorrowedFd<'_>,
    link: Link,
    ethertype: u16,
    pieces: &[IoSlice<'_>],
) -> io::Result<()> {
    let mut address = address(link, ethertype);
    // SAFETY: msghdr is made of integers and pointers; null means "none" for each.
    let mut message: libc::msghdr = unsafe { zero() };
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // IoSlice is ABI-compatible with iovec (std guarantees it on Unix).
    message.msg_iov = pieces.as_ptr().cast_mut().cast();
    message.msg_iovlen = pieces.len() as _;
    loop {
        // SAFETY: the header points to the address and the pieces, which outlive the call;
        // sendmsg writes to neither.
        let result = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

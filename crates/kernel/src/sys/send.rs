//! `sendmmsg(2)`: one datagram many times a call, as fast as a program can send.

use super::{check, zero};
use std::{
    io,
    mem::size_of,
    net::SocketAddrV6,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Copies of one datagram.
pub struct Burst {
    headers: Vec<libc::mmsghdr>,
    // What the headers point to, at addresses of their own on the heap.
    _vector: Box<libc::iovec>,
    _payload: Box<[u8]>,
    _address: Option<Box<libc::sockaddr_in6>>,
}

impl Burst {
    /// At most `count` of `payload` a call, on a connected socket; on any with an address.
    #[must_use]
    pub fn new(payload: &[u8], count: usize, to: Option<SocketAddrV6>) -> Self {
        let mut payload: Box<[u8]> = payload.into();
        let mut vector = Box::new(libc::iovec {
            iov_base: payload.as_mut_ptr().cast(),
            iov_len: payload.len(),
        });
        // SAFETY: mmsghdr is made of integers and pointers; null means "none".
        let mut header: libc::mmsghdr = unsafe { zero() };
        header.msg_hdr.msg_iov = &raw mut *vector;
        header.msg_hdr.msg_iovlen = 1;
        let mut address = to.map(|to| Box::new(address(to)));
        if let Some(address) = &mut address {
            header.msg_hdr.msg_name = (&raw mut **address).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
        }
        Self {
            headers: vec![header; count],
            _vector: vector,
            _payload: payload,
            _address: address,
        }
    }

    /// Sends `count` of them, or as many as one call can; how many went out.
    pub fn send(&mut self, socket: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        let headers = self.headers.get_mut(..count).unwrap_or_default();
        let count = libc::c_uint::try_from(headers.len())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: `count` live headers, each of which points to the address and the vector and,
        // through it, to the payload, which live as long as `self`; the kernel writes to
        // `msg_len` alone.
        let sent =
            check(unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) })?;
        Ok(sent.unsigned_abs() as usize)
    }
}

fn address(to: SocketAddrV6) -> libc::sockaddr_in6 {
    // SAFETY: sockaddr_in6 is made of integers.
    let mut address: libc::sockaddr_in6 = unsafe { zero() };
    address.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    address.sin6_port = to.port().to_be();
    address.sin6_addr.s6_addr = to.ip().octets();
    address
}

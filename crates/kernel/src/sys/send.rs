//! `sendmmsg(2)`: one datagram many times a call, as fast as a program can send.

use super::{check, zero};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Copies of one datagram for a connected socket.
pub struct Burst {
    headers: Vec<libc::mmsghdr>,
    // What the headers point to, at addresses of their own on the heap.
    _vector: Box<libc::iovec>,
    _payload: Box<[u8]>,
}

impl Burst {
    /// At most `count` of `payload` a call.
    #[must_use]
    pub fn new(payload: &[u8], count: usize) -> Self {
        let mut payload: Box<[u8]> = payload.into();
        let mut vector = Box::new(libc::iovec {
            iov_base: payload.as_mut_ptr().cast(),
            iov_len: payload.len(),
        });
        // SAFETY: mmsghdr is made of integers and pointers; null means "none".
        let mut header: libc::mmsghdr = unsafe { zero() };
        header.msg_hdr.msg_iov = &raw mut *vector;
        header.msg_hdr.msg_iovlen = 1;
        Self {
            headers: vec![header; count],
            _vector: vector,
            _payload: payload,
        }
    }

    /// Sends `count` of them, or as many as one call can; how many went out.
    pub fn send(&mut self, socket: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        let headers = self.headers.get_mut(..count).unwrap_or_default();
        let count = libc::c_uint::try_from(headers.len())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: `count` live headers, each of which points to the vector and, through it, to
        // the payload, which live as long as `self`; the kernel writes to `msg_len` alone.
        let sent =
            check(unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) })?;
        Ok(sent.unsigned_abs() as usize)
    }
}

//! `setsockopt(2)` and `getsockopt(2)` with raw values at dynencap's level: the only `unsafe` of
//! the crate. No crate takes raw options safely: each knows the options of the kernel alone.

#![allow(
    unsafe_code,
    reason = "raw system calls; every other module of the crate stays without"
)]

use dynencap_abi::option::SOL_DYNENCAP;
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Sets option `name` to `value`.
pub(crate) fn set(socket: BorrowedFd<'_>, name: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the kernel reads at most `length` bytes, which is the slice's length; the
    // descriptor is open for as long as it is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            SOL_DYNENCAP,
            name,
            value.as_ptr().cast(),
            length,
        )
    };
    check(result)
}

/// Reads option `name` into `buffer` and returns the part that the kernel filled.
pub(crate) fn get<'a>(
    socket: BorrowedFd<'_>,
    name: i32,
    buffer: &'a mut [u8],
) -> io::Result<&'a [u8]> {
    let mut length = libc::socklen_t::try_from(buffer.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the kernel writes at most `length` bytes, which is the buffer's length, and the
    // length itself; the descriptor is open for as long as it is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            SOL_DYNENCAP,
            name,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    check(result)?;
    buffer
        .get(..length as usize)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

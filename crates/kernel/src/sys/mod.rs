//! The only module with `unsafe`: system calls that neither std nor a dependency wraps.
//! Thin: one function a call, an `io::Error` for each failure, no policy.

#![allow(
    unsafe_code,
    reason = "raw system calls; every other module of the crate stays without"
)]

mod bpf;
mod ethtool;
mod packet;
mod receive;
mod send;

pub use bpf::{BpfLink, link_cgroup, link_info, open_pinned, pin, update_link};
pub use ethtool::{offers_checksums, switch_off_offloads};
pub use packet::{Link, bind_packet, packet_socket, send_frame};
pub use receive::{Received, Receiver, SLOT, Vlan};
pub use send::Burst;

use std::{
    io,
    mem::{MaybeUninit, size_of, zeroed},
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_long(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Moves the calling thread into a new network namespace.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: takes no pointer; CLONE_NEWNET concerns the calling thread alone.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Moves the calling thread into the network namespace behind `namespace`.
pub fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as it is borrowed; the kernel checks its type.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// The CPUs on which a thread may run.
#[derive(Clone, Copy)]
pub struct Affinity(libc::cpu_set_t);

impl Affinity {
    /// Those of the calling thread.
    pub fn current() -> io::Result<Self> {
        // SAFETY: cpu_set_t is an array of integers, for which all zero is a value.
        let mut set: libc::cpu_set_t = unsafe { zeroed() };
        // SAFETY: the set is as long as the length says; 0 is the calling thread.
        check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) })?;
        Ok(Self(set))
    }

    /// The CPU on which the calling thread runs now, alone.
    pub fn here() -> io::Result<Self> {
        // SAFETY: no arguments, no effects.
        let cpu = check(unsafe { libc::sched_getcpu() })?;
        let cpu = usize::try_from(cpu).map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        if cpu >= 8 * size_of::<libc::cpu_set_t>() {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        // SAFETY: cpu_set_t is an array of integers, for which all zero is a value.
        let mut set: libc::cpu_set_t = unsafe { zeroed() };
        // SAFETY: the index was checked against the set's size just above.
        unsafe { libc::CPU_SET(cpu, &mut set) };
        Ok(Self(set))
    }

    /// Makes it that of the calling thread.
    pub fn apply(&self) -> io::Result<()> {
        // SAFETY: the set is as long as the length says; 0 is the calling thread.
        check(unsafe {
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.0)
        })
        .map(drop)
    }
}

/// Lifts the limit on open descriptors to the highest that the process may set.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live rlimit.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a live rlimit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// `setsockopt(2)` with any level, name and value.
pub fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the kernel reads at most `length` bytes, which is the slice's length.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            length,
        )
    })
    .map(drop)
}

/// `getsockopt(2)` into a buffer of `capacity` bytes; what the kernel filled of it.
pub fn option(
    socket: BorrowedFd<'_>,
    level: i32,
    name: i32,
    capacity: usize,
) -> io::Result<Vec<u8>> {
    let mut value = vec![0; capacity];
    let length = read_option(socket, level, name, &mut value)?;
    value.truncate(length);
    Ok(value)
}

/// `getsockopt(2)` into a buffer that the kernel reads first, as `MCAST_MSFILTER` has it; how
/// much of it the kernel filled.
pub fn read_option(
    socket: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(value.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the kernel reads and writes at most `length` bytes, which is the slice's length.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    Ok(length as usize)
}

/// Waits until `socket` has something to read; `false` when the time is over or a signal came.
pub fn wait_readable(socket: BorrowedFd<'_>, time: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let milliseconds = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one pollfd, and the count says one.
    match check(unsafe { libc::poll(&raw mut poll, 1, milliseconds) }) {
        Ok(ready) => Ok(ready > 0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// A value of the kernel's in which all zero bytes are allowed.
///
/// # Safety
///
/// `T` must be such a type: integers, raw pointers, and arrays and structs of these.
const unsafe fn zero<T>() -> T {
    // SAFETY: the caller's promise.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

//! Network namespaces without a name: held by a descriptor, so that they vanish with the
//! process, whatever ends it.

use crate::{Error, sys};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    panic, thread,
};

/// A network namespace that lives as long as this value (or a socket in it).
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// An empty one: a loopback device that is down, IPv6 off for every device to come, so
    /// that the kernel itself sends nothing.
    pub fn new() -> Result<Self, Error> {
        let file = on_a_thread(|| {
            sys::unshare_network().map_err(|source| match source.raw_os_error() {
                Some(libc::EPERM) => Error::NotPermitted {
                    action: "making a network namespace",
                    needs: "CAP_SYS_ADMIN",
                },
                _ => Error::Syscall {
                    call: "unshare(CLONE_NEWNET)",
                    source,
                },
            })?;
            silence_ipv6()?;
            File::open("/proc/thread-self/ns/net")
                .map_err(Error::syscall("/proc/thread-self/ns/net"))
        })??;
        Ok(Self { file })
    }

    /// Runs `work` on a thread of its own that has entered the namespace; a panic in it is
    /// the caller's. The caller's own thread stays where it is.
    pub fn in_namespace<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        on_a_thread(|| {
            sys::enter_network(self.as_fd()).map_err(Error::syscall("setns"))?;
            work()
        })?
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("namespace".to_owned())
            .spawn_scoped(scope, work)
            .map_err(Error::syscall("starting a thread"))?;
        match thread.join() {
            Ok(result) => Ok(result),
            Err(payload) => panic::resume_unwind(payload),
        }
    })
}

/// Without it every device that comes up sends router solicitations and MLD reports.
fn silence_ipv6() -> Result<(), Error> {
    match std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") {
        // A kernel without IPv6 has nothing to silence.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::syscall(
            "/proc/sys/net/ipv6/conf/default/disable_ipv6",
        )),
    }
}

//! The lab: two namespaces and the devices between them, a cgroup, and nothing that stays.
//!
//! ```text
//!   host namespace H                     peer namespace P
//!   up0 ── TC egress, TC ingress ─────── up1   wire: captured here, injected here
//!   cap0 ◄─ redirected from up0 ingress   cap1  delivered: captured here
//!   seg0 ─────────────────────────────── seg1  what the kernel's software GSO makes
//! ```
//!
//! Loading and attaching programs is left to [`crate::object`], frames to [`crate::replay`].

mod link;

use crate::{Error, cgroup::Cgroup, namespace::Namespace, sys::Link};
use std::{
    fs::File,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A process can be in one cgroup only, so there is one lab at a time.
static ONE: Mutex<()> = Mutex::new(());

/// Names of the devices in the host namespace and of their peers.
pub(crate) const UPLINK: [&str; 2] = ["up0", "up1"];
pub(crate) const CAPTURE: [&str; 2] = ["cap0", "cap1"];
pub(crate) const SEGMENT: [&str; 2] = ["seg0", "seg1"];

/// Namespaces, devices and the cgroup. While it lives, the process is in the lab's cgroup;
/// dropping it puts everything back. A second lab in the same process waits for the first.
///
/// Killed with SIGKILL, a process leaves one empty cgroup directory, which the next lab
/// removes; namespaces, devices and programs go with the process's descriptors.
#[derive(Debug)]
pub struct Lab {
    cgroup: Cgroup,
    host: Namespace,
    peer: Namespace,
    links: Links,
    _one: MutexGuard<'static, ()>,
}

/// Indexes of the devices, each in its own namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    pub(crate) up: [Link; 2],
    pub(crate) cap: [Link; 2],
    pub(crate) seg: [Link; 2],
}

impl Lab {
    /// Builds it.
    pub fn new() -> Result<Self, Error> {
        // A lab that was dropped by a panic has been taken down like any other.
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let cgroup = Cgroup::enter()?;
        let host = Namespace::new()?;
        let peer = Namespace::new()?;
        let links = link::build(&host, &peer)?;
        Ok(Self {
            cgroup,
            host,
            peer,
            links,
            _one: one,
        })
    }

    /// The namespace with the uplink and its programs.
    #[must_use]
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// The namespace at the other end of the wire.
    #[must_use]
    pub fn peer(&self) -> &Namespace {
        &self.peer
    }

    pub(crate) fn links(&self) -> Links {
        self.links
    }

    /// The lab's cgroup, in which the process is.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// The lab's cgroup directory.
    pub(crate) fn open_cgroup(&self) -> Result<File, Error> {
        self.cgroup.open()
    }
}

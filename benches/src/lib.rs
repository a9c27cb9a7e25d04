//! Measuring the data path in the running kernel, side by side with its peers: the harness of
//! `cargo xtask peers` and of the criterion bench `kernel`.
//!
//! What is measured is `dynencap_kernel`'s and the reference's in C (`bpf/peers.bpf.c`); what
//! the figures mean stands in docs/performance.md, which the command writes.

pub mod bed;
pub mod control;
pub mod egress;
pub mod engines;
mod error;
pub mod exits;
pub mod holder;
mod home;
pub mod lineup;
pub mod machine;
pub mod ours;
pub mod packet;
pub mod peer;
pub mod reference;
pub mod report;
pub mod sample;
pub mod stand;
pub mod tcp;
pub mod userspace;

pub use error::Error;
pub use home::Home;

use dynencap_kernel::{Interrupt, sys::Affinity};
use sample::Summary;

/// An object of ours to measure.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its name in tables.
    pub name: String,
    /// The file.
    pub bytes: Vec<u8>,
}

/// What every group of measurements gets.
pub struct Run {
    /// Where sockets are made.
    pub home: Home,
    /// Asked between slices.
    pub interrupt: Interrupt,
    /// Whose programs are ours.
    pub objects: Vec<Object>,
    /// Fewer rounds, for trying.
    pub quick: bool,
    /// The CPU to which the process is pinned.
    here: Affinity,
    /// The CPUs that it had before.
    everywhere: Affinity,
}

impl Run {
    /// Pins the process to one CPU and makes the cgroup.
    pub fn start(objects: Vec<Object>, quick: bool, interrupt: Interrupt) -> Result<Self, Error> {
        let pin = || {
            let (everywhere, here) = (Affinity::current()?, Affinity::here()?);
            here.apply()?;
            Ok((everywhere, here))
        };
        let (everywhere, here) = pin().map_err(Error::io("pinning to one CPU"))?;
        Ok(Self {
            here,
            everywhere,
            home: Home::new()?,
            interrupt,
            objects,
            quick,
        })
    }

    /// How many rounds, of so many in a full run.
    #[must_use]
    pub fn rounds(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(4) } else { full }
    }
}

/// One figure.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Row {
    /// Which table.
    pub group: String,
    /// Which variant.
    pub name: String,
    /// Of the figures.
    pub unit: String,
    /// The figures.
    #[serde(flatten)]
    pub summary: Summary,
}

impl Row {
    /// A row.
    #[must_use]
    pub fn new(group: &str, name: &str, unit: &str, summary: Summary) -> Self {
        Self {
            group: group.to_owned(),
            name: name.to_owned(),
            unit: unit.to_owned(),
            summary,
        }
    }
}

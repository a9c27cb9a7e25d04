//! What there is of an installation, compared with what its record says.

use super::{
    Error, Installation, clsact,
    hook::{PROGRAMS, Place},
    record::{Device, Hook},
};
use crate::sys;
use aya::programs::{ProgramInfo, TcAttachType};
use serde::Serialize;
use std::{os::fd::AsFd, path::PathBuf};

/// An installation, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The uplink when it was installed.
    pub uplink: Device,
    /// The far end of the segmenting pair.
    pub segment: Option<Device>,
    /// The cgroup whose processes it serves.
    pub cgroup: PathBuf,
    /// How TC programs hang there.
    pub hook: Hook,
    /// Hash of the object that it was made from.
    pub build: String,
    /// Each program that should be there.
    pub programs: Vec<ProgramStatus>,
}

/// One program of an installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramStatus {
    /// Its name in the object.
    pub name: &'static str,
    /// Its id in the kernel, as `bpftool prog` shows it; `None`: it is not loaded.
    pub id: Option<u32>,
    /// It runs. Not so: its device or cgroup is gone, or somebody has taken it away.
    pub attached: bool,
}

impl Status {
    /// Every program runs.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.programs.iter().all(|program| program.attached)
    }
}

impl Installation {
    /// Looks.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn status(&self) -> Result<Status, Error> {
        let mut programs = Vec::new();
        for (name, place) in PROGRAMS {
            if place == Place::Segment && self.record.segment.is_none() {
                continue;
            }
            programs.push(ProgramStatus {
                name,
                id: self
                    .pins
                    .open_program(name)?
                    .and_then(|_| ProgramInfo::from_pin(self.pins.program(name)).ok())
                    .map(|info| info.id()),
                attached: self.attached(name, place)?,
            });
        }
        Ok(Status {
            uplink: self.record.uplink.clone(),
            segment: self.record.segment.clone(),
            cgroup: self.record.cgroup.clone(),
            hook: self.record.hook,
            build: self.record.build.clone(),
            programs,
        })
    }

    /// Whether the program runs where the record says.
    pub(super) fn attached(&self, name: &str, place: Place) -> Result<bool, Error> {
        let record = &self.record;
        let (device, direction) = match place {
            Place::Cgroup => return Ok(self.target(name)? == Some(record.cgroup_id)),
            Place::Uplink(direction) => (Some(&record.uplink), direction),
            Place::Segment => (record.segment.as_ref(), TcAttachType::Ingress),
        };
        let Some(device) = device else {
            return Ok(false);
        };
        match record.hook {
            Hook::Tcx => Ok(self.target(name)? == Some(u64::from(device.index))),
            Hook::Clsact => {
                let there = sys::Link::named(&device.name).is_ok_and(|l| l.index() == device.index);
                let [ingress, egress] = if there {
                    clsact::ours(device.index)?
                } else {
                    [false; 2]
                };
                Ok(if direction == TcAttachType::Egress {
                    egress
                } else {
                    ingress
                })
            }
        }
    }

    /// What the pinned link is attached to.
    fn target(&self, name: &str) -> Result<Option<u64>, Error> {
        let Some(link) = self.pins.open_link(name)? else {
            return Ok(None);
        };
        let info = sys::link_info(link.as_fd())
            .map_err(crate::Error::syscall("BPF_OBJ_GET_INFO_BY_FD"))?;
        Ok(Some(info.target).filter(|target| *target != 0))
    }
}

//! Which program goes where, and how it gets there, is replaced there, and goes from there.

use super::{
    Error,
    pin::{Pins, remove_file},
    record::Hook,
};
use crate::{
    object::{attach_error, patiently},
    sys,
};
use aya::{
    Ebpf,
    programs::{
        LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType,
        links::FdLink,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
    },
};
use aya_obj::generated::bpf_attach_type;
use dynencap_abi::object;
use std::{
    fs::{self, File},
    mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Cgroup,
    Uplink(TcAttachType),
    /// TC ingress of the segmenting pair's far end.
    Segment,
}

/// Every program of an installation, in the order in which they are attached: what gives a
/// socket its exit comes last, when all that its packets need is there.
pub(super) const PROGRAMS: [(&str, Place); 8] = [
    (object::EGRESS, Place::Uplink(TcAttachType::Egress)),
    (object::INGRESS, Place::Uplink(TcAttachType::Ingress)),
    (object::SEGMENTED, Place::Segment),
    (object::TRACK, Place::Cgroup),
    (object::REFLECT, Place::Cgroup),
    (object::GET_OPTION, Place::Cgroup),
    (object::SOCKET_CREATE, Place::Cgroup),
    (object::SET_OPTION, Place::Cgroup),
];

/// Priority and handle of our filters on a clsact qdisc: by them they are found again.
pub(super) const PRIORITY: u16 = 222;
pub(super) const HANDLE: TcHandle = TcHandle::new(0, 1);

/// Where an installation's programs go.
pub(super) struct Targets<'a> {
    pub(super) cgroup: &'a File,
    pub(super) uplink: &'a str,
    pub(super) segment: Option<&'a str>,
    pub(super) hook: Hook,
}

impl Targets<'_> {
    /// Device and direction of a TC program; `None`: it goes to the cgroup.
    pub(super) fn device(&self, place: Place) -> Option<(&str, TcAttachType)> {
        match place {
            Place::Cgroup => None,
            Place::Uplink(direction) => Some((self.uplink, direction)),
            Place::Segment => Some((self.segment?, TcAttachType::Ingress)),
        }
    }

    /// Whether `place` is there at all.
    pub(super) fn has(&self, place: Place) -> bool {
        place != Place::Segment || self.segment.is_some()
    }
}

/// Has every program that has a place verified, without attaching it.
pub(super) fn load(ebpf: &mut Ebpf, targets: &Targets<'_>) -> Result<(), Error> {
    for (name, place) in PROGRAMS {
        if !targets.has(place) {
            continue;
        }
        match program(ebpf, name)? {
            Program::CgroupSockopt(program) => patiently(name, || program.load()),
            Program::CgroupSock(program) => patiently(name, || program.load()),
            Program::SockOps(program) => patiently(name, || program.load()),
            Program::CgroupSkb(program) => patiently(name, || program.load()),
            Program::SchedClassifier(program) => patiently(name, || program.load()),
            _ => return Err(missing(name)),
        }?;
    }
    Ok(())
}

/// Attaches `name`, and pins link and program.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    (name, place): (&'static str, Place),
    targets: &Targets<'_>,
    pins: &Pins,
) -> Result<(), Error> {
    let program = program(ebpf, name)?;
    match targets.device(place) {
        None => to_cgroup(program, name, targets.cgroup, pins)?,
        Some((device, direction)) => {
            let Program::SchedClassifier(program) = &mut *program else {
                return Err(missing(name));
            };
            let link = to_device(program, device, direction, targets.hook);
            if let Some(link) = link.map_err(attach_error(name))? {
                let path = pins.link(name);
                // One that is there is of a device that is gone.
                remove_file(&path)?;
                link.pin(&path)
                    .map_err(|source| Error::Pin { path, source })?;
            }
        }
    }
    pin_program(program, name, pins)
}

/// Lets the live hook of `name` run this program, and returns what undoes it.
pub(super) fn replace(
    ebpf: &mut Ebpf,
    (name, place): (&'static str, Place),
    targets: &Targets<'_>,
    pins: &Pins,
) -> Result<Option<Undo>, Error> {
    let program = program(ebpf, name)?;
    if let (Hook::Clsact, Some((device, direction))) = (targets.hook, targets.device(place)) {
        let Program::SchedClassifier(program) = program else {
            return Err(missing(name));
        };
        // The kernel swaps the program of a filter in place.
        let link = SchedClassifierLink::attached(device, direction, PRIORITY, HANDLE, None)
            .map_err(|_| Error::NoDevice {
                name: device.to_owned(),
            })?;
        let id = program.attach_to_link(link).map_err(attach_error(name))?;
        mem::forget(program.take_link(id).map_err(attach_error(name))?);
        return Ok(None);
    }
    let Some(link) = pins.open_link(name)? else {
        return Ok(None);
    };
    let old = pins.open_program(name)?;
    let new = descriptor(program, name)?;
    sys::update_link(link.as_fd(), new).map_err(|source| Error::Replace {
        program: name,
        source,
    })?;
    Ok(old.map(|old| Undo { link, old }))
}

/// A replaced program, and where it was.
pub(super) struct Undo {
    link: OwnedFd,
    old: OwnedFd,
}

impl Undo {
    /// Puts it back, as far as the kernel lets.
    pub(super) fn back(self) {
        let _ = sys::update_link(self.link.as_fd(), self.old.as_fd());
    }
}

/// Pins the program in place of the one that is pinned.
pub(super) fn pin_program(
    program: &mut Program,
    name: &'static str,
    pins: &Pins,
) -> Result<(), Error> {
    let path = pins.program(name);
    let beside = pins.program(&format!("{name}_new"));
    remove_file(&beside)?;
    program.pin(&beside).map_err(|source| Error::Pin {
        path: beside.clone(),
        source,
    })?;
    fs::rename(&beside, &path).map_err(Error::file("pinning", path))
}

/// Takes a filter of ours away; none there is well.
pub(super) fn detach_filter(device: &str, direction: TcAttachType) {
    if let Ok(link) = SchedClassifierLink::attached(device, direction, PRIORITY, HANDLE, None) {
        // Detached on drop; a device that is gone has taken its filters along.
        drop(link);
    }
}

pub(super) fn program<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut Program, Error> {
    ebpf.program_mut(name).ok_or_else(|| missing(name))
}

fn missing(name: &'static str) -> Error {
    Error::Kernel(crate::Error::Missing {
        kind: "program",
        name,
    })
}

fn descriptor<'a>(program: &'a Program, name: &'static str) -> Result<BorrowedFd<'a>, Error> {
    let descriptor = program.fd().map_err(attach_error(name))?;
    Ok(descriptor.as_fd())
}

/// aya keeps the links of these programs to itself, so they are made here.
fn to_cgroup(
    program: &Program,
    name: &'static str,
    cgroup: &File,
    pins: &Pins,
) -> Result<(), Error> {
    let attach_type = match (program, name) {
        (Program::CgroupSockopt(_), object::SET_OPTION) => bpf_attach_type::BPF_CGROUP_SETSOCKOPT,
        (Program::CgroupSockopt(_), object::GET_OPTION) => bpf_attach_type::BPF_CGROUP_GETSOCKOPT,
        (Program::CgroupSock(_), _) => bpf_attach_type::BPF_CGROUP_INET_SOCK_CREATE,
        (Program::CgroupSkb(_), _) => bpf_attach_type::BPF_CGROUP_INET_INGRESS,
        (Program::SockOps(_), _) => bpf_attach_type::BPF_CGROUP_SOCK_OPS,
        _ => return Err(missing(name)),
    };
    let link = sys::link_cgroup(
        descriptor(program, name)?,
        cgroup.as_fd(),
        attach_type as u32,
    )
    .map_err(|source| Error::Attach {
        program: name,
        source,
    })?;
    let path = pins.link(name);
    remove_file(&path)?;
    sys::pin(link.as_fd(), &path).map_err(Error::file("pinning", path))
}

/// Behind the programs of others. Without TCX there is no link.
fn to_device(
    program: &mut SchedClassifier,
    device: &str,
    direction: TcAttachType,
    hook: Hook,
) -> Result<Option<FdLink>, ProgramError> {
    let options = match hook {
        Hook::Tcx => TcAttachOptions::TcxOrder(LinkOrder::last()),
        Hook::Clsact => TcAttachOptions::Netlink(NlOptions {
            priority: PRIORITY,
            handle: HANDLE,
            classid: None,
        }),
    };
    let id = program.attach_with_options(device, direction, options)?;
    let link = program.take_link(id)?;
    match hook {
        Hook::Tcx => link
            .try_into()
            .map(Some)
            .map_err(|_| ProgramError::NotAttached),
        Hook::Clsact => {
            // Dropped, it would take the filter away.
            mem::forget(link);
            Ok(None)
        }
    }
}

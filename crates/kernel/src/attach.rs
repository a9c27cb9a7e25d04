//! Where loaded programs go: the control path to a cgroup, the others to a device of some
//! namespace. What is attached stays so until the [`Loaded`] goes.

use crate::{
    Error, Feature, Lab, Loaded, Namespace,
    lab::UPLINK,
    object::{attach_error, classifier, map_error, reflect, socket_create, sockopt, track},
};
use aya::{
    maps::{Array, MapData},
    programs::{
        CgroupAttachMode, CgroupSkbAttachType, LinkOrder, TcAttachType,
        tc::{self, NlOptions, TcAttachOptions},
    },
};
use dynencap_abi::object;
use std::{os::fd::AsFd, time::Duration};

/// A program that is attached to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceProgram {
    /// Encapsulation, at TC egress.
    Egress,
    /// Decapsulation, at TC ingress.
    Ingress,
    /// Encapsulation of segments, at TC ingress of the segmenting pair's far end.
    Segmented,
    /// The lab's own, behind [`DeviceProgram::Ingress`]: see [`object::LAB_DELIVER`].
    LabDeliver,
}

impl DeviceProgram {
    /// Its name in the object.
    pub(crate) fn name(self) -> &'static str {
        self.hook().0
    }

    /// Name, hook, and place in the order of programs where that goes by priority.
    fn hook(self) -> (&'static str, TcAttachType, u16) {
        match self {
            Self::Egress => (object::EGRESS, TcAttachType::Egress, 1),
            Self::Ingress => (object::INGRESS, TcAttachType::Ingress, 1),
            Self::Segmented => (object::SEGMENTED, TcAttachType::Ingress, 1),
            Self::LabDeliver => (object::LAB_DELIVER, TcAttachType::Ingress, 2),
        }
    }
}

/// What the programs of a device hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Links, each a place in the device's chain.
    Tcx,
    /// Filters of a qdisc, ordered by priority.
    Clsact,
}

impl Chain {
    /// Links from Linux 6.6 on.
    #[must_use]
    pub fn here() -> Self {
        if Feature::Tcx.probe().is_ok() {
            Self::Tcx
        } else {
            Self::Clsact
        }
    }
}

impl Loaded {
    /// How often a device's program has run and for how long, while the kernel kept statistics
    /// (`BPF_ENABLE_STATS`).
    pub fn run_time(&mut self, program: DeviceProgram) -> Result<(u64, Duration), Error> {
        let name = program.name();
        let info = classifier(&mut self.ebpf, name)?.info();
        let info = info.map_err(attach_error(name))?;
        Ok((info.run_count(), info.run_time()))
    }

    /// Attaches the control path to a cgroup2 directory: from now on it sees the options, the
    /// new sockets, the TCP connections and what comes in for every process in it and below it.
    pub fn attach_cgroup(&mut self, cgroup: impl AsFd) -> Result<(), Error> {
        for name in [object::SET_OPTION, object::GET_OPTION] {
            // With links the kernel always lets other programs stay, and refuses the flag.
            sockopt(&mut self.ebpf, name)?
                .attach(cgroup.as_fd(), CgroupAttachMode::Single)
                .map_err(attach_error(name))?;
        }
        socket_create(&mut self.ebpf)?
            .attach(cgroup.as_fd(), CgroupAttachMode::Single)
            .map_err(attach_error(object::SOCKET_CREATE))?;
        track(&mut self.ebpf)?
            .attach(cgroup.as_fd(), CgroupAttachMode::Single)
            .map_err(attach_error(object::TRACK))?;
        reflect(&mut self.ebpf)?
            .attach(
                cgroup.as_fd(),
                CgroupSkbAttachType::Ingress,
                CgroupAttachMode::Single,
            )
            .map_err(attach_error(object::REFLECT))?;
        Ok(())
    }

    /// Attaches programs to `device` in `namespace`, behind those of others.
    pub fn attach_device(
        &mut self,
        namespace: &Namespace,
        device: &str,
        programs: &[DeviceProgram],
    ) -> Result<(), Error> {
        self.attach_device_by(Chain::here(), namespace, device, programs)
    }

    /// The same by a chain of the caller's choice.
    pub fn attach_device_by(
        &mut self,
        chain: Chain,
        namespace: &Namespace,
        device: &str,
        programs: &[DeviceProgram],
    ) -> Result<(), Error> {
        let ebpf = &mut self.ebpf;
        namespace.in_namespace(|| {
            if chain == Chain::Clsact {
                tc::qdisc_add_clsact(device)
                    .map_err(|error| attach_error(object::EGRESS)(error.into()))?;
            }
            for program in programs {
                let (name, direction, priority) = program.hook();
                let options = match chain {
                    Chain::Tcx => TcAttachOptions::TcxOrder(LinkOrder::last()),
                    Chain::Clsact => TcAttachOptions::Netlink(NlOptions {
                        priority,
                        ..NlOptions::default()
                    }),
                };
                classifier(ebpf, name)?
                    .attach_with_options(device, direction, options)
                    .map_err(attach_error(name))?;
            }
            Ok(())
        })
    }

    /// Lets go of the programs inside the namespace of their device: without TCX they are
    /// detached by device index over netlink, which means another device in every other
    /// namespace.
    pub fn detach_in(self, namespace: &Namespace) -> Result<(), Error> {
        namespace.in_namespace(move || {
            drop(self);
            Ok(())
        })
    }

    /// Attaches every program in `lab`: the option hooks to its cgroup, the others to its
    /// uplink.
    pub(crate) fn attach(&mut self, lab: &Lab) -> Result<(), Error> {
        let mut device: Array<&mut MapData, u32> = self.map(object::LAB_DEVICE)?;
        device
            .set(0, lab.links().cap[0].index(), 0)
            .map_err(map_error(object::LAB_DEVICE))?;
        self.attach_cgroup(lab.open_cgroup()?)?;
        let programs = [
            DeviceProgram::Egress,
            DeviceProgram::Ingress,
            DeviceProgram::LabDeliver,
        ];
        self.attach_device(lab.host(), UPLINK[0], &programs)
    }

    /// See [`Loaded::detach_in`].
    pub(crate) fn detach(self, lab: &Lab) -> Result<(), Error> {
        self.detach_in(lab.host())
    }
}

//! An installation: the programs attached for good to a cgroup and an uplink, and pinned, so that
//! they outlive whoever attached them.
//!
//! What is configured beside them (routes, the segmenting pair) is [`crate::host`]'s; the tests'
//! own way of attaching, which goes with its process, [`crate::attach`]'s. Everything acts on the
//! network namespace of the calling thread.

mod clsact;
mod error;
mod hook;
mod map;
mod pin;
mod read;
mod record;
mod status;

pub use error::Error;
pub use record::{Device, Hook};
pub use status::{ProgramStatus, Status};

use crate::{Feature, Loaded, sys};
use dynencap_abi::{Config, object::MAX_REFLECTED};
use hook::{PROGRAMS, Place, Targets};
use pin::Pins;
use record::{Record, build_of};
use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Where pins go, unless told otherwise.
pub const PINS: &str = "/sys/fs/bpf/dynencap";

/// What to install.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// The BPF object.
    pub object: &'a [u8],
    /// The directory for the pins, on a BPF file system.
    pub pins: &'a Path,
    /// Name of the device on which packets leave.
    pub uplink: &'a str,
    /// Name of the segmenting pair's far end, if there is a pair.
    pub segment: Option<&'a str>,
    /// The cgroup2 directory whose processes, and those below it, may have exits.
    pub cgroup: &'a Path,
    /// How TC programs are attached; `None`: as the kernel can do best.
    pub hook: Option<Hook>,
    /// How many captured exits there can be at once; `None`: as many as there can be now, at first
    /// [`dynencap_abi::object::MAX_REFLECTED`].
    pub reflected: Option<u32>,
}

/// What [`Installation::install`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There was none.
    Installed,
    /// Some programs were attached anew, or the segmenting pair came or went.
    Repaired,
    /// Every program was where it should be.
    Unchanged,
}

/// An installation that is there. While the value lives, no other tool changes it; dropping it
/// leaves everything in place.
#[derive(Debug)]
pub struct Installation {
    pins: Pins,
    record: Record,
    _lock: File,
}

impl Installation {
    /// Installs, or brings what is installed to `spec`: programs whose device or cgroup came back
    /// are attached anew. Those that run stay as they are, of whatever build: see
    /// [`Self::upgrade`]. `config` is in force before the first program runs; an installation that
    /// is there keeps its policy generation.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`]. What was new is taken away again.
    pub fn install(spec: &Spec<'_>, config: &Config) -> Result<(Self, Change), Error> {
        let pins = Pins::at(spec.pins)?;
        let lock = pins.lock()?;
        let (cgroup, cgroup_id) = pin::open_cgroup(spec.cgroup)?;
        let uplink = device(spec.uplink)?;
        if let Some(record) = Record::read(&pins)? {
            let mut there = Self {
                pins,
                record,
                _lock: lock,
            };
            there.must_be_for(spec, cgroup_id)?;
            let mut loaded = there.maps(spec.object)?;
            let policy_generation = loaded.config()?.policy_generation;
            loaded.set_config(&Config {
                policy_generation,
                ..*config
            })?;
            there.record.uplink = uplink;
            there.record.cgroup = spec.cgroup.to_owned();
            let change = there.repair(spec, &cgroup, loaded)?;
            return Ok((there, change));
        }
        if pins.exists()? {
            return Err(Error::ForeignPins {
                path: spec.pins.to_owned(),
            });
        }
        let hook = spec.hook.unwrap_or_else(|| {
            if Feature::Tcx.probe().is_ok() {
                Hook::Tcx
            } else {
                Hook::Clsact
            }
        });
        let cgroup_of = (spec.cgroup.to_owned(), cgroup_id);
        let record = Record::new(uplink, hook, cgroup_of, namespace()?, build_of(spec.object));
        let mut new = Self {
            pins,
            record,
            _lock: lock,
        };
        match new.set_up(spec, config, &cgroup) {
            Ok(()) => Ok((new, Change::Installed)),
            Err(error) => {
                // The first error is the one to tell.
                let _ = new.take_down();
                Err(error)
            }
        }
    }

    /// What is installed; `None`: nothing is.
    ///
    /// # Errors
    ///
    /// [`Error::Record`], [`Error::ForeignPins`], and the kernel's.
    pub fn open(pins: &Path) -> Result<Option<Self>, Error> {
        let path = pins;
        let pins = Pins::at(path)?;
        let lock = pins.lock()?;
        match Record::read(&pins)? {
            Some(record) => Ok(Some(Self {
                pins,
                record,
                _lock: lock,
            })),
            None if pins.exists()? => Err(Error::ForeignPins {
                path: path.to_owned(),
            }),
            None => Ok(None),
        }
    }

    /// Replaces every live program by that of `object`. Each hook runs the old or the new one at
    /// any time, never none; maps stay, so sockets keep their exits. Counters start anew where
    /// their number is another.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`], [`Error::Replace`], and the verifier's; all is as it was then.
    pub fn upgrade(&mut self, object: &[u8]) -> Result<(), Error> {
        self.must_be_here()?;
        let before = map::pinned(&self.pins)?;
        let aside: Vec<_> = map::incompatible(object, &self.pins)?
            .into_iter()
            .filter(|name| map::REPLACEABLE.contains(name))
            .collect();
        let beside = |name: &str| self.pins.map(&format!("{name}_old"));
        for name in &aside {
            let path = self.pins.map(name);
            fs::rename(&path, beside(name)).map_err(Error::file("moving", path))?;
        }
        let result = self.replace(object);
        for name in &aside {
            if result.is_ok() {
                pin::remove_file(&beside(name))?;
            } else {
                let path = self.pins.map(name);
                fs::rename(beside(name), &path).map_err(Error::file("moving", path))?;
            }
        }
        if result.is_err() {
            for name in map::pinned(&self.pins)? {
                if !before.contains(&name) {
                    pin::remove_file(&self.pins.map(name))?;
                }
            }
        }
        result?;
        self.record.build = build_of(object);
        self.record.write(&self.pins)
    }

    /// Takes everything away: programs, maps with all exits and policies, the clsact qdisc if
    /// it is ours. From now on packets of sockets that had an exit leave as they are.
    ///
    /// # Errors
    ///
    /// [`Error::Namespace`], [`Error::File`]; what could not be removed can be tried again.
    pub fn remove(self) -> Result<(), Error> {
        self.must_be_here()?;
        self.take_down()
    }

    /// The maps of the installation, through which it is configured and read. `object` must be
    /// of the build that is installed, or have maps of the same shapes.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`], and the kernel's.
    pub fn maps(&self, object: &[u8]) -> Result<Loaded, Error> {
        map::open(object, &self.pins, MAX_REFLECTED)
    }

    /// Name and index of the uplink.
    #[must_use]
    pub fn uplink(&self) -> &Device {
        &self.record.uplink
    }

    /// The cgroup whose processes it serves.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.record.cgroup
    }

    /// Whether it was made from this object.
    #[must_use]
    pub fn is_of(&self, object: &[u8]) -> bool {
        self.record.build == build_of(object)
    }

    /// What was noted beside the installation.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.record.note
    }

    /// Notes something beside the installation: about 4 KB are certain to fit.
    ///
    /// # Errors
    ///
    /// [`Error::RecordLength`], and the kernel's.
    pub fn set_note(&mut self, note: impl Into<String>) -> Result<(), Error> {
        self.record.note = note.into();
        self.record.write(&self.pins)
    }

    /// An error where the calling thread is in another network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Namespace`].
    pub fn must_be_here(&self) -> Result<(), Error> {
        if namespace()? == self.record.namespace {
            Ok(())
        } else {
            Err(Error::Namespace {
                uplink: self.record.uplink.name.clone(),
            })
        }
    }

    fn must_be_for(&self, spec: &Spec<'_>, cgroup_id: u64) -> Result<(), Error> {
        self.must_be_here()?;
        let record = &self.record;
        let other = |what, installed: String, wanted: String| Error::Other {
            what,
            installed,
            wanted,
        };
        if record.uplink.name != spec.uplink {
            let installed = record.uplink.name.clone();
            return Err(other("uplink", installed, spec.uplink.to_owned()));
        }
        // A cgroup of the same path, made anew, is the same to the operator.
        if record.cgroup_id != cgroup_id && record.cgroup != spec.cgroup {
            return Err(other(
                "cgroup",
                record.cgroup.display().to_string(),
                spec.cgroup.display().to_string(),
            ));
        }
        if let (Some(installed), Some(wanted)) =
            (map::reflected_entries(&self.pins)?, spec.reflected)
            && installed != wanted
        {
            let (installed, wanted) = (installed.to_string(), wanted.to_string());
            return Err(other("a number of captured exits of", installed, wanted));
        }
        Ok(())
    }

    fn set_up(&mut self, spec: &Spec<'_>, config: &Config, cgroup: &File) -> Result<(), Error> {
        self.pins.create()?;
        // First of all: by it the rest can be taken away, whatever happens.
        self.record.write(&self.pins)?;
        let entries = spec.reflected.unwrap_or(MAX_REFLECTED);
        let mut loaded = map::open(spec.object, &self.pins, entries)?;
        loaded.set_config(config)?;
        self.repair(spec, cgroup, loaded).map(drop)
    }

    /// Attaches what is not attached.
    fn repair(
        &mut self,
        spec: &Spec<'_>,
        cgroup: &File,
        mut loaded: Loaded,
    ) -> Result<Change, Error> {
        self.record.cgroup_id = cgroup
            .metadata()
            .map_err(Error::file("looking at", spec.cgroup))?
            .ino();
        let segment = spec.segment.map(device).transpose()?;
        let gone = self.record.segment.is_some() && segment.is_none();
        self.record.segment = segment;
        if gone {
            for path in [
                self.pins.link(dynencap_abi::object::SEGMENTED),
                self.pins.program(dynencap_abi::object::SEGMENTED),
            ] {
                pin::remove_file(&path)?;
            }
        }
        let targets = Targets {
            cgroup,
            uplink: spec.uplink,
            segment: spec.segment,
            hook: self.record.hook,
        };
        let mut missing = Vec::new();
        for (name, place) in PROGRAMS {
            if targets.has(place) && !self.attached(name, place)? {
                missing.push((name, place));
            }
        }
        if !missing.is_empty() {
            if self.record.hook == Hook::Clsact {
                for name in [Some(spec.uplink), spec.segment].into_iter().flatten() {
                    if clsact::ensure(name)? && !self.record.qdiscs.iter().any(|q| q == name) {
                        self.record.qdiscs.push(name.to_owned());
                        self.record.write(&self.pins)?;
                    }
                }
            }
            hook::load(&mut loaded.ebpf, &targets)?;
            for entry in &missing {
                hook::attach(&mut loaded.ebpf, *entry, &targets, &self.pins)?;
            }
        }
        self.record.write(&self.pins)?;
        Ok(if missing.is_empty() && !gone {
            Change::Unchanged
        } else {
            Change::Repaired
        })
    }

    fn replace(&self, object: &[u8]) -> Result<(), Error> {
        let mut loaded = map::open(object, &self.pins, MAX_REFLECTED)?;
        let (cgroup, _) = pin::open_cgroup(&self.record.cgroup)?;
        let targets = Targets {
            cgroup: &cgroup,
            uplink: &self.record.uplink.name,
            segment: self.record.segment.as_ref().map(|far| far.name.as_str()),
            hook: self.record.hook,
        };
        hook::load(&mut loaded.ebpf, &targets)?;
        let mut undo = Vec::new();
        let mut all = || {
            for entry in PROGRAMS {
                let (name, place) = entry;
                if !targets.has(place) {
                    continue;
                }
                if self.attached(name, place)? {
                    undo.extend(hook::replace(
                        &mut loaded.ebpf,
                        entry,
                        &targets,
                        &self.pins,
                    )?);
                } else {
                    hook::attach(&mut loaded.ebpf, entry, &targets, &self.pins)?;
                }
            }
            Ok(())
        };
        if let Err(error) = all() {
            undo.into_iter().for_each(hook::Undo::back);
            return Err(error);
        }
        for (name, place) in PROGRAMS {
            if targets.has(place) {
                hook::pin_program(hook::program(&mut loaded.ebpf, name)?, name, &self.pins)?;
            }
        }
        Ok(())
    }

    fn take_down(&self) -> Result<(), Error> {
        if self.record.hook == Hook::Clsact {
            let record = &self.record;
            let mut devices = vec![&record.uplink];
            devices.extend(&record.segment);
            for device in devices {
                let there = sys::Link::named(&device.name).is_ok_and(|l| l.index() == device.index);
                if !there {
                    continue;
                }
                for (_, place) in PROGRAMS {
                    match place {
                        Place::Uplink(direction) if *device == record.uplink => {
                            hook::detach_filter(&device.name, direction);
                        }
                        Place::Segment if *device != record.uplink => {
                            hook::detach_filter(&device.name, aya::programs::TcAttachType::Ingress)
                        }
                        _ => {}
                    }
                }
                if record.qdiscs.contains(&device.name) {
                    clsact::remove(device.index)?;
                }
            }
        }
        let order = PROGRAMS.map(|(name, _)| name);
        let order: Vec<_> = order.into_iter().rev().collect();
        self.pins.remove(&order)
    }
}

fn device(name: &str) -> Result<Device, Error> {
    let link = sys::Link::named(name).map_err(|_| Error::NoDevice {
        name: name.to_owned(),
    })?;
    Ok(Device {
        name: name.to_owned(),
        index: link.index(),
    })
}

/// The calling thread's network namespace.
fn namespace() -> Result<u64, Error> {
    let path = PathBuf::from("/proc/thread-self/ns/net");
    let metadata = fs::metadata(&path).map_err(Error::file("looking at", path))?;
    Ok(metadata.ino())
}

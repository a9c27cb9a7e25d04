//! The directory on the BPF file system in which an installation lives:
//! `links/<program>`, `programs/<program>`, `maps/<map>` and `record`. What stands in `links`
//! keeps programs attached after the tool has gone. A lock on the directory above serialises
//! tools.

use super::Error;
use crate::sys;
use rustix::fs::{FlockOperation, flock, statfs};
use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
const CGROUP2_SUPER_MAGIC: u32 = 0x6367_7270;

/// Paths below the directory; they need not exist.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    root: PathBuf,
}

impl Pins {
    const LINKS: &str = "links";
    const PROGRAMS: &str = "programs";
    const MAPS: &str = "maps";

    /// Refuses what is not on a BPF file system.
    pub(super) fn at(root: &Path) -> Result<Self, Error> {
        let there = root
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        if !is_on(there, BPF_FS_MAGIC)? {
            return Err(Error::NotBpffs {
                path: root.to_owned(),
            });
        }
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Waits until no other tool works on this directory or its neighbours.
    pub(super) fn lock(&self) -> Result<File, Error> {
        let above = self
            .root
            .ancestors()
            .skip(1)
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        let directory = File::open(above).map_err(Error::file("opening", above))?;
        flock(&directory, FlockOperation::LockExclusive)
            .map_err(|errno| Error::file("locking", above)(errno.into()))?;
        Ok(directory)
    }

    pub(super) fn record(&self) -> PathBuf {
        self.root.join("record")
    }

    pub(super) fn link(&self, program: &str) -> PathBuf {
        self.root.join(Self::LINKS).join(program)
    }

    pub(super) fn program(&self, program: &str) -> PathBuf {
        self.root.join(Self::PROGRAMS).join(program)
    }

    pub(super) fn map(&self, map: &str) -> PathBuf {
        self.root.join(Self::MAPS).join(map)
    }

    /// Opens a link, where there is one.
    pub(super) fn open_link(&self, program: &str) -> Result<Option<OwnedFd>, Error> {
        open(&self.link(program))
    }

    /// Opens a program, where there is one.
    pub(super) fn open_program(&self, program: &str) -> Result<Option<OwnedFd>, Error> {
        open(&self.program(program))
    }

    /// Whether anything stands there.
    pub(super) fn exists(&self) -> Result<bool, Error> {
        self.root
            .try_exists()
            .map_err(Error::file("looking at", &self.root))
    }

    pub(super) fn create(&self) -> Result<(), Error> {
        for directory in ["", Self::LINKS, Self::PROGRAMS, Self::MAPS] {
            let path = self.root.join(directory);
            fs::create_dir_all(&path).map_err(Error::file("making", path))?;
        }
        Ok(())
    }

    /// Takes away what is pinned, and the directories: `first` of the links in this order, so
    /// that the programs that give exits go before those that use them; the record last, so that
    /// a removal that was cut short can be repeated.
    pub(super) fn remove(&self, first: &[&str]) -> Result<(), Error> {
        for program in first {
            remove_file(&self.link(program))?;
        }
        for directory in [Self::LINKS, Self::PROGRAMS, Self::MAPS] {
            let directory = self.root.join(directory);
            let entries = match fs::read_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(Error::file("listing", &directory))?,
            };
            for entry in entries {
                let entry = entry.map_err(Error::file("listing", &directory))?;
                remove_file(&entry.path())?;
            }
            fs::remove_dir(&directory).map_err(Error::file("removing", directory))?;
        }
        remove_file(&self.record())?;
        fs::remove_dir(&self.root).map_err(Error::file("removing", &self.root))
    }
}

/// Removes a pin, if it is there.
pub(super) fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::file("removing", path)),
    }
}

/// Opens a cgroup2 directory, and tells its id.
pub(super) fn open_cgroup(path: &Path) -> Result<(File, u64), Error> {
    use std::os::unix::fs::MetadataExt;
    let directory = File::open(path).map_err(|source| Error::File {
        action: "opening the cgroup",
        path: path.to_owned(),
        source,
    })?;
    if !is_on(path, CGROUP2_SUPER_MAGIC)? {
        return Err(Error::NotCgroup2 {
            path: path.to_owned(),
        });
    }
    let id = directory
        .metadata()
        .map_err(Error::file("looking at", path))?
        .ino();
    Ok((directory, id))
}

fn open(path: &Path) -> Result<Option<OwnedFd>, Error> {
    match sys::open_pinned(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(Error::file("opening", path)),
    }
}

fn is_on(path: &Path, magic: u32) -> Result<bool, Error> {
    let file_system =
        statfs(path).map_err(|errno| Error::file("looking at", path)(errno.into()))?;
    // The field's type differs between architectures; the number is one of 32 bits.
    Ok(file_system.f_type as u32 == magic)
}

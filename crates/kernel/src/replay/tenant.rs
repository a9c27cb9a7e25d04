//! The cgroups in which a replay's sockets are made and their options set. A process is in one
//! cgroup at a time, so it moves; programs see where it is at each call.

use super::Replay;
use crate::{Error, cgroup};
use std::{fs, os::unix::fs::MetadataExt};

impl Replay {
    /// Makes a cgroup below the lab's own, unless it is there, and returns its id. `name` is a
    /// path of which all but the last part must be there; the empty one is the lab's own.
    pub fn make_cgroup(&mut self, name: &str) -> Result<u64, Error> {
        let path = self.lab.cgroup().path().join(name);
        if !path.is_dir() {
            self.lab.cgroup().child(name)?;
        }
        let metadata = fs::metadata(&path).map_err(Error::syscall("stat of a cgroup"))?;
        Ok(metadata.ino())
    }

    /// Moves the process, and with it what it makes and calls from now on, to a cgroup that was
    /// made before.
    pub fn enter_cgroup(&mut self, name: &str) -> Result<(), Error> {
        if self.cgroup == name {
            return Ok(());
        }
        let path = self.lab.cgroup().path().join(name);
        cgroup::join(&path, std::process::id()).map_err(Error::syscall("cgroup.procs"))?;
        self.cgroup.clear();
        self.cgroup.push_str(name);
        Ok(())
    }
}

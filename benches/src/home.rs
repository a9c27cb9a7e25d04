//! Where sockets are made: a cgroup of this process alone, with a room below it for each set of
//! option hooks, since hooks go by the cgroup in which a socket was made.

use crate::Error;
use dynencap_kernel::Cgroup;
use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
};

/// The cgroup. While it lives, the process is in it; dropping it puts everything back.
#[derive(Debug)]
pub struct Home {
    cgroup: Cgroup,
    rooms: Cell<u32>,
}

impl Home {
    /// Makes it, and moves in.
    pub fn new() -> Result<Self, Error> {
        let home = Self {
            cgroup: Cgroup::new()?,
            rooms: Cell::new(0),
        };
        enter(home.cgroup.path())?;
        Ok(home)
    }

    /// A new room.
    pub fn room(&self) -> Result<PathBuf, Error> {
        let number = self.rooms.get();
        self.rooms.set(number + 1);
        Ok(self.cgroup.child(&format!("room{number}"))?)
    }

    /// Runs `work` with the process in `room`.
    pub fn inside<T>(
        &self,
        room: &Path,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        enter(room)?;
        let result = work();
        enter(self.cgroup.path())?;
        result
    }
}

fn enter(path: &Path) -> Result<(), Error> {
    fs::write(path.join("cgroup.procs"), "0").map_err(Error::io("cgroup.procs"))
}

//! A cgroup of our own: the setsockopt hook goes by the cgroup in which a socket was made, so
//! the lab's process moves into one, and back. The directory is the only thing of a lab that
//! can outlive a killed process; the next lab sweeps it.

use crate::Error;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process,
};

/// Directories of labs are named by this and the process id.
const PREFIX: &str = "dynencap-lab-";

/// A cgroup2 directory, one a process. Removed on drop with those below it; whoever is still
/// in it is then back where this process was.
#[derive(Debug)]
pub struct Cgroup {
    home: PathBuf,
    path: PathBuf,
}

impl Cgroup {
    /// Sweeps what dead processes left and makes the directory below the process's own cgroup.
    pub fn new() -> Result<Self, Error> {
        let home = home()?;
        sweep(&home);
        let path = home.join(format!("{PREFIX}{}", process::id()));
        fs::create_dir(&path).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Error::NotPermitted {
                    action: "making a cgroup",
                    needs: "write access to this process's cgroup2 directory",
                }
            }
            _ => Error::Syscall {
                call: "mkdir of the lab's cgroup",
                source,
            },
        })?;
        Ok(Self { home, path })
    }

    /// The same, and moves in.
    pub(crate) fn enter() -> Result<Self, Error> {
        let cgroup = Self::new()?;
        join(&cgroup.path, process::id()).map_err(Error::syscall("cgroup.procs"))?;
        Ok(cgroup)
    }

    /// Makes a cgroup below this one.
    pub fn child(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        fs::create_dir(&path).map_err(Error::syscall("mkdir of a cgroup"))?;
        Ok(path)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, as `BPF_LINK_CREATE` wants it.
    pub fn open(&self) -> Result<File, Error> {
        File::open(&self.path).map_err(Error::syscall("opening the lab's cgroup"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next lab; there is nobody to tell.
        let _ = evacuate(&self.path, &self.home);
    }
}

/// Whether a cgroup2 hierarchy is there to make labs in.
pub(crate) fn available() -> Result<(), Error> {
    home().map(drop)
}

/// The process's own cgroup2 directory. A process that a lab's owner left behind is in that
/// lab's directory: then the one above.
fn home() -> Result<PathBuf, Error> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")
        .map_err(Error::syscall("/proc/self/mountinfo"))?;
    let own =
        fs::read_to_string("/proc/self/cgroup").map_err(Error::syscall("/proc/self/cgroup"))?;
    let mut home = directory(&mounts, &own)?;
    while name(&home).is_some_and(|name| name.starts_with(PREFIX)) && home.pop() {}
    Ok(home)
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// Where `own` (`/proc/self/cgroup`) lies below the cgroup2 mount of `mounts`
/// (`/proc/self/mountinfo`).
fn directory(mounts: &str, own: &str) -> Result<PathBuf, Error> {
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or(Error::Cgroup {
            reason: "/proc/self/cgroup has no entry 0::",
        })?;
    // 31 23 0:28 <root> <mount point> <options> [optional…] - <type> <source> <options>
    mounts
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .filter(|(_, tail)| tail.split(' ').next() == Some("cgroup2"))
        .find_map(|(head, _)| {
            let mut fields = head.split(' ').skip(3).map(unescape);
            let (root, point) = (fields.next()?, fields.next()?);
            let below = Path::new(own).strip_prefix(&root).ok()?;
            let inside = !below.components().any(|part| part.as_os_str() == "..");
            inside.then(|| Path::new(&point).join(below))
        })
        .ok_or(Error::Cgroup {
            reason: "no cgroup2 mount shows this process's own cgroup",
        })
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(field.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Removes the directories whose process is gone.
fn sweep(home: &Path) {
    let Ok(entries) = fs::read_dir(home) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let owner = name(&path)
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|pid| pid.parse::<u32>().ok());
        let dead = owner.is_some_and(|pid| {
            // Our own id on a directory that we have not made yet: its owner had it before us.
            pid == process::id() || !Path::new(&format!("/proc/{pid}")).exists()
        });
        if dead {
            // Another lab may be sweeping it at the same time; the next one tries again.
            let _ = evacuate(&path, home);
        }
    }
}

/// Moves every process from `path` and what lies below it to `home`, then removes `path`.
fn evacuate(path: &Path, home: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            evacuate(&entry.path(), home)?;
        }
    }
    for pid in fs::read_to_string(path.join("cgroup.procs"))?.lines() {
        if let Ok(pid) = pid.parse() {
            join(home, pid)?;
        }
    }
    fs::remove_dir(path)
}

/// Moves a process.
pub(crate) fn join(path: &Path, pid: u32) -> io::Result<()> {
    fs::write(path.join("cgroup.procs"), pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_below_hybrid_and_unified_mounts() {
        let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let own = "9:name=systemd:/\n0::/user.slice/a\n";
        assert_eq!(
            directory(hybrid, own).unwrap(),
            Path::new("/sys/fs/cgroup/unified/user.slice/a")
        );
        let unified = "31 23 0:28 /user.slice /mnt/c\\040g rw shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(directory(unified, own).unwrap(), Path::new("/mnt/c g/a"));
    }

    #[test]
    fn a_cgroup_outside_of_every_mount_is_an_error() {
        let unified = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert!(matches!(
            directory(unified, "0::/../other\n"),
            Err(Error::Cgroup { .. })
        ));
        assert!(matches!(directory("", "0::/\n"), Err(Error::Cgroup { .. })));
        assert!(matches!(directory(unified, ""), Err(Error::Cgroup { .. })));
    }
}

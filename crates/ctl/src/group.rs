//! cgroup2 directories: their ids, paths and processes.

use anyhow::Context;
use dynencap_abi::MAX_CGROUP_LEVELS;
use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
};

/// The directory without links and dots, so that paths can be compared.
pub(crate) fn canonical(path: &Path) -> anyhow::Result<PathBuf> {
    fs::canonicalize(path).with_context(|| {
        format!(
            "cgroup {}: expected a directory below a cgroup2 mount",
            path.display()
        )
    })
}

/// The id under which policies are kept: the inode number of the directory.
pub(crate) fn id(path: &Path) -> anyhow::Result<u64> {
    let metadata = fs::metadata(path).with_context(|| format!("cgroup {}", path.display()))?;
    Ok(metadata.ino())
}

/// Where the ids' directories are, at and below `root`.
pub(crate) fn paths(root: &Path) -> HashMap<u64, PathBuf> {
    let mut found = HashMap::new();
    let mut rest = vec![root.to_owned()];
    while let Some(path) = rest.pop() {
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        found.insert(metadata.ino(), path.clone());
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                rest.push(entry.path());
            }
        }
    }
    found
}

/// The path, if policies of it can work: at or below the installed cgroup, and not too deep.
pub(crate) fn served(path: &Path, installed: &Path) -> anyhow::Result<PathBuf> {
    // Those of a file are most easily written from the installed cgroup on.
    let path = canonical(&installed.join(path))?;
    anyhow::ensure!(
        path.starts_with(installed),
        "cgroup {} is not below {}, for which dynencap is installed: its processes cannot have exits",
        path.display(),
        installed.display()
    );
    let levels = path
        .ancestors()
        .take_while(|path| path.join("cgroup.procs").exists())
        .count();
    anyhow::ensure!(
        levels <= MAX_CGROUP_LEVELS,
        "cgroup {} lies {levels} levels deep: policies are found on the first {MAX_CGROUP_LEVELS}",
        path.display()
    );
    Ok(path)
}

/// This process's directory, wherever it is, in the hierarchy of `installed`.
pub(crate) fn home(installed: &Path) -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let top = installed
        .ancestors()
        .take_while(|path| path.join("cgroup.procs").exists())
        .last()?;
    Some(top.join(own.trim_start_matches('/')))
}

/// Moves this process.
pub(crate) fn join(path: &Path) -> io::Result<()> {
    fs::write(path.join("cgroup.procs"), process::id().to_string())
}

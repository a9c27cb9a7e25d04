//! The BPF toolchain: which compilers here can build the programs, and their versions.

use crate::setup;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[derive(Serialize, Deserialize, PartialEq, Eq, Clone)]
pub(super) struct Versions {
    /// Its version goes into the names of functions.
    pub(super) cargo: String,
    pub(super) rustc: String,
    pub(super) llvm: String,
    pub(super) linker: String,
}

/// A compiler that has the sources of `core`.
pub(super) struct Toolchain {
    pub(super) rustc: PathBuf,
    pub(super) sysroot: PathBuf,
    pub(super) versions: Versions,
}

impl Toolchain {
    /// The toolchain with the preferred versions if it is here, else any that can build.
    pub(super) fn find(preferred: Option<&Versions>) -> anyhow::Result<Option<Self>> {
        let Some(linker) = output(Command::new(setup::LINKER).arg("--version")) else {
            return Ok(None);
        };
        let nightly =
            output(Command::new("rustup").args(["which", "rustc", "--toolchain", "nightly"]));
        let candidates = std::iter::once(PathBuf::from("/usr/bin/rustc"))
            .chain(nightly.map(PathBuf::from))
            .filter_map(|rustc| Self::at(rustc, &linker));
        let mut found: Vec<Self> = candidates.collect();
        let index = found
            .iter()
            .position(|t| Some(&t.versions) == preferred)
            .unwrap_or(0);
        Ok((index < found.len()).then(|| found.swap_remove(index)))
    }

    fn at(rustc: PathBuf, linker: &str) -> Option<Self> {
        let version = output(Command::new(&rustc).arg("-vV"))?;
        let llvm = version
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: "))?
            .to_owned();
        let sysroot = PathBuf::from(output(Command::new(&rustc).args(["--print", "sysroot"]))?);
        if !sysroot.join("lib/rustlib/src/rust/library/core").exists() {
            return None;
        }
        let versions = Versions {
            cargo: output(Command::new(cargo()).arg("--version"))?,
            rustc: version.lines().next()?.to_owned(),
            llvm,
            linker: linker.to_owned(),
        };
        Some(Self {
            rustc,
            sysroot,
            versions,
        })
    }

    pub(super) fn tool(&self, name: &str) -> anyhow::Result<PathBuf> {
        let debian = Path::new(setup::LLVM_PREFIX).join("bin").join(name);
        if debian.exists() {
            return Ok(debian);
        }
        // The component llvm-tools of rustup.
        let folder = self.sysroot.join("lib/rustlib");
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path().join("bin").join(name);
            if path.exists() {
                return Ok(path);
            }
        }
        bail!("no {name} here: `cargo xtask setup --bpf` or rustup's llvm-tools bring it")
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}, LLVM {}, {}, {}",
            self.rustc, self.llvm, self.linker, self.cargo
        )
    }
}

/// The first and only line, or all, of what a command prints; `None` when it is not there or
/// fails.
pub(super) fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub(super) fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

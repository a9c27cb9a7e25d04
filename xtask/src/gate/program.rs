//! The measuring programs: built, and run.

use super::count::{Counts, parse_lines};
use crate::child::{self, Limits, Show};
use anyhow::{Context, bail, ensure};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The status by which a program says that this machine does not allow what it was asked for.
const UNAVAILABLE: i32 = 69;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Measures the model.
    Model,
    /// Measures an object.
    Object,
}

impl Kind {
    /// The package; its program has the same name.
    fn package(self) -> &'static str {
        match self {
            Self::Model => "dynencap-gate-model",
            Self::Object => "dynencap-gate-object",
        }
    }

    /// By which a revision is known to have it.
    pub(crate) fn manifest(self) -> &'static str {
        match self {
            Self::Model => "benches/gate/model/Cargo.toml",
            Self::Object => "benches/gate/object/Cargo.toml",
        }
    }
}

/// What a program says.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Its numbers.
    Counts(Counts),
    /// Why this machine does not allow what it was asked for.
    Unavailable(String),
}

/// A program, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
}

impl Program {
    /// Builds one, in the workspace at `root`, as users get it.
    pub(crate) fn build(
        kind: Kind,
        root: &Path,
        target: &Path,
        limits: &Limits,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .current_dir(root)
            .args(["build", "--release", "--package", kind.package()])
            .arg("--target-dir")
            .arg(target)
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_TERM_PROGRESS_WHEN", "never");
        child::run(&mut command, Show::Failure, limits, |_| {})?;
        let path = target.join("release").join(kind.package());
        ensure!(path.is_file(), "cargo left no {}", path.display());
        Ok(Self { path })
    }

    /// The same, moved out of `target`, where another revision's would take its place.
    pub(crate) fn build_apart(
        kind: Kind,
        root: &Path,
        target: &Path,
        into: &Path,
        limits: &Limits,
    ) -> anyhow::Result<Self> {
        let built = Self::build(kind, root, target, limits)?;
        let path = into.join(kind.package());
        std::fs::rename(&built.path, &path)
            .or_else(|_| std::fs::copy(&built.path, &path).map(drop))?;
        Ok(Self { path })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it and reads its lines.
    pub(crate) fn ask(&self, arguments: &[impl AsRef<OsStr>]) -> anyhow::Result<Answer> {
        let output = self.output(arguments)?;
        if output.status.code() == Some(UNAVAILABLE) {
            return Ok(Answer::Unavailable(complaint(&output)));
        }
        if !output.status.success() {
            bail!("{}: {}", output.status, complaint(&output));
        }
        let counts = parse_lines(&String::from_utf8(output.stdout)?)?;
        ensure!(
            !counts.is_empty(),
            "{} measured nothing",
            self.path.display()
        );
        Ok(Answer::Counts(counts))
    }

    /// Runs it; what it prints, and what it says beside that.
    pub(crate) fn text(&self, arguments: &[impl AsRef<OsStr>]) -> anyhow::Result<(String, String)> {
        let output = self.output(arguments)?;
        if !output.status.success() {
            bail!("{}: {}", output.status, complaint(&output));
        }
        let said = complaint(&output);
        Ok((String::from_utf8(output.stdout)?, said))
    }

    fn output(&self, arguments: &[impl AsRef<OsStr>]) -> anyhow::Result<Output> {
        Command::new(&self.path)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| self.path.display().to_string())
    }
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

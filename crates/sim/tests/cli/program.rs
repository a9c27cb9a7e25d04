//! Running the real `dynsim` and reading what it says. What is right is the tests' affair.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The binary under test.
pub(crate) const DYNSIM: &str = env!("CARGO_BIN_EXE_dynsim");

/// The repository's recorded captures, in order.
pub(crate) fn captures() -> Vec<PathBuf> {
    let folder = repository().join("testdata");
    let mut found: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|e| e == "pcap" || e == "pcapng")
        })
        .collect();
    found.sort();
    assert!(found.len() >= 8, "{}: {found:?}", folder.display());
    found
}

/// One of them.
pub(crate) fn capture(name: &str) -> PathBuf {
    repository().join("testdata").join(name)
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What a run came to.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Run {
    /// Holds the exit code to what is expected, with everything said in the failure.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// The report that `--json` printed.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("{error} in {:?}, stderr {:?}", self.stdout, self.stderr),
        }
    }
}

/// `dynsim replay TRACE ARGUMENTS…`
pub(crate) fn replay(trace: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(DYNSIM);
    command.arg("replay").arg(trace).args(arguments);
    command
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Run {
    command.output().unwrap().into()
}

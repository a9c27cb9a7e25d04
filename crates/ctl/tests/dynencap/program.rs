//! Running the real `dynencap`, and reading what it says.

use serde_json::Value;
use std::process::{Command, Output};

/// The binary under test.
pub(crate) const DYNENCAP: &str = env!("CARGO_BIN_EXE_dynencap");

/// What a run came to.
#[derive(Debug)]
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
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Holds stderr to words.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {self:#?}");
        }
        self
    }

    /// What `--json` printed.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Where no namespace is needed.
pub(crate) fn dynencap(arguments: &[&str]) -> Run {
    Command::new(DYNENCAP)
        .args(arguments)
        .output()
        .unwrap()
        .into()
}

//! What `cargo test` says, read line by line: how much ran in which tier, and what was skipped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What one tier did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

/// Reads the output of one `cargo test`.
pub(crate) struct Reading {
    root: PathBuf,
    tier: String,
    /// By tier: the crate, or `documentation` for its examples.
    pub(crate) tiers: BTreeMap<String, Tally>,
    /// What tests said that they skipped, in their words.
    pub(crate) skipped: Vec<String>,
}

impl Reading {
    /// Of the workspace at `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            tier: String::new(),
            tiers: BTreeMap::new(),
            skipped: Vec::new(),
        }
    }

    /// Takes in one line.
    pub(crate) fn line(&mut self, line: &str) {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("Running ") {
            self.tier = self.tier_of(rest);
        } else if line.starts_with("Doc-tests ") {
            self.tier = "documentation".to_owned();
        } else if let Some(rest) = line.strip_prefix("test result: ") {
            let tally = self.tiers.entry(self.tier.clone()).or_default();
            tally.passed += count(rest, "passed");
            tally.failed += count(rest, "failed");
            tally.ignored += count(rest, "ignored");
        } else if let Some(at) = line.find("skipped: ")
            && !line[..at].ends_with("may not be ")
        {
            // Test threads write while the harness is in the middle of a line.
            self.skipped.push(line[at + "skipped: ".len()..].to_owned());
        }
    }

    /// How many tests of a tier passed.
    pub(crate) fn passed(&self, tier: &str) -> u64 {
        self.tiers.get(tier).map_or(0, |tally| tally.passed)
    }

    /// `unittests src/lib.rs (target/debug/deps/dynencap_vm-0123)` is of the tier `vm`, and
    /// `tests/trace.rs (…)` of the crate that has this file.
    fn tier_of(&self, running: &str) -> String {
        let (source, binary) = running.split_once(" (").unwrap_or((running, ""));
        let stem = Path::new(binary.trim_end_matches(')'))
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let stem = stem.rsplit_once('-').map_or(&stem[..], |(stem, _)| stem);
        if source.starts_with("unittests ") {
            return match stem.strip_prefix("dynencap_") {
                Some(of_crate) => of_crate.to_owned(),
                None if stem == "dynsim" => "sim".to_owned(),
                // Library and tool are of one name.
                None if stem == "dynencap" && source.ends_with("lib.rs") => "client".to_owned(),
                None if stem == "dynencap" => "ctl".to_owned(),
                None => stem.to_owned(),
            };
        }
        let owner = std::fs::read_dir(self.root.join("crates"))
            .into_iter()
            .flatten()
            .flatten()
            .find(|entry| entry.path().join(source).is_file());
        owner.map_or_else(
            || stem.to_owned(),
            |entry| entry.file_name().to_string_lossy().into_owned(),
        )
    }
}

/// The number in front of a word, as in `12 passed; 0 failed`.
fn count(text: &str, word: &str) -> u64 {
    let words: Vec<&str> = text.split([' ', ';', '.']).collect();
    words
        .windows(2)
        .find(|pair| pair[1] == word)
        .and_then(|pair| pair[0].parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up_by_tier() {
        let root = tempfile::tempdir().unwrap();
        let tests = root.path().join("crates/kernel/tests/kernel");
        std::fs::create_dir_all(&tests).unwrap();
        std::fs::write(tests.join("main.rs"), "").unwrap();
        let mut reading = Reading::new(root.path());
        for line in [
            "     Running unittests src/lib.rs (target/debug/deps/dynencap_kernel-0a1b)",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s",
            "     Running tests/kernel/main.rs (target/debug/deps/kernel-0a1b)",
            "skipped: egress::a: no root",
            "test egress::b ... skipped: egress::c: no root",
            "may not be skipped: egress::d: no root",
            "test result: FAILED. 20 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out",
            "     Running unittests src/main.rs (target/debug/deps/dynsim-0a1b)",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            "     Running unittests src/lib.rs (target/debug/deps/dynencap-0a1b)",
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            "     Running unittests src/main.rs (target/debug/deps/dynencap-0a1c)",
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            "   Doc-tests dynencap_abi",
            "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            reading.line(line);
        }
        let kernel = Tally {
            passed: 23,
            failed: 2,
            ignored: 1,
        };
        assert_eq!(reading.tiers.get("kernel"), Some(&kernel));
        assert_eq!(reading.passed("sim"), 1);
        assert_eq!((reading.passed("client"), reading.passed("ctl")), (2, 5));
        assert_eq!(reading.passed("documentation"), 4);
        assert_eq!(reading.passed("vm"), 0);
        assert_eq!(
            reading.skipped,
            ["egress::a: no root", "egress::c: no root"]
        );
    }
}

//! The step that refuses what is slower: runs `cargo xtask gate` and takes over its report.

use super::Run;
use crate::child::{self, Show};
use anyhow::ensure;
use std::process::Command;

impl Run {
    /// What got slower. Times are compared with `--long` alone: they take minutes.
    pub(super) fn gate(&mut self) -> anyhow::Result<()> {
        let mut gate = self.xtask(&["gate", if self.long { "--time" } else { "--short" }])?;
        if let Some(revision) = &self.against {
            let mut known = Command::new("git");
            known.current_dir(&self.root).args(["cat-file", "-e"]);
            // Of a branch that is new, or was rewritten, the one before is not here.
            if child::answer(known.arg(format!("{revision}^{{commit}}"))).is_some() {
                gate.arg("--against").arg(revision);
            } else {
                let what = format!("gate: comparison with {revision}: it is not here");
                self.skipped.push(what);
            }
        }
        let mut report = false;
        let (mut ran, mut skipped) = (Vec::new(), Vec::new());
        child::run(&mut gate, Show::Live, &self.limits, |line| {
            report |= line == "== report";
            if !report {
            } else if let Some(what) = line.strip_prefix("ran: ") {
                ran.push(format!("gate: {what}"));
            } else if let Some(what) = line.strip_prefix("skipped: ") {
                skipped.push(format!("gate: {what}"));
            }
        })?;
        ensure!(!ran.is_empty(), "the gate compared nothing");
        self.ran.append(&mut ran);
        self.skipped.append(&mut skipped);
        Ok(())
    }
}

//! Whether a recorded file holds what it is for, judged by tshark. A file that fails is not kept.

use std::path::Path;

use anyhow::{Context as _, ensure};

use super::program::{TSHARK, run};

/// A condition that a capture exists for: at least so many frames match a display filter.
pub(super) struct Condition {
    pub(super) filter: &'static str,
    pub(super) at_least: usize,
}

/// At least `at_least` frames match `filter`.
pub(super) const fn frames(filter: &'static str, at_least: usize) -> Condition {
    Condition { filter, at_least }
}

/// No capture may hold frames that were cut short. (What tshark calls malformed is no measure: it
/// counts retransmissions that overlap in an application's stream.)
const CUT: &str = "frame.cap_len < frame.len";

/// Fails with the first condition that `capture` does not meet.
pub(super) fn verify(home: &Path, capture: &Path, conditions: &[Condition]) -> anyhow::Result<()> {
    for Condition { filter, at_least } in conditions {
        let found = count(home, capture, filter)?;
        ensure!(
            found >= *at_least,
            "`{filter}` matches {found} frames, not {at_least} or more"
        );
    }
    let cut = count(home, capture, CUT)?;
    ensure!(cut == 0, "`{CUT}` matches {cut} frames");
    Ok(())
}

fn count(home: &Path, capture: &Path, filter: &str) -> anyhow::Result<usize> {
    let mut tshark = TSHARK.command(home);
    tshark.arg("-n").arg("-r").arg(capture).args(["-Y", filter]);
    tshark.args(["-T", "fields", "-e", "frame.number"]);
    // Off by default, and conditions ask for good checksums.
    for protocol in ["ip", "tcp", "udp"] {
        tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    let lines = run(&mut tshark).with_context(|| format!("tshark on {}", capture.display()))?;
    Ok(lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .count())
}

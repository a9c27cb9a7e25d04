//! Instructions of the model's operations, as callgrind counts them: one run of the measuring
//! program, which leaves one dump for each operation.

use super::count::{Counts, Name};
use anyhow::{Context, ensure};
use std::path::Path;
use std::process::{Command, Stdio};

/// The function that each operation runs in; nothing outside it is counted.
const MEASURED: &str = "dynencap_gate_model::measured";

/// Whether valgrind is here.
pub(crate) fn is_there() -> bool {
    crate::child::answer(Command::new("valgrind").arg("--version")).is_some()
}

/// Instructions of each operation.
pub(crate) fn count(program: &Path) -> anyhow::Result<Counts> {
    let list = Command::new(program).arg("list").output()?;
    ensure!(list.status.success(), "{} list", program.display());
    let list = String::from_utf8(list.stdout)?;
    let folder = tempfile::tempdir()?;
    let dump = folder.path().join("dump");
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", dump.display()))
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg(format!("--dump-after={MEASURED}"))
        .arg(program)
        .arg("run")
        .stdin(Stdio::null())
        .output()
        .context("valgrind")?;
    ensure!(
        output.status.success(),
        "valgrind: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let mut counts = Counts::new();
    for (number, line) in (1..).zip(list.lines()) {
        let words = line.split_once(' ');
        let (name, times) = words.context("an operation and how often it runs")?;
        let times: u64 = times.parse()?;
        let file = folder.path().join(format!("dump.{number}"));
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("callgrind left no dump of {name}"))?;
        let total = total(&text).with_context(|| format!("{name}: the dump has no total"))?;
        // A name that is not found would count nothing, and nothing never grows.
        ensure!(total > times, "{name}: callgrind saw nothing of it");
        let each = (total + times / 2) / times;
        counts.insert(Name::new("model", name, "instructions"), each);
    }
    let more = folder.path().join(format!("dump.{}", counts.len() + 1));
    ensure!(
        !counts.is_empty() && !more.exists(),
        "callgrind left other dumps than there are operations"
    );
    Ok(counts)
}

fn total(dump: &str) -> Option<u64> {
    let line = dump.lines().find_map(|line| line.strip_prefix("totals: "));
    line?.trim().parse().ok()
}

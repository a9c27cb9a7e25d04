//! What each kernel offers: a script tries it in the guest, and the answers become a table.

use super::kernel::{Kernel, Series};
use super::machine;
use crate::child::Limits;
use anyhow::ensure;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const PROBE: &str = include_str!("feature.sh");

/// Answers by feature, in the order of asking.
pub(super) type Answers = Vec<(String, String)>;

/// Asks one kernel.
pub(super) fn ask(kernel: &Kernel, limits: &Limits) -> anyhow::Result<Answers> {
    let config = kernel.root.join(format!("boot/config-{}", kernel.release));
    let config = machine::quoted(&config.to_string_lossy());
    let mut answers = Answers::new();
    let script = format!("config={config}\n{PROBE}");
    let ending = machine::run(kernel, &script, limits, |line| {
        answers.extend(answer(line));
    })?;
    ensure!(ending.finished, "the guest died; {}", ending.console);
    Ok(answers)
}

/// `feature: <name>: <answer>`
fn answer(line: &str) -> Option<(String, String)> {
    let (name, answer) = line.strip_prefix("feature: ")?.split_once(": ")?;
    Some((name.to_owned(), answer.to_owned()))
}

/// A table in Markdown, a column for each kernel.
pub(super) fn table(kernels: &[(Series, Answers)]) -> String {
    let mut text = String::from("| |");
    for (series, _) in kernels {
        // Writing to a string does not fail.
        let _ = write!(text, " {series} |");
    }
    let _ = write!(text, "\n|---|{}\n", "---|".repeat(kernels.len()));
    let columns: Vec<BTreeMap<&str, &str>> = kernels
        .iter()
        .map(|(_, answers)| answers.iter().map(|(a, b)| (&a[..], &b[..])).collect())
        .collect();
    let first = kernels.first().map_or(&[][..], |(_, answers)| answers);
    for (name, _) in first {
        let _ = write!(text, "| {name} |");
        for column in &columns {
            let _ = write!(text, " {} |", column.get(&name[..]).unwrap_or(&"?"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_columns() {
        let answers =
            |lines: &[&str]| -> Answers { lines.iter().filter_map(|line| answer(line)).collect() };
        let old = answers(&["noise", "feature: device netkit: no", "feature: fou: yes"]);
        let new = answers(&["feature: device netkit: yes"]);
        let text = table(&[
            ("6.1".parse().unwrap(), old),
            ("6.12".parse().unwrap(), new),
        ]);
        assert_eq!(
            text,
            "| | 6.1 | 6.12 |\n|---|---|---|\n| device netkit | no | yes |\n| fou | yes | ? |\n"
        );
    }
}

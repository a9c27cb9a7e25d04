//! Numbers by name: as the measuring programs print them, and as the baseline's file has them.

use anyhow::{Context, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    /// `path`, `program`, `allocation`, `model`, `kernel`, `time`.
    pub(crate) table: String,
    /// A path, a program, an operation.
    pub(crate) subject: String,
    /// `instructions`, `helpers`, `stack`, …
    pub(crate) column: String,
}

impl Name {
    pub(crate) fn new(table: &str, subject: &str, column: &str) -> Self {
        Self {
            table: table.to_owned(),
            subject: subject.to_owned(),
            column: column.to_owned(),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.table, self.subject, self.column)
    }
}

/// Numbers by name, in the names' order.
pub(crate) type Counts = BTreeMap<Name, u64>;

/// What stands above the numbers in the file.
const HEAD: &str = "\
# What the committed BPF object and the model's hot path cost, by the bytes alone: the same on
# every machine. `cargo xtask gate --bless` writes this file; docs/gate.md says how to read it.
";

/// Reads lines as `table subject column=number column=number`.
pub(crate) fn parse_lines(text: &str) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(table), Some(subject)) = (words.next(), words.next()) else {
            bail!("no table and subject: {line}");
        };
        for word in words {
            let number = word.split_once('=').and_then(|(column, number)| {
                Some((Name::new(table, subject, column), number.parse().ok()?))
            });
            let (name, number) = number.with_context(|| format!("no number: {line}"))?;
            if counts.insert(name, number).is_some() {
                bail!("twice: {line}");
            }
        }
    }
    Ok(counts)
}

/// The file: a block for each table, a line for each subject, columns of fixed width, so that
/// a number that changes changes its line alone.
pub(crate) fn render(counts: &Counts) -> String {
    let mut text = HEAD.to_owned();
    let tables: BTreeSet<&str> = counts.keys().map(|name| name.table.as_str()).collect();
    for table in tables {
        let of_table = || counts.keys().filter(|name| name.table == table);
        let columns: BTreeSet<&str> = of_table().map(|name| name.column.as_str()).collect();
        let subjects: BTreeSet<&str> = of_table().map(|name| name.subject.as_str()).collect();
        let _ = write!(text, "\n{table:<44}");
        for column in &columns {
            let _ = write!(text, " {column:>12}");
        }
        text.push('\n');
        for subject in subjects {
            let _ = write!(text, "{subject:<44}");
            for column in &columns {
                match counts.get(&Name::new(table, subject, column)) {
                    Some(number) => {
                        let _ = write!(text, " {number:>12}");
                    }
                    None => {
                        let _ = write!(text, " {:>12}", "-");
                    }
                }
            }
            text.push('\n');
        }
    }
    text
}

/// Reads what [`render`] wrote.
pub(crate) fn parse_file(text: &str) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    let mut head: Option<(&str, Vec<&str>)> = None;
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else {
            head = None;
            continue;
        };
        let words: Vec<&str> = words.collect();
        let Some((table, columns)) = &head else {
            head = Some((first, words));
            continue;
        };
        if words.len() != columns.len() {
            bail!("{} columns are due: {line}", columns.len());
        }
        for (column, number) in columns.iter().zip(words) {
            if number == "-" {
                continue;
            }
            let number = number
                .parse()
                .with_context(|| format!("no number: {line}"))?;
            if counts
                .insert(Name::new(table, first, column), number)
                .is_some()
            {
                bail!("twice: {line}");
            }
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "\
path egress/ip6 instructions=383 helpers=5
path egress/no-exit instructions=42 helpers=2
program egress instructions=3661 stack=472
";

    #[test]
    fn the_file_gives_back_what_was_written() {
        let counts = parse_lines(LINES).unwrap();
        assert_eq!(counts.len(), 6);
        let text = render(&counts);
        assert!(text.contains("egress/ip6 "), "{text}");
        assert_eq!(parse_file(&text).unwrap(), counts);
    }

    #[test]
    fn one_number_more_or_less_is_one_line_of_the_file() {
        let before = render(&parse_lines(LINES).unwrap());
        let after = LINES.replace("383", "1383000");
        let after = render(&parse_lines(&after).unwrap());
        let changed = before.lines().zip(after.lines()).filter(|(a, b)| a != b);
        assert_eq!(changed.count(), 1);
    }

    #[test]
    fn what_is_no_number_is_told_with_its_line() {
        for (text, expected) in [
            ("path", "no table"),
            ("path egress instructions", "no number"),
            ("path egress instructions=many", "no number"),
            ("path a n=1\npath a n=2", "twice"),
        ] {
            let error = parse_lines(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        for text in ["path n\na 1 2", "path n\na x", "path n\na 1\na 2"] {
            assert!(parse_file(text).is_err(), "{text}");
        }
    }
}

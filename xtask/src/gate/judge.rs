//! Old numbers against new ones: what grew, what shrank, what came and went, and what of it a
//! commit accepts. Owns the limit and the table that a failure prints.

use super::count::{Counts, Name};
use std::fmt::Write as _;

/// Growth of more than this many percent fails.
const LIMIT: f64 = 1.0;
/// The line in a commit's message that accepts a growth: what, how much, why.
const TRAILER: &str = "Gate-accepts:";

/// What became of one number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: Name,
    pub(crate) old: Option<u64>,
    pub(crate) new: Option<u64>,
}

impl Row {
    /// In percent; from nothing to something is infinite.
    pub(crate) fn change(&self) -> f64 {
        match (self.old, self.new) {
            (Some(old), Some(new)) if old != new => (new as f64 - old as f64) * 100.0 / old as f64,
            _ => 0.0,
        }
    }
}

/// All that differs.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// By more than the limit, and not accepted.
    pub(crate) grown: Vec<Row>,
    /// By more than the limit, and accepted.
    pub(crate) accepted: Vec<Row>,
    /// By any number.
    pub(crate) shrunk: Vec<Row>,
    /// In the new numbers alone.
    pub(crate) added: Vec<Row>,
    /// In the old numbers alone.
    pub(crate) gone: Vec<Row>,
}

impl Verdict {
    /// Whether there is anything to say.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts().iter().all(|(_, rows)| rows.is_empty())
    }

    fn parts(&self) -> [(&'static str, &[Row]); 5] {
        [
            ("GREW by more than 1 %", &self.grown),
            ("grew, as a commit accepts", &self.accepted),
            ("shrank", &self.shrunk),
            ("new", &self.added),
            ("gone", &self.gone),
        ]
    }

    /// What differs, as a table.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for (title, rows) in self.parts() {
            if rows.is_empty() {
                continue;
            }
            let _ = writeln!(text, "{title:<56} {:>10} {:>10}", "old", "new");
            for row in rows {
                let number = |number: Option<u64>| {
                    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
                };
                let change = match row.change() {
                    0.0 => String::new(),
                    change if change.is_infinite() => "from nothing".to_owned(),
                    change => format!("{change:+.1} %"),
                };
                let line = format!(
                    "  {:<54} {:>10} {:>10}  {change}",
                    row.name.to_string(),
                    number(row.old),
                    number(row.new),
                );
                let _ = writeln!(text, "{}", line.trim_end());
            }
        }
        text
    }
}

/// A growth that a commit accepts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Acceptance {
    /// `table/subject`; a `*` at its end stands for any rest.
    pattern: String,
    /// In percent.
    limit: f64,
}

impl Acceptance {
    fn covers(&self, row: &Row) -> bool {
        let full = format!("{}/{}", row.name.table, row.name.subject);
        let fits = match self.pattern.strip_suffix('*') {
            Some(prefix) => full.starts_with(prefix),
            None => full == self.pattern,
        };
        fits && row.change() <= self.limit
    }
}

/// Acceptances in commits' messages: `Gate-accepts: model/encapsulate/* 5% because …`.
/// Lines that say no reason, or are none, accept nothing and are returned beside.
pub(crate) fn acceptances(messages: &str) -> (Vec<Acceptance>, Vec<String>) {
    let (mut acceptances, mut malformed) = (Vec::new(), Vec::new());
    for line in messages.lines().map(str::trim) {
        let Some(rest) = line.strip_prefix(TRAILER) else {
            continue;
        };
        let mut words = rest.split_whitespace();
        let pattern = words.next();
        let limit = words
            .next()
            .and_then(|word| word.strip_suffix('%')?.parse::<f64>().ok());
        match (pattern, limit, words.next()) {
            (Some(pattern), Some(limit), Some(_)) => acceptances.push(Acceptance {
                pattern: pattern.to_owned(),
                limit,
            }),
            _ => malformed.push(line.to_owned()),
        }
    }
    (acceptances, malformed)
}

/// Compares.
pub(crate) fn judge(old: &Counts, new: &Counts, accepted: &[Acceptance]) -> Verdict {
    let mut verdict = Verdict::default();
    for (name, number) in new {
        let row = Row {
            name: name.clone(),
            old: old.get(name).copied(),
            new: Some(*number),
        };
        let rows = match row.change() {
            _ if row.old.is_none() => &mut verdict.added,
            change if change > LIMIT && accepted.iter().any(|one| one.covers(&row)) => {
                &mut verdict.accepted
            }
            change if change > LIMIT => &mut verdict.grown,
            change if change < 0.0 => &mut verdict.shrunk,
            _ => continue,
        };
        rows.push(row);
    }
    verdict.gone = old
        .iter()
        .filter(|(name, _)| !new.contains_key(name))
        .map(|(name, number)| Row {
            name: name.clone(),
            old: Some(*number),
            new: None,
        })
        .collect();
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::count::parse_lines;

    fn judged(old: &str, new: &str, messages: &str) -> Verdict {
        let (accepted, malformed) = acceptances(messages);
        assert_eq!(malformed, [""; 0]);
        judge(
            &parse_lines(old).unwrap(),
            &parse_lines(new).unwrap(),
            &accepted,
        )
    }

    fn titles(verdict: &Verdict) -> Vec<&'static str> {
        let parts = verdict.parts();
        let some = parts.iter().filter(|(_, rows)| !rows.is_empty());
        some.map(|(title, _)| *title).collect()
    }

    #[test]
    fn the_limit_is_one_percent() {
        for (old, new, title) in [
            (1000, 1000, None),
            (1000, 1010, None),
            (1000, 1011, Some("GREW by more than 1 %")),
            (1000, 999, Some("shrank")),
            (5, 6, Some("GREW by more than 1 %")),
            (0, 0, None),
            (0, 1, Some("GREW by more than 1 %")),
            (1, 0, Some("shrank")),
        ] {
            let verdict = judged(&format!("t s n={old}"), &format!("t s n={new}"), "");
            assert_eq!(titles(&verdict).first().copied(), title, "{old} {new}");
            assert_eq!(verdict.is_empty(), title.is_none());
        }
    }

    #[test]
    fn the_table_names_what_grew_with_both_numbers() {
        let verdict = judged(
            "path egress/ip6 instructions=383 helpers=5\npath old n=1\nallocation a n=0",
            "path egress/ip6 instructions=390 helpers=6\npath new n=1\nallocation a n=2",
            "",
        );
        let table = verdict.table();
        let words = |start: &str| {
            let line = table.lines().find(|line| line.trim().starts_with(start));
            let line = line.unwrap_or_else(|| panic!("{start}: {table}"));
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            words("path/egress/ip6 instructions"),
            "path/egress/ip6 instructions 383 390 +1.8 %"
        );
        assert_eq!(
            words("path/egress/ip6 helpers"),
            "path/egress/ip6 helpers 5 6 +20.0 %"
        );
        assert_eq!(words("allocation/a"), "allocation/a n 0 2 from nothing");
        assert_eq!(words("path/old"), "path/old n 1 -");
        assert_eq!(words("path/new"), "path/new n - 1");
    }

    #[test]
    fn a_commit_accepts_what_it_names_up_to_what_it_says() {
        for (message, accepts) in [
            ("Gate-accepts: model/encapsulate/ip6 5% the hash", true),
            ("Gate-accepts: model/encapsulate/* 4.5% the hash", true),
            ("  Gate-accepts: model/* 100% x", true),
            ("Gate-accepts: model/encapsulate/ip6 3% too little", false),
            ("Gate-accepts: model/encapsulate 5% another", false),
            ("nothing", false),
        ] {
            let (old, new) = ("model encapsulate/ip6 n=100", "model encapsulate/ip6 n=104");
            let verdict = judged(old, new, message);
            assert_eq!(verdict.accepted.len(), usize::from(accepts), "{message}");
            assert_eq!(verdict.grown.len(), usize::from(!accepts), "{message}");
        }
    }

    #[test]
    fn an_acceptance_says_how_much_and_why() {
        for line in [
            "Gate-accepts:",
            "Gate-accepts: model/*",
            "Gate-accepts: model/* 5 because",
            "Gate-accepts: model/* 5%",
        ] {
            assert_eq!(acceptances(line), (vec![], vec![line.to_owned()]));
        }
    }
}

//! Time: two revisions' programs in turn, within one run, until both have been asked often
//! enough to tell a change from noise. What seems slower is asked again before it is believed.

use super::count::{Counts, Name};
use super::statistic::{mann_whitney, median};
use crate::child::Limits;
use std::collections::{BTreeMap, BTreeSet};

/// Slower by this, and not by chance in more than one of a hundred cases, is slower.
const LIMIT: f64 = 0.05;
const CHANCE: f64 = 0.01;
/// How often a metric must be slower before it counts.
const REPEATS: usize = 3;
/// How often each program is asked in one go.
pub(crate) const ROUNDS: usize = 14;

/// One metric.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) name: Name,
    /// Medians, in picoseconds.
    pub(crate) old: f64,
    pub(crate) new: f64,
    /// By chance alone.
    pub(crate) chance: f64,
    /// Whether it was slower each time.
    pub(crate) slower: bool,
}

impl Change {
    /// As a part of the old time.
    pub(crate) fn part(&self) -> f64 {
        self.new / self.old - 1.0
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rate = |picoseconds: f64| 1e6 / picoseconds;
        write!(
            f,
            "{:<32} {:>8.3} {:>8.3} M/s {:>+6.1} %  p = {:.4}{}",
            self.name.subject,
            rate(self.old),
            rate(self.new),
            self.part() * -100.0 / (1.0 + self.part()),
            self.chance,
            if self.slower { "  SLOWER" } else { "" }
        )
    }
}

/// Compares two programs, each of which gives its times when asked.
pub(crate) fn compare(
    mut old: impl FnMut() -> anyhow::Result<Counts>,
    mut new: impl FnMut() -> anyhow::Result<Counts>,
    rounds: usize,
    limits: &Limits,
) -> anyhow::Result<Vec<Change>> {
    let mut changes: BTreeMap<Name, Change> = BTreeMap::new();
    let mut suspects: Option<BTreeSet<Name>> = None;
    for repeat in 1..=REPEATS {
        let mut times: BTreeMap<Name, [Vec<f64>; 2]> = BTreeMap::new();
        for round in 0..rounds {
            // Each is first as often as the other: what drifts hits both.
            for turn in [round % 2, 1 - round % 2] {
                limits.check()?;
                let asked = if turn == 0 { old()? } else { new()? };
                for (name, time) in asked {
                    let of_name = times.entry(name).or_default();
                    if let Some(values) = of_name.get_mut(turn) {
                        values.push(time as f64);
                    }
                }
            }
        }
        for (name, [old, new]) in times {
            let known = !old.is_empty() && !new.is_empty();
            if !known || suspects.as_ref().is_some_and(|some| !some.contains(&name)) {
                continue;
            }
            let mut change = Change {
                name: name.clone(),
                old: median(&old),
                new: median(&new),
                chance: mann_whitney(&old, &new),
                slower: false,
            };
            change.slower = change.part() > LIMIT && change.chance < CHANCE;
            changes.insert(name, change);
        }
        let slower = changes.values().filter(|change| change.slower);
        let slower: BTreeSet<Name> = slower.map(|change| change.name.clone()).collect();
        if slower.is_empty() {
            break;
        }
        if repeat < REPEATS {
            println!("asked again: {} metrics seem slower", slower.len());
        }
        suspects = Some(slower);
    }
    Ok(changes.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times around a value, never the same twice in a row.
    fn around(value: u64) -> impl FnMut() -> anyhow::Result<Counts> {
        let mut state = value;
        move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let noise = (state >> 33) % (value / 20);
            let name = Name::new("time", "a", "picoseconds");
            Ok(Counts::from([(name, value + noise)]))
        }
    }

    fn slower(old: u64, new: u64) -> bool {
        let limits = Limits::new(None).unwrap();
        let changes = compare(around(old), around(new), ROUNDS, &limits).unwrap();
        changes.iter().all(|change| change.slower)
    }

    #[test]
    fn a_change_counts_from_five_percent_on() {
        for (old, new, expected) in [
            (10_000, 10_000, false),
            (10_000, 10_300, false),
            (10_000, 11_500, true),
            (11_500, 10_000, false),
        ] {
            assert_eq!(slower(old, new), expected, "{old} {new}");
        }
    }

    #[test]
    fn what_is_slow_once_is_asked_again() {
        let limits = Limits::new(None).unwrap();
        let mut asked = 0;
        let mut slow_at_first = around(20_000);
        let mut later = around(10_000);
        let new = || {
            asked += 1;
            if asked <= ROUNDS {
                slow_at_first()
            } else {
                later()
            }
        };
        let changes = compare(around(10_000), new, ROUNDS, &limits).unwrap();
        assert_eq!(asked, 2 * ROUNDS);
        assert!(changes.iter().all(|change| !change.slower), "{changes:?}");
    }

    #[test]
    fn what_one_of_them_lacks_is_left_out() {
        let limits = Limits::new(None).unwrap();
        let other = || {
            let name = Name::new("time", "b", "picoseconds");
            Ok(Counts::from([(name, 1)]))
        };
        assert_eq!(compare(around(10_000), other, 3, &limits).unwrap(), []);
    }
}

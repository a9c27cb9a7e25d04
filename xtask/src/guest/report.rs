//! What suites did on each kernel, read from a guest's lines, and the table of it.

use super::kernel::Series;
use crate::ci::suite::Reading;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// What a harness says of a test that it left out.
const IGNORED: &str = " ... ignored";
/// Bytes of a line that are shown at least.
const WIDE: usize = 2000;

/// One suite on one kernel.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Result {
    pub(super) suite: &'static str,
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
    pub(super) seconds: f64,
    /// Why it counts as failed, if it does.
    pub(super) fault: Option<String>,
}

/// One kernel.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) series: Series,
    /// Where it came far enough to tell.
    pub(super) release: Option<String>,
    pub(super) results: Vec<Result>,
    /// What was skipped, in the tests' words.
    pub(super) skipped: Vec<String>,
    pub(super) seconds: f64,
    /// What is wrong with the run as a whole.
    pub(super) faults: Vec<String>,
}

impl Run {
    /// Nothing has failed.
    pub(super) fn is_good(&self) -> bool {
        self.faults.is_empty() && self.results.iter().all(|result| result.fault.is_none())
    }
}

/// Follows the lines of one guest.
pub(super) struct Follower<'a> {
    root: &'a Path,
    suites: &'a [&'static str],
    current: Option<(usize, Reading)>,
    pub(super) release: Option<String>,
    pub(super) results: Vec<Result>,
    pub(super) skipped: Vec<String>,
}

impl<'a> Follower<'a> {
    /// Of a guest that runs these suites.
    pub(super) fn new(root: &'a Path, suites: &'a [&'static str]) -> Self {
        Self {
            root,
            suites,
            current: None,
            release: None,
            results: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Takes in one line; whether it is for people to see.
    pub(super) fn line(&mut self, line: &str) -> bool {
        let Some(word) = line.strip_prefix("guest: ") else {
            if let Some((_, reading)) = &mut self.current {
                reading.line(line);
                // The other way to skip: `test <name> ... ignored, <why>`
                let ignored = line
                    .strip_prefix("test ")
                    .filter(|test| test.contains(IGNORED));
                reading.skipped.extend(ignored.map(str::to_owned));
            }
            return true;
        };
        let words: Vec<&str> = word.split(' ').collect();
        match words[..] {
            ["ready", release] => self.release = Some(release.to_owned()),
            ["begin", index] => {
                let index = index.parse().ok();
                self.current = index.map(|index| (index, Reading::new(self.root)));
            }
            ["end", _, status, start, end] => self.end(status, seconds(start, end)),
            _ => {}
        }
        false
    }

    fn end(&mut self, status: &str, seconds: f64) {
        let Some((index, reading)) = self.current.take() else {
            return;
        };
        // A test says so once, whatever the number of its threads.
        let skipped: BTreeSet<&String> = reading.skipped.iter().collect();
        let tally = reading.tiers.get("");
        let (passed, failed) = tally.map_or((0, 0), |tally| (tally.passed, tally.failed));
        let skips = skipped.len() as u64;
        let ignored = skipped.iter().filter(|what| what.contains(IGNORED)).count() as u64;
        let fault = match (status, tally, failed) {
            ("0", Some(_), 0) => None,
            (_, Some(_), 1..) => Some(format!("{failed} failed")),
            (_, None, _) => Some(format!("ended with status {status} and no result")),
            _ => Some(format!("ended with status {status}")),
        };
        let suite = self.suites.get(index).copied().unwrap_or("?");
        self.skipped
            .extend(skipped.into_iter().map(|what| format!("{suite}: {what}")));
        self.results.push(Result {
            suite,
            // The harness counts a test that skipped itself as passed.
            passed: passed.saturating_sub(skips - ignored),
            failed,
            skipped: skips,
            seconds,
            fault,
        });
    }
}

fn seconds(start: &str, end: &str) -> f64 {
    let time = |text: &str| text.parse::<f64>().unwrap_or(0.0);
    time(end) - time(start)
}

/// A line for people to read: of a long one, a verifier's log mostly, the beginning and the end.
pub(super) fn shortened(line: &str) -> Cow<'_, str> {
    if line.len() <= 2 * WIDE {
        return line.into();
    }
    let boundary = |from: usize| (from..line.len()).find(|&at| line.is_char_boundary(at));
    let start = boundary(WIDE / 4).unwrap_or(0);
    let end = boundary(line.len() - WIDE).unwrap_or(line.len());
    let left_out = end - start;
    format!("{} […{left_out} bytes…] {}", &line[..start], &line[end..]).into()
}

/// The table of all kernels.
pub(super) fn table(runs: &[Run]) -> String {
    let mut text = format!(
        "{:<24} {:<10} {:>6} {:>6} {:>7} {:>8}\n",
        "kernel", "suite", "passed", "failed", "skipped", "seconds"
    );
    for run in runs {
        let name = run
            .release
            .clone()
            .unwrap_or_else(|| run.series.to_string());
        for result in &run.results {
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "{name:<24} {:<10} {:>6} {:>6} {:>7} {:>8.1}",
                result.suite, result.passed, result.failed, result.skipped, result.seconds
            );
            let fault = result.fault.as_ref();
            let _ = match fault.filter(|_| result.failed == 0) {
                Some(fault) => writeln!(text, "  {fault}"),
                None => writeln!(text),
            };
        }
        let _ = writeln!(
            text,
            "{name:<24} {:<10} {:>6} {:>6} {:>7} {:>8.1}",
            "with boot", "", "", "", run.seconds
        );
        for fault in &run.faults {
            let _ = writeln!(text, "{name:<24} {fault}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(lines: &[&str]) -> (Vec<Result>, Vec<String>) {
        let mut follower = Follower::new(Path::new("/none"), &["hygiene", "kernel"]);
        for line in lines {
            follower.line(line);
        }
        (follower.results, follower.skipped)
    }

    #[test]
    fn a_skip_is_no_pass_and_no_fault() {
        let (results, skipped) = followed(&[
            "guest: ready 6.1.0",
            "guest: begin 1",
            "test a ... skipped: a: TCX: needs Linux 6.6 or newer",
            "ok",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            "",
            "guest: end 1 0 10.50 12.75",
        ]);
        let [result] = &results[..] else {
            panic!("{results:?}");
        };
        assert_eq!(
            (result.suite, result.passed, result.skipped),
            ("kernel", 2, 1)
        );
        assert_eq!((result.seconds, &result.fault), (2.25, &None));
        assert_eq!(skipped, ["kernel: a: TCX: needs Linux 6.6 or newer"]);
    }

    #[test]
    fn what_the_harness_left_out_is_skipped_too() {
        let (results, skipped) = followed(&[
            "guest: begin 0",
            "test a ... ignored, curl is not installed",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "guest: end 0 0 1 2",
        ]);
        assert_eq!((results[0].passed, results[0].skipped), (3, 1));
        assert_eq!(skipped, ["hygiene: a ... ignored, curl is not installed"]);
    }

    #[test]
    fn a_long_line_keeps_its_beginning_and_its_end() {
        assert_eq!(shortened("short"), "short");
        let long = format!("begin{}end", "é".repeat(10_000));
        let shown = shortened(&long);
        assert!(shown.starts_with("begin") && shown.ends_with("end"));
        assert!(shown.len() < 2 * WIDE, "{}", shown.len());
    }

    #[test]
    fn failures_crashes_and_bad_endings_are_faults() {
        let result = "test result: ok. 3 passed; 0 failed; 0 ignored";
        let failed = "test result: FAILED. 3 passed; 2 failed; 0 ignored";
        for (line, end, fault) in [
            (failed, "guest: end 0 101 1 2", "2 failed"),
            (result, "guest: end 0 134 1 2", "ended with status 134"),
            (
                "",
                "guest: end 0 139 1 2",
                "ended with status 139 and no result",
            ),
            (
                "",
                "guest: end 0 0 1 2",
                "ended with status 0 and no result",
            ),
        ] {
            let (results, _) = followed(&["guest: begin 0", line, end]);
            assert_eq!(results[0].fault.as_deref(), Some(fault), "{line} {end}");
        }
        assert_eq!(followed(&["guest: begin 0", result]).0, [], "cut off");
    }

    #[test]
    fn the_table_has_a_line_for_each_suite_and_each_fault() {
        let mut run = Run {
            series: "6.1".parse().unwrap(),
            release: None,
            results: vec![Result {
                suite: "kernel",
                passed: 3,
                ..Result::default()
            }],
            skipped: Vec::new(),
            seconds: 9.0,
            faults: Vec::new(),
        };
        assert!(run.is_good());
        run.faults.push("the guest died".to_owned());
        assert!(!run.is_good());
        let text = table(&[run]);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("6.1") && text.contains("the guest died"));
    }
}

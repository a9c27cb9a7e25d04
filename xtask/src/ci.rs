//! `cargo xtask ci`: everything that has to pass before a change is kept, step by step. Owns
//! the steps, their order and the report; each step's work is another command's.
//!
//! The order builds little twice: clippy and rustdoc share what they checked, and tests are
//! built once, with the one profile that they need.

use crate::child::{self, Limits, Show};
use crate::guest;
use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

mod fuzz;
mod gate;
pub(crate) mod suite;

/// Manifests of all workspaces, the main one first.
const MANIFESTS: &[&str] = &["Cargo.toml", "crates/bpf/Cargo.toml", "fuzz/Cargo.toml"];
/// Tiers whose tests may not be skipped here.
const REQUIRED: &str = "kernel,tshark,programs";
/// Crates whose tests must run, whatever they say of themselves.
const TIERS: &[&str] = &[
    "abi", "model", "vm", "kernel", "sim", "client", "ctl", "e2e", "xtask",
];
/// A run without `--long` that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(39 * 60);
/// Building cargo-deny takes four minutes on two cores; it is not begun later than this.
const DENY_BY: Duration = Duration::from_secs(25 * 60);
/// All kernels in QEMU take up to ten minutes; none is booted later than this.
const GUEST_BY: Duration = Duration::from_secs(30 * 60);
/// What has not been seen of them then is not waited for.
const GUESTS_END: Duration = Duration::from_secs(38 * 60);
/// All suites of one kernel.
const LONG_GUEST: Duration = Duration::from_secs(100 * 60);
/// Cases of each property with `--long`.
const LONG_CASES: &str = "20000";

/// Arguments of `cargo xtask ci`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fuzz for 10 minutes each, test properties with many cases, run the benchmarks
    #[arg(long)]
    long: bool,
    /// Only these steps
    #[arg(long, value_delimiter = ',')]
    only: Vec<Step>,
    /// The revision that the gate compares with
    #[arg(long, value_name = "REV")]
    against: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    Format,
    Setup,
    Clippy,
    Doc,
    Bpf,
    Gate,
    Test,
    Fuzz,
    Deny,
    Guest,
    Bench,
}

impl Step {
    /// Cheap ones first, then those that build upon one another.
    const ORDER: [Self; 11] = [
        Self::Format,
        Self::Setup,
        Self::Clippy,
        Self::Doc,
        Self::Bpf,
        Self::Gate,
        Self::Test,
        Self::Fuzz,
        Self::Deny,
        Self::Guest,
        Self::Bench,
    ];

    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// One run of CI.
struct Run {
    root: PathBuf,
    long: bool,
    against: Option<String>,
    started: Instant,
    limits: Limits,
    /// What ran, a line each.
    ran: Vec<String>,
    /// What did not run, and why.
    skipped: Vec<String>,
}

/// What one kernel's report says.
#[derive(Default)]
struct Guest {
    ran: Vec<String>,
    skipped: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask lies in the workspace")?;
    let mut run = Run {
        root: root.to_owned(),
        long: args.long,
        against: args.against.clone(),
        started: Instant::now(),
        limits: Limits::new((!args.long).then_some(LIMIT))?,
        ran: Vec::new(),
        skipped: Vec::new(),
    };
    for step in Step::ORDER {
        let asked = args.only.is_empty() || args.only.contains(&step);
        let long_only = step == Step::Bench && !args.long && args.only.is_empty();
        if !asked || long_only {
            continue;
        }
        let name = step.name();
        println!("== {name}");
        let since = Instant::now();
        let outcome = run.step(step);
        let took = since.elapsed().as_secs();
        if let Err(error) = outcome {
            println!("ci: {name} failed after {took} s: {error:#}");
            // The line says it all; a backtrace of this program would hide it.
            std::process::exit(1);
        }
        println!("== {name}: passed in {took} s");
    }

    let all = run.started.elapsed().as_secs();
    println!("== report");
    for line in &run.ran {
        println!("ran: {line}");
    }
    for line in &run.skipped {
        println!("skipped: {line}");
    }
    println!(
        "ci: passed in {} min {} s; skipped: {}",
        all / 60,
        all % 60,
        run.skipped.len()
    );
    Ok(())
}

impl Run {
    fn step(&mut self, step: Step) -> anyhow::Result<()> {
        match step {
            Step::Format => self.format(),
            Step::Setup => self.live(&mut self.xtask(&["setup", "--bpf"])?),
            Step::Clippy => self.clippy(),
            Step::Doc => self.live(
                self.cargo("doc --locked --no-deps --workspace")
                    .env("RUSTDOCFLAGS", "-Dwarnings"),
            ),
            Step::Bpf => self.bpf(),
            Step::Gate => self.gate(),
            Step::Test => self.test(),
            Step::Fuzz => self.fuzz(),
            Step::Deny => self.deny(),
            Step::Guest => self.guest(),
            Step::Bench => self.live(&mut self.cargo("bench --locked -p dynencap-benches")),
        }
    }

    fn format(&self) -> anyhow::Result<()> {
        for manifest in MANIFESTS {
            self.live(
                self.cargo("fmt --all --check --manifest-path")
                    .args([manifest, "--", "--color", "never"]),
            )?;
        }
        Ok(())
    }

    fn clippy(&self) -> anyhow::Result<()> {
        self.live(&mut self.cargo("clippy --locked --workspace --all-targets -- -D warnings"))?;
        let mut fuzz = self.cargo("clippy --locked --manifest-path fuzz/Cargo.toml");
        fuzz.arg("--target-dir").arg(self.target_dir());
        self.live(fuzz.args(["--", "-D", "warnings"]))
    }

    fn bpf(&mut self) -> anyhow::Result<()> {
        let mut check = self.xtask(&["bpf", "--check"])?;
        let mut told = Vec::new();
        child::run(&mut check, Show::Live, &self.limits, |line| {
            if let Some(what) = line.strip_prefix("not compared: ") {
                told.push(format!("comparison of {what}"));
            }
        })?;
        self.skipped.append(&mut told);
        self.ran.push("bpf: the committed object".to_owned());
        // By the program that the gate needs next.
        self.live(&mut self.xtask(&["sequences", "--check"])?)?;
        self.ran.push("bpf: the vm's table for it".to_owned());
        Ok(())
    }

    fn test(&mut self) -> anyhow::Result<()> {
        // Tests that compare with tshark would find nothing to compare and pass.
        child::answer(Command::new("tshark").arg("--version"))
            .context("tshark is not installed: `cargo xtask setup` brings it")?;
        let mut command = self.cargo("test --locked --workspace");
        command.env("DYNENCAP_REQUIRE", REQUIRED);
        if self.long {
            command.env("PROPTEST_CASES", LONG_CASES);
        }
        let mut reading = suite::Reading::new(&self.root);
        child::run(&mut command, Show::Live, &self.limits, |line| {
            reading.line(line);
        })?;
        for tier in TIERS {
            ensure!(reading.passed(tier) > 0, "no test of {tier} ran");
        }
        for (tier, tally) in &reading.tiers {
            let ignored = match tally.ignored {
                0 => String::new(),
                some => format!(", {some} ignored"),
            };
            let line = format!("{tier}: {} tests{ignored}", tally.passed);
            self.ran.push(line);
        }
        self.skipped.append(&mut reading.skipped);
        if !self.root.join("../shared/traces/README.md").is_file() {
            let what = "public recordings: they do not lie beside the repository";
            self.skipped.push(what.to_owned());
        }
        Ok(())
    }

    /// The kernel's tests on other kernels: the short form on all of them at once, since each has
    /// one CPU to do most of the time, the long form on one after another.
    fn guest(&mut self) -> anyhow::Result<()> {
        let mut here = Vec::new();
        for &kernel in guest::KERNELS {
            if !self.long && self.started.elapsed() > GUEST_BY {
                let what = format!("guest: kernel {kernel}: no time is left to boot it");
                self.skipped.push(what);
                continue;
            }
            let mut fetch = self.xtask(&["guest", "--fetch", "--kernel", kernel])?;
            if let Err(error) = child::run(&mut fetch, Show::Live, &self.limits, |_| {}) {
                self.limits.check()?;
                let what = format!("guest: kernel {kernel} cannot be brought here: {error:#}");
                self.skipped.push(what);
                continue;
            }
            here.push(kernel);
        }
        let outcomes: Vec<anyhow::Result<Guest>> = if self.long {
            here.iter().map(|kernel| self.one_guest(kernel)).collect()
        } else {
            let this = &*self;
            thread::scope(|scope| {
                let begun: Vec<_> = here
                    .iter()
                    .map(|&kernel| scope.spawn(move || this.one_guest(kernel)))
                    .collect();
                begun
                    .into_iter()
                    .map(|guest| guest.join().unwrap_or_else(|_| bail!("a thread panicked")))
                    .collect()
            })
        };
        for (kernel, outcome) in here.iter().zip(outcomes) {
            let guest = outcome.with_context(|| format!("kernel {kernel}"))?;
            ensure!(!guest.ran.is_empty(), "kernel {kernel} ran nothing");
            self.ran.extend(guest.ran);
            self.skipped.extend(guest.skipped);
        }
        Ok(())
    }

    /// One kernel, its name in front of each line.
    fn one_guest(&self, kernel: &str) -> anyhow::Result<Guest> {
        let form: &[&str] = if self.long {
            &["guest", "--kernel", kernel]
        } else {
            &["guest", "--short", "--kernel", kernel]
        };
        let mut guest = Guest::default();
        let (mut report, mut passed, mut failed) = (false, 0, false);
        // A slow machine may not come to the end of them: then the report says what was not seen.
        let left = GUESTS_END.saturating_sub(self.started.elapsed());
        let limits = self
            .limits
            .within(if self.long { LONG_GUEST } else { left });
        let mut command = self.xtask(form)?;
        let outcome = child::run(&mut command, Show::Failure, &limits, |line| {
            println!("{kernel}: {line}");
            report |= line == "== report";
            passed += u32::from(line == "ok" || line.ends_with("... ok"));
            failed |= line.contains("FAILED") || line.contains("panicked");
            match line.strip_prefix("skipped: ") {
                Some(what) if report => guest.skipped.push(format!("guest: {what}")),
                None if report && line.starts_with(char::is_numeric) => {
                    guest.ran.push(format!("guest: {line}"));
                }
                _ => {}
            }
        });
        match outcome {
            Err(_) if limits.is_late() && !failed && !self.long => {
                let ran = format!("guest: kernel {kernel}: {passed} tests passed");
                let skipped = format!("guest: kernel {kernel}: no time was left for the others");
                guest.ran.push(ran);
                guest.skipped.push(skipped);
            }
            outcome => outcome?,
        }
        Ok(guest)
    }

    fn fuzz(&mut self) -> anyhow::Result<()> {
        let effort = if self.long {
            fuzz::Effort::Long
        } else {
            fuzz::Effort::Short
        };
        let mut report = fuzz::run(&self.root, &self.target_dir(), effort, &self.limits)?;
        self.ran.append(&mut report);
        Ok(())
    }

    /// Dependencies' licences, sources and advisories by deny.toml.
    fn deny(&mut self) -> anyhow::Result<()> {
        if !self.has_deny()? {
            return Ok(());
        }
        let mut checks = vec!["licenses", "bans", "sources"];
        let mut fetch = Command::new("timeout");
        fetch
            .arg("60")
            .arg(cargo_path())
            .args(["deny", "fetch", "db"]);
        match child::run(&mut fetch, Show::Failure, &self.limits, |_| {}) {
            Ok(()) => checks.push("advisories"),
            Err(_) => {
                self.limits.check()?;
                let what = "advisories: their database cannot be fetched here";
                self.skipped.push(what.to_owned());
            }
        }
        for manifest in MANIFESTS {
            let mut deny = self.cargo("deny --locked --config deny.toml --manifest-path");
            deny.args([manifest, "check", "--hide-inclusion-graph"]);
            self.live(deny.args(&checks))?;
        }
        self.ran.push(format!("deny: {}", checks.join(", ")));
        Ok(())
    }

    /// Whether cargo-deny is here, or could be brought; why not goes to the report.
    fn has_deny(&mut self) -> anyhow::Result<bool> {
        if child::answer(&mut self.cargo("deny --version")).is_some() {
            return Ok(true);
        }
        let why = if !self.long && self.started.elapsed() > DENY_BY {
            "cargo-deny is not installed, and no time is left to build it"
        } else {
            match self.live(&mut self.cargo("install --locked cargo-deny")) {
                Ok(()) => return Ok(true),
                Err(_) => {
                    self.limits.check()?;
                    "cargo-deny is not installed and could not be built"
                }
            }
        };
        let what = format!("licences, bans, sources, advisories: {why}");
        self.skipped.push(what);
        Ok(false)
    }

    fn live(&self, command: &mut Command) -> anyhow::Result<()> {
        child::run(command, Show::Live, &self.limits, |_| {})
    }

    fn cargo(&self, arguments: &str) -> Command {
        let mut command = cargo(&self.root);
        command.args(arguments.split(' '));
        command
    }

    /// Another command of this program.
    fn xtask(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.current_dir(&self.root).args(arguments);
        Ok(command)
    }

    fn target_dir(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), PathBuf::from)
    }
}

/// Cargo in the repository's root, without colours, which would hide what is read from it.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(cargo_path());
    command
        .current_dir(root)
        .env("CARGO_TERM_COLOR", "never")
        .env("CARGO_TERM_PROGRESS_WHEN", "never");
    command
}

fn cargo_path() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_place_in_the_order() {
        assert_eq!(Step::value_variants().len(), Step::ORDER.len());
        assert!(
            Step::value_variants()
                .iter()
                .all(|step| Step::ORDER.contains(step))
        );
    }

    #[test]
    fn every_crate_of_the_repository_is_a_tier() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
        for entry in std::fs::read_dir(crates).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            // Its tests run inside the kernel and the vm.
            assert!(name == "bpf" || TIERS.contains(&&name[..]), "{name}");
        }
    }
}

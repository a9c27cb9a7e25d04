//! The fuzz targets: built with the coverage that libFuzzer wants, by the stable compiler, and
//! each run for a while. What they hold true stands in fuzz/.

use crate::child::{self, Limits, Show};
use anyhow::{Context, bail, ensure};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Files in fuzz/targets; first what runs longest.
const TARGETS: &[&str] = &["reflection", "trace", "egress", "scenario", "vm"];
/// Targets that run at once: each has one thread.
const LANES: usize = 2;

/// Those of `cargo fuzz` without a sanitizer: the code under test has no unsafe code.
const COVERAGE: &[&str] = &[
    "--cfg=fuzzing",
    "-Dwarnings",
    "-Ccodegen-units=1",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

/// For how long, and from where.
#[derive(Clone, Copy)]
pub(super) enum Effort {
    /// [`seconds`] each, always from the same seed: whether CI passes is no matter of luck.
    Short,
    /// 10 minutes each, from a new seed.
    Long,
}

/// Builds all targets and runs them; a line on each for the report.
pub(super) fn run(
    root: &Path,
    target_dir: &Path,
    effort: Effort,
    limits: &Limits,
) -> anyhow::Result<Vec<String>> {
    let host = host()?;
    let mut build = super::cargo(root);
    build
        .args(["build", "--locked", "--release", "--bins"])
        .args(["--manifest-path", "fuzz/Cargo.toml"])
        // With a target named, build scripts and macros are built without the flags.
        .args(["--target", &host])
        .arg("--target-dir")
        .arg(target_dir)
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}"));
    child::run(&mut build, Show::Live, limits, |_| {})?;

    let folder = target_dir.join(&host).join("release");
    let next = AtomicUsize::new(0);
    let lane = || -> anyhow::Result<Vec<String>> {
        let mut report = Vec::new();
        while let Some(target) = TARGETS.get(next.fetch_add(1, Ordering::Relaxed)) {
            report.push(run_one(root, &folder.join(target), target, effort, limits)?);
        }
        Ok(report)
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        let mut report = Vec::new();
        for lane in lanes {
            match lane.join() {
                Ok(lines) => report.extend(lines?),
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(report)
    })
}

fn run_one(
    root: &Path,
    binary: &Path,
    target: &str,
    effort: Effort,
    limits: &Limits,
) -> anyhow::Result<String> {
    let corpus = root.join("fuzz/corpus").join(target);
    let artifacts = root.join("fuzz/artifacts").join(target);
    for folder in [&corpus, &artifacts] {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut command = Command::new(binary);
    command
        .current_dir(root)
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(match effort {
            Effort::Short => [
                format!("-max_total_time={}", seconds(target)),
                "-seed=1".into(),
            ],
            Effort::Long => ["-max_total_time=600".into(), "-seed=0".into()],
        })
        .args(["-max_len=4500", "-timeout=20", "-rss_limit_mb=1024"])
        .arg("-print_final_stats=1")
        .arg(&corpus);
    let (mut runs, mut covered) = (0u64, 0u64);
    let outcome = child::run(&mut command, Show::Failure, limits, |line| {
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            runs = count.trim().parse().unwrap_or(0);
        } else if let Some(at) = line.find("cov: ") {
            let rest = &line[at + "cov: ".len()..];
            covered = rest.split(' ').next().map_or(0, |n| n.parse().unwrap_or(0));
        }
    });
    outcome.with_context(|| {
        format!("fuzz target {target} found something: its input lies in fuzz/artifacts/{target}")
    })?;
    // A target whose inputs all leave at the first line finds nothing, ever.
    ensure!(
        runs > 100 && covered > 50,
        "fuzz target {target} reaches nothing: {runs} inputs, {covered} edges"
    );
    let line = format!("fuzz {target}: {runs} inputs, {covered} edges");
    println!("{line}");
    Ok(line)
}

/// How long a target runs in [`Effort::Short`]: longest what reads bytes of strangers and
/// remembers them.
fn seconds(target: &str) -> u32 {
    match target {
        "reflection" => 60,
        _ => 20,
    }
}

fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc does not tell its host")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_target_in_the_folder_is_run() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/targets");
        let there: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        let run: BTreeSet<String> = TARGETS.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(there, run);
    }
}

//! `cargo xtask guest`: the kernel tests on other kernels, in QEMU. Owns the command: which
//! kernels, in which order, and what counts as success. Root of each guest is the host's own,
//! read-only, so that the binaries built here and the programs installed here run there.

use crate::child::Limits;
use crate::setup;
use anyhow::Context;
use build::Suite;
use kernel::{Cache, Kernel, Series};
use report::{Follower, Run};
use std::path::Path;
use std::time::{Duration, Instant};

mod apt;
mod build;
mod feature;
mod initramfs;
mod kernel;
mod machine;
mod report;

/// What is tested when nothing else is asked for: Debian's long-lived kernels and its newest.
pub(crate) const KERNELS: &[&str] = &["6.1", "6.12", "6.18"];

/// What the tests are told where the environment says nothing else: no skip of what a kernel
/// of this release should have, nor of devices and programs, which all of these have and the host's
/// root holds; and ten times the patience: the machine is emulated.
const DEFAULTS: &[(&str, &str)] = &[
    ("DYNENCAP_REQUIRE", "kernel,devices,programs"),
    ("DYNENCAP_SLOW", "10"),
];
/// Names the end-to-end tests that run.
const E2E_ONLY: &str = "DYNENCAP_E2E_ONLY";
/// Those of the short form: one of each kind, and what only guests have the devices for.
const SHORT_E2E: &[&str] = &[
    "plant::a_socket",
    "bulk::ipv6_in_udp_and",
    "leak::time_wait",
    "path::shrinks_in_udp",
    "segment::behind_a_bond",
    "device::ip6tnl",
    "device::gue_over_ipv6",
    "outer::ip6tnl",
    "outer::gue_over_ipv6",
    "reflect::a_server",
    "twin::ip6tnl",
];
/// The kernel suite's of the short form: what differs from kernel to kernel. Each has every
/// program verified anew, which takes an emulated machine seven seconds.
const SHORT_KERNEL: &[&str] = &[
    "closing::a_connections_exit_is_kept",
    "egress::ipv4_leaves",
    "egress::what_cannot",
    "ingress::ipv4_is",
    "ingress::ipv6_is",
    "option::an_unprivileged",
    "outer4::both_versions",
    "reflect::follow::replies",
    "reflect::tcp::every_packet",
    "reflect::tcp::the_outer",
    "reflect::udp::each_peer",
    "segment::a_super_packet_longer",
    "segment::a_tcp_super_packet_leaves",
    "segment::a_udp_super_packet",
];
/// Our variables are passed on to the guests, and these.
const OURS: &str = "DYNENCAP_";
const PASSED_ON: &[&str] = &["RUST_BACKTRACE", "RUST_TEST_THREADS"];
/// A path, which is made absolute.
const OBJECT: &str = "DYNENCAP_OBJECT";

/// Arguments of `cargo xtask guest`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only kernels of this series, as 6.12 (may be repeated)
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<Series>,
    /// List the kernels that can be had, and run nothing
    #[arg(long)]
    list: bool,
    /// Only bring what is needed: QEMU and the kernels
    #[arg(long, conflicts_with_all = ["list", "features"])]
    fetch: bool,
    /// Show what the kernels offer, and test nothing
    #[arg(long, conflicts_with = "list")]
    features: bool,
    /// What ci runs: of the kernel's suite and of the end-to-end tests one of each kind
    #[arg(long)]
    short: bool,
    /// Only these suites: hygiene, host, kernel, e2e (may be repeated)
    #[arg(long = "suite", value_name = "NAME", value_parser = build::name)]
    suites: Vec<String>,
    /// Minutes that one kernel may take
    #[arg(long, value_name = "MINUTES", default_value_t = 90)]
    timeout: u64,
    /// For the test binaries: a filter, or options of the test harness
    #[arg(last = true)]
    test: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let cache = Cache::open()?;
    if args.list {
        for (package, cached) in cache.list()? {
            println!("{package}{}", if cached { " (cached)" } else { "" });
        }
        return Ok(());
    }
    setup::install_guest()?;
    let limits = Limits::new(None)?;
    let kernels = match &args.kernels[..] {
        [] => KERNELS
            .iter()
            .map(|series| series.parse())
            .collect::<anyhow::Result<Vec<Series>>>()?,
        some => some.to_vec(),
    };
    if args.fetch {
        for &series in &kernels {
            println!("guest: {} is here", cache.kernel(series)?.release);
        }
        return Ok(());
    }
    let time = Duration::from_secs(args.timeout * 60);
    if args.features {
        return show_features(&cache, &kernels, &limits, time);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask lies in the workspace")?;
    let mut suites = build::suites(root, args.short, &limits)?;
    suites.retain(|suite| {
        args.suites.is_empty() || args.suites.iter().any(|name| name == suite.name)
    });
    let mut runs = Vec::new();
    for series in kernels {
        println!("== kernel {series}");
        runs.push(test(&cache, series, root, &suites, args, &limits)?);
    }
    println!("== report");
    for run in &runs {
        let name = run.series;
        for skip in &run.skipped {
            println!("skipped: {name}: {skip}");
        }
    }
    print!("{}", report::table(&runs));
    if !runs.iter().all(Run::is_good) {
        println!("guest: not every kernel passed");
        // The table says it all; a backtrace of this program would hide it.
        std::process::exit(1);
    }
    Ok(())
}

fn show_features(
    cache: &Cache,
    kernels: &[Series],
    limits: &Limits,
    time: Duration,
) -> anyhow::Result<()> {
    let mut answers = Vec::new();
    for &series in kernels {
        let kernel = cache.kernel(series)?;
        limits.check()?;
        println!("guest: asking {}", kernel.release);
        answers.push((series, feature::ask(&kernel, &limits.within(time))?));
    }
    print!("{}", feature::table(&answers));
    Ok(())
}

/// Runs all suites on one kernel. Its failures are part of the answer; an error is an
/// interruption.
fn test(
    cache: &Cache,
    series: Series,
    root: &Path,
    suites: &[Suite],
    args: &Args,
    limits: &Limits,
) -> anyhow::Result<Run> {
    let names: Vec<&str> = suites.iter().map(|suite| suite.name).collect();
    let mut follower = Follower::new(root, &names);
    let mut faults = Vec::new();
    let mut since = Instant::now();
    let outcome = cache.kernel(series).and_then(|kernel: Kernel| {
        // Downloads are no part of a kernel's time.
        since = Instant::now();
        let limits = limits.within(Duration::from_secs(args.timeout * 60));
        let script = script(suites, args)?;
        machine::run(&kernel, &script, &limits, |line| {
            if follower.line(line) {
                println!("{}", report::shortened(line));
            }
        })
    });
    // What was interrupted is no failure of this kernel, and the next one is not begun.
    limits.check()?;
    match outcome {
        Ok(ending) => {
            if !ending.finished {
                println!("{}", ending.console);
                faults.push("the guest died".to_owned());
            }
            for known in ending.known {
                println!("known, and no failure: {known}");
            }
            let complaint = |fault| format!("the kernel says: {fault}");
            faults.extend(ending.faults.into_iter().map(complaint));
        }
        Err(error) => {
            println!("{error:#}");
            faults.push(error.root_cause().to_string());
        }
    }
    let mut results = follower.results;
    let missing = names.iter().skip(results.len());
    faults.extend(missing.map(|suite| format!("{suite} did not end")));
    // With a filter one suite may well be left out, but not all of them.
    let ran = |result: &report::Result| result.passed + result.failed > 0;
    let all_idle = !results.iter().any(ran);
    for result in &mut results {
        let idle = all_idle || (args.test.is_empty() && !ran(result));
        if idle && result.fault.is_none() {
            result.fault = Some("ran no test".to_owned());
        }
    }
    Ok(Run {
        series,
        release: follower.release,
        results,
        skipped: follower.skipped,
        seconds: since.elapsed().as_secs_f64(),
        faults,
    })
}

/// What the guest does: the environment, then each suite.
fn script(suites: &[Suite], args: &Args) -> anyhow::Result<String> {
    let mut lines = Vec::new();
    let mut environment = environment()?;
    if args.short && !environment.iter().any(|(name, _)| name == E2E_ONLY) {
        environment.push((E2E_ONLY.to_owned(), SHORT_E2E.join(",")));
    }
    for (name, value) in environment {
        lines.push(format!("export {name}={}", machine::quoted(&value)));
    }
    for (index, suite) in suites.iter().enumerate() {
        let words = [
            suite.folder.to_string_lossy().into_owned(),
            suite.binary.to_string_lossy().into_owned(),
            "--color=never".to_owned(),
        ];
        let filters = match suite.name {
            "kernel" if args.short && args.test.is_empty() => SHORT_KERNEL,
            _ => &[],
        };
        let words: Vec<String> = words
            .iter()
            .chain(&args.test)
            .map(String::as_str)
            .chain(filters.iter().copied())
            .map(machine::quoted)
            .collect();
        lines.push(format!("suite {index} {}", words.join(" ")));
    }
    Ok(lines.join("\n"))
}

fn environment() -> anyhow::Result<Vec<(String, String)>> {
    let mut passed: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(OURS) || PASSED_ON.contains(&&name[..]))
        .collect();
    for (name, value) in &mut passed {
        if name == OBJECT {
            let path = std::path::absolute(&*value).context(OBJECT)?;
            *value = path.to_string_lossy().into_owned();
        }
    }
    for (name, value) in DEFAULTS {
        if !passed.iter().any(|(there, _)| there == name) {
            passed.push(((*name).to_owned(), (*value).to_owned()));
        }
    }
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_kernel_is_a_series() {
        for series in KERNELS {
            assert_eq!(series.parse::<Series>().unwrap().to_string(), *series);
        }
    }

    #[test]
    fn each_suite_runs_in_its_folder_with_the_arguments() {
        let suite = Suite {
            name: "kernel",
            binary: "/t/kernel".into(),
            folder: "/r/it's".into(),
        };
        let args = Args {
            kernels: Vec::new(),
            list: false,
            features: false,
            fetch: false,
            short: false,
            suites: Vec::new(),
            timeout: 20,
            test: vec!["egress::".to_owned()],
        };
        let script = script(&[suite], &args).unwrap();
        let last = script.lines().last().unwrap();
        assert_eq!(
            last,
            r"suite 0 '/r/it'\''s' '/t/kernel' '--color=never' 'egress::'"
        );
        assert!(script.contains("export DYNENCAP_REQUIRE="));
    }
}

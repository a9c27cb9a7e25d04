//! dynsim beside other tools that read packet captures, on the same file: `cat`, `editcap` and
//! `tcprewrite` (a new pair of MAC addresses and nothing else), each a whole process from its
//! start to its end. Prints one JSON object a line, a row each; what is not installed is left
//! out, with a line on stderr.
//!
//! ```text
//! cargo build --release -p dynencap-sim --bin dynsim
//! cargo run --release -p dynencap-benches --example userspace -- --rounds 7
//! ```

use anyhow::{Context, bail, ensure};
use dynencap_sim::measure::{Samples, order};
use dynencap_sim::workload;
use std::ffi::OsString;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const USAGE: &str = "usage: userspace [--rounds N] [--packets N] [--dynsim PATH]";

struct Plan {
    rounds: usize,
    packets: u32,
    dynsim: PathBuf,
}

impl Plan {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> anyhow::Result<Self> {
        let mut plan = Self {
            rounds: 7,
            packets: 1_000_000,
            dynsim: beside_this()?,
        };
        while let Some(flag) = arguments.next() {
            let value = arguments.next().context(USAGE)?;
            let number = || value.to_str().and_then(|text| text.parse::<u32>().ok());
            match flag.to_str() {
                Some("--rounds") => plan.rounds = number().context(USAGE)? as usize,
                Some("--packets") => plan.packets = number().context(USAGE)?,
                Some("--dynsim") => plan.dynsim = value.into(),
                _ => bail!(USAGE),
            }
        }
        ensure!(plan.rounds > 0 && plan.packets > 0, USAGE);
        let missing = "not built: cargo build --release -p dynencap-sim --bin dynsim";
        ensure!(
            plan.dynsim.is_file(),
            "{}: {missing}",
            plan.dynsim.display()
        );
        Ok(plan)
    }
}

/// Of the same build: `target/release/dynsim` for `target/release/examples/userspace`.
fn beside_this() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("where is this program?")?;
    let folder = this.parent().and_then(Path::parent);
    Ok(folder.context("where is this program?")?.join("dynsim"))
}

/// A file of our own that goes away again.
struct Trace(PathBuf);

impl Trace {
    /// In memory where there is such a place: what is measured is no disk.
    fn make(packets: u32) -> anyhow::Result<Self> {
        let folder = match Path::new("/dev/shm") {
            shared if shared.is_dir() => shared.to_owned(),
            _ => std::env::temp_dir(),
        };
        let name = format!("dynencap-userspace-{}.pcap", std::process::id());
        let trace = Self(folder.join(name));
        let failed = || format!("{}: cannot make the trace", trace.0.display());
        // Else the file lies in what groups before left free, in so many places that all take a
        // fifth longer to read it. Only root may ask; whoever is not has had no such groups.
        let _ = std::fs::write("/proc/sys/vm/compact_memory", "1");
        let file = File::options().write(true).create_new(true).open(&trace.0);
        let output = BufWriter::new(file.with_context(failed)?);
        workload::write(packets, output).with_context(failed)?;
        Ok(trace)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A row: what it is called and what is run.
struct Variant {
    name: &'static str,
    command: Vec<OsString>,
}

/// Every variant, pinned to one core or to two, where `taskset` is there to do so.
fn variants(plan: &Plan, trace: &Path) -> Vec<Variant> {
    let pins = installed("taskset");
    let variant = |name, cores: &str, program: &Path, arguments: &[&str]| {
        let mut command: Vec<OsString> = Vec::new();
        if pins {
            command.extend(["taskset", "-c", cores].map(OsString::from));
        }
        command.push(program.into());
        command.extend(arguments.iter().map(|argument| match *argument {
            "TRACE" => trace.into(),
            other => other.into(),
        }));
        Variant { name, command }
    };
    let (one, two) = ("0", "0,1");
    let mut all = Vec::new();
    let tools: [(&str, &[&str]); 3] = [
        ("cat", &["TRACE"]),
        ("editcap", &["TRACE", "/dev/null"]),
        (
            "tcprewrite",
            &[
                "--enet-dmac=02:00:00:00:00:0d",
                "--enet-smac=02:00:00:00:00:0e",
                "--infile",
                "TRACE",
                "--outfile=/dev/null",
            ],
        ),
    ];
    for (name, arguments) in tools {
        if installed(name) {
            all.push(variant(name, one, Path::new(name), arguments));
        } else {
            eprintln!("skipped: {name}: not installed");
        }
    }
    let own: [(&str, &str, &[&str]); 6] = [
        ("dynsim model, 1 core", one, &["model", "--threads", "1"]),
        (
            "dynsim model, 1 core, written",
            one,
            &["model", "--threads", "1", "--write", "/dev/null"],
        ),
        ("dynsim model, 2 cores", two, &["model", "--threads", "2"]),
        (
            "dynsim model, 2 cores, written",
            two,
            &["model", "--threads", "2", "--write", "/dev/null"],
        ),
        ("dynsim vm, 1 core", one, &["vm", "--threads", "1"]),
        ("dynsim vm, 2 cores", two, &["vm", "--threads", "2"]),
    ];
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (name, on, flags) in own {
        if on == two && cores < 2 {
            eprintln!("skipped: {name}: one core here");
            continue;
        }
        let arguments = [&["replay", "TRACE", "--engine"], flags].concat();
        all.push(variant(name, on, &plan.dynsim, &arguments));
    }
    all
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Seconds from start to end.
fn run(variant: &Variant) -> anyhow::Result<f64> {
    let Some((program, arguments)) = variant.command.split_first() else {
        bail!("{}: nothing to run", variant.name);
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status();
    let seconds = start.elapsed().as_secs_f64();
    let status = status.with_context(|| format!("{}: does not start", variant.name))?;
    ensure!(status.success(), "{}: {status}", variant.name);
    Ok(seconds)
}

fn main() -> anyhow::Result<()> {
    let plan = Plan::parse(std::env::args_os().skip(1))?;
    let trace = Trace::make(plan.packets)?;
    let variants = variants(&plan, &trace.0);
    let mut samples = vec![Samples::default(); variants.len()];
    // A round that does not count, for caches.
    for round in 0..=plan.rounds {
        for at in order(round, variants.len()) {
            if let (Some(variant), Some(samples)) = (variants.get(at), samples.get_mut(at)) {
                let seconds = run(variant)?;
                if round > 0 {
                    samples.push(f64::from(plan.packets) / seconds.max(1e-9));
                }
            }
        }
    }
    for (variant, samples) in variants.iter().zip(&samples) {
        let row = serde_json::json!({
            "group": "userspace",
            "name": variant.name,
            "unit": "packets/s",
            "median": samples.median(),
            "min": samples.min(),
            "max": samples.max(),
            "rounds": plan.rounds,
        });
        println!("{row}");
    }
    Ok(())
}

//! `dynsim bench`: how fast each engine replays a trace here, beside a plain read of it.

use super::signal::Signals;
use super::{EXIT_DIVERGENCE, EXIT_UNAVAILABLE, EXIT_USAGE};
use anyhow::Context;
use dynencap_sim::engine::{self, Attribution, EngineError, EngineKind};
use dynencap_sim::measure::{Samples, order};
use dynencap_sim::replay::{Halt, Replay, ReplayError, threads_of_use};
use dynencap_sim::scenario::Scenario;
use dynencap_sim::trace::{Reading, read_chunk};
use dynencap_sim::workload;
use std::fmt::Write as _;
use std::fs::File;
use std::io::BufWriter;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

#[derive(clap::Args)]
pub(super) struct BenchArgs {
    /// Trace: a pcap or pcapng file; without one, packets of 64 to 1400 bytes of 1,000 flows
    trace: Option<PathBuf>,
    /// How many packets the trace has that is made where none is given
    #[arg(long, value_name = "N", default_value_t = 500_000,
          value_parser = clap::value_parser!(u32).range(1..=20_000_000), conflicts_with = "trace")]
    packets: u32,
    /// Scenario: which flows get which exit and when it changes (see docs/scenario.md)
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Engines; default: model and vm, and kernel where this process may
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    engine: Vec<EngineKind>,
    /// How often each is measured; what is printed are medians
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Run this BPF object in place of the built-in one
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// Reading the file and nothing else.
    Read,
    Engine(EngineKind, NonZeroUsize),
}

impl Variant {
    fn name(self) -> String {
        match self {
            Self::Read => "plain read".into(),
            Self::Engine(kind, NonZeroUsize::MIN) => kind.name().into(),
            Self::Engine(kind, threads) => format!("{}, {threads} threads", kind.name()),
        }
    }
}

/// Engines that cannot run here, with the reason.
type NotRun = Vec<(&'static str, String)>;

/// What keeps a measurement from its end.
enum Stopped {
    Engine(EngineError),
    Halt(Halt),
    Other(anyhow::Error),
}

/// A file of our own that goes away again.
struct Made(PathBuf);

impl Made {
    fn new(packets: u32) -> anyhow::Result<Self> {
        let name = format!("dynsim-bench-{}.pcap", std::process::id());
        // Memory where there is such a place: what is measured is no disk.
        let folder = match Path::new("/dev/shm") {
            shared if shared.is_dir() => shared.to_owned(),
            _ => std::env::temp_dir(),
        };
        let made = Self(folder.join(name));
        let failed = || format!("{}: cannot make a trace", made.0.display());
        let file = File::options().write(true).create_new(true).open(&made.0);
        let file = file.with_context(failed)?;
        workload::write(packets, BufWriter::new(file)).with_context(failed)?;
        Ok(made)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// One table.
struct Bench<'a> {
    args: &'a BenchArgs,
    scenario: Scenario,
    object: Vec<u8>,
    trace: PathBuf,
    signals: &'a Signals,
    packets: u64,
    violations: Vec<String>,
}

impl BenchArgs {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let scenario = super::scenario(self.scenario.as_deref())?;
        let object = super::object(self.object.as_deref())?;
        let signals = Signals::watch()?;
        let made = match &self.trace {
            Some(path) => {
                let metadata = std::fs::metadata(path)
                    .with_context(|| format!("{}: cannot open the trace", path.display()))?;
                anyhow::ensure!(
                    metadata.is_file(),
                    "{}: expected a file, which can be read again each round",
                    path.display()
                );
                None
            }
            None => Some(Made::new(self.packets)?),
        };
        let trace = match (&self.trace, &made) {
            (Some(path), _) => path.clone(),
            (None, made) => made.as_ref().map(|made| made.0.clone()).unwrap_or_default(),
        };
        let mut bench = Bench {
            args: &self,
            scenario,
            object,
            trace,
            signals: &signals,
            packets: 0,
            violations: Vec::new(),
        };
        let code = match bench.table() {
            Ok(table) => {
                super::show(&table)?;
                for violation in &bench.violations {
                    eprintln!("dynsim: violated: {violation}");
                }
                if bench.violations.is_empty() {
                    0
                } else {
                    EXIT_DIVERGENCE
                }
            }
            Err(Stopped::Other(error)) => return Err(error),
            Err(Stopped::Engine(error)) => {
                eprintln!("dynsim: {error}");
                super::engine_exit(&error, self.object.is_some())
            }
            Err(Stopped::Halt(halt)) => {
                eprintln!("dynsim: {halt}");
                match halt {
                    Halt::Interrupted => signals.exit_code(),
                    Halt::Failed(ReplayError::Engine(EngineError::Unavailable { .. })) => {
                        EXIT_UNAVAILABLE
                    }
                    Halt::Failed(ReplayError::Engine(_)) => EXIT_DIVERGENCE,
                    Halt::Failed(_) => EXIT_USAGE,
                }
            }
        };
        Ok(ExitCode::from(code))
    }
}

impl Bench<'_> {
    fn table(&mut self) -> Result<String, Stopped> {
        let (variants, not_run) = self.variants()?;
        let mut samples = vec![Samples::default(); variants.len()];
        // A round that does not count: pages, caches, and how many packets there are.
        for round in 0..=self.args.rounds as usize {
            for at in order(round, variants.len()) {
                let Some((variant, sample)) = variants.get(at).zip(samples.get_mut(at)) else {
                    continue;
                };
                let seconds = self.measure(*variant)?;
                if round > 0 {
                    sample.push(self.packets as f64 / seconds.max(1e-9));
                }
            }
        }
        let names: Vec<String> = variants.iter().map(|variant| variant.name()).collect();
        let rows: Vec<_> = names.into_iter().zip(samples).collect();
        Ok(if self.args.json {
            self.json(&rows, &not_run)
        } else {
            self.text(&rows, &not_run)
        })
    }

    /// A plain read, and each engine that was asked for or can run here.
    fn variants(&self) -> Result<(Vec<Variant>, NotRun), Stopped> {
        let several = threads_of_use();
        let mut variants = vec![Variant::Read];
        let mut not_run = Vec::new();
        for kind in EngineKind::ALL {
            if !self.args.engine.is_empty() && !self.args.engine.contains(&kind) {
                continue;
            }
            match self.start(kind) {
                Ok(_) => variants.push(Variant::Engine(kind, NonZeroUsize::MIN)),
                Err(EngineError::Unavailable { reason, .. }) if self.args.engine.is_empty() => {
                    not_run.push((kind.name(), reason));
                    continue;
                }
                Err(error) => return Err(Stopped::Engine(error)),
            }
            if kind != EngineKind::Kernel && several > NonZeroUsize::MIN {
                variants.push(Variant::Engine(kind, several));
            }
        }
        Ok((variants, not_run))
    }

    fn start(&self, kind: EngineKind) -> Result<Box<dyn engine::Engine>, EngineError> {
        let attribution = Attribution::PerBatch;
        engine::start(kind, &self.scenario.host, &self.object, attribution)
    }

    /// Wall clock of one replay, in seconds; starting the engine does not count.
    fn measure(&mut self, variant: Variant) -> Result<f64, Stopped> {
        if self.signals.interrupted.load(Ordering::Relaxed) {
            return Err(Stopped::Halt(Halt::Interrupted));
        }
        let name = self.trace.display().to_string();
        let opened = File::open(&self.trace)
            .with_context(|| format!("{name}: cannot open the trace"))
            .map_err(Stopped::Other);
        let mut file = opened?;
        let (kind, threads) = match variant {
            Variant::Engine(kind, threads) => (kind, threads),
            Variant::Read => {
                let start = Instant::now();
                let mut spare = Vec::new();
                while let Some(chunk) = read_chunk(&mut file, spare)
                    .with_context(|| format!("{name}: cannot read the trace"))
                    .map_err(Stopped::Other)?
                {
                    spare = chunk;
                }
                return Ok(start.elapsed().as_secs_f64());
            }
        };
        let engine = self.start(kind).map_err(Stopped::Engine)?;
        let mut replay = Replay::new(self.scenario.clone(), vec![engine]);
        let interrupted = &self.signals.interrupted;
        let start = Instant::now();
        let replayed = replay.trace(&name, Reading(file), threads, interrupted, &mut ());
        let seconds = start.elapsed().as_secs_f64();
        replayed.map_err(Stopped::Halt)?;
        let report = replay.report(&name);
        let frames = report.engines.first().map(|engine| engine.totals.frames_in);
        self.packets = frames.unwrap_or_default();
        if self.violations.is_empty() {
            self.violations = report.violations;
        }
        Ok(seconds)
    }

    fn subject(&self) -> String {
        match &self.args.trace {
            Some(path) => path.display().to_string(),
            None => "a trace made for it".into(),
        }
    }

    fn text(&self, rows: &[(String, Samples)], not_run: &[(&str, String)]) -> String {
        let read = rows.first().map_or(0.0, |(_, samples)| samples.median());
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}: {} packets, medians of {} rounds, packets/s",
            self.subject(),
            self.packets,
            self.args.rounds
        );
        for (name, reason) in not_run {
            let _ = writeln!(text, "  {name} did not run: {reason}");
        }
        let _ = writeln!(
            text,
            "  {:<20}{:>12}{:>12}{:>12}   of a read",
            "", "median", "least", "most"
        );
        for (name, samples) in rows {
            let (median, min, max) = (samples.median(), samples.min(), samples.max());
            let _ = writeln!(
                text,
                "  {name:<20}{median:>12.0}{min:>12.0}{max:>12.0}   {:.3}",
                median / read.max(1e-9)
            );
        }
        text
    }

    fn json(&self, rows: &[(String, Samples)], not_run: &[(&'static str, String)]) -> String {
        let read = rows.first().map_or(0.0, |(_, samples)| samples.median());
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, samples)| {
                serde_json::json!({
                    "name": name,
                    "unit": "packets/s",
                    "median": samples.median(),
                    "min": samples.min(),
                    "max": samples.max(),
                    "of_read": samples.median() / read.max(1e-9),
                })
            })
            .collect();
        let not_run: std::collections::BTreeMap<_, _> = not_run.iter().cloned().collect();
        let object = serde_json::json!({
            "trace": self.subject(),
            "packets": self.packets,
            "rounds": self.args.rounds,
            "rows": rows,
            "not_run": not_run,
        });
        format!("{object:#}\n")
    }
}

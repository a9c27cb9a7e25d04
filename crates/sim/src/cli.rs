//! `dynsim`: subcommands, and what they share; `dynsim replay`: from flags to engines, progress,
//! report, and exit code.

use anyhow::Context;
use bench::BenchArgs;
use clap::{Parser, Subcommand};
use dynencap_sim::compare::Divergence;
use dynencap_sim::director::Record;
use dynencap_sim::engine::{self, Attribution, Engine, EngineError, EngineKind, Outcomes};
use dynencap_sim::event::Batch;
use dynencap_sim::replay::{Halt, Observer, Replay, ReplayError, threads_of_use};
use dynencap_sim::report::{self, Report};
use dynencap_sim::reproduce::{self, Setting};
use dynencap_sim::scenario::Scenario;
use dynencap_sim::trace::Reading;
use dynencap_sim::writer::OutputFile;
use input::Input;
use signal::Signals;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod bench;
mod input;
mod signal;

/// A divergence or a violated invariant.
const EXIT_DIVERGENCE: u8 = 1;
/// Bad usage or input.
pub(crate) const EXIT_USAGE: u8 = 2;
/// An engine that was asked for could not run (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;

/// How many divergences are shown in full; all are counted.
const SHOWN: usize = 5;

#[derive(Parser)]
#[command(
    name = "dynsim",
    version,
    about = "Replays packet traces through dynencap's model, bytecode and kernel data path"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Replay a trace through the engines and compare every byte
    #[command(after_help = "\
Exit status: 0 all agree; 1 a divergence or a violated invariant; 2 bad usage or input;
69 an engine that was asked for could not run.

Without --scenario every flow, seen from its initiator, gets an exit picked by the hash of the
flow: IP-in-IP where it is even, UDP with an 8-byte header where it is odd.")]
    Replay(ReplayArgs),
    /// Measure how fast each engine replays a trace here, beside a plain read of it
    #[command(after_help = "\
Each round measures every row once, in another order each time, after one that does not count.
Rows are whole replays, reading and directing included; with more than one core, model and vm
once on one thread and once on several.

Exit status: 0 measured; 1 a violated invariant or an engine that failed; 2 bad usage or input;
69 an engine that was asked for could not run.")]
    Bench(BenchArgs),
}

#[derive(clap::Args)]
struct ReplayArgs {
    /// Trace: pcap or pcapng; - reads standard input
    trace: PathBuf,
    /// Scenario: which flows get which exit and when it changes (see docs/scenario.md)
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Engines, in this order; default: model and vm, and kernel where this process may
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    engine: Vec<EngineKind>,
    /// Write what the first engine put out
    #[arg(long, value_name = "OUT.pcapng")]
    write: Option<PathBuf>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
    /// Where the trace and scenario that reproduce a divergence are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    repro: PathBuf,
    /// Threads: 1 or 2 (one reads and writes, one runs the engines); the kernel engine keeps to
    /// one [default: 2 where there are two cores, else 1]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Run this BPF object in place of the built-in one
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
}

impl Cli {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Replay(args) => args.run(),
            Command::Bench(args) => args.run(),
        }
    }
}

/// Engines that run, and those that do not with the reason.
type Started = (Vec<Box<dyn Engine>>, Vec<(&'static str, String)>);

impl ReplayArgs {
    fn run(self) -> anyhow::Result<ExitCode> {
        let scenario = scenario(self.scenario.as_deref())?;
        let object = object(self.object.as_deref())?;
        let signals = Signals::watch()?;
        let interrupted = &signals.interrupted;
        let input = Input::open(&self.trace, interrupted)?;
        let (engines, not_run) = match self.engines(&scenario, &object) {
            Ok(started) => started,
            Err(error) => {
                eprintln!("dynsim: {error}");
                let code = engine_exit(&error, self.object.is_some());
                return Ok(ExitCode::from(code));
            }
        };
        let mut replay = Replay::new(scenario.clone(), engines);
        if let Some(path) = &self.write {
            replay.write_to(OutputFile::create(path)?);
        }
        let mut watcher = Watcher::default();

        let name = input.name.clone();
        let bar = input.bar.clone();
        let threads = self.threads.unwrap_or_else(threads_of_use);
        let chunks = Reading(input.source);
        let stopped = replay.trace(&name, chunks, threads, interrupted, &mut watcher);
        bar.finish_and_clear();
        let mut report = replay.report(&name);
        let output = replay.take_output();
        drop(replay);
        report.not_run = not_run;
        let mut code = 0;
        let read_some = report.engines.iter().any(|e| e.totals.frames_in > 0);
        let keep = match &stopped {
            Ok(()) => true,
            Err(Halt::Failed(ReplayError::Trace(_))) => read_some,
            Err(_) => false,
        };
        if let Err(stop) = stopped {
            code = match &stop {
                Halt::Failed(ReplayError::Engine(EngineError::Unavailable { .. })) => {
                    EXIT_UNAVAILABLE
                }
                Halt::Failed(ReplayError::Engine(_)) => EXIT_DIVERGENCE,
                Halt::Failed(_) => EXIT_USAGE,
                Halt::Interrupted => signals.exit_code(),
            };
            report.stopped = Some(format!("{:#}", anyhow::Error::new(stop)));
        }
        if let Some(output) = output {
            // An interrupted or failed replay leaves no output behind; a broken trace leaves
            // what was read of it, if anything was.
            if keep {
                report.written.push(output.finish()?.display().to_string());
            }
        }
        if code == 0 && (report.divergences > 0 || !report.violations.is_empty()) {
            code = EXIT_DIVERGENCE;
        }
        if let Some(first) = &watcher.first {
            self.reproduce(first, &scenario, &object, &mut report);
        }
        self.print(&report)?;
        if let Some(stopped) = &report.stopped {
            eprintln!("dynsim: {stopped}");
        }
        Ok(ExitCode::from(code))
    }

    /// Starts the engines: all that were asked for, or those that can run here.
    fn engines(&self, scenario: &Scenario, object: &[u8]) -> Result<Started, EngineError> {
        let mut asked = Vec::new();
        for kind in &self.engine {
            if !asked.contains(kind) {
                asked.push(*kind);
            }
        }
        let choice = if asked.is_empty() {
            EngineKind::ALL.to_vec()
        } else {
            asked.clone()
        };
        let (mut engines, mut not_run) = (Vec::new(), Vec::new());
        for kind in choice {
            // What is written stands at the packet that it came from.
            let attribution = if engines.is_empty() && self.write.is_some() {
                Attribution::PerEvent
            } else {
                Attribution::PerBatch
            };
            match engine::start(kind, &scenario.host, object, attribution) {
                Ok(engine) => engines.push(engine),
                Err(EngineError::Unavailable { reason, .. }) if asked.is_empty() => {
                    not_run.push((kind.name(), reason));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((engines, not_run))
    }

    fn reproduce(
        &self,
        first: &Divergence,
        scenario: &Scenario,
        object: &[u8],
        report: &mut Report,
    ) {
        if self.trace == Path::new("-") {
            eprintln!("dynsim: standard input cannot be read again: no reproducing trace");
            return;
        }
        if !self.trace.is_file() {
            // To open it again would be to wait for another writer.
            let trace = self.trace.display();
            eprintln!("dynsim: {trace}: a pipe cannot be read again: no reproducing trace");
            return;
        }
        let kinds = first
            .engines
            .map(|name| EngineKind::ALL.into_iter().find(|kind| kind.name() == name));
        let [Some(reference), Some(other)] = kinds else {
            return;
        };
        let setting = Setting {
            engines: [reference, other],
            object,
            scenario,
        };
        match reproduce::reproduce(&self.trace, first.packet, &setting, &self.repro) {
            Ok(Some(files)) => {
                report
                    .written
                    .extend(files.iter().map(|path| path.display().to_string()));
            }
            Ok(None) => eprintln!(
                "dynsim: packet {} does not diverge when its flow is replayed alone",
                first.packet
            ),
            Err(error) => {
                eprintln!(
                    "dynsim: no reproducing trace: {:#}",
                    anyhow::Error::new(error)
                );
            }
        }
    }

    fn print(&self, report: &Report) -> anyhow::Result<()> {
        show(&if self.json {
            format!("{:#}\n", report.to_json())
        } else {
            report.to_string()
        })
    }
}

fn scenario(path: Option<&Path>) -> anyhow::Result<Scenario> {
    Ok(match path {
        Some(path) => Scenario::read(path)?,
        None => Scenario::default(),
    })
}

/// The BPF object of this name, or the built-in one.
fn object(path: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    match path {
        Some(path) => std::fs::read(path)
            .with_context(|| format!("{}: cannot read the BPF object", path.display())),
        None => Ok(dynencap_sim::built_in_object()),
    }
}

/// The exit code where an engine does not start.
fn engine_exit(error: &EngineError, own_object: bool) -> u8 {
    match error {
        // An object of the user's own that does not load is bad input.
        EngineError::Failed { .. } if own_object => EXIT_USAGE,
        _ => EXIT_UNAVAILABLE,
    }
}

/// Prints what was asked for.
fn show(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Shows the first divergences.
#[derive(Default)]
struct Watcher {
    shown: usize,
    first: Option<Divergence>,
}

impl Observer for Watcher {
    fn batch(
        &mut self,
        batch: &Batch,
        _: &[Record],
        _: &Outcomes,
        divergences: &[Divergence],
    ) -> Result<(), ReplayError> {
        for divergence in divergences.iter().take(SHOWN.saturating_sub(self.shown)) {
            eprint!("{}", report::describe(divergence, batch));
            self.shown += 1;
        }
        if self.first.is_none() {
            self.first = divergences.first().cloned();
        }
        Ok(())
    }
}

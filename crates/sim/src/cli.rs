//! `dynsim replay`: from flags to engines, progress, report, and exit code.

use anyhow::Context;
use clap::{Parser, Subcommand};
use dynencap_sim::compare::Divergence;
use dynencap_sim::director::Record;
use dynencap_sim::engine::{self, Attribution, Engine, EngineError, EngineKind, Outcomes};
use dynencap_sim::event::Batch;
use dynencap_sim::replay::{Observer, Replay, ReplayError};
use dynencap_sim::report::{self, Report};
use dynencap_sim::reproduce::{self, Setting};
use dynencap_sim::scenario::Scenario;
use dynencap_sim::trace::{Reader, TraceError};
use dynencap_sim::writer::OutputFile;
use input::Input;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

mod input;

/// A divergence or a violated invariant.
const EXIT_DIVERGENCE: u8 = 1;
/// Bad usage or input.
pub(crate) const EXIT_USAGE: u8 = 2;
/// An engine that was asked for could not run (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;
/// Ended by a signal: its number is added, as shells do.
const EXIT_SIGNAL: u8 = 128;

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
    /// Run this BPF object in place of the built-in one
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
}

impl Cli {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Replay(args) => args.run(),
        }
    }
}

/// Engines that run, and those that do not with the reason.
type Started = (Vec<Box<dyn Engine>>, Vec<(&'static str, String)>);

impl ReplayArgs {
    fn run(self) -> anyhow::Result<ExitCode> {
        let scenario = match &self.scenario {
            Some(path) => Scenario::read(path)?,
            None => Scenario::default(),
        };
        let object = match &self.object {
            Some(path) => std::fs::read(path)
                .with_context(|| format!("{}: cannot read the BPF object", path.display()))?,
            None => dynencap_sim::built_in_object(),
        };
        let interrupted = Arc::new(AtomicBool::new(false));
        let signalled = Arc::new(AtomicUsize::new(0));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // A second signal ends the process at once.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&interrupted))?;
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
            let number = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&signalled), number)?;
        }
        let input = Input::open(&self.trace, &interrupted)?;
        let (engines, not_run) = match self.engines(&scenario, &object) {
            Ok(started) => started,
            Err(error) => {
                eprintln!("dynsim: {error}");
                let code = match error {
                    // An object of the user's own that does not load is bad input.
                    EngineError::Failed { .. } if self.object.is_some() => EXIT_USAGE,
                    _ => EXIT_UNAVAILABLE,
                };
                return Ok(ExitCode::from(code));
            }
        };
        let mut replay = Replay::new(scenario.clone(), engines);
        let output = self.write.as_deref().map(OutputFile::create).transpose()?;
        let mut watcher = Watcher {
            output,
            shown: 0,
            first: None,
        };

        let name = input.name.clone();
        let bar = input.bar.clone();
        let stopped = feed(input, &mut replay, &mut watcher, &interrupted);
        bar.finish_and_clear();
        let mut report = replay.report(&name);
        drop(replay);
        report.not_run = not_run;
        let mut code = 0;
        let read_some = report.engines.iter().any(|e| e.totals.frames_in > 0);
        let keep = match &stopped {
            Ok(()) => true,
            Err(Stop::Replay(ReplayError::Trace(_))) => read_some,
            Err(_) => false,
        };
        if let Err(stop) = stopped {
            code = match &stop {
                Stop::Replay(ReplayError::Engine(EngineError::Unavailable { .. })) => {
                    EXIT_UNAVAILABLE
                }
                Stop::Replay(ReplayError::Engine(_)) => EXIT_DIVERGENCE,
                Stop::Replay(_) => EXIT_USAGE,
                Stop::Interrupted => EXIT_SIGNAL + signalled.load(Ordering::Relaxed) as u8,
            };
            report.stopped = Some(stop.to_string());
        }
        if let Some(output) = watcher.output.take() {
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
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        let result = if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&report.to_json())?)
        } else {
            write!(out, "{report}")
        };
        match result {
            // Whoever read the report has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result?),
        }
    }
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// Takes the whole trace through the replay. What was read is run also where reading ends in
/// an error.
fn feed(
    input: Input,
    replay: &mut Replay,
    watcher: &mut Watcher,
    interrupted: &AtomicBool,
) -> Result<(), Stop> {
    let mut reader = match Reader::open(input.name, input.source) {
        Ok(reader) => reader,
        Err(_) if interrupted.load(Ordering::Relaxed) => return Err(Stop::Interrupted),
        Err(error) => return Err(broken(error)),
    };
    let result = loop {
        if interrupted.load(Ordering::Relaxed) {
            break Err(Stop::Interrupted);
        }
        match reader.next_frame() {
            Ok(Some(frame)) => replay.frame(&frame, watcher).map_err(Stop::from)?,
            Ok(None) => break Ok(()),
            // A pipe that was waited for says that it was interrupted, too.
            Err(_) if interrupted.load(Ordering::Relaxed) => break Err(Stop::Interrupted),
            Err(error) => break Err(broken(error)),
        }
    };
    replay.flush(watcher)?;
    result
}

fn broken(error: TraceError) -> Stop {
    Stop::Replay(ReplayError::Trace(error))
}

/// Writes the output file and shows the first divergences.
struct Watcher {
    output: Option<OutputFile>,
    shown: usize,
    first: Option<Divergence>,
}

impl Observer for Watcher {
    fn batch(
        &mut self,
        batch: &Batch,
        records: &[Record],
        first: &Outcomes,
        divergences: &[Divergence],
    ) -> Result<(), ReplayError> {
        for divergence in divergences.iter().take(SHOWN.saturating_sub(self.shown)) {
            eprint!("{}", report::describe(divergence, batch));
            self.shown += 1;
        }
        if self.first.is_none() {
            self.first = divergences.first().cloned();
        }
        match &mut self.output {
            Some(output) => output.batch(batch, records, first, divergences),
            None => Ok(()),
        }
    }
}

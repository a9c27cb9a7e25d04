//! The program behind `cargo xtask peers`: runs groups of measurements, shows their rows, and
//! writes the report when all of them ran.

use anyhow::Context;
use clap::{Parser, ValueEnum};
use dynencap_benches::{
    Object, Row, Run, control, egress, engines, exits, holder,
    machine::{Bystanders, Machine},
    packet,
    report::Report,
    tcp, userspace,
};
use dynencap_kernel::{Feature, Interrupt};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Measure the data path beside its peers, and write docs/performance.md
#[derive(Parser)]
#[command(name = "cargo xtask peers")]
struct Cli {
    /// Measure these groups alone (comma-separated); nothing is written
    #[arg(long, value_delimiter = ',')]
    only: Vec<Group>,
    /// A quarter of the rounds and fewer exits, for trying (3 minutes); the report goes to target/peers
    #[arg(long)]
    quick: bool,
    /// A build of the BPF object to measure in place of the committed one, more than one side by side; nothing is written
    #[arg(long)]
    object: Vec<PathBuf>,
    /// One JSON object a row
    #[arg(long)]
    json: bool,
    /// Where to write the report, with performance.json and plots
    #[arg(long)]
    docs: Option<PathBuf>,
    /// Measure nothing: write the report anew from this performance.json
    #[arg(long, conflicts_with_all = ["only", "quick", "object"])]
    from: Option<PathBuf>,
    /// The program that measures user space; without it these rows are missing
    #[arg(long, hide = true)]
    userspace: Option<PathBuf>,
    /// Be one of the processes that hold sockets, for those with these numbers
    #[arg(long, hide = true, num_args = 2)]
    hold: Option<Vec<u32>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Nanoseconds of the egress program alone
    Egress,
    /// Packets a second, beside the kernel's own ways
    Packets,
    /// TCP on one CPU
    Tcp,
    /// Calls and connections
    Control,
    /// Many exits
    Exits,
    /// Model and vm from memory
    Engines,
    /// dynsim beside other tools
    Userspace,
}

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    if let Some([first, count]) = cli.hold.as_deref() {
        holder::serve(*first, *count)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(path) = &cli.from {
        write(&Report::read(path)?, &folder(&cli))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Err(missing) = Feature::REQUIRED.into_iter().try_for_each(Feature::probe) {
        eprintln!("peers: cannot measure here: {missing}");
        return Ok(ExitCode::from(69));
    }
    let interrupt = Interrupt::on_signals()?;
    match measure(&cli, &interrupt) {
        // Whatever it broke: a command that ran had the signal too.
        Err(_) if interrupt.check().is_err() => {
            eprintln!("interrupted");
            Ok(ExitCode::from(130))
        }
        Err(error) => Err(error),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

fn measure(cli: &Cli, interrupt: &Interrupt) -> anyhow::Result<()> {
    let mut machine = Machine::here()?;
    let bystanders = Bystanders::watch()?;
    let run = Run::start(objects(cli)?, cli.quick, interrupt.clone())?;
    let groups: &[Group] = if cli.only.is_empty() {
        Group::value_variants()
    } else {
        &cli.only
    };
    let mut rows = Vec::new();
    for group in groups {
        let measured = match (group, &cli.userspace) {
            (Group::Egress, _) => egress::measure(&run)?,
            (Group::Packets, _) => packet::measure(&run)?,
            (Group::Tcp, _) => tcp::measure(&run)?,
            (Group::Control, _) => control::measure(&run)?,
            (Group::Exits, _) => exits::measure(&run)?,
            (Group::Engines, _) => engines::measure(&run)?,
            (Group::Userspace, Some(program)) => userspace::measure(&run, program)?,
            (Group::Userspace, None) => {
                eprintln!("skipped: userspace: no program that measures it");
                Vec::new()
            }
        };
        show(&measured, cli.json)?;
        rows.extend(measured);
    }
    machine.others = bystanders.share()?;
    if machine.others > 5.0 {
        eprintln!(
            "others used {:.0} % of the processors' time: measure again when the machine is idle",
            machine.others
        );
    }
    let report = Report { machine, rows };
    if cli.object.is_empty() {
        for missed in report.missed() {
            eprintln!("not met: {missed}");
        }
    }
    if cli.only.is_empty() && cli.object.is_empty() {
        write(&report, &folder(cli))?;
    }
    Ok(())
}

fn folder(cli: &Cli) -> PathBuf {
    let root = Path::new(ROOT);
    match &cli.docs {
        Some(folder) => folder.clone(),
        None if cli.quick => root.join("target/peers"),
        None => root.join("docs"),
    }
}

fn write(report: &Report, folder: &Path) -> anyhow::Result<()> {
    report.write(folder)?;
    println!("written: {}", folder.join("performance.md").display());
    Ok(())
}

fn objects(cli: &Cli) -> anyhow::Result<Vec<Object>> {
    let committed = Path::new(ROOT).join("crates/bpf/dynencap.bpf.o");
    let read = |name: String, path: &Path| {
        Ok(Object {
            name,
            bytes: fs::read(path).with_context(|| path.display().to_string())?,
        })
    };
    if cli.object.is_empty() {
        return Ok(vec![read("dynencap".to_owned(), &committed)?]);
    }
    let named = |path: &PathBuf| read(path.display().to_string(), path);
    cli.object.iter().map(named).collect()
}

fn show(rows: &[Row], json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for row in rows {
        if json {
            writeln!(out, "{}", serde_json::to_string(row)?)?;
            continue;
        }
        let Row {
            group,
            name,
            unit,
            summary,
        } = row;
        writeln!(
            out,
            "{group:9} {name:48} {:9.3} {unit}  ({:.3} to {:.3}, {} rounds)",
            summary.median, summary.lower, summary.upper, summary.rounds
        )?;
    }
    Ok(())
}

//! The program behind `cargo xtask peers`: runs groups of measurements and shows their rows.

use anyhow::Context;
use clap::{Parser, ValueEnum};
use dynencap_benches::{Error, Object, Row, Run, control, egress, exits, packet, tcp};
use dynencap_kernel::{Feature, Interrupt};
use std::{fs, io::Write, path::PathBuf, process::ExitCode};

#[derive(Parser)]
#[command(name = "cargo xtask peers")]
struct Cli {
    /// Measure these groups alone (comma-separated)
    #[arg(long, value_delimiter = ',')]
    only: Vec<Group>,
    /// A quarter of the rounds, for trying
    #[arg(long)]
    quick: bool,
    /// A build of the BPF object to measure, instead of the committed one; more than one: side by side
    #[arg(long)]
    object: Vec<PathBuf>,
    /// One JSON object a row
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Nanoseconds of the egress program alone
    Egress,
    /// Packets a second, beside the kernel's own ways
    Packets,
    /// TCP on one CPU
    Tcp,
    /// Many exits
    Exits,
    /// Calls and connections
    Control,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    if let Err(missing) = Feature::REQUIRED.into_iter().try_for_each(Feature::probe) {
        eprintln!("peers: cannot measure here: {missing}");
        return Ok(ExitCode::from(69));
    }
    match measure(&cli) {
        Err(error) if error.downcast_ref().is_some_and(Error::is_interruption) => {
            eprintln!("interrupted");
            Ok(ExitCode::from(130))
        }
        Err(error) => Err(error),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

fn measure(cli: &Cli) -> anyhow::Result<()> {
    let run = Run::start(objects(cli)?, cli.quick, Interrupt::on_signals()?)?;
    let groups: &[Group] = if cli.only.is_empty() {
        Group::value_variants()
    } else {
        &cli.only
    };
    for group in groups {
        let rows = match group {
            Group::Egress => egress::measure(&run)?,
            Group::Packets => packet::measure(&run)?,
            Group::Tcp => tcp::measure(&run)?,
            Group::Exits => exits::measure(&run)?,
            Group::Control => control::measure(&run)?,
        };
        show(&rows, cli.json)?;
    }
    Ok(())
}

fn objects(cli: &Cli) -> anyhow::Result<Vec<Object>> {
    let committed = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../crates/bpf/dynencap.bpf.o"
    ));
    if cli.object.is_empty() {
        return Ok(vec![Object {
            name: "dynencap".to_owned(),
            bytes: fs::read(&committed).with_context(|| committed.display().to_string())?,
        }]);
    }
    let read = |path: &PathBuf| {
        Ok(Object {
            name: path.display().to_string(),
            bytes: fs::read(path).with_context(|| path.display().to_string())?,
        })
    };
    cli.object.iter().map(read).collect()
}

fn show(rows: &[Row], json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for row in rows {
        if json {
            writeln!(out, "{}", serde_json::to_string(row)?)?;
        } else {
            let Row {
                group,
                name,
                unit,
                summary,
            } = row;
            writeln!(
                out,
                "{group:8} {name:48} {:9.3} {unit}  ({:.3} to {:.3}, {} rounds)",
                summary.median, summary.lower, summary.upper, summary.rounds
            )?;
        }
    }
    Ok(())
}

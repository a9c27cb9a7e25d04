//! What a BPF object costs, for `cargo xtask gate`. Owns the command line and what is printed:
//! a line for each subject, `table subject column=number …`, or the vm's table of sequences. What
//! is compared with what is xtask's business.

mod host;
mod kernel;
mod packet;
mod path;
mod program;
mod sequence;

use anyhow::Context;
use clap::{Parser, Subcommand};
use dynencap_vm::{Machine, Skb};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The exit status of what this machine does not allow.
const UNAVAILABLE: u8 = 69;
/// How long one timing takes, and of how many the shortest counts.
const WINDOW: Duration = Duration::from_millis(3);
const WINDOWS: usize = 15;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Instructions and helper calls of each path in the vm, size and stack of each program
    Count { object: PathBuf },
    /// What the running kernel makes of each program; exit status 69 where it does not tell
    Kernel { object: PathBuf },
    /// How long the commonest paths take in the vm
    Time { object: PathBuf },
    /// The vm's table of sequences for this object, and to stderr what it saves
    Sequences { object: PathBuf },
}

fn main() -> anyhow::Result<ExitCode> {
    let read = |path: PathBuf| std::fs::read(&path).with_context(|| format!("{}", path.display()));
    match Cli::parse().command {
        Command::Count { object } => count(&read(object)?)?,
        Command::Kernel { object } => {
            let costs = match kernel::costs(&read(object)?)? {
                Ok(costs) => costs,
                Err(why) => {
                    eprintln!("{why}");
                    return Ok(ExitCode::from(UNAVAILABLE));
                }
            };
            for (name, cost) in costs {
                println!(
                    "kernel {name} verified={} jited={}",
                    cost.verified, cost.jited
                );
            }
        }
        Command::Time { object } => time(&read(object)?)?,
        Command::Sequences { object } => {
            let table = sequence::table(&read(object)?)?;
            for (path, instructions, dispatches) in table.costs {
                eprintln!("{path}: {instructions} instructions, {dispatches} dispatches");
            }
            print!("{}", table.text);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn count(object: &[u8]) -> anyhow::Result<()> {
    let loaded = Machine::load(object)?;
    for path in path::all(&loaded)? {
        let cost = path.cost(&loaded)?;
        println!(
            "path {} instructions={} helpers={}",
            path.title(),
            cost.instructions,
            cost.helpers
        );
    }
    for (name, size) in program::sizes(object)? {
        println!(
            "program {name} instructions={} stack={}",
            size.instructions, size.stack
        );
    }
    Ok(())
}

fn time(object: &[u8]) -> anyhow::Result<()> {
    let loaded = Machine::load(object)?;
    for (name, make) in path::TIMED {
        let mut host = host::Host::new(&loaded)?;
        let template = make(&mut host)?;
        let program = name.split('/').next().unwrap_or(name);
        let mut skb = Skb::default();
        let mut took = |times: u32| -> anyhow::Result<Duration> {
            let since = Instant::now();
            for _ in 0..times {
                skb.reset(template.data(), template.protocol);
                (skb.socket, skb.mark) = (template.socket, template.mark);
                skb.ifindex = template.ifindex;
                host.machine.run_tc(program, &mut skb)?;
            }
            Ok(since.elapsed())
        };
        let mut times = 16;
        while took(times)? < WINDOW && times < u32::MAX / 2 {
            times *= 2;
        }
        // The shortest: what disturbs makes a window longer, never shorter.
        let mut best = Duration::MAX;
        for _ in 0..WINDOWS {
            best = best.min(took(times)?);
        }
        let picoseconds = best.as_nanos() * 1000 / u128::from(times);
        println!("time {name} picoseconds={picoseconds}");
    }
    Ok(())
}

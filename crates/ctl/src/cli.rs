//! The command line, as clap reads it.

use crate::{apply, exec, installed::Pins, policy, settings::Up, stats, status, tunnel};
use clap::{Args, Parser, Subcommand};
use dynencap_kernel::install;
use std::{path::PathBuf, process::ExitCode};

/// Chooses per connection where packets leave this host
#[derive(Debug, Parser)]
#[command(name = "dynencap", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Where programs, maps and links are pinned: a directory on a BPF file system
    #[arg(long, global = true, value_name = "DIR", default_value = install::PINS)]
    pin: PathBuf,
    /// Use this BPF object in place of the built-in one
    #[arg(long, global = true, value_name = "FILE", hide = true)]
    object: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install programs, rules and routes; again: bring them to these flags
    Up(Up),
    /// Take everything away
    Down,
    /// Show what is installed; exit status 1 unless all of it is there
    Status(Output),
    /// Follow the uplink's MTU and the routes, until a signal comes
    Watch,
    /// Replace the running programs by this build's; sockets keep their exits
    Upgrade,
    /// What the processes of a cgroup may do
    #[command(subcommand)]
    Policy(policy::Command),
    /// Which tunnels end on this host
    #[command(subcommand)]
    Tunnel(tunnel::Command),
    /// Run a program whose connections leave through an exit
    Exec(exec::Exec),
    /// Show what became of packets
    Stats(Output),
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

impl Cli {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let pins = Pins::new(self.pin, self.object)?;
        match self.command {
            Command::Up(up) => apply::up(&pins, up),
            Command::Down => apply::down(&pins),
            Command::Status(output) => status::run(&pins, output),
            Command::Watch => apply::watch(&pins),
            Command::Upgrade => apply::upgrade(&pins),
            Command::Policy(command) => policy::run(&pins, command),
            Command::Tunnel(command) => tunnel::run(&pins, command),
            Command::Exec(exec) => exec::run(&pins, &exec),
            Command::Stats(output) => stats::run(&pins, output),
        }
    }
}

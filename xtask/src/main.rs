//! The project's chores: `cargo xtask <command>`. This file owns the command line; each
//! command's work stands in a module of its own.

use clap::{Parser, Subcommand};

mod bpf;
mod child;
mod ci;
mod gate;
mod guest;
mod peers;
mod record;
mod sequences;
mod setup;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's chores")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the programs that tests, recording and the BPF build use (Debian, needs root)
    Setup(setup::Args),
    /// Build the committed BPF object, or check that it is current
    Bpf(bpf::Args),
    /// Run everything that has to pass before a change is kept
    Ci(ci::Args),
    /// Refuse what is slower: counts, and comparisons with another revision
    Gate(gate::Args),
    /// Run the kernel tests on Debian's kernels in QEMU
    Guest(guest::Args),
    /// Measure the data path beside its peers, and write docs/performance.md (needs root)
    Peers(peers::Args),
    /// Record the captures of testdata/ from real programs in network namespaces (needs root)
    Record(record::Args),
    /// Make the vm's table of instruction sequences from the committed BPF object, or check it
    Sequences(sequences::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Bpf(args) => bpf::run(&args),
        Command::Ci(args) => ci::run(&args),
        Command::Gate(args) => gate::run(&args),
        Command::Guest(args) => guest::run(&args),
        Command::Peers(args) => peers::run(&args),
        Command::Record(args) => record::run(&args),
        Command::Sequences(args) => sequences::run(&args),
    }
}

//! `dynsim`: the command line. Flags become a plan once; the work is the library's.

use clap::Parser;
use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dynsim: {error:#}");
            ExitCode::from(cli::EXIT_USAGE)
        }
    }
}

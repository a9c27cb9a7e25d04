//! `cargo xtask peers`: measures the data path beside its peers. The measuring is
//! `dynencap-benches`'; this builds it optimised and runs it.

use anyhow::{Context, bail};
use std::process::Command;

/// Arguments of `cargo xtask peers`: `--help` shows them.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// For the measuring program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "-p", "dynencap-benches"])
        .args(["--bin", "peers", "--"])
        .args(&args.arguments)
        .status()
        .context("cargo run")?;
    if !status.success() {
        bail!("peers: {status}");
    }
    Ok(())
}

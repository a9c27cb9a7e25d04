//! `cargo xtask setup`.

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: &Args) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}

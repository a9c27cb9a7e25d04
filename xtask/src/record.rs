//! `cargo xtask record`.

/// Arguments of `cargo xtask record`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: &Args) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}

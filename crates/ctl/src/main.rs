//! `dynencap`: what an operator types. Flags become values once; the work is done by
//! `dynencap_kernel` (programs, pins, routes) and the modules here (settings, policies, exec).
//!
//! Exit status: 0 done, 1 it failed, 2 wrong usage or input; `exec` gives its command's.

mod apply;
mod cli;
mod endpoint;
mod exec;
mod group;
mod installed;
mod policy;
mod rules;
mod settings;
mod stats;
mod status;
mod sysctl;
mod tunnel;
mod user;

use clap::Parser;
use std::process::ExitCode;

/// Wrong input: told apart from a failure by its exit status.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dynencap: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

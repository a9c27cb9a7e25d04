//! `cargo xtask peers`: measures the data path beside its peers. The measuring is
//! `dynencap-benches`'; this builds it optimised, and what it runs, and keeps the reference's
//! objects up to its sources.

use crate::setup::CLANG;
use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The reference's programs, without their endings.
const REFERENCES: [&str; 2] = ["peers", "lwt"];
/// What they include.
const HEADER: &str = "features.h";
/// Of which sources the objects are: SHA-256 by file.
const RECORD: &str = "objects.json";

/// Arguments of `cargo xtask peers`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// For the measuring program; `--help` shows them. `--rebuild`: compile the reference in C
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.arguments == ["--rebuild"] {
        return rebuild();
    }
    let mut arguments = args.arguments.clone();
    let measures = !arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "--from");
    let only = arguments
        .iter()
        .find(|argument| argument.starts_with("--only"));
    let userspace = "userspace".to_owned();
    let names = arguments
        .iter()
        .any(|argument| argument.contains(&userspace));
    if measures && (only.is_none() || names) && source("examples/userspace.rs").exists() {
        cargo(&["-p", "dynencap-sim", "--bin", "dynsim"])?;
        cargo(&["-p", "dynencap-benches", "--example", "userspace"])?;
        arguments.push("--userspace".to_owned());
        arguments.push(built("examples/userspace")?.display().to_string());
    }
    cargo(&["-p", "dynencap-benches", "--bin", "peers"])?;
    let status = Command::new(built("peers")?)
        .args(&arguments)
        .status()
        .context("peers")?;
    if !status.success() {
        // It has said why.
        std::process::exit(status.code().unwrap_or(1));
    }
    Ok(())
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release"])
        .args(arguments)
        .status()
        .context("cargo build")?;
    ensure!(
        status.success(),
        "cargo build {}: {status}",
        arguments.join(" ")
    );
    Ok(())
}

/// What `cargo build --release` made: this program lies in the same target folder.
fn built(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("where is this program?")?;
    let target = this.ancestors().nth(2).context("no target folder")?;
    Ok(target.join("release").join(name))
}

/// A file of the benches.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../benches")
        .join(name)
}

/// Compiles the reference, and records of what.
fn rebuild() -> anyhow::Result<()> {
    let folder = source("bpf");
    for name in REFERENCES {
        let (from, to) = (format!("{name}.bpf.c"), format!("{name}.bpf.o"));
        let clang = [
            "-target",
            "bpf",
            "-mcpu=v3",
            "-O2",
            "-g",
            "-Wall",
            "-Werror",
            // Nothing of this machine's folders; Debian's headers for its own architecture.
            "-fdebug-compilation-dir=.",
            "-I/usr/include/x86_64-linux-gnu",
            "-c",
            &from,
            "-o",
            &to,
        ];
        let strip = ["-g", &to];
        for (program, arguments) in [
            (CLANG, &clang[..]),
            ("/usr/lib/llvm-22/bin/llvm-strip", &strip),
        ] {
            let status = Command::new(program)
                .args(arguments)
                .current_dir(&folder)
                .status();
            match status {
                Ok(status) => ensure!(status.success(), "{program} {from}: {status}"),
                Err(error) => bail!("{program}: {error}; `cargo xtask setup --peers` installs it"),
            }
        }
    }
    let record = serde_json::to_string_pretty(&sums()?)?;
    fs::write(folder.join(RECORD), format!("{record}\n"))?;
    println!("built: {}", folder.display());
    Ok(())
}

fn sums() -> anyhow::Result<BTreeMap<String, String>> {
    let files = REFERENCES
        .iter()
        .flat_map(|name| ["c", "o"].map(|end| format!("{name}.bpf.{end}")));
    let files = files.chain([HEADER.to_owned()]);
    let sum = |file: String| {
        let path = source("bpf").join(&file);
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let digest = Sha256::digest(bytes);
        let hex = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((file, hex))
    };
    files.map(sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_objects_are_of_their_sources() {
        let record = fs::read_to_string(source("bpf").join(RECORD)).unwrap();
        let record: BTreeMap<String, String> = serde_json::from_str(&record).unwrap();
        assert_eq!(record, sums().unwrap(), "run: cargo xtask peers --rebuild");
    }
}

//! `cargo xtask record`: captures of our own, from real programs in network namespaces.
//!
//! This file owns the command: what is recorded, in which order, and what is kept. Two processes
//! share the work. The outer one checks, waits, and moves finished files into place; the inner
//! one (`record::sandbox` starts it, in namespaces of its own) makes the traffic.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

mod capture;
mod lab;
mod program;
mod readme;
mod relay;
mod sandbox;
mod scene;
mod socket;
mod verify;

use scene::{SCENES, Scene, TOOLS};

/// Arguments of `cargo xtask record`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Record only this capture (may be repeated)
    #[arg(long, value_name = "NAME", value_parser = SCENES.map(|scene| scene.name()))]
    only: Vec<String>,
    /// The folder that the captures go to
    #[arg(long, value_name = "DIR", default_value = "testdata")]
    out: PathBuf,
    /// The inner process: record into this folder
    #[arg(long, value_name = "DIR", hide = true)]
    inside: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let wanted: Vec<Scene> = SCENES
        .into_iter()
        .filter(|scene| args.only.is_empty() || args.only.iter().any(|name| name == scene.name()))
        .collect();
    match &args.inside {
        Some(staging) => {
            sandbox::die_with_the_outer_process();
            record(&wanted, staging)
        }
        None => supervise(&wanted, args),
    }
}

/// The outer process.
fn supervise(wanted: &[Scene], args: &Args) -> anyhow::Result<()> {
    sandbox::require_root()?;
    require_programs(wanted)?;
    ensure!(args.out.is_dir(), "{} is no folder", args.out.display());
    let staging = tempfile::Builder::new().prefix("dynencap-rec-").tempdir()?;
    let outcome = sandbox::run(staging.path(), &args.only);

    let mut rows = Vec::new();
    for scene in wanted {
        let recorded = staging.path().join(scene.file);
        if !recorded.is_file() {
            continue;
        }
        let bytes = fs::read(&recorded)?;
        let frames = capture::frames(&recorded)?;
        put(&args.out.join(scene.file), &bytes)?;
        rows.push(readme::Row {
            file: scene.file,
            frames,
            bytes: bytes.len(),
            what: scene.what,
            programs: with(scene),
        });
    }
    let description = args.out.join("README.md");
    if let Ok(text) = fs::read_to_string(&description) {
        put(&description, readme::update(&text, &rows)?.as_bytes())?;
    }
    for row in &rows {
        println!(
            "{:<18} {:>6} frames {:>8} bytes  {}",
            row.file, row.frames, row.bytes, row.what
        );
    }
    staging
        .close()
        .context("cannot remove the temporary folder")?;
    outcome
}

/// The inner process. Goes on after a capture that failed, and fails at the end.
fn record(wanted: &[Scene], staging: &Path) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for scene in wanted {
        eprintln!("recording {}", scene.file);
        if let Err(error) = record_one(scene, staging) {
            eprintln!("{} is not kept: {error:#}", scene.file);
            failed.push(scene.file);
        }
    }
    if !failed.is_empty() {
        bail!("not recorded: {}", failed.join(", "));
    }
    Ok(())
}

/// The file appears in `staging` complete and verified, or not at all.
fn record_one(scene: &Scene, staging: &Path) -> anyhow::Result<()> {
    let home = staging.join(scene.name());
    fs::create_dir(&home)?;
    let raw = (scene.record)(&home)?;
    let finished = if scene.file.ends_with(".pcapng") {
        let finished = home.join("finished.pcapng");
        capture::to_pcapng(&raw, &finished)?;
        finished
    } else {
        raw
    };
    verify::verify(&home, &finished, scene.conditions)?;
    fs::rename(finished, staging.join(scene.file))?;
    fs::remove_dir_all(home).context("cannot clean up")
}

fn require_programs(wanted: &[Scene]) -> anyhow::Result<()> {
    let mut missing: Vec<&str> = wanted
        .iter()
        .flat_map(|scene| scene.programs)
        .chain(&TOOLS)
        .filter(|program| program.path().is_none())
        .map(|program| program.name)
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if !missing.is_empty() {
        bail!(
            "not installed: {}; `cargo xtask setup` installs them",
            missing.join(", ")
        );
    }
    Ok(())
}

/// What made the traffic and the capture.
fn with(scene: &Scene) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel: Vec<&str> = kernel.split('.').take(2).collect();
    let mut labels: Vec<String> = scene.programs.iter().map(program::Program::label).collect();
    labels.push(program::TCPDUMP.label());
    labels.push(format!("Linux {}", kernel.join(".")));
    labels.join(", ")
}

/// Replaces a file in one step: readers see the old one or the new one.
fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = path.parent().context("a file without a folder")?;
    let mut file = tempfile::Builder::new()
        .prefix(".record-")
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path)
        .with_context(|| format!("cannot replace {}", path.display()))?;
    Ok(())
}

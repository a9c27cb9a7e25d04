//! `tunnel add`, `apply`, `show`, `remove`: which tunnels end on this host.

use crate::{
    Usage,
    cli::Output,
    endpoint::{Endpoint, Flags, Name},
    installed::Pins,
};
use anyhow::Context;
use clap::Subcommand;
use dynencap_abi::{Config, TunnelKey, TunnelSpec, object::MAX_TUNNELS};
use dynencap_kernel::Loaded;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};
use toml::Spanned;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Let a tunnel end here; one of this address, kind and port is replaced
    Add(Flags),
    /// Let each tunnel of a TOML file end here; others stay
    Apply {
        /// `[[tunnel]]` tables: the flags of `add` as keys
        file: PathBuf,
    },
    /// Show every tunnel
    Show(Output),
    /// Its packets are no concern of dynencap's any more
    Remove(Name),
}

/// A file of tunnels.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tunnel: Vec<Spanned<Flags>>,
}

/// The same, as `show` prints it.
#[derive(Debug, Serialize)]
struct Shown {
    tunnel: Vec<Endpoint>,
}

pub(crate) fn run(pins: &Pins, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Add(flags) => {
            let endpoint = Endpoint::try_from(flags).map_err(Usage)?;
            let entry = endpoint.entry().map_err(Usage)?;
            let mut maps = pins.open()?.maps(pins)?;
            write(&mut maps, &[entry])?;
        }
        Command::Apply { file } => {
            let entries = read(&file)?;
            let mut maps = pins.open()?.maps(pins)?;
            write(&mut maps, &entries)?;
            println!("tunnels: {}", entries.len());
        }
        Command::Show(output) => show(pins, output)?,
        Command::Remove(name) => {
            let key = name.key().map_err(Usage)?;
            let mut maps = pins.open()?.maps(pins)?;
            let there = maps.tunnels()?.iter().any(|(known, _)| *known == key);
            maps.remove_tunnel(&key)?;
            capture(&mut maps)?;
            println!("removed: {}", u32::from(there));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// [`Config::CAPTURE_OUTER`] where some tunnel's headers are left to a device of the kernel.
pub(crate) fn capture_flag(maps: &Loaded) -> anyhow::Result<u32> {
    let tunnels = maps.tunnels()?;
    let kernel = tunnels
        .iter()
        .any(|(_, spec)| spec.flags & TunnelSpec::KERNEL != 0);
    Ok(if kernel { Config::CAPTURE_OUTER } else { 0 })
}

fn capture(maps: &mut Loaded) -> anyhow::Result<()> {
    let mut config = maps.config()?;
    config.flags = config.flags & !Config::CAPTURE_OUTER | capture_flag(maps)?;
    Ok(maps.set_config(&config)?)
}

fn write(maps: &mut Loaded, entries: &[(TunnelKey, TunnelSpec)]) -> anyhow::Result<()> {
    let written = entries.iter().try_for_each(|(key, spec)| {
        maps.add_tunnel(key, spec)
            .with_context(|| format!("tunnels: at most {MAX_TUNNELS} fit on a host"))
    });
    // Also where one failed: those before it are there.
    capture(maps)?;
    written
}

/// Reads and checks a whole file, before anything is changed.
fn read(file: &Path) -> Result<Vec<(TunnelKey, TunnelSpec)>, Usage> {
    let name = file.display();
    let text = fs::read_to_string(file).map_err(|error| Usage(format!("{name}: {error}")))?;
    // Its error names line and field.
    let File { tunnel } =
        toml::from_str(&text).map_err(|error| Usage(format!("{name}: {error}")))?;
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    for flags in tunnel {
        let before = text.get(..flags.span().start).unwrap_or_default();
        let line = before.lines().count() + 1;
        let place = |error: String| Usage(format!("{name}: tunnel of line {line}: {error}"));
        let endpoint = Endpoint::try_from(flags.into_inner()).map_err(place)?;
        let entry = endpoint.entry().map_err(place)?;
        if !seen.insert(entry.0) {
            return Err(place(format!("{endpoint} stands there twice")));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn show(pins: &Pins, output: Output) -> anyhow::Result<()> {
    let maps = pins.open()?.maps(pins)?;
    let tunnel: Vec<Endpoint> = maps
        .tunnels()?
        .iter()
        .filter_map(|(key, spec)| Endpoint::of(key, spec))
        .collect();
    if output.json {
        println!("{}", serde_json::to_string_pretty(&tunnel)?);
    } else {
        // In the form that `apply` reads.
        print!("{}", toml::to_string(&Shown { tunnel })?);
    }
    Ok(())
}

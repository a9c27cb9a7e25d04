//! `policy set`, `apply`, `show`, `remove`.

use crate::{
    Usage,
    cli::Output,
    group,
    installed::{Installed, Pins},
    rules::Rules,
};
use anyhow::Context;
use clap::{Args, Subcommand};
use dynencap_abi::object::{MAX_POLICIES, MAX_POLICY_EXITS};
use dynencap_kernel::Loaded;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Give a cgroup a policy, in place of the one that it had
    Set(Box<Rules>),
    /// Give each cgroup of a TOML file its policy; others keep theirs
    Apply {
        /// `[[policy]]` tables: cgroup, and the flags of `set` as keys
        file: PathBuf,
    },
    /// Show every policy
    Show(Output),
    /// Take a cgroup's policy away: that of the next one above it is in force then
    Remove(Remove),
}

#[derive(Debug, Args)]
#[group(required = true)]
pub(crate) struct Remove {
    /// Of this cgroup2 directory
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// Of every cgroup that is there no more
    #[arg(long)]
    gone: bool,
}

/// A policy file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    policy: Vec<Rules>,
}

/// A policy, as `show` prints it.
#[derive(Debug, Serialize)]
struct Shown {
    /// Of the cgroup.
    id: u64,
    #[serde(flatten)]
    rules: Rules,
}

pub(crate) fn run(pins: &Pins, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Set(rules) => {
            rules.check()?;
            let installed = pins.open()?;
            let path = group::served(&rules.cgroup, &installed.settings.up.cgroup)?;
            let mut maps = installed.maps(pins)?;
            write(&mut maps, group::id(&path)?, &rules)?;
            maps.raise_policy_generation()?;
        }
        Command::Apply { file } => apply(pins, &file)?,
        Command::Show(output) => show(pins, output)?,
        Command::Remove(Remove { cgroup, gone }) => {
            let installed = pins.open()?;
            let mut maps = installed.maps(pins)?;
            let ids = match cgroup {
                Some(path) => {
                    let path = group::served(&path, &installed.settings.up.cgroup)?;
                    vec![group::id(&path)?]
                }
                None if gone => gone_ids(&installed, &maps)?,
                None => Vec::new(),
            };
            let mut removed = 0;
            for id in ids {
                removed += u32::from(erase(&mut maps, id)?);
            }
            maps.raise_policy_generation()?;
            println!("removed: {removed}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes one policy: complete under a number of its own before the cgroup is told of it. The
/// caller raises the generation.
pub(crate) fn write(maps: &mut Loaded, cgroup: u64, rules: &Rules) -> anyhow::Result<()> {
    let policies = maps.policies()?;
    let exits = maps.policy_exits()?;
    let used: BTreeSet<u32> = policies
        .iter()
        .map(|(_, policy)| policy.id)
        .chain(exits.iter().map(|(key, _)| key.policy))
        .collect();
    let id = (1..).find(|id| !used.contains(id)).unwrap_or(u32::MAX);
    let old = policies
        .iter()
        .find_map(|(of, policy)| (*of == cgroup).then_some(policy.id));
    let full = |what: &str, most: u32| format!("{what}: at most {most} fit on a host");
    let keys = rules.exits(id);
    let written = keys
        .iter()
        .try_for_each(|(key, bits)| maps.set_policy_exit(key, *bits))
        .with_context(|| full("prefixes", MAX_POLICY_EXITS))
        .and_then(|()| {
            maps.set_policy(cgroup, &rules.policy(id))
                .with_context(|| full("policies", MAX_POLICIES))
        });
    if let Err(error) = written {
        for (key, _) in &keys {
            let _ = maps.remove_policy_exit(key);
        }
        return Err(error);
    }
    for (key, _) in exits.iter().filter(|(key, _)| Some(key.policy) == old) {
        maps.remove_policy_exit(key)?;
    }
    Ok(())
}

/// Takes a policy with its prefixes away; whether there was one. The caller raises the
/// generation.
pub(crate) fn erase(maps: &mut Loaded, cgroup: u64) -> anyhow::Result<bool> {
    let policies = maps.policies()?;
    let Some((_, policy)) = policies.iter().find(|(of, _)| *of == cgroup) else {
        return Ok(false);
    };
    maps.remove_policy(cgroup)?;
    for (key, _) in maps.policy_exits()? {
        if key.policy == policy.id {
            maps.remove_policy_exit(&key)?;
        }
    }
    Ok(true)
}

fn apply(pins: &Pins, file: &Path) -> anyhow::Result<()> {
    let entries = read(file)?;
    let installed = pins.open()?;
    let mut planned = Vec::new();
    let mut seen = BTreeSet::new();
    for rules in &entries {
        let path = group::served(&rules.cgroup, &installed.settings.up.cgroup)
            .with_context(|| file.display().to_string())?;
        let id = group::id(&path)?;
        if !seen.insert(id) {
            let message = format!(
                "{}: cgroup {} stands there twice",
                file.display(),
                path.display()
            );
            return Err(Usage(message).into());
        }
        planned.push((id, rules));
    }
    let mut maps = installed.maps(pins)?;
    let written = planned
        .iter()
        .try_for_each(|(id, rules)| write(&mut maps, *id, rules));
    // Also where one failed: those before it are in force.
    maps.raise_policy_generation()?;
    written?;
    println!("policies: {}", planned.len());
    Ok(())
}

/// Reads and checks a whole file, before anything is changed.
fn read(file: &Path) -> Result<Vec<Rules>, Usage> {
    let name = file.display();
    let text = fs::read_to_string(file).map_err(|error| Usage(format!("{name}: {error}")))?;
    let File { policy } =
        toml::from_str(&text).map_err(|error| Usage(format!("{name}: {error}")))?;
    for rules in &policy {
        rules.check().map_err(|Usage(error)| {
            let cgroup = rules.cgroup.display();
            Usage(format!("{name}: policy of {cgroup}: {error}"))
        })?;
    }
    Ok(policy)
}

fn gone_ids(installed: &Installed, maps: &Loaded) -> anyhow::Result<Vec<u64>> {
    let paths = group::paths(&installed.settings.up.cgroup);
    let policies = maps.policies()?;
    Ok(policies
        .into_iter()
        .map(|(id, _)| id)
        .filter(|id| !paths.contains_key(id))
        .collect())
}

fn show(pins: &Pins, output: Output) -> anyhow::Result<()> {
    let installed = pins.open()?;
    let maps = installed.maps(pins)?;
    let paths = group::paths(&installed.settings.up.cgroup);
    let exits = maps.policy_exits()?;
    let shown: Vec<Shown> = maps
        .policies()?
        .iter()
        .map(|(id, policy)| Shown {
            id: *id,
            rules: Rules {
                cgroup: paths.get(id).cloned().unwrap_or_default(),
                ..Rules::of(policy, &exits)
            },
        })
        .collect();
    if output.json {
        println!("{}", serde_json::to_string_pretty(&shown)?);
        return Ok(());
    }
    // In the form that `apply` reads.
    for Shown { id, rules } in shown {
        println!("[[policy]]");
        if rules.cgroup.as_os_str().is_empty() {
            println!("# cgroup {id} is gone: `dynencap policy remove --gone`");
        }
        println!("{}", toml::to_string(&rules)?);
    }
    Ok(())
}

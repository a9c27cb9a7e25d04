//! The test binaries that guests run, built on the host.

use crate::child::Limits;
use anyhow::{Context, ensure};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Package and test target of each suite, in the order of running, and whether it belongs to the
/// short form.
const SUITES: &[(&str, &str, bool)] = &[
    ("dynencap-kernel", "hygiene", false),
    ("dynencap-kernel", "host", false),
    ("dynencap-kernel", "kernel", true),
    ("dynencap-e2e", "e2e", true),
];

/// A suite's name, as the command line has it.
pub(super) fn name(text: &str) -> anyhow::Result<String> {
    let names: Vec<&str> = SUITES.iter().map(|&(_, name, _)| name).collect();
    ensure!(
        names.contains(&text),
        "expected one of {}",
        names.join(", ")
    );
    Ok(text.to_owned())
}

/// A built test binary.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Suite {
    /// The test target's name.
    pub(super) name: &'static str,
    pub(super) binary: PathBuf,
    /// The package's folder: where cargo would run it.
    pub(super) folder: PathBuf,
}

/// What cargo says of each thing that it built.
#[derive(Deserialize)]
struct Artifact {
    manifest_path: PathBuf,
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

/// Builds all suites. As `cargo test --workspace` does, so that nothing is built twice.
pub(super) fn suites(root: &Path, short: bool, limits: &Limits) -> anyhow::Result<Vec<Suite>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .current_dir(root)
        .args(["test", "--locked", "--workspace", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    for (_, test, _) in SUITES {
        build.args(["--test", test]);
    }
    let output = build.output().context("cargo test --no-run")?;
    limits.check()?;
    ensure!(
        output.status.success(),
        "the tests cannot be built: {}",
        output.status
    );
    let mut suites = found(root, &String::from_utf8_lossy(&output.stdout))?;
    suites.retain(|suite| {
        let is_it = |(_, name, in_short): &&(_, &str, bool)| *name == suite.name && *in_short;
        !short || SUITES.iter().any(|entry| is_it(&entry))
    });
    Ok(suites)
}

/// Finds each suite in cargo's messages.
fn found(root: &Path, messages: &str) -> anyhow::Result<Vec<Suite>> {
    let artifacts: Vec<Artifact> = messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    SUITES
        .iter()
        .map(|&(package, name, _)| {
            let member = package.strip_prefix("dynencap-").unwrap_or(package);
            let folder = root.join("crates").join(member);
            let artifact = artifacts.iter().find(|artifact| {
                artifact.manifest_path.parent() == Some(&folder)
                    && artifact.target.name == name
                    && artifact.target.kind == ["test"]
            });
            let binary = artifact.and_then(|artifact| artifact.executable.clone());
            Ok(Suite {
                name,
                binary: binary.with_context(|| format!("cargo built no test {name}"))?,
                folder,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_found_among_cargos_messages() {
        let artifact = |package: &str, name: &str, kind: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/r/crates/{package}/Cargo.toml","target":{{"kind":["{kind}"],"name":"{name}"}},"executable":"/t/{package}-{name}"}}"#
            )
        };
        let mut messages = vec![
            r#"{"reason":"build-script-executed"}"#.to_owned(),
            artifact("sim", "kernel", "test"),
            artifact("kernel", "kernel", "lib"),
            artifact("kernel", "kernel", "test"),
        ];
        assert!(found(Path::new("/r"), &messages.join("\n")).is_err());
        messages.push(artifact("kernel", "hygiene", "test"));
        messages.push(artifact("kernel", "host", "test"));
        messages.push(artifact("e2e", "e2e", "test"));
        let suites = found(Path::new("/r"), &messages.join("\n")).unwrap();
        assert_eq!(suites.len(), SUITES.len());
        assert_eq!(
            suites[2],
            Suite {
                name: "kernel",
                binary: "/t/kernel-kernel".into(),
                folder: "/r/crates/kernel".into()
            }
        );
    }
}

//! `cargo xtask bpf`: builds the committed object of crates/bpf, byte for byte the same from
//! any directory, with a record of what it was built from; `--check` tells whether object,
//! record and sources still belong together. What is installed for it is `setup`'s to know.

use crate::setup;
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use toolchain::{Toolchain, Versions, cargo, output};

mod toolchain;

const OBJECT: &str = "crates/bpf/dynencap.bpf.o";
const RECORD: &str = "crates/bpf/dynencap.bpf.json";
const TARGET: &str = "bpfel-unknown-none";
const BINARY: &str = "dynencap";
/// What the object depends on, files or folders.
const SOURCES: &[&str] = &[
    "crates/abi/Cargo.toml",
    "crates/abi/src",
    "crates/bpf/Cargo.lock",
    "crates/bpf/Cargo.toml",
    "crates/bpf/src",
];
/// Compiler flags; those that hide this machine's paths come on top.
const FLAGS: &[&str] = &[
    // Which registers kprobes' arguments stand in; aya-ebpf demands an answer.
    "--cfg=bpf_target_arch=\"x86_64\"",
    // BTF and line info are made from it; the object itself is stripped.
    "-Cdebuginfo=2",
    // 32-bit arithmetic and jumps.
    "-Ctarget-cpu=v3",
    // Headers in a packet are unaligned; without it each word is put together from bytes.
    "-Ctarget-feature=+allows-misaligned-mem-access",
    "-Clink-arg=--btf",
];
const MEND: &str = "`cargo xtask bpf` builds it anew";

/// Arguments of `cargo xtask bpf`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build nothing that stays; fail when the committed object is not that of the sources
    #[arg(long)]
    check: bool,
}

/// What the committed object was built from.
#[derive(Serialize, Deserialize)]
struct Record {
    /// SHA-256 over names and contents of the sources.
    sources: String,
    /// SHA-256 of the object.
    object: String,
    flags: Vec<String>,
    toolchain: Versions,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let root = root()?;
    if args.check {
        check(&root)
    } else {
        build_committed(&root)
    }
}

fn build_committed(root: &Path) -> anyhow::Result<()> {
    let toolchain = match Toolchain::find(None)? {
        Some(toolchain) => toolchain,
        None => installed_now(None)?,
    };
    let built = build(root, &toolchain)?;
    let object = fs::read(&built)?;
    let record = Record {
        sources: hash_sources(root)?,
        object: hex(&Sha256::digest(&object)),
        flags: FLAGS.iter().map(|flag| (*flag).to_owned()).collect(),
        toolchain: toolchain.versions,
    };
    fs::write(root.join(OBJECT), &object)?;
    fs::write(
        root.join(RECORD),
        serde_json::to_string_pretty(&record)? + "\n",
    )?;
    println!("{OBJECT}: {} bytes, {}", object.len(), record.toolchain);
    println!("`cargo xtask sequences` makes the vm's table for it");
    Ok(())
}

fn check(root: &Path) -> anyhow::Result<()> {
    let text =
        fs::read_to_string(root.join(RECORD)).with_context(|| format!("{RECORD}: {MEND}"))?;
    let record: Record =
        serde_json::from_str(&text).with_context(|| format!("{RECORD}: {MEND}"))?;
    let object = fs::read(root.join(OBJECT)).with_context(|| format!("{OBJECT}: {MEND}"))?;

    ensure!(
        record.sources == hash_sources(root)?,
        "{OBJECT} is not that of its sources: {MEND}"
    );
    ensure!(
        record.flags == FLAGS,
        "{OBJECT} was built with other flags: {MEND}"
    );
    println!("compared: sources and flags are those of the record");
    ensure!(
        record.object == hex(&Sha256::digest(&object)),
        "{OBJECT} is not that of its record: {MEND}"
    );
    println!("compared: the object is the record's");

    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let toolchain = match Toolchain::find(Some(&record.toolchain))? {
        Some(toolchain) if toolchain.versions == record.toolchain || !in_ci => toolchain,
        _ if in_ci => installed_now(Some(&record.toolchain))?,
        _ => {
            println!(
                "not compared: the bytes of a new build; there is no BPF toolchain here \
                 (`cargo xtask setup --bpf` installs it)"
            );
            return Ok(());
        }
    };
    let built = build(root, &toolchain)?;
    if toolchain.versions != record.toolchain {
        println!(
            "not compared: the bytes of a new build; the toolchain here is {}, the recorded one {}",
            toolchain.versions, record.toolchain
        );
        println!(
            "the new build: run the suite on it with DYNENCAP_OBJECT={}",
            built.display()
        );
        return Ok(());
    }
    ensure!(
        fs::read(&built)? == object,
        "{OBJECT} is not what its sources give: {MEND}"
    );
    println!(
        "compared: a new build by {} gives the same bytes",
        toolchain.versions
    );
    Ok(())
}

fn installed_now(preferred: Option<&Versions>) -> anyhow::Result<Toolchain> {
    setup::install_bpf()?;
    Toolchain::find(preferred)?.context("the toolchain was installed and is not found")
}

/// Builds and strips; the path of the result.
fn build(root: &Path, toolchain: &Toolchain) -> anyhow::Result<PathBuf> {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => root.join("target"),
    }
    .join("bpf");
    let cargo_home = match std::env::var_os("CARGO_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    let mut flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
    for (path, name) in [
        (root, "/dynencap"),
        (&cargo_home, "/cargo"),
        (&toolchain.sysroot.join("lib/rustlib/src/rust"), "/rust"),
    ] {
        flags.push(format!("--remap-path-prefix={}={name}", path.display()));
    }
    let status = Command::new(cargo())
        .current_dir(root.join("crates/bpf"))
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "-Zbuild-std=core",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(&target)
        // Cargo's own variables describe the xtask; the flags and features needed are unstable.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .status()
        .context("cargo build")?;
    ensure!(
        status.success(),
        "the BPF programs do not build ({})",
        toolchain.versions
    );

    let folder = target.join(TARGET).join("release");
    let object = folder.join("dynencap.bpf.o");
    let names = output(
        Command::new(toolchain.tool("llvm-nm")?)
            .arg("--just-symbol-name")
            .arg(folder.join(BINARY)),
    )
    .context("llvm-nm: no symbols")?;
    // Debug info is ten times the programs' size; BTF and line info are sections of their own
    // and stay.
    let status = Command::new(toolchain.tool("llvm-objcopy")?)
        .arg("--strip-debug")
        .args(names.lines().filter_map(|name| {
            let renamed = without_disambiguator(name)?;
            Some(format!("--redefine-sym={name}={renamed}"))
        }))
        .arg(folder.join(BINARY))
        .arg(&object)
        .status()
        .context("llvm-objcopy")?;
    ensure!(status.success(), "llvm-objcopy: {status}");
    Ok(object)
}

/// A symbol without the number that tells crates of one name apart: cargo takes it from the
/// folder, among others. `None` for a name that is not mangled (Rust's v0 scheme).
fn without_disambiguator(symbol: &str) -> Option<String> {
    let (path, rest) = symbol.split_once("Cs")?;
    let (_, name) = rest.split_once('_')?;
    path.starts_with("_R").then(|| format!("{path}C{name}"))
}

fn root() -> anyhow::Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(manifest
        .parent()
        .context("xtask lies in the workspace")?
        .to_owned())
}

/// Names and contents in the names' order, each behind its length, so that nothing can move
/// from one file to another unseen.
fn hash_sources(root: &Path) -> anyhow::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(root, Path::new(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file.to_str().context("a source's name is not UTF-8")?;
        let contents = fs::read(root.join(&file)).with_context(|| name.to_owned())?;
        for bytes in [name.as_bytes(), &contents] {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
    }
    Ok(hex(&hash.finalize()))
}

fn collect(root: &Path, path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let full = root.join(path);
    if full.is_dir() {
        for entry in fs::read_dir(&full)? {
            collect(root, &path.join(entry?.file_name()), files)?;
        }
    } else {
        files.push(path.to_owned());
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for source in SOURCES {
            let path = root.path().join(source);
            if source.ends_with("src") {
                fs::create_dir_all(&path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "").unwrap();
            }
        }
        for (name, contents) in files {
            fs::write(root.path().join(name), contents).unwrap();
        }
        root
    }

    fn hash(files: &[(&str, &str)]) -> String {
        hash_sources(tree(files).path()).unwrap()
    }

    #[test]
    fn the_hash_of_the_sources_sees_contents_names_and_borders_but_no_place() {
        let base = hash(&[("crates/bpf/src/a.rs", "x"), ("crates/bpf/src/b.rs", "y")]);
        assert_eq!(
            base,
            hash(&[("crates/bpf/src/b.rs", "y"), ("crates/bpf/src/a.rs", "x")])
        );
        assert_ne!(
            base,
            hash(&[("crates/bpf/src/a.rs", "xy"), ("crates/bpf/src/b.rs", "")])
        );
        assert_ne!(
            base,
            hash(&[("crates/bpf/src/a.rs", "x"), ("crates/bpf/src/c.rs", "y")])
        );
        assert_ne!(
            base,
            hash(&[("crates/bpf/src/a.rs", "x"), ("crates/abi/src/b.rs", "y")])
        );
    }

    #[test]
    fn a_changed_source_is_told_with_the_command_that_mends_it() {
        let root = tree(&[("crates/bpf/src/a.rs", "x")]);
        let object = b"object";
        let record = Record {
            sources: hash_sources(root.path()).unwrap(),
            object: hex(&Sha256::digest(object)),
            flags: FLAGS.iter().map(|flag| (*flag).to_owned()).collect(),
            toolchain: Versions {
                cargo: String::new(),
                rustc: String::new(),
                llvm: String::new(),
                linker: String::new(),
            },
        };
        fs::write(
            root.path().join(RECORD),
            serde_json::to_string(&record).unwrap(),
        )
        .unwrap();
        fs::write(root.path().join(OBJECT), object).unwrap();
        fs::write(root.path().join("crates/bpf/src/a.rs"), "changed").unwrap();
        let error = check(root.path()).unwrap_err().to_string();
        assert!(
            error.contains("sources") && error.contains("cargo xtask bpf"),
            "{error}"
        );
    }

    #[test]
    fn a_symbol_loses_what_depends_on_the_folder() {
        let renamed = without_disambiguator("_RNvNtCs8MCcosm9tEL_8dynencap9transport4walk");
        assert_eq!(renamed.unwrap(), "_RNvNtC8dynencap9transport4walk");
        assert_eq!(without_disambiguator("egress"), None);
        assert_eq!(without_disambiguator("Cs_x"), None);
    }
}

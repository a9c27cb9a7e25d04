//! `cargo xtask setup`: installs the Debian packages that tests, recording, (with `--bpf`) the
//! BPF build, (with `--guest`) tests on other kernels and (with `--peers`) measurements use.
//! Owns the tables of packages; the BPF linker's build is part of it.

use anyhow::{Context, bail};
use std::{
    fs,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What tests, the gate and recording run.
const TEST_PACKAGES: &[&str] = &[
    "bind9-dnsutils",
    "curl",
    "dnsmasq-base",
    "ethtool",
    "iperf3",
    "iproute2",
    "nftables",
    "nginx-light",
    "openssh-client",
    "openssh-server",
    "tcpdump",
    "tshark",
    "valgrind",
];

/// The compiler with the sources of `core`, and what the linker is built with.
const BPF_PACKAGES: &[&str] = &[
    "rustc-web",
    "rust-web-src",
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
];

/// What boots other kernels.
const GUEST_PACKAGES: &[&str] = &["busybox-static", "kmod", "qemu-system-x86", "xz-utils"];

/// What measuring beside peers runs; the compiler is for the reference in C.
const PEER_PACKAGES: &[&str] = &[
    "clang-22",
    "coreutils",
    "ethtool",
    "iproute2",
    "llvm-22",
    "tcpreplay",
    "util-linux",
    "wireshark-common",
];

/// The C compiler with a BPF back end.
pub(crate) const CLANG: &str = "clang-22";

/// Where Debian's LLVM lies.
pub(crate) const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// The linker; its LLVM must not be older than the compiler's.
pub(crate) const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "0.13.0";
const LINKER_FEATURES: &str = "llvm-22";

/// Services that a package brings and that nobody asked for, by package.
const SERVICES: &[(&str, &str)] = &[("nginx-light", "nginx"), ("openssh-server", "ssh")];

/// While this file is there, Debian's package scripts start no service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install the BPF compiler and linker as well
    #[arg(long)]
    bpf: bool,
    /// Install what boots other kernels as well
    #[arg(long)]
    guest: bool,
    /// Install what `cargo xtask peers` runs as well
    #[arg(long)]
    peers: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    install(TEST_PACKAGES)?;
    if args.bpf {
        install_bpf()?;
    }
    if args.guest {
        install_guest()?;
    }
    if args.peers {
        install(PEER_PACKAGES)?;
    }
    Ok(())
}

/// Installs what `cargo xtask guest` runs, where it is missing.
pub(crate) fn install_guest() -> anyhow::Result<()> {
    install(GUEST_PACKAGES)
}

/// Installs compiler and linker of the BPF programs, where they are missing.
pub(crate) fn install_bpf() -> anyhow::Result<()> {
    install(BPF_PACKAGES)?;
    let wanted = format!("{LINKER} {LINKER_VERSION}");
    let installed = Command::new(LINKER).arg("--version").output();
    if installed.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).trim() == wanted) {
        println!("already there: {wanted}");
        return Ok(());
    }
    println!("building {wanted}");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths =
        std::iter::once(PathBuf::from(LLVM_PREFIX).join("bin")).chain(std::env::split_paths(&path));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "install",
            LINKER,
            "--version",
            LINKER_VERSION,
            "--locked",
            "--force",
        ])
        .args(["--no-default-features", "--features", LINKER_FEATURES])
        .env("PATH", std::env::join_paths(paths)?)
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .status()
        .context("cargo install")?;
    if !status.success() {
        bail!("cargo install {LINKER} failed: {status}");
    }
    Ok(())
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    let names = packages.join(" ");
    if !Path::new("/usr/bin/dpkg-query").exists() {
        bail!("this is no Debian system; install what these packages hold: {names}");
    }
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|p| !is_installed(p))
        .collect();
    if missing.is_empty() {
        println!("already there: {names}");
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_root()? {
        bail!("only root can install packages; run: apt-get install {list}");
    }
    println!("installing: {list}");
    let services = SilentServices::new()?;
    // The package lists of a fresh machine are empty or old: try, refresh, try again.
    if !apt_install(&missing)? {
        println!("refreshing the package lists");
        apt(&["update"])?;
        if !apt_install(&missing)? {
            bail!("apt-get could not install: {list}");
        }
    }
    drop(services);
    for (_, service) in SERVICES
        .iter()
        .filter(|(package, _)| missing.contains(package))
    {
        // Newly installed here, so nobody relies on it: not started at the next boot either.
        Command::new("update-rc.d")
            .args([service, "disable"])
            .status()?;
    }
    Ok(())
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f=${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success() && output.stdout == b"installed")
}

fn is_root() -> anyhow::Result<bool> {
    let output = Command::new("id").arg("-u").output().context("id -u")?;
    Ok(output.stdout.trim_ascii() == b"0")
}

fn apt_install(packages: &[&str]) -> anyhow::Result<bool> {
    apt(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}

fn apt(arguments: &[&str]) -> anyhow::Result<bool> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .context("apt-get")?;
    Ok(status.success())
}

/// Forbids package scripts to start services, until dropped.
struct SilentServices {
    is_ours: bool,
}

impl SilentServices {
    fn new() -> anyhow::Result<Self> {
        let created = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(POLICY);
        match created {
            Ok(mut file) => {
                let ours = Self { is_ours: true };
                std::io::Write::write_all(&mut file, b"#!/bin/sh\nexit 101\n")?;
                // The mode above passes through the umask.
                fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
                Ok(ours)
            }
            // The machine has a policy of its own, a container's mostly: left as it is.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Ok(Self { is_ours: false })
            }
            Err(error) => Err(error).context(POLICY),
        }
    }
}

impl Drop for SilentServices {
    fn drop(&mut self) {
        if self.is_ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("{POLICY}: {error}");
        }
    }
}

//! The one way to skip a test.

use dynencap_e2e::topology;
use dynencap_kernel::{Feature, Namespace, Unavailable, feature};
use std::{env, path::PathBuf, process::Command};

/// What a test needs beside the kernel engine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// A feature of the kernel's.
    Kernel(Feature),
    /// Devices, routes or listeners, as a command of `ip` that works where the kernel has them.
    Device(&'static str),
    /// A program, found by `PATH` or in the folders of system programs.
    Program(&'static str),
}

/// What a test needs whose exit node takes packets out of a header of the other IP version.
pub(crate) const ACROSS: Need = Need::Kernel(Feature::DecapsulateIpv4);

/// What is missing.
pub(crate) struct Missing {
    tier: &'static str,
    /// Whether the kernel's release should have it, where that decides.
    due: Option<bool>,
    /// Whether nothing at all can be tested without it.
    is_engine: bool,
    /// In words.
    pub(crate) reason: String,
}

impl Missing {
    fn kernel(missing: &Unavailable) -> Self {
        Self {
            tier: "kernel",
            due: missing.feature.is_due(),
            is_engine: Feature::REQUIRED.contains(&missing.feature),
            reason: missing.to_string(),
        }
    }

    fn of(tier: &'static str, reason: String) -> Self {
        Self {
            tier,
            due: None,
            is_engine: false,
            reason,
        }
    }
}

/// The first of the needs that is not met.
pub(crate) fn missing(needs: &[Need]) -> Option<Missing> {
    if let Err(missing) = feature::probe() {
        return Some(Missing::kernel(&missing));
    }
    let tools = ["ip", "setpriv"].map(Need::Program);
    tools.iter().chain(needs).find_map(|need| match need {
        Need::Kernel(feature) => feature.probe().err().as_ref().map(Missing::kernel),
        Need::Device(command) => device(command)
            .err()
            .map(|reason| Missing::of("devices", format!("ip {command}: {reason}"))),
        Need::Program(name) => program(name).is_none().then(|| {
            let reason = format!("{name} is not installed: cargo xtask setup");
            Missing::of("programs", reason)
        }),
    })
}

/// Whether it may not be missing. Where the kernel's release should have it, never; where the
/// release is too old, it always may, unless nothing can be tested without it. Else the
/// environment decides.
pub(crate) fn is_required(missing: &Missing) -> bool {
    let required = env::var("DYNENCAP_REQUIRE")
        .is_ok_and(|tiers| tiers.split([',', ' ']).any(|tier| tier == missing.tier));
    match missing.due {
        Some(true) => true,
        Some(false) => required && missing.is_engine,
        None => required,
    }
}

/// Tries a command of `ip` in a namespace of its own.
fn device(command: &str) -> Result<(), String> {
    let namespace = Namespace::new().unwrap();
    topology::Topology::sysctl(&namespace, "ipv6/conf/all/disable_ipv6", "0");
    let output =
        namespace.in_namespace(|| Ok(Command::new("ip").args(command.split(' ')).output()));
    let output = output.unwrap().unwrap();
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// Where a program lies.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from);
    let mut folders = env::split_paths(&path).chain(system);
    folders.find_map(|folder| {
        let file = folder.join(name);
        file.is_file().then_some(file)
    })
}

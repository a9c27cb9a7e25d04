//! The one way to skip a test.

use dynencap_kernel::{Feature, feature};
use std::{env, path::PathBuf};

/// What a test needs beside the kernel engine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// A feature of the kernel's.
    #[allow(dead_code, reason = "as features come")]
    Kernel(Feature),
    /// A program, found by `PATH` or in the folders of system programs.
    Program(&'static str),
}

/// What is missing.
pub(crate) struct Missing {
    tier: &'static str,
    /// In words.
    pub(crate) reason: String,
}

/// The first of the needs that is not met.
pub(crate) fn missing(needs: &[Need]) -> Option<Missing> {
    let kernel = |reason: String| Missing {
        tier: "kernel",
        reason,
    };
    if let Err(missing) = feature::probe() {
        return Some(kernel(missing.to_string()));
    }
    let tools = ["ip", "setpriv"].map(Need::Program);
    needs.iter().chain(&tools).find_map(|need| match need {
        Need::Kernel(feature) => feature
            .probe()
            .err()
            .map(|missing| kernel(missing.to_string())),
        Need::Program(name) => program(name).is_none().then(|| Missing {
            tier: "programs",
            reason: format!("{name} is not installed: cargo xtask setup"),
        }),
    })
}

/// Whether the environment forbids to skip for this.
pub(crate) fn is_required(missing: &Missing) -> bool {
    env::var("DYNENCAP_REQUIRE")
        .is_ok_and(|tiers| tiers.split([',', ' ']).any(|tier| tier == missing.tier))
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

//! The one way to skip a test.

use dynencap_kernel::{Feature, feature};
use std::io::Write;

/// Returns whether the test can run: the kernel engine's own needs, and `features` beside.
/// A skip is an assertion. Where the kernel's release should have the feature and the probe
/// says otherwise, the test fails. Where the environment forbids skips, it fails too, unless
/// the release is too old for one of `features`: that is the one skip that is always allowed.
#[must_use]
pub(crate) fn require(features: &[Feature]) -> bool {
    let missing = feature::probe()
        .err()
        .or_else(|| features.iter().find_map(|feature| feature.probe().err()));
    let Some(missing) = missing else {
        return true;
    };
    let required = std::env::var("DYNENCAP_REQUIRE")
        .is_ok_and(|tiers| tiers.split([',', ' ']).any(|tier| tier == "kernel"));
    let own_need = Feature::REQUIRED.contains(&missing.feature);
    let forbidden = match missing.feature.is_due() {
        Some(true) => true,
        Some(false) => required && own_need,
        None => required,
    };
    assert!(!forbidden, "may not be skipped: {missing}");
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    // Not eprintln!, which the test harness swallows when a test passes.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {missing}");
    false
}

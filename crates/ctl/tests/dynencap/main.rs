//! The real `dynencap`, in namespaces of its own with a BPF file system of their own. What needs
//! root says on stderr that it was skipped, and why; with `kernel` in `DYNENCAP_REQUIRE` a skip
//! is a failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests are tests: clippy exempts only the functions marked as such"
)]

mod exec;
mod lifecycle;
mod policy;
mod program;
mod reflect;
#[path = "../../../kernel/tests/kernel/require.rs"]
mod require;
mod stage;
mod upgrade;
mod usage;
mod watch;

//! Host configuration against a real kernel, in namespaces of its own; `ip` is the judge.
//! Needs root, as the kernel's tests do; see docs/testing.md for skips.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests are tests: clippy exempts only the functions marked as such"
)]

mod connection;
mod foreign;
mod install;
#[path = "../kernel/require.rs"]
mod require;
mod routing;
mod segment;
mod stage;
mod watch;

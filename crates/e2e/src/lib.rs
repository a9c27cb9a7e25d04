//! What the end-to-end tests stand on: a network of four hosts in namespaces, unprivileged
//! programs in cgroups, a capture of all that leaves the client, and an auditor of it.
//!
//! What is claimed of the programs is left to `tests/e2e`; how they are loaded and attached,
//! to `dynencap-kernel`. Support for tests alone: a failure is a panic that says what failed.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the whole crate serves tests, whose failures are panics"
)]

pub mod agent;
pub mod audit;
pub mod capture;
pub mod exit;
pub mod forge;
pub mod gap;
pub mod job;
pub mod limit;
pub mod mirror;
pub mod payload;
pub mod process;
pub mod reference;
pub mod socket;
pub mod topology;
pub mod tunnel;
pub mod twin;

pub use audit::{Audit, Rules, Segment};
pub use exit::{Exit, Shape};
pub use limit::{amount, limit};
pub use mirror::Mirror;
pub use process::{Place, Program, User};
pub use topology::{Grant, Setup, Topology};
pub use tunnel::Tunnel;

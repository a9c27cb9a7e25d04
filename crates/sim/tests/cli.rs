//! The command line as its users see it: the real binary, its exit codes, messages, reports
//! and files.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[path = "cli/bench.rs"]
mod bench;
#[path = "cli/divergence.rs"]
mod divergence;
#[path = "cli/exit.rs"]
mod exit;
#[path = "cli/interrupt.rs"]
mod interrupt;
#[path = "cli/output.rs"]
mod output;
#[path = "cli/program.rs"]
mod program;
#[path = "cli/report.rs"]
mod report;
#[path = "cli/scenario.rs"]
mod scenario;
#[path = "cli/threads.rs"]
mod threads;

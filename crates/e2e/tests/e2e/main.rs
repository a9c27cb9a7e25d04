//! Real sockets and real programs through the real kernel, as nobody in a cgroup, judged by a
//! capture of all that left the client. Needs root; without it every test is reported as
//! ignored, with the reason. With `kernel` in `DYNENCAP_REQUIRE` that is a failure, with
//! `programs` the lack of a program is, and with `devices` the lack of a kernel module.
//!
//! With `DYNENCAP_E2E_HOLD` nothing is tested: the topology stands until standard input ends,
//! for whoever wants to look into it by hand.
//!
//! One binary, which the guests run as well: `DYNENCAP_SLOW` stretches every time limit,
//! `DYNENCAP_EVIDENCE` says where captures are kept, `DYNENCAP_E2E_ONLY` names tests by how
//! their names begin, separated by commas.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests are tests: clippy exempts only the functions marked as such"
)]

mod bulk;
mod datagram;
mod device;
mod flood;
mod follow;
mod leak;
mod many;
mod option;
mod outer;
mod path;
mod plant;
mod policy;
mod program;
mod reflect;
mod require;
mod segment;
mod switch;
mod table;
mod twin;

use dynencap_e2e::{Topology, agent, job};
use libtest_mimic::{Arguments, Completion, Trial};
use require::Need;
use std::{
    os::fd::{AsFd, AsRawFd},
    process::ExitCode,
};

/// A test: name, what it needs beside the kernel engine, and what it does.
type Test = (&'static str, &'static [Need], fn());

fn main() -> ExitCode {
    let jobs: Vec<agent::Job> = [job::ALL, option::JOBS].concat();
    if agent::ran(&jobs) {
        return ExitCode::SUCCESS;
    }
    if std::env::var_os("DYNENCAP_E2E_HOLD").is_some() {
        hold();
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // One topology at a time: a process has one cgroup of ours.
    arguments.test_threads = Some(1);
    let tests = [
        plant::TESTS,
        option::TESTS,
        bulk::TESTS,
        datagram::TESTS,
        device::TESTS,
        many::TESTS,
        leak::TESTS,
        program::TESTS,
        reflect::TESTS,
        follow::TESTS,
        outer::TESTS,
        flood::TESTS,
        switch::TESTS,
        path::TESTS,
        policy::TESTS,
        segment::TESTS,
        twin::TESTS,
    ];
    let only = std::env::var("DYNENCAP_E2E_ONLY").unwrap_or_default();
    let wanted = |name: &str| only.split(',').any(|start| name.starts_with(start));
    let tests = tests.concat().into_iter().filter(|(name, ..)| wanted(name));
    let trials = tests.map(|(name, needs, run)| {
        Trial::ignorable_test(name, move || match require::missing(needs) {
            Some(missing) if require::is_required(&missing) => {
                Err(format!("may not be skipped: {}", missing.reason).into())
            }
            Some(missing) => Ok(Completion::ignored_with(missing.reason)),
            None => {
                run();
                Ok(Completion::Completed)
            }
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    conclusion.exit_code()
}

/// Prints how to enter each host, and waits.
fn hold() {
    let mut topology = Topology::new();
    topology.serve();
    let hosts = [
        ("C", &topology.client),
        ("R", &topology.router),
        ("X", &topology.exit),
        ("S", &topology.server),
    ];
    for (name, host) in hosts {
        println!(
            "{name}: nsenter --net=/proc/{}/fd/{}",
            std::process::id(),
            host.as_fd().as_raw_fd()
        );
    }
    println!("cgroup of C: {}", topology.at_client().cgroup.display());
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

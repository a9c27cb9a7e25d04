//! A lab leaves nothing behind, however it ends. A process of its own, so that no other
//! test's lab is in the picture.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests are tests: clippy exempts only the functions marked as such"
)]

#[path = "../kernel/require.rs"]
mod require;

use dynencap_abi::Config;
use dynencap_kernel::{Error, Interrupt, Lab, Replay};
use require::require;
use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead, BufReader, Read},
    panic,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio, id},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Set in a child process that is to hold a lab until a signal ends it.
const HOLD: &str = "DYNENCAP_TEST_HOLD";

/// Tests of this file look at the whole process, so they take turns.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a lab could leave: cgroups, links in this namespace, named namespaces, and the
/// process's descriptors of namespaces, programs and links.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    cgroups: BTreeSet<PathBuf>,
    own_cgroup: String,
    links: BTreeSet<String>,
    named: BTreeSet<PathBuf>,
    descriptors: Vec<PathBuf>,
}

fn traces() -> Traces {
    let listed = |path: &str| -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let lab_device = |name: &&str| ["up", "cap", "seg"].iter().any(|lab| name.starts_with(lab));
    let lab_object = |target: &PathBuf| {
        let target = target.to_string_lossy();
        ["net:", "socket:", "bpf", "/net/dev"]
            .iter()
            .any(|kind| target.contains(kind))
    };
    Traces {
        cgroups: lab_cgroups(id()),
        own_cgroup: fs::read_to_string("/proc/self/cgroup").unwrap(),
        links: fs::read_to_string("/proc/self/net/dev")
            .unwrap()
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, _)| name.trim())
            .filter(lab_device)
            .map(str::to_owned)
            .collect(),
        named: listed("/run/netns"),
        descriptors: listed("/proc/self/fd")
            .iter()
            .filter_map(|descriptor| fs::read_link(descriptor).ok())
            .filter(lab_object)
            .collect(),
    }
}

/// Directories of labs of process `of`, wherever cgroup2 is mounted.
fn lab_cgroups(of: u32) -> BTreeSet<PathBuf> {
    fn below(path: &Path, name: &str, found: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy() == name {
                    found.insert(entry.path());
                }
                below(&entry.path(), name, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    below(
        Path::new("/sys/fs/cgroup"),
        &format!("dynencap-lab-{of}"),
        &mut found,
    );
    found
}

/// A child process that has built a lab and holds it.
fn holding_child() -> Child {
    let mut child = Command::new("/proc/self/exe")
        .args(["--exact", "a_lab_is_one_cgroup_and_goes_with_its_value"])
        .arg("--nocapture")
        .env(HOLD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = output.by_ref().lines().map_while(Result::ok);
    let ready = lines.any(|line| line.ends_with("holding"));
    // Kept open: the test harness has more to say when the test ends.
    child.stdout = Some(output.into_inner());
    assert!(ready, "the child ended before its lab was built");
    child
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn a_lab_is_one_cgroup_and_goes_with_its_value() {
    if !require(&[]) {
        return;
    }
    let _alone = alone();
    let interrupt = env::var(HOLD)
        .is_ok()
        .then(|| Interrupt::on_signals().unwrap());
    let before = traces();
    let lab = Lab::new().unwrap();
    let during = traces();
    assert_eq!(during.cgroups.len(), 1, "{during:?}");
    assert!(
        during
            .own_cgroup
            .contains(&format!("dynencap-lab-{}", id()))
    );
    assert_eq!(
        during.links, before.links,
        "devices outside of the namespaces"
    );
    assert_ne!(during.descriptors, before.descriptors);
    if let Some(interrupt) = interrupt {
        println!("holding");
        while interrupt.check().is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(matches!(interrupt.check(), Err(Error::Interrupted)));
    }
    drop(lab);
    assert_eq!(traces(), before);
}

#[test]
fn a_replay_leaves_nothing_behind() {
    if !require(&[]) {
        return;
    }
    let _alone = alone();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../bpf/dynencap.bpf.o");
    let object = fs::read(path).unwrap();
    let config = Config {
        source: [0; 16],
        uplink_mtu: 1500,
        flags: Config::ALLOW_PACKET_SOCKETS,
        ..Config::default()
    };
    let before = traces();
    for _ in 0..3 {
        let mut replay = Replay::start(&object, config).unwrap();
        for _ in 0..10 {
            replay.open_flow().unwrap();
        }
        assert_eq!(traces().cgroups.len(), 1);
    }
    assert_eq!(traces(), before);
}

#[test]
fn an_object_that_cannot_be_loaded_leaves_nothing_behind() {
    if !require(&[]) {
        return;
    }
    let _alone = alone();
    let before = traces();
    let config = Config {
        source: [0; 16],
        uplink_mtu: 1500,
        flags: 0,
        ..Config::default()
    };
    let result = Replay::start(b"no object at all", config);
    assert!(matches!(result.err(), Some(Error::Object { .. })));
    assert_eq!(traces(), before);
}

#[test]
fn a_panic_leaves_nothing_behind_and_the_next_lab_works() {
    if !require(&[]) {
        return;
    }
    let _alone = alone();
    let before = traces();
    let result = panic::catch_unwind(|| {
        let _lab = Lab::new().unwrap();
        panic!("on purpose");
    });
    assert!(result.is_err());
    assert_eq!(traces(), before);
    Lab::new().unwrap();
    assert_eq!(traces(), before);
}

#[test]
fn a_process_stopped_by_sigterm_takes_its_lab_down() {
    if !require(&[]) {
        return;
    }
    let _alone = alone();
    let mut child = holding_child();
    assert_eq!(lab_cgroups(child.id()).len(), 1);
    signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
    assert_eq!(lab_cgroups(child.id()), BTreeSet::new());
}

#[test]
fn what_a_killed_process_leaves_is_one_empty_cgroup_that_the_next_lab_sweeps() {
    if !require(&[]) {
        return;
    }
    let _alone = alone();
    let before = traces();
    let mut child = holding_child();
    signal(&child, "KILL");
    assert!(!child.wait().unwrap().success());
    let left = lab_cgroups(child.id());
    assert_eq!(left.len(), 1);
    for path in left {
        let processes = fs::read_to_string(path.join("cgroup.procs")).unwrap();
        assert_eq!(processes, "");
    }
    drop(Lab::new().unwrap());
    assert_eq!(lab_cgroups(child.id()), BTreeSet::new());
    assert_eq!(traces(), before);
}

#[test]
fn the_lab_of_a_living_process_is_not_swept() {
    if !require(&[]) {
        return;
    }
    let _alone = alone();
    let mut child = holding_child();
    drop(Lab::new().unwrap());
    assert_eq!(lab_cgroups(child.id()).len(), 1);
    signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
}

//! Replacing the programs under live sockets.

use crate::{
    lifecycle::ids,
    policy::Application,
    require::require,
    stage::{EXIT, Stage},
};
use std::{env, fs, path::PathBuf};

/// The object with some bytes behind its end: another build to us, the same to the kernel.
fn another_build(folder: &tempfile::TempDir) -> PathBuf {
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../bpf/dynencap.bpf.o");
    let path = env::var_os("DYNENCAP_OBJECT").unwrap_or_else(|| committed.into());
    let mut object = fs::read(path).unwrap();
    object.extend([0; 16]);
    let path = folder.path().join("other.bpf.o");
    fs::write(&path, object).unwrap();
    path
}

fn sockets_keep_their_exits(flags: &[&str]) {
    let stage = Stage::new();
    stage.up(flags).exits(0);
    let cgroup = stage.child_cgroup("tenant");
    let mut application = Application::start(&stage, &cgroup);
    assert_eq!(application.told(&format!("set {EXIT}")), "ok");
    assert_eq!(application.told("send"), "sent");
    let old = ids(&stage.dynencap(&["status", "--json"]).exits(0).json());
    let same = stage.dynencap(&["upgrade"]).exits(0);
    assert!(same.stdout.contains("this build's already"));

    let folder = tempfile::tempdir().unwrap();
    let other = another_build(&folder);
    let mut command = stage.command(crate::program::DYNENCAP, &["--object"]);
    let upgraded: crate::program::Run = command.arg(&other).arg("upgrade").output().unwrap().into();
    upgraded.exits(0);
    let status = stage.dynencap(&["status", "--json"]).exits(0).json();
    let new = ids(&status);
    assert_eq!(new.len(), old.len());
    assert!(new.iter().all(|id| !old.contains(id)), "{old:?} {new:?}");
    assert_eq!(status["current"], false);

    assert_eq!(application.told("get"), EXIT);
    assert_eq!(application.told("send"), "sent");
    let stats = stage.stats();
    assert_eq!(
        stats["frames"]["encapsulated"], 2,
        "counted by old and new: {stats:#}"
    );

    assert_eq!(application.told("info"), "2 0 None");

    // One that does not load changes nothing.
    let broken = folder.path().join("broken.bpf.o");
    fs::write(&broken, b"no object").unwrap();
    let mut command = stage.command(crate::program::DYNENCAP, &["--object"]);
    let refused: crate::program::Run = command.arg(&broken).arg("upgrade").output().unwrap().into();
    refused.exits(1);
    let status = stage.dynencap(&["status", "--json"]).exits(0).json();
    assert_eq!(ids(&status), new);
    drop(application);
    stage.dynencap(&["down"]).exits(0);
}

#[test]
fn live_programs_are_replaced_by_links() {
    if require(&[]) {
        sockets_keep_their_exits(&[]);
    }
}

#[test]
fn live_programs_are_replaced_on_a_qdisc() {
    if require(&[]) {
        sockets_keep_their_exits(&["--clsact"]);
    }
}

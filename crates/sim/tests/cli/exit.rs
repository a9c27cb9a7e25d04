//! Exit codes and messages: a user learns file, place, what was expected and what was found.

use crate::program::{DYNSIM, capture, captures, replay, run};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const NOBODY: u32 = 65534;

/// `dynsim` and a capture where a user without privileges may reach them, run as that user.
struct Unprivileged {
    folder: tempfile::TempDir,
    trace: PathBuf,
}

impl Unprivileged {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open.clone()).unwrap();
        let trace = folder.path().join(name);
        std::fs::copy(capture(name), &trace).unwrap();
        std::fs::set_permissions(&trace, open).unwrap();
        // By another process: a test beside this one that forks while the copy is open for
        // writing would make it busy.
        let copy = Command::new("cp").arg(DYNSIM).arg(folder.path()).status();
        assert!(copy.unwrap().success());
        Self { folder, trace }
    }

    fn replay(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.folder.path().join("dynsim"));
        command.arg("replay").arg(&self.trace).args(arguments);
        command.current_dir(self.folder.path());
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

#[test]
fn the_kernel_engine_without_privileges_is_unavailable() {
    let user = Unprivileged::new("dns.pcap");
    for engines in ["kernel", "model,kernel"] {
        let ended = run(&mut user.replay(&["--engine", engines])).exits(69);
        assert_eq!(ended.stdout, "");
        let text = "dynsim: the kernel engine cannot run here: privilege: this process lacks CAP_";
        assert!(ended.stderr.starts_with(text), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn without_engines_asked_for_a_user_gets_model_and_vm_and_the_kernels_reason() {
    let user = Unprivileged::new("dns.pcap");
    let report = run(&mut user.replay(&["--json"])).exits(0).json();
    assert_eq!(report["engines"], serde_json::json!(["model", "vm"]));
    let reason = report["not_run"]["kernel"].as_str().unwrap();
    assert!(reason.contains("CAP_BPF"), "{reason}");
    assert_eq!(report["divergences"], 0);
    let summary = run(&mut user.replay(&[])).exits(0).stdout;
    let line = format!("  kernel did not run: {reason}\n");
    assert!(summary.contains(&line), "{summary}");
}

/// A case of bad input: the arguments, and what standard error must say.
type Case<'a> = (Vec<&'a str>, &'a [&'a str]);

fn refused(cases: Vec<Case<'_>>) {
    for (arguments, expected) in cases {
        let ended = run(Command::new(DYNSIM).args(&arguments)).exits(2);
        for part in expected {
            let said = &ended.stderr;
            assert!(said.contains(part), "{arguments:?}: {said:?}, not {part:?}");
        }
    }
}

#[test]
fn bad_usage_is_refused() {
    let trace = capture("dns.pcap");
    let trace = trace.to_str().unwrap();
    refused(vec![
        (vec![], &["Usage: dynsim <COMMAND>"]),
        (vec!["replay"], &["<TRACE>"]),
        (vec!["play"], &["unrecognized subcommand 'play'"]),
        (
            vec!["replay", trace, "--fast"],
            &["unexpected argument '--fast'"],
        ),
        (
            vec!["replay", trace, "--engine", "modle"],
            &[
                "invalid value 'modle'",
                "[possible values: model, vm, kernel]",
            ],
        ),
        (
            vec![
                "replay",
                trace,
                "--engine",
                "vm",
                "--object",
                "/nowhere/object.o",
            ],
            &["dynsim: /nowhere/object.o: cannot read the BPF object: No such file"],
        ),
        (
            vec!["replay", trace, "--engine", "vm", "--object", trace],
            &["dynsim: the vm engine failed: cannot parse the object"],
        ),
    ]);
}

#[test]
fn help_states_the_exit_codes() {
    let ended = run(Command::new(DYNSIM).args(["replay", "--help"])).exits(0);
    let text = "0 all agree; 1 a divergence or a violated invariant; 2 bad usage or input;";
    assert!(ended.stdout.contains(text), "{}", ended.stdout);
}

#[test]
fn a_trace_that_cannot_be_opened_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.pcap");
    let [missing, folder] = [&missing, folder.path()].map(|path| path.to_str().unwrap());
    let said = |path: &str, what: &str| format!("dynsim: {path}: {what}");
    let first = said(missing, "cannot open the trace: No such file or directory");
    let second = said(folder, "expected a capture file, found a directory");
    refused(vec![
        (vec!["replay", missing], &[&first]),
        (vec!["replay", folder], &[&second]),
    ]);
}

/// `dns.pcap` with something done to its bytes.
fn damaged(damage: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = std::fs::read(capture("dns.pcap")).unwrap();
    damage(&mut bytes);
    bytes
}

#[test]
fn a_broken_trace_is_reported_with_packet_offset_and_expectation() {
    let cases: [(Vec<u8>, &str, u64); 7] = [
        (
            Vec::new(),
            "packet 1 at byte 0: expected 4 bytes of magic number, found 0 and the end of the file",
            0,
        ),
        (
            b"not a capture at all".to_vec(),
            "packet 1 at byte 0: expected the magic number of pcap (a1b2c3d4, a1b23c4d) or pcapng \
             (0a0d0d0a), found 6e6f7420",
            0,
        ),
        (
            damaged(|bytes| bytes.truncate(12)),
            "packet 1 at byte 0: expected 24 bytes of pcap file header, found 12 and the end of the file",
            0,
        ),
        (
            damaged(|bytes| bytes.truncate(11_000)),
            "packet 94 at byte 10978: expected 102 bytes of record, found 22 and the end of the file",
            93,
        ),
        (
            damaged(|bytes| bytes[4] = 3),
            "packet 1 at byte 4: expected pcap version 2.4, found 3.4",
            0,
        ),
        (
            // IEEE 802.11.
            damaged(|bytes| bytes[20..24].copy_from_slice(&105_u32.to_le_bytes())),
            "found 105 (",
            0,
        ),
        (
            damaged(|bytes| bytes[32..36].copy_from_slice(&u32::MAX.to_le_bytes())),
            "packet 1 at byte 32: expected a captured length of at most ",
            0,
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (nth, (bytes, expected, read)) in cases.iter().enumerate() {
        let path = folder.path().join(format!("case-{nth}.pcap"));
        std::fs::write(&path, bytes).unwrap();
        let ended = run(&mut replay(&path, &["--engine", "model,vm", "--json"])).exits(2);
        let said = &ended.stderr;
        assert!(
            said.starts_with(&format!("dynsim: {}: ", path.display())),
            "{said}"
        );
        assert!(said.contains(expected), "{said:?}, not {expected:?}");
        assert_eq!(ended.json()["frames_in"], *read, "{said}");
    }
}

#[test]
fn a_bad_scenario_is_refused_with_file_field_and_expectation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    let cases: [(&str, &[&str]); 5] = [
        (
            "[host]\nmtu = 1500\n",
            &["line 2", "unknown field `mtu`", "uplink_mtu"],
        ),
        (
            "[host]\nuplink_mtu = 576\n",
            &["host.uplink_mtu: 576 is out of range, expected 1280 to 9216"],
        ),
        (
            "[[flow]]\nexit = \"paris\"\n",
            &["flow[0].exit: no exit is named \"paris\""],
        ),
        ("[host\n", &["line 1"]),
        (
            "[exit.a]\ngateway = \"192.0.2\"\n",
            &["line 2", "invalid IP address"],
        ),
    ];
    for (text, expected) in cases {
        std::fs::write(&path, text).unwrap();
        let mut command = replay(&capture("dns.pcap"), &["--engine", "model", "--scenario"]);
        let ended = run(command.arg(&path)).exits(2);
        assert_eq!(ended.stdout, "");
        let prefix = format!("dynsim: {}: ", path.display());
        assert!(ended.stderr.starts_with(&prefix), "{}", ended.stderr);
        for part in expected {
            assert!(
                ended.stderr.contains(part),
                "{}, not {part:?}",
                ended.stderr
            );
        }
    }
    let missing = folder.path().join("missing.toml");
    let mut command = replay(&capture("dns.pcap"), &["--scenario"]);
    let ended = run(command.arg(&missing)).exits(2);
    let text = format!(
        "{}: cannot read the scenario: No such file",
        missing.display()
    );
    assert!(ended.stderr.contains(&text), "{}", ended.stderr);
}

#[test]
fn every_capture_of_the_repository_agrees() {
    for trace in captures() {
        let ended = run(&mut replay(&trace, &["--engine", "model,vm"])).exits(0);
        assert_eq!(ended.stderr, "", "{}", trace.display());
    }
}

#[test]
fn standard_input_is_read_as_a_trace() {
    let whole = std::fs::File::open(capture("dns.pcap")).unwrap();
    let arguments = ["--engine", "model,vm", "--json"];
    let mut command = replay(Path::new("-"), &arguments);
    let report = run(command.stdin(whole)).exits(0).json();
    assert_eq!(report["trace"], "stdin");
    let file = run(&mut replay(&capture("dns.pcap"), &arguments)).exits(0);
    for key in ["frames_in", "frames_out", "encapsulated", "passed", "flows"] {
        assert_eq!(report[key], file.json()[key], "{key}");
    }
    assert_eq!(report["frames_in"], 96);
}

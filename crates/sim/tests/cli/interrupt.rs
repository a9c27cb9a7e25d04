//! SIGINT in the middle of a replay: exit 130, what was counted so far, and nothing left.

use crate::output::names;
use crate::program::{DYNSIM, Run, capture};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const PCAP_HEADER: usize = 24;

/// A pipe with a name, to be read as a trace.
pub(crate) fn fifo(folder: &Path) -> PathBuf {
    let path = folder.join("trace.fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    path
}

fn start(folder: &Path, trace: &Path) -> Child {
    let mut command = Command::new(DYNSIM);
    command
        .arg("replay")
        .arg(trace)
        .args(["--engine", "model,vm", "--json", "--write"]);
    command.arg(folder.join("out.pcapng")).current_dir(folder);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "no {what} in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes in the unfinished output file, if there is one.
fn partial(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap();
    let files = entries.map(|entry| entry.unwrap());
    files
        .filter(|file| file.file_name().to_string_lossy().ends_with(".partial"))
        .map(|file| file.metadata().map_or(0, |metadata| metadata.len()))
        .sum()
}

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn an_interrupted_replay_reports_what_it_did_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let trace = fifo(folder.path());
    let capture = std::fs::read(capture("dns.pcap")).unwrap();
    let child = start(folder.path(), &trace);
    // A trace without end; writing fails when nobody reads it any more.
    let writer = std::thread::spawn(move || {
        let mut pipe = std::fs::File::options().write(true).open(trace).unwrap();
        let records = capture[PCAP_HEADER..].repeat(50);
        let _ = pipe.write_all(&capture[..PCAP_HEADER]);
        while pipe.write_all(&records).is_ok() {}
    });
    until("output", || partial(folder.path()) > 1 << 20);
    interrupt(&child);
    let ended = Run::from(child.wait_with_output().unwrap()).exits(130);
    writer.join().unwrap();
    let report = ended.json();
    assert_eq!(report["stopped"], "interrupted");
    assert_eq!(ended.stderr, "dynsim: interrupted\n");
    assert!(report["frames_in"].as_u64().unwrap() > 96);
    assert_eq!(report["written"], serde_json::json!([]));
    assert_eq!(names(folder.path()), ["trace.fifo"]);
}

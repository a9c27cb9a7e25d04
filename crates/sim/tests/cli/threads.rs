//! However many threads there are: the same report, the same bytes.

use crate::program::{DYNSIM, Run, captures, run};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// With the interpreter the thread that reads directs and renders, without the other does.
const ENGINES: [&str; 3] = ["model", "vm", "model,vm"];

/// Replays into a file; gives what was said but for times, the code and the file.
fn replayed(trace: &Path, engines: &str, threads: &str) -> (Value, Option<i32>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.pcapng");
    let mut command = Command::new(DYNSIM);
    command.arg("replay").arg(trace).arg("--write").arg(&out);
    command.args(["--engine", engines, "--json", "--threads", threads]);
    let ended: Run = run(&mut command);
    let mut report = ended.json();
    for key in ["seconds", "by_engine", "written"] {
        report.as_object_mut().unwrap().remove(key);
    }
    (report, ended.code, std::fs::read(&out).unwrap_or_default())
}

#[test]
fn every_number_of_threads_gives_the_same_bytes() {
    for trace in captures() {
        for engines in ENGINES {
            let what = format!("{}: {engines}", trace.display());
            let one = replayed(&trace, engines, "1");
            assert_eq!(one.1, Some(0), "{what}");
            assert!(one.2.len() > 100, "{what}");
            for threads in ["2", "3", "16"] {
                let several = replayed(&trace, engines, threads);
                assert!(one == several, "{what}, {threads} threads");
            }
        }
    }
}

#[test]
fn a_trace_of_many_chunks_that_breaks_off_gives_the_same_bytes() {
    let mut trace = Vec::new();
    dynencap_sim::workload::write(3_000, &mut trace).unwrap();
    let mut broken = trace.clone();
    trace.truncate(trace.len() - 100);
    breaks_off(&trace, 2_999);
    // In the middle of a chunk, behind which there are others.
    let mut at = 24;
    for _ in 1..2_000 {
        let length: [u8; 4] = broken[at + 8..at + 12].try_into().unwrap();
        at += 16 + u32::from_le_bytes(length) as usize;
    }
    broken[at + 8..at + 12].fill(0xff);
    breaks_off(&broken, 1_999);
}

fn breaks_off(trace: &[u8], frames: u32) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.pcap");
    std::fs::write(&path, trace).unwrap();
    for engines in ENGINES {
        let one = replayed(&path, engines, "1");
        assert_eq!(one.1, Some(2), "{engines}");
        assert_eq!(one.0["frames_in"], frames, "{engines}");
        for threads in ["2", "3"] {
            let several = replayed(&path, engines, threads);
            assert!(one == several, "{engines}, {threads} threads");
        }
    }
}

#[test]
fn no_thread_at_all_is_bad_usage() {
    let mut command = Command::new(DYNSIM);
    let trace = captures().remove(0);
    command.arg("replay").arg(trace).args(["--threads", "0"]);
    let ended = run(&mut command).exits(2);
    assert!(ended.stderr.contains("--threads"), "{}", ended.stderr);
}

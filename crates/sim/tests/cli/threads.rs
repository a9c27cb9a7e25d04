//! However many threads there are: the same report, the same bytes.

use crate::program::{DYNSIM, Run, captures, run};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Replays into a file; gives what was said but for times, the code and the file.
fn replayed(trace: &Path, threads: &str) -> (Value, Option<i32>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.pcapng");
    let mut command = Command::new(DYNSIM);
    command.arg("replay").arg(trace).arg("--write").arg(&out);
    command.args(["--engine", "model,vm", "--json", "--threads", threads]);
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
        let one = replayed(&trace, "1");
        assert_eq!(one.1, Some(0), "{}", trace.display());
        assert!(one.2.len() > 100, "{}", trace.display());
        for threads in ["2", "3", "16"] {
            let several = replayed(&trace, threads);
            assert!(one == several, "{}: {threads} threads", trace.display());
        }
    }
}

#[test]
fn a_trace_of_many_chunks_that_breaks_off_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.pcap");
    let mut trace = Vec::new();
    dynencap_sim::workload::write(3_000, &mut trace).unwrap();
    trace.truncate(trace.len() - 100);
    std::fs::write(&path, &trace).unwrap();
    let one = replayed(&path, "1");
    assert_eq!(one.1, Some(2));
    assert_eq!(one.0["frames_in"], 2_999);
    assert!(one == replayed(&path, "2"), "2 threads");
    assert!(one == replayed(&path, "3"), "3 threads");
}

#[test]
fn no_thread_at_all_is_bad_usage() {
    let mut command = Command::new(DYNSIM);
    let trace = captures().remove(0);
    command.arg("replay").arg(trace).args(["--threads", "0"]);
    let ended = run(&mut command).exits(2);
    assert!(ended.stderr.contains("--threads"), "{}", ended.stderr);
}

//! `--write`: the file holds what the report counts, in the trace's link layer, and is whole
//! or not there.

use crate::program::{capture, captures, replay, run};
use dynencap_sim::trace::{LinkType, Reader, link};
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Ethernet type and packet, from the network header on, of every frame of a capture.
pub(crate) fn frames(path: &Path) -> Vec<(u16, Vec<u8>)> {
    let mut reader = Reader::open("output", File::open(path).unwrap()).unwrap();
    let mut found = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        let link = link(frame.link_type, frame.bytes);
        found.push((link.ethertype, link.payload.to_vec()));
    }
    found
}

/// The names in a folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn link_headers(path: &Path) -> Vec<(LinkType, Vec<u8>)> {
    let mut reader = Reader::open("capture", File::open(path).unwrap()).unwrap();
    let mut found = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        let header = link(frame.link_type, frame.bytes).header.to_vec();
        found.push((frame.link_type, header));
    }
    found
}

#[test]
fn the_file_holds_as_many_frames_as_the_report_counts() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.pcapng");
    for trace in captures() {
        let mut command = replay(&trace, &["--engine", "model,vm", "--json", "--write"]);
        let report = run(command.arg(&out)).exits(0).json();
        let written = frames(&out).len();
        assert_eq!(report["frames_out"], written, "{}", trace.display());
        assert_eq!(report["written"][0], out.display().to_string());
        assert!(written > 0);
        assert_eq!(names(folder.path()), ["out.pcapng"]);
    }
}

#[test]
fn vlan_tags_stay_on_what_is_encapsulated() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.pcapng");
    let trace = capture("vlan.pcap");
    let mut command = replay(&trace, &["--engine", "model,vm", "--write"]);
    run(command.arg(&out)).exits(0);
    let tag = [0x81, 0x00, 0x00, 42];
    let written = link_headers(&out);
    assert_eq!(written.len(), 38);
    for (link_type, header) in &written {
        assert_eq!(*link_type, LinkType::Ethernet);
        assert_eq!(header.len(), 18, "{header:02x?}");
        assert_eq!(header[12..16], tag, "{header:02x?}");
    }
    let outer = |header: &[u8]| header[16..18] == [0x86, 0xdd];
    let before = link_headers(&trace).iter().filter(|h| outer(&h.1)).count();
    let after = written.iter().filter(|h| outer(&h.1)).count();
    assert!(after > before, "{after} IPv6 frames, {before} before");
}

#[test]
fn linux_cooked_headers_name_the_outer_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.pcapng");
    let mut command = replay(&capture("any-sll2.pcap"), &["--engine", "model", "--write"]);
    run(command.arg(&out)).exits(0);
    let headers = link_headers(&out);
    assert!(headers.iter().all(|(kind, _)| *kind == LinkType::LinuxSll2));
    for ((_, header), (ethertype, packet)) in headers.iter().zip(frames(&out)) {
        assert_eq!(header[..2], ethertype.to_be_bytes());
        assert_eq!(packet[0] >> 4, if ethertype == 0x86dd { 6 } else { 4 });
    }
}

#[test]
fn what_was_read_of_a_broken_trace_is_counted_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.pcapng");
    let cut = folder.path().join("cut.pcap");
    let whole = std::fs::read(capture("dns.pcap")).unwrap();
    std::fs::write(&cut, &whole[..11_000]).unwrap();
    let mut command = replay(&cut, &["--engine", "model,vm", "--json", "--write"]);
    let ended = run(command.arg(&out)).exits(2);
    let report = ended.json();
    assert_eq!(report["frames_in"], 93);
    assert_eq!(report["encapsulated"], 54);
    assert_eq!(report["frames_out"], frames(&out).len());
    let stopped = report["stopped"].as_str().unwrap();
    assert!(ended.stderr.contains(stopped), "{}", ended.stderr);
    assert_eq!(names(folder.path()), ["cut.pcap", "out.pcapng"]);
}

#[test]
fn an_output_that_cannot_be_made_is_said_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing/out.pcapng");
    let cases: [(PathBuf, &str); 2] = [
        (missing, "No such file or directory"),
        (folder.path().to_owned(), "Is a directory"),
    ];
    for (path, reason) in cases {
        let mut command = replay(&capture("dns.pcap"), &["--engine", "model", "--write"]);
        let ended = run(command.arg(&path)).exits(2);
        let text = format!(
            "dynsim: {}: cannot write the capture: {reason}",
            path.display()
        );
        assert!(ended.stderr.contains(&text), "{}", ended.stderr);
    }
    assert!(names(folder.path()).is_empty());
}

#[test]
fn where_nothing_could_be_read_an_older_output_stays() {
    let folder = tempfile::tempdir().unwrap();
    let [out, trace] = ["out.pcapng", "trace"].map(|name| folder.path().join(name));
    std::fs::write(&out, "an older one").unwrap();
    std::fs::write(&trace, "not a capture").unwrap();
    let mut command = replay(&trace, &["--engine", "model", "--json", "--write"]);
    let report = run(command.arg(&out)).exits(2).json();
    assert_eq!(report["written"], serde_json::json!([]));
    assert_eq!(std::fs::read(&out).unwrap(), b"an older one");
    assert_eq!(names(folder.path()), ["out.pcapng", "trace"]);
}

#[test]
fn a_pipe_as_output_is_written_to_and_stays_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let [pipe, copy] = ["out.fifo", "copy.pcapng"].map(|name| folder.path().join(name));
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let (from, to) = (pipe.clone(), copy.clone());
    let reader = std::thread::spawn(move || std::fs::write(to, std::fs::read(from).unwrap()));
    let mut command = replay(&capture("dns.pcap"), &["--engine", "model", "--write"]);
    run(command.arg(&pipe)).exits(0);
    // Ends at once where the pipe has been replaced: nobody else would open it.
    let kind = std::fs::metadata(&pipe).unwrap().file_type();
    assert!(kind.is_fifo(), "{kind:?}");
    reader.join().unwrap().unwrap();
    assert_eq!(frames(&copy).len(), 96);
    assert_eq!(names(folder.path()), ["copy.pcapng", "out.fifo"]);
}

#[test]
fn a_device_that_is_full_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("long.pcap");
    let mut bytes = Vec::new();
    dynencap_sim::workload::write(5_000, &mut bytes).unwrap();
    std::fs::write(&trace, &bytes).unwrap();
    for threads in ["1", "2"] {
        let flags = [
            "--engine",
            "model",
            "--threads",
            threads,
            "--write",
            "/dev/full",
        ];
        let ended = run(&mut replay(&trace, &flags)).exits(2);
        assert!(
            ended
                .stderr
                .contains("/dev/full: cannot write the capture: No space left"),
            "{}",
            ended.stderr
        );
    }
}

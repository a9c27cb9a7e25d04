//! Memory does not grow with a trace's length: a trace longer than the bound, of more flows
//! than the flow table holds, goes through a pipe while the replay's peak is watched.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use dynencap_sim::director::MAX_FLOWS;
use dynencap_sim::trace::{LinkType, Packet, PcapWriter, Resolution, Timestamp};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::{Command, Stdio};

const TRACE_BYTES: u64 = 300 << 20;
const PEAK_BYTES: u64 = 64 << 20;
/// Each evicts another in every round, so that every packet opens a flow anew.
const FLOWS: u64 = 3 * MAX_FLOWS as u64;
const DATAGRAM: usize = 1400;
const HEADERS: usize = 14 + 20 + 8;

/// A whole IPv4 UDP datagram of the flow, in Ethernet.
fn frame(flow: u64) -> Vec<u8> {
    let mut frame = vec![0; HEADERS + DATAGRAM];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let (total, udp) = ((28 + DATAGRAM) as u16, (8 + DATAGRAM) as u16);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    (frame[22], frame[23]) = (64, 17);
    frame[26..30].copy_from_slice(&[192, 0, 2, 1]);
    frame[30..34].copy_from_slice(&[192, 0, 2, 2]);
    frame[34..36].copy_from_slice(&(1024 + flow as u16).to_be_bytes());
    frame[36..38].copy_from_slice(&443_u16.to_be_bytes());
    frame[38..40].copy_from_slice(&udp.to_be_bytes());
    frame
}

/// The process's peak resident set so far.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}

#[test]
fn a_long_trace_of_many_flows_replays_in_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("trace.fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let child = Command::new(env!("CARGO_BIN_EXE_dynsim"))
        .arg("replay")
        .arg(&pipe)
        .args(["--engine", "model,vm", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufWriter::new(File::options().write(true).open(&pipe).unwrap());
    let mut writer = PcapWriter::new(output, LinkType::Ethernet, Resolution::Nanosecond).unwrap();
    let frames = TRACE_BYTES / (HEADERS + DATAGRAM) as u64;
    for number in 0..frames {
        let bytes = frame(number % FLOWS);
        writer
            .write(&Packet {
                time: Timestamp(number * 1000),
                link_type: LinkType::Ethernet,
                bytes: &bytes,
                original_len: bytes.len() as u32,
                comment: None,
            })
            .unwrap();
    }
    let mut output = writer.into_inner();
    output.flush().unwrap();
    // The pipe is still open, so the process still runs; it has read all but a pipe's worth.
    let peak = peak(child.id());
    drop(output);
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(report["frames_in"], frames);
    assert_eq!(report["encapsulated"], frames);
    assert_eq!(report["flows"], frames, "no flow was evicted");
    assert!(peak > 1 << 20, "a peak of {peak} bytes was not measured");
    assert!(peak < PEAK_BYTES, "a peak of {} MiB", peak >> 20);
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "peak of {} MiB for {frames} frames", peak >> 20);
}

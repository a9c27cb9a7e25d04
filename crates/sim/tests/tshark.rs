//! tshark as the judge of every frame that dynsim writes: nothing malformed, no bad checksum,
//! no complaint in a layer of ours that the packet inside does not already have.
//!
//! tshark starts slowly, so all frames of all captures go through it in one file, and with
//! them frames that were damaged on purpose, which it must object to.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[path = "tshark/judge.rs"]
mod judge;

use dynencap_sim::trace::{LinkType, Reader, link};
use judge::{Case, Judge, Role};
use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

const OUTER: usize = 40;
const UDP_OUTER: usize = 48 + 8;
const IPV6: u16 = 0x86dd;
/// The gateways of dynsim's own exits: fd00:e::1 to fd00:e::8.
const GATEWAY: [u8; 6] = [0xfd, 0, 0, 0x0e, 0, 0];

/// A capture's frames: how they were linked, Ethernet type, link header, packet.
struct Frame {
    link_type: LinkType,
    ethertype: u16,
    whole: Vec<u8>,
    header: usize,
    /// Without what the link put behind it.
    length: usize,
}

impl Frame {
    fn packet(&self) -> &[u8] {
        &self.whole[self.header..][..self.length]
    }

    fn has_our_outer(&self) -> bool {
        let packet = self.packet();
        self.ethertype == IPV6 && packet.len() >= OUTER && packet[24..30] == GATEWAY
    }

    /// Where the packet inside our headers begins.
    fn inner(&self) -> usize {
        if self.packet()[6] == 17 {
            UDP_OUTER
        } else {
            OUTER
        }
    }
}

/// All that can be read of a capture.
fn frames(path: &Path) -> Vec<Frame> {
    let mut found = Vec::new();
    let Ok(mut reader) = Reader::open("capture", File::open(path).unwrap()) else {
        return found;
    };
    while let Ok(Some(frame)) = reader.next_frame() {
        let link = link(frame.link_type, frame.bytes);
        found.push(Frame {
            link_type: frame.link_type,
            ethertype: link.ethertype,
            header: link.header.len(),
            length: link.payload.len(),
            whole: frame.bytes.to_vec(),
        });
    }
    found
}

fn captures() -> Vec<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    for folder in ["testdata", "../shared/traces"] {
        let Ok(entries) = std::fs::read_dir(repository.join(folder)) else {
            continue;
        };
        let paths = entries.map(|entry| entry.unwrap().path());
        found.extend(paths.filter(|path| {
            path.extension()
                .is_some_and(|e| e == "pcap" || e == "pcapng")
        }));
    }
    found.sort();
    assert!(found.len() >= 8, "{found:?}");
    found
}

/// What dynsim makes of a capture, written.
fn replayed(trace: &Path, scenario: Option<&str>, folder: &Path) -> Vec<Frame> {
    let out = folder.join("out.pcapng");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynsim"));
    command
        .arg("replay")
        .arg(trace)
        .args(["--engine", "model", "--write"])
        .arg(&out);
    if let Some(text) = scenario {
        let file = folder.join("scenario.toml");
        std::fs::write(&file, text).unwrap();
        command.arg("--scenario").arg(file);
    }
    let ended = command.output().unwrap();
    // 2: a capture that breaks off; what was read of it is written.
    let code = ended.status.code().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(matches!(code, 0 | 2), "{}: {said}", trace.display());
    let written = if out.exists() {
        frames(&out)
    } else {
        Vec::new()
    };
    let _ = std::fs::remove_file(out);
    written
}

/// What was judged, so that the test cannot pass by judging nothing.
#[derive(Default)]
struct Seen {
    encapsulated: usize,
    segments: usize,
}

/// Hands a written frame over with the packet inside it, which shows what was wrong before.
fn judge_frame(
    judge: &mut Judge,
    name: &str,
    frame: &Frame,
    known: &HashSet<&[u8]>,
    seen: &mut Seen,
) {
    if frame.has_our_outer() {
        let inner = &frame.packet()[frame.inner()..];
        let role = if known.contains(inner) {
            Role::InputInside
        } else {
            seen.segments += 1;
            Role::SegmentInside
        };
        seen.encapsulated += 1;
        judge.pair(name, role, frame.link_type, &frame.whole, inner);
    } else if !known.contains(frame.packet()) {
        seen.segments += 1;
        judge.segment(name, frame.link_type, &frame.whole);
    }
}

/// Our frames with one thing wrong, and what tshark must not overlook.
fn controls(judge: &mut Judge, good: &Frame) {
    let mut damage = |what: &str, at: usize, value: u8| {
        let mut whole = good.whole.clone();
        whole[good.header + at] ^= value;
        let inner = whole[good.header + good.inner()..].to_vec();
        judge.control(what, good.link_type, &whole, &inner);
    };
    let inner = good.inner();
    damage("the outer payload length", 5, 0x08);
    if inner == UDP_OUTER {
        damage("the outer UDP length", 45, 0x40);
        damage("the outer UDP checksum", 47, 0x01);
    } else {
        damage("the outer next header", 6, good.packet()[6] ^ 17);
    }
    // Inside: the checksums that segmentation computes.
    let transport = if good.packet()[inner] >> 4 == 4 {
        inner + 20
    } else {
        inner + 40
    };
    damage("a segment's payload", transport + 40, 0x01);
    if transport == inner + 20 {
        damage("a segment's IPv4 checksum", inner + 10, 0x01);
    }
}

#[test]
fn tshark_finds_nothing_wrong_with_what_is_written() {
    if !judge::present() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut judge = Judge::new(folder.path());
    let mut seen = Seen::default();
    let mut controlled = HashSet::new();
    const BOTH: &str = "[replay]\nside = \"both\"\n";
    const CUT: &str = "[replay]\nside = \"both\"\ngso_size = 1200\n";
    for trace in captures() {
        let input = frames(&trace);
        let known: HashSet<&[u8]> = input.iter().map(Frame::packet).collect();
        let stem = trace.file_stem().unwrap().to_string_lossy().into_owned();
        let mut scenarios = vec![None, Some(BOTH)];
        if stem == "udp-segment" {
            scenarios.push(Some(CUT));
        }
        for scenario in scenarios {
            let before = seen.segments;
            for frame in &replayed(&trace, scenario, folder.path()) {
                judge_frame(&mut judge, &stem, frame, &known, &mut seen);
                // Each shape of a segment is damaged once.
                if frame.has_our_outer() && !known.contains(&frame.packet()[frame.inner()..]) {
                    let inner = frame.inner();
                    let version = frame.packet()[inner] >> 4;
                    if frame.packet().len() > 1000 && controlled.insert((inner, version)) {
                        controls(&mut judge, frame);
                    }
                }
            }
            if scenario == Some(CUT) || stem == "bulk-tso" {
                assert!(seen.segments > before + 100, "{stem}: few segments");
            }
        }
    }
    assert!(
        seen.encapsulated > 1500,
        "{} encapsulated",
        seen.encapsulated
    );
    assert_eq!(
        controlled.len(),
        4,
        "both encapsulations of both IP versions"
    );
    let Case {
        overlooked,
        objected,
    } = judge.verdict();
    assert!(overlooked.is_empty(), "overlooked: {overlooked:#?}");
    let total = objected.len();
    let shown: Vec<_> = objected.into_iter().take(20).collect();
    assert!(shown.is_empty(), "{total} objections, of which {shown:#?}");
}

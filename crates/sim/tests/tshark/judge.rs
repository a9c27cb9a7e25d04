//! tshark at work: one file of frames in, complaints about each out.
//!
//! Only the network and transport dissectors are on, and none keeps state between packets, so
//! that a frame's complaints depend on its own bytes alone.

use dynencap_sim::trace::{LinkType, Packet, PcapngWriter, Timestamp};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Dissectors that stay on.
const LAYERS: [&str; 10] = [
    "frame",
    "eth",
    "ethertype",
    "sll",
    "vlan",
    "raw",
    "ip",
    "ipv6",
    "tcp",
    "udp",
];
/// No checksum is believed, no packet is put together with another.
const PREFERENCES: [&str; 8] = [
    "udp.check_checksum:TRUE",
    "udp.ignore_ipv6_zero_checksum:TRUE",
    "ip.check_checksum:TRUE",
    "tcp.check_checksum:TRUE",
    "tcp.analyze_sequence_numbers:FALSE",
    "tcp.desegment_tcp_streams:FALSE",
    "ip.defragment:FALSE",
    "ipv6.defragment:FALSE",
];
/// A checksum's state when it is wrong.
const BAD: &str = "0";
/// About the link header, which is the trace's.
const LINK: &str = "Source MAC must not be a group address";
/// Warnings and errors; chat and notes are about contents.
const WARN: u32 = 0x0060_0000;

/// Whether tshark can be run; where it must be there, a test without it fails.
pub(crate) fn present() -> bool {
    let found = Command::new("tshark").arg("--version").output().is_ok();
    let required = std::env::var("DYNENCAP_REQUIRE")
        .is_ok_and(|list| list.split(',').any(|name| name.trim() == "tshark"));
    assert!(found || !required, "tshark is required and not installed");
    if !found {
        // Past the test harness's capture: a skip must be seen.
        let _ = std::io::stderr().write_all(b"skipped: tshark is not installed\n");
    }
    found
}

/// What is inside our headers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A packet of the input, with whatever was wrong with it.
    InputInside,
    /// A segment that dynsim made: all of it is ours.
    SegmentInside,
}

enum Entry {
    /// A frame, and the packet inside it alone behind it.
    Pair(Role),
    /// A segment without outer headers.
    Segment,
    /// A pair with something wrong.
    Control,
}

/// What came of it.
pub(crate) struct Case {
    /// Damage on purpose that went unnoticed.
    pub(crate) overlooked: Vec<String>,
    /// Complaints about frames that should be right.
    pub(crate) objected: Vec<String>,
}

/// Collects frames, then asks tshark.
pub(crate) struct Judge {
    folder: PathBuf,
    writer: PcapngWriter<BufWriter<File>>,
    entries: Vec<(String, Entry)>,
    frames: u64,
}

impl Judge {
    pub(crate) fn new(folder: &Path) -> Self {
        let file = File::create(folder.join("judged.pcapng")).unwrap();
        Self {
            folder: folder.to_owned(),
            writer: PcapngWriter::new(BufWriter::new(file)).unwrap(),
            entries: Vec::new(),
            frames: 0,
        }
    }

    fn write(&mut self, link_type: LinkType, bytes: &[u8]) {
        self.frames += 1;
        let packet = Packet {
            time: Timestamp(self.frames * 1000),
            link_type,
            bytes,
            original_len: u32::try_from(bytes.len()).unwrap(),
            comment: None,
        };
        self.writer.write(&packet).unwrap();
    }

    /// A frame of ours and the packet inside it.
    pub(crate) fn pair(
        &mut self,
        name: &str,
        role: Role,
        link_type: LinkType,
        whole: &[u8],
        inner: &[u8],
    ) {
        self.write(link_type, whole);
        self.write(LinkType::Raw, inner);
        self.entries.push((name.to_owned(), Entry::Pair(role)));
    }

    /// A segment that left without outer headers.
    pub(crate) fn segment(&mut self, name: &str, link_type: LinkType, whole: &[u8]) {
        self.write(link_type, whole);
        self.entries.push((name.to_owned(), Entry::Segment));
    }

    /// A pair that must be objected to.
    pub(crate) fn control(&mut self, what: &str, link_type: LinkType, whole: &[u8], inner: &[u8]) {
        self.write(link_type, whole);
        self.write(LinkType::Raw, inner);
        self.entries.push((what.to_owned(), Entry::Control));
    }

    /// Runs tshark over everything.
    pub(crate) fn verdict(self) -> Case {
        let path = self.folder.join("judged.pcapng");
        self.writer.into_inner().flush().unwrap();
        let complaints = complaints(&self.folder, &path);
        assert_eq!(
            complaints.len() as u64,
            self.frames,
            "tshark read other frames"
        );
        let mut rows = complaints.into_iter();
        let mut case = Case {
            overlooked: Vec::new(),
            objected: Vec::new(),
        };
        for (name, entry) in self.entries {
            let whole = rows.next().unwrap();
            let found = match entry {
                Entry::Segment => whole,
                Entry::Pair(Role::InputInside) => new(whole, &rows.next().unwrap()),
                Entry::Pair(Role::SegmentInside) | Entry::Control => {
                    let inner = rows.next().unwrap();
                    let mut all = new(whole, &inner);
                    all.extend(inner);
                    all
                }
            };
            match entry {
                Entry::Control if found.is_empty() => case.overlooked.push(name),
                Entry::Control => {}
                _ if found.is_empty() => {}
                _ => case.objected.push(format!("{name}: {found:?}")),
            }
        }
        case
    }
}

/// The complaints that the packet inside does not have by itself.
fn new(whole: Vec<String>, inner: &[String]) -> Vec<String> {
    let mut old: BTreeMap<&str, usize> = BTreeMap::new();
    for complaint in inner {
        *old.entry(complaint).or_default() += 1;
    }
    let known = |complaint: &String| match old.get_mut(complaint.as_str()) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    };
    let mut known = known;
    whole
        .into_iter()
        .filter(|complaint| !known(complaint))
        .collect()
}

/// Complaints about each frame of a capture, in order.
fn complaints(folder: &Path, capture: &Path) -> Vec<Vec<String>> {
    disable_other_dissectors(folder);
    let mut command = Command::new("tshark");
    command
        .env("WIRESHARK_CONFIG_DIR", folder)
        .arg("-r")
        .arg(capture);
    for preference in PREFERENCES {
        command.args(["-o", preference]);
    }
    command.args(["-T", "fields", "-E", "occurrence=a", "-E", "aggregator=|"]);
    let checksums = ["ip", "tcp", "udp"].map(|layer| format!("{layer}.checksum.status"));
    for field in &checksums {
        command.args(["-e", field]);
    }
    command.args(["-e", "_ws.expert.severity", "-e", "_ws.expert.message"]);
    let ended = command.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "tshark: {said}");
    let text = String::from_utf8_lossy(&ended.stdout);
    text.lines()
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [ip, tcp, udp, severity, messages] = columns[..] else {
                panic!("{} columns in {line:?}", columns.len());
            };
            let mut found = Vec::new();
            for (layer, states) in ["IPv4", "TCP", "UDP"].iter().zip([ip, tcp, udp]) {
                let bad = states.split('|').filter(|state| *state == BAD);
                found.extend(bad.map(|_| format!("bad {layer} checksum")));
            }
            let severities = severity.split('|');
            found.extend(
                severities
                    .zip(messages.split('|'))
                    .filter(|(severity, _)| severity.parse::<u32>().is_ok_and(|s| s >= WARN))
                    .filter(|(_, message)| !message.starts_with(LINK))
                    .map(|(_, message)| message.to_owned()),
            );
            found
        })
        .collect()
}

/// Writes tshark's list of disabled protocols: what rides on the transport is no matter here,
/// and dissectors of it keep state.
fn disable_other_dissectors(folder: &Path) {
    let listed = Command::new("tshark")
        .args(["-G", "protocols"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = text.lines().filter_map(|line| line.split('\t').nth(2));
    let is_layer = |name: &str| {
        let first = name.split('.').next().unwrap_or(name);
        LAYERS.contains(&first) || first == "_ws" || first == "data"
    };
    let others: Vec<&str> = names.filter(|name| !is_layer(name)).collect();
    assert!(
        others.len() > 100,
        "tshark lists {} protocols",
        others.len()
    );
    std::fs::write(folder.join("disabled_protos"), others.join("\n")).unwrap();
}

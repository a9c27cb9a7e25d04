//! Recorded captures through the reader, held against two independent readers (the
//! `pcap-file` crate, and tshark where installed), and the writers' files through tshark.
//!
//! The captures are a set of public recordings that lies beside the repository where
//! there is one; its table states each file's frame count.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use dynencap_sim::trace::{
    LinkType, Packet, PcapWriter, PcapngWriter, Reader, Resolution, Timestamp,
};
use pcap_file::Endianness;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::PcapNgReader;

/// What readers must agree upon.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    time: u64,
    link_type: LinkType,
    original_len: u32,
    bytes: Vec<u8>,
}

fn read(path: &Path) -> Result<Vec<Seen>, String> {
    let file = File::open(path).unwrap();
    let mut reader = Reader::open("capture", file).map_err(|error| error.to_string())?;
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame().map_err(|error| error.to_string())? {
        frames.push(Seen {
            time: frame.time.0,
            link_type: frame.link_type,
            original_len: frame.original_len,
            bytes: frame.bytes.to_vec(),
        });
    }
    Ok(frames)
}

/// Path and stated frame count of each recording; none where they are not at hand.
fn recordings() -> Vec<(PathBuf, usize)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/traces");
    let Ok(table) = fs::read_to_string(folder.join("README.md")) else {
        eprintln!("no recorded captures at hand: nothing to compare");
        return Vec::new();
    };
    let recordings: Vec<_> = table
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
            Some((folder.join(name), cells.get(5)?.parse().ok()?))
        })
        .collect();
    assert!(
        recordings.len() >= 60,
        "the table has {} readable rows",
        recordings.len()
    );
    recordings
}

/// The recordings that are there to be refused, and how.
const REFUSED: [(&str, &str); 3] = [
    (
        "libpcap-pcap-invalid-version-1.pcap",
        "capture: packet 1 at byte 4: expected pcap version 2.4, found ",
    ),
    (
        "pcap-parser-modified-format.pcap",
        "capture: packet 1 at byte 0: expected the magic number a1b2c3d4 or a1b23c4d, found \
         a1b2cd34",
    ),
    (
        "zeek-wlanmon.pcap",
        "capture: packet 1 at byte 24: expected a link type among NULL 0, ETHERNET 1, RAW 101, \
         LOOP 108, LINUX_SLL 113, IPV4 228, IPV6 229, LINUX_SLL2 276, found 105 (IEEE802_11) on \
         interface 0",
    ),
];

fn refusal(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    REFUSED
        .iter()
        .find(|(file, _)| *file == name)
        .map(|(_, message)| *message)
}

#[test]
fn each_recording_has_its_frames_or_is_refused_with_the_reason() {
    for (path, count) in recordings() {
        match (read(&path), refusal(&path)) {
            (Ok(frames), None) => assert_eq!(frames.len(), count, "{}", path.display()),
            (Err(error), Some(message)) => {
                assert!(error.starts_with(message), "{}: {error}", path.display());
            }
            (found, expected) => {
                panic!(
                    "{}: {:?}, expected {expected:?}",
                    path.display(),
                    found.map(|f| f.len())
                );
            }
        }
    }
}

#[test]
fn pcap_file_reads_the_same_packets() {
    for (path, _) in recordings() {
        if refusal(&path).is_some() {
            continue;
        }
        let ours: Vec<(u32, Vec<u8>)> = read(&path)
            .unwrap()
            .into_iter()
            .map(|frame| (frame.original_len, frame.bytes))
            .collect();
        let file = File::open(&path).unwrap();
        let theirs = match path.extension().and_then(|extension| extension.to_str()) {
            Some("pcapng") => by_pcapng_crate(file),
            _ => by_pcap_crate(file),
        };
        assert_eq!(ours.len(), theirs.len(), "{}", path.display());
        assert!(ours == theirs, "{}", path.display());
    }
}

fn by_pcap_crate(file: File) -> Vec<(u32, Vec<u8>)> {
    let mut reader = PcapReader::new(file).unwrap();
    let mut packets = Vec::new();
    // The raw packets: the crate refuses to interpret captures cut by their snap length.
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet.unwrap();
        packets.push((packet.orig_len, packet.data.to_vec()));
    }
    packets
}

/// The crate's blocks, their packets decoded here: its own decoding gives up at an option
/// that is not UTF-8.
fn by_pcapng_crate(file: File) -> Vec<(u32, Vec<u8>)> {
    let mut reader = PcapNgReader::new(file).unwrap();
    let mut packets = Vec::new();
    while let Some(block) = reader.next_raw_block() {
        let (kind, body) = match block {
            Ok(block) => (block.type_, block.body.to_vec()),
            Err(error) => panic!("{error}"),
        };
        let number = |at: usize| {
            let bytes = body[at..at + 4].try_into().unwrap();
            match reader.section().endianness {
                Endianness::Big => u32::from_be_bytes(bytes),
                Endianness::Little => u32::from_le_bytes(bytes),
            }
        };
        packets.push(match kind {
            2 | 6 => (number(16), body[20..20 + number(12) as usize].to_vec()),
            // The recordings' simple packets are cut to 128 bytes: none is padded.
            3 => (number(0), body[4..].to_vec()),
            _ => continue,
        });
    }
    packets
}

/// Time, captured and original length and comment of each packet as tshark reads them, or
/// None where it is not installed.
fn by_tshark(path: &Path) -> Option<Vec<String>> {
    let mut command = Command::new("tshark");
    // Without dissectors above the frame, and without names.
    let frame_only = ["-n", "--disable-protocol", "eth"];
    command
        .args(frame_only)
        .args(["-T", "fields", "-E", "separator=,"]);
    // tshark counts custom blocks as frames; only packets have a link type.
    command.args(["-Y", "frame.encap_type"]);
    for field in [
        "frame.time_epoch",
        "frame.cap_len",
        "frame.len",
        "frame.comment",
    ] {
        command.args(["-e", field]);
    }
    let output = match command.arg("-r").arg(path).output() {
        Ok(output) => output,
        Err(_) => {
            eprintln!("tshark is not installed: nothing to compare");
            return None;
        }
    };
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint
        .lines()
        .find(|line| !line.contains("could be dangerous"));
    assert!(output.status.success(), "{}: {complaint:?}", path.display());
    assert_eq!(complaint, None, "{}", path.display());
    let lines = String::from_utf8(output.stdout).unwrap();
    Some(lines.lines().map(str::to_owned).collect())
}

fn as_tshark_says(frame: &Seen, comment: &str) -> String {
    let (seconds, nanoseconds) = Timestamp(frame.time).parts();
    let (captured, original) = (frame.bytes.len(), frame.original_len);
    format!("{seconds}.{nanoseconds:09},{captured},{original},{comment}")
}

/// Little-endian pcap in microseconds.
fn is_plain(path: &Path) -> bool {
    fs::read(path)
        .unwrap()
        .starts_with(&0xa1b2_c3d4_u32.to_le_bytes())
}

#[test]
fn tshark_reads_the_same_times_and_lengths() {
    for (path, _) in recordings() {
        // One start of tshark per file is slow, and the plain files are alike.
        if refusal(&path).is_some() || is_plain(&path) {
            continue;
        }
        let Some(theirs) = by_tshark(&path) else {
            return;
        };
        let ours = read(&path).unwrap();
        assert_eq!(ours.len(), theirs.len(), "{}", path.display());
        for (number, (frame, line)) in ours.iter().zip(&theirs).enumerate() {
            // Comments are not read.
            let theirs = line.splitn(4, ',').take(3).collect::<Vec<_>>().join(",") + ",";
            let ours = as_tshark_says(frame, "");
            // A simple packet has no time, and some have one that no clock showed.
            let told = theirs
                .split('.')
                .next()
                .and_then(|seconds| seconds.parse::<u64>().ok());
            let from = match told {
                Some(seconds) if seconds < u64::MAX / 1_000_000_000 => 0,
                _ => 1,
            };
            let fields = |line: &str| {
                line.split(',')
                    .skip(from)
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                fields(&theirs),
                fields(&ours),
                "{} {}",
                path.display(),
                number + 1
            );
        }
    }
}

/// One of everything that a written file can hold.
fn samples() -> Vec<(Seen, Option<&'static str>)> {
    let mut packet = vec![
        0x45, 0, 0, 20, 0, 0, 0x40, 0, 64, 59, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    packet.resize(33, 0);
    LinkType::ALL
        .into_iter()
        .enumerate()
        .map(|(index, link_type)| {
            let time = 1_700_000_000_123_456_789 + index as u64;
            let bytes = packet[..33 - index].to_vec();
            let comment = (index % 2 == 0).then_some("drop: no exit");
            (
                Seen {
                    time,
                    link_type,
                    original_len: 1500,
                    bytes,
                },
                comment,
            )
        })
        .collect()
}

fn packet<'a>(frame: &'a Seen, comment: Option<&'a str>) -> Packet<'a> {
    Packet {
        time: Timestamp(frame.time),
        link_type: frame.link_type,
        bytes: &frame.bytes,
        original_len: frame.original_len,
        comment,
    }
}

#[test]
fn tshark_reads_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.pcapng");
    let mut writer = PcapngWriter::new(File::create(&path).unwrap()).unwrap();
    for (frame, comment) in samples() {
        writer.write(&packet(&frame, comment)).unwrap();
    }
    let written: Vec<Seen> = samples().into_iter().map(|(frame, _)| frame).collect();
    assert_eq!(read(&path).unwrap(), written);
    if let Some(lines) = by_tshark(&path) {
        let expected: Vec<String> = samples()
            .iter()
            .map(|(frame, comment)| as_tshark_says(frame, comment.unwrap_or_default()))
            .collect();
        assert_eq!(lines, expected);
    }

    for resolution in [Resolution::Microsecond, Resolution::Nanosecond] {
        for (frame, _) in samples().into_iter().step_by(7) {
            let path = folder.path().join("out.pcap");
            let output = File::create(&path).unwrap();
            let mut writer = PcapWriter::new(output, frame.link_type, resolution).unwrap();
            writer.write(&packet(&frame, None)).unwrap();
            let time = match resolution {
                Resolution::Microsecond => frame.time / 1000 * 1000,
                Resolution::Nanosecond => frame.time,
            };
            let expected = Seen { time, ..frame };
            assert_eq!(read(&path).unwrap(), std::slice::from_ref(&expected));
            if let Some(lines) = by_tshark(&path) {
                assert_eq!(lines, [as_tshark_says(&expected, "")]);
            }
        }
    }
}

#[test]
fn capinfos_finds_the_interfaces_and_the_writer_in_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.pcapng");
    let mut writer = PcapngWriter::new(File::create(&path).unwrap()).unwrap();
    for (frame, comment) in samples() {
        writer.write(&packet(&frame, comment)).unwrap();
    }
    assert_eq!(read(&path).map(|frames| frames.len()), Ok(8));
    let Ok(output) = Command::new("capinfos").arg(&path).output() else {
        eprintln!("capinfos is not installed: nothing to compare");
        return;
    };
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
    for (key, value, times) in [
        ("Number of packets:", "8", 1),
        ("Number of interfaces in file:", "8", 1),
        ("Capture application:", "dynsim", 1),
        ("Capture oper-sys:", "dynsim", 1),
        ("Capture hardware:", "dynsim", 1),
        ("Time precision =", "nanoseconds (9)", 8),
    ] {
        let found = report
            .lines()
            .filter_map(|line| line.trim().strip_prefix(key))
            .filter(|found| found.trim() == value)
            .count();
        assert_eq!(found, times, "{key} {value} in\n{report}");
    }
}

#[test]
fn rewritten_recordings_read_the_same() {
    for (path, _) in recordings() {
        let Ok(frames) = read(&path) else { continue };
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy.pcapng");
        let mut writer = PcapngWriter::new(File::create(&copy).unwrap()).unwrap();
        for frame in &frames {
            writer.write(&packet(frame, None)).unwrap();
        }
        assert!(read(&copy).unwrap() == frames, "{}", path.display());
    }
}

//! A divergence, made by a BPF object with one constant changed: found, named, shown, and
//! reproduced from two small files.

use crate::interrupt::fifo;
use crate::output::names;
use crate::program::{DYNSIM, Run, capture, replay, repository, run};
use std::path::Path;
use std::process::Command;

/// The sections of TC's programs, which make the headers of plain packets, and of what they call,
/// which makes all others.
const SECTIONS: [&str; 2] = ["classifier", ".text"];
/// The next header of IPv6 in IPv6, and one that means nothing.
const IPV6_INSIDE: u8 = 41;
const WRONG: u8 = 43;

fn number<const N: usize>(bytes: &[u8], at: usize) -> usize {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(&bytes[at..at + N]);
    usize::try_from(u64::from_le_bytes(wide)).unwrap()
}

/// Place and length of a section in a little-endian ELF64 file.
fn section(elf: &[u8], wanted: &str) -> std::ops::Range<usize> {
    assert_eq!(
        elf[..6],
        [0x7f, b'E', b'L', b'F', 2, 1],
        "not ELF64, little-endian"
    );
    let (table, size) = (number::<8>(elf, 0x28), number::<2>(elf, 0x3a));
    let (count, names) = (number::<2>(elf, 0x3c), number::<2>(elf, 0x3e));
    let header = |index: usize| &elf[table + index * size..][..size];
    let place = |index: usize| number::<8>(header(index), 0x18);
    let found = (0..count).find(|index| {
        let name = place(names) + number::<4>(header(*index), 0);
        elf[name..].starts_with(wanted.as_bytes()) && elf[name + wanted.len()] == 0
    });
    let found = found.unwrap_or_else(|| panic!("the object has no section {wanted}"));
    place(found)..place(found) + number::<8>(header(found), 0x20)
}

/// The built-in object, with every instruction that loads the next header 41, or puts it in its
/// place in a header's word, doing so with another number.
fn mutated_object() -> Vec<u8> {
    const MOV32_IMMEDIATE: u8 = 0xb4;
    const MOV64_IMMEDIATE: u8 = 0xb7;
    const OR64_IMMEDIATE: u8 = 0x47;
    let mut elf = std::fs::read(repository().join("crates/bpf/dynencap.bpf.o")).unwrap();
    for name in SECTIONS {
        let code = section(&elf, name);
        let mut patched = 0;
        for instruction in elf[code].chunks_exact_mut(8) {
            let value = match instruction {
                [
                    MOV32_IMMEDIATE | MOV64_IMMEDIATE,
                    0..=9,
                    0,
                    0,
                    value,
                    0,
                    0,
                    0,
                ]
                | [OR64_IMMEDIATE, 0..=9, 0, 0, 0, value, 0, 0] => value,
                _ => continue,
            };
            if *value == IPV6_INSIDE {
                *value = WRONG;
                patched += 1;
            }
        }
        assert!(
            patched > 0,
            "{name}: no instruction has {IPV6_INSIDE}: the mutation needs another place"
        );
    }
    elf
}

fn replayed(trace: &Path, object: Option<&Path>, scenario: Option<&Path>, repro: &Path) -> Run {
    let mut command = replay(trace, &["--engine", "model,vm", "--json", "--repro"]);
    command.arg(repro);
    if let Some(path) = object {
        command.arg("--object").arg(path);
    }
    if let Some(path) = scenario {
        command.arg("--scenario").arg(path);
    }
    run(&mut command)
}

#[test]
fn a_wrong_next_header_is_found_shown_and_reproduced() {
    let folder = tempfile::tempdir().unwrap();
    let [object, all_ip, repro] =
        ["mutated.o", "all.toml", "repro"].map(|name| folder.path().join(name));
    std::fs::write(&object, mutated_object()).unwrap();
    let exit = "[exit.a]\ngateway = \"2001:db8:e::1\"\n[[flow]]\nexit = \"a\"\n";
    std::fs::write(&all_ip, exit).unwrap();

    let trace = capture("http.pcapng");
    let ended = replayed(&trace, Some(&object), Some(&all_ip), &repro).exits(1);
    let said = &ended.stderr;
    let first = said.lines().next().unwrap();
    assert!(first.starts_with("packet "), "{said}");
    assert!(first.contains("egress: model and vm differ: "), "{said}");
    assert!(first.to_lowercase().contains("next header"), "{said}");
    assert!(first.contains("(byte 6 behind the link header)"), "{said}");
    // Row 0 of both frames, side by side: the next header is its seventh byte.
    let rows = said
        .lines()
        .find(|line| line.starts_with("  !    0  6"))
        .unwrap();
    let frames: Vec<&str> = rows.split_whitespace().skip(2).collect();
    assert_eq!(frames.len(), 8, "{rows}");
    assert_eq!(frames[1][4..6], *"29", "{rows}");
    assert_eq!(frames[5][4..6], *"2b", "{rows}");

    // Every IPv6 packet that leaves diverges, no other does; five are shown in full.
    let report = ended.json();
    assert_eq!(report["divergences"], 19);
    assert_eq!(report["encapsulated"], 38);
    assert_eq!(said.matches("model and vm differ").count(), 5, "{said}");

    let packet: u64 = first["packet ".len()..first.find(',').unwrap()]
        .parse()
        .unwrap();
    let stem = format!("http-packet{packet}");
    let files = ["pcap", "toml"].map(|extension| format!("{stem}.{extension}"));
    assert_eq!(names(&repro), files);
    let [pcap, toml] = files.map(|name| repro.join(name));
    let written: Vec<_> = [&pcap, &toml].map(|path| path.display().to_string()).into();
    assert_eq!(report["written"], serde_json::json!(written));

    let again = replayed(
        &pcap,
        Some(&object),
        Some(&toml),
        &folder.path().join("again"),
    )
    .exits(1);
    let report = again.json();
    assert_eq!(
        (&report["frames_in"], &report["divergences"]),
        (&1.into(), &1.into())
    );
    let built_in = replayed(&pcap, None, Some(&toml), &folder.path().join("none")).exits(0);
    assert_eq!(built_in.stderr, "");
    assert_eq!(built_in.json()["encapsulated"], 1);
    assert!(!folder.path().join("none").exists(), "nothing to reproduce");
}

#[test]
fn a_divergence_in_a_segmented_super_packet_is_reproduced_from_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let [object, repro] = ["mutated.o", "repro"].map(|name| folder.path().join(name));
    let scenario = folder.path().join("udp.toml");
    std::fs::write(&object, mutated_object()).unwrap();
    // The small datagrams have no exit, so that the first to diverge is a super-packet.
    let text = "[replay]\ngso_size = 1200\n[exit.a]\ngateway = \"2001:db8:e::1\"\n\
                [[flow]]\nmatch = { source = \"fd00:5e::1\" }\nexit = \"a\"\n";
    std::fs::write(&scenario, text).unwrap();
    let trace = capture("udp-segment.pcap");
    let ended = replayed(&trace, Some(&object), Some(&scenario), &repro).exits(1);
    assert!(
        ended.stderr.contains("egress of a super-packet"),
        "{}",
        ended.stderr
    );
    let report = ended.json();
    let files: Vec<&Path> = report["written"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| Path::new(path.as_str().unwrap()))
        .collect();
    let [pcap, toml] = files[..] else {
        panic!("{files:?}")
    };
    let again = replayed(pcap, Some(&object), Some(toml), &repro)
        .exits(1)
        .json();
    assert_eq!(
        (&again["frames_in"], &again["super_packets"]),
        (&1.into(), &1.into())
    );
    let built_in = replayed(pcap, None, Some(toml), &repro).exits(0).json();
    assert_eq!(built_in["super_packets"], 1);
}

#[test]
fn a_divergence_on_standard_input_is_reported_without_files() {
    let folder = tempfile::tempdir().unwrap();
    let object = folder.path().join("mutated.o");
    std::fs::write(&object, mutated_object()).unwrap();
    let mut command = replay(Path::new("-"), &["--engine", "model,vm", "--repro"]);
    command
        .arg(folder.path().join("repro"))
        .arg("--object")
        .arg(&object);
    command.stdin(std::fs::File::open(capture("sack-loss.pcap")).unwrap());
    let ended = run(&mut command).exits(1);
    let text = "dynsim: standard input cannot be read again: no reproducing trace";
    assert!(ended.stderr.contains(text), "{}", ended.stderr);
    assert_eq!(names(folder.path()), ["mutated.o"]);
}

/// Whoever opened it again would wait for another writer for ever.
#[test]
fn a_divergence_on_a_pipe_is_reported_without_files() {
    let folder = tempfile::tempdir().unwrap();
    let object = folder.path().join("mutated.o");
    std::fs::write(&object, mutated_object()).unwrap();
    let pipe = fifo(folder.path());
    let bytes = std::fs::read(capture("sack-loss.pcap")).unwrap();
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::write(pipe, bytes)
    });
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "60", DYNSIM, "replay"]);
    command.arg(&pipe);
    command.args(["--engine", "model,vm", "--repro"]);
    command.arg(folder.path().join("repro"));
    command.arg("--object").arg(&object);
    let ended = run(&mut command).exits(1);
    writer.join().unwrap().unwrap();
    let text = "trace.fifo: a pipe cannot be read again: no reproducing trace";
    assert!(ended.stderr.contains(text), "{}", ended.stderr);
    assert_eq!(names(folder.path()), ["mutated.o", "trace.fifo"]);
}

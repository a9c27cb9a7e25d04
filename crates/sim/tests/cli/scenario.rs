//! The examples of docs/scenarios: each runs as its comment says, and shows what it claims.

use crate::output::frames;
use crate::program::{self, replay, run};
use dynencap_abi::object::REFLECT;
use dynencap_sim::built_in_object;
use dynencap_sim::trace::{Reader, link};
use dynencap_vm::Machine;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

fn example(name: &str) -> PathBuf {
    program::repository().join("docs/scenarios").join(name)
}

fn replayed(trace: &Path, name: &str, write: Option<&Path>) -> Value {
    let scenario = example(name);
    let engines = match name {
        "reflect.toml" if !programs_reflect() => "model",
        _ => "model,vm",
    };
    let mut command = replay(trace, &["--engine", engines, "--json", "--scenario"]);
    command.arg(scenario);
    if let Some(path) = write {
        command.arg("--write").arg(path);
    }
    let report = run(&mut command).exits(0).json();
    assert_eq!(report["divergences"], 0, "{name}");
    assert_eq!(report["over_mtu"], 0, "{name}");
    report
}

/// Whether the object's programs reflect; where not, that is said.
fn programs_reflect() -> bool {
    let machine = Machine::load(&built_in_object()).unwrap();
    let reflects = machine.programs().any(|program| program == REFLECT);
    if !reflects {
        let why = "the object has no such program";
        let _ = writeln!(std::io::stderr(), "skipped: reflect.toml in the vm: {why}");
    }
    reflects
}

/// Exactly these counts, and no frame anywhere else.
#[track_caller]
fn counts(report: &Value, expected: Value) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&report[key], value, "{key} in {report:#}");
    }
}

/// How many frames went to each outer destination; `None` for those with no outer header of
/// an example's exits.
fn by_gateway(path: &Path) -> BTreeMap<Option<u8>, usize> {
    let mut counted = BTreeMap::new();
    for (ethertype, packet) in frames(path) {
        let to = (ethertype == 0x86dd).then(|| &packet[24..40]);
        let gateway = to
            .filter(|to| to[..6] == [0x20, 0x01, 0x0d, 0xb8, 0x00, 0x0e])
            .map(|to| to[15]);
        *counted.entry(gateway).or_default() += 1;
    }
    counted
}

#[test]
fn every_example_of_the_reference_is_tested_here() {
    let mut listed: Vec<String> = std::fs::read_dir(example(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    listed.sort();
    let here = include_str!("scenario.rs");
    let reference = std::fs::read_to_string(program::repository().join("docs/scenario.md"));
    let reference = reference.unwrap();
    for name in &listed {
        assert!(here.contains(&format!("\"{name}\"")), "{name} has no test");
        assert!(reference.contains(name), "{name} is not in the reference");
    }
    assert!(listed.len() >= 8, "{listed:?}");
}

#[test]
fn two_exits_part_ipv4_from_ipv6_and_the_far_end_takes_the_headers_off_again() {
    let folder = tempfile::tempdir().unwrap();
    let [out, back] = ["out.pcapng", "back.pcapng"].map(|name| folder.path().join(name));
    let trace = program::capture("http.pcapng");
    let report = replayed(&trace, "two-exits.toml", Some(&out));
    counts(
        &report,
        json!({ "frames_in": 89, "encapsulated": 38, "passed": { "not_tunnel": 51 } }),
    );
    let gateways = by_gateway(&out);
    assert_eq!(
        gateways,
        BTreeMap::from([(None, 51), (Some(1), 19), (Some(2), 19)])
    );
    for (_, packet) in frames(&out).iter().filter(|(_, packet)| packet[39] == 2) {
        if packet[6] == 17 && packet[24..30] == [0x20, 0x01, 0x0d, 0xb8, 0, 0x0e] {
            assert_eq!(packet[48..56], [0x0c, 0, 0x65, 0x58, 0, 0, 0x7b, 0]);
        }
    }

    let report = replayed(&out, "decapsulate.toml", Some(&back));
    counts(
        &report,
        json!({ "frames_in": 89, "decapsulated": 38, "passed": { "no_exit": 51 } }),
    );
    assert_eq!(frames(&back), frames(&trace));
}

#[test]
fn replies_leave_in_the_headers_by_which_the_packets_came() {
    let folder = tempfile::tempdir().unwrap();
    let [out, back] = ["out.pcapng", "back.pcapng"].map(|name| folder.path().join(name));
    let trace = program::capture("http.pcapng");
    replayed(&trace, "two-exits.toml", Some(&out));
    let report = replayed(&out, "reflect.toml", Some(&back));
    counts(
        &report,
        json!({ "frames_in": 89, "decapsulated": 38, "encapsulated": 51 }),
    );
    // Where the clients' routers are: the outer sources of what came in.
    let routers = frames(&out);
    let sent = frames(&back);
    let outward = |to: u8| {
        let gateway = [0x20, 1, 0x0d, 0xb8, 0, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0, to];
        let there = routers.iter().find(|(_, packet)| packet[24..40] == gateway);
        let client = there.unwrap().1[8..24].to_vec();
        let replies = sent.iter().filter(move |(ethertype, packet)| {
            *ethertype == 0x86dd && packet[8..24] == gateway && packet[24..40] == client
        });
        replies
            .map(|(_, packet)| packet.clone())
            .collect::<Vec<_>>()
    };
    let (plain, udp) = (outward(1), outward(2));
    assert!(plain.len() > 10 && udp.len() > 10);
    assert_eq!(plain.len() + udp.len() + 38, sent.len());
    assert!(plain.iter().all(|packet| packet[6] == 4));
    for packet in udp {
        assert_eq!((packet[6], &packet[42..44]), (17, &[0x17, 0xc0][..]));
        assert_eq!(packet[48..56], [0x0c, 0, 0x65, 0x58, 0, 0, 0x7b, 0]);
    }
}

#[test]
fn a_switch_takes_place_at_its_flow_packet_its_trace_packet_and_its_second() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.pcapng");
    let trace = program::capture("sack-loss.pcap");
    let report = replayed(&trace, "switch.toml", Some(&out));
    // What the file's numbers mean for the packets that the server sends.
    let mut reader = Reader::open("trace", File::open(&trace).unwrap()).unwrap();
    let (mut not_yet, mut switched_off, mut start) = (0, 0, None);
    let (mut ipv4, mut ipv6) = (0, 0);
    while let Some(frame) = reader.next_frame().unwrap() {
        let start = *start.get_or_insert(frame.time.0);
        let link = link(frame.link_type, frame.bytes);
        if link.ethertype == 0x0800 && link.payload[12..16] == [192, 0, 2, 2] {
            ipv4 += 1;
            switched_off += usize::from((11..21).contains(&ipv4));
        } else if link.ethertype == 0x86dd && link.payload[23] == 2 {
            ipv6 += 1;
            not_yet += usize::from(frame.number < 251);
            let late = frame.time.0 - start >= 105_200_000;
            switched_off += usize::from(late && frame.number >= 251);
        }
    }
    assert!(
        not_yet > 0 && switched_off > 20,
        "{not_yet}, {switched_off}"
    );
    // "none" after an exit leaves storage without a gateway; before the first exit, nothing.
    counts(
        &report,
        json!({ "frames_in": 448, "encapsulated": ipv4 + ipv6 - not_yet - switched_off,
                "passed": { "no_gateway": switched_off, "no_exit": not_yet,
                            "not_tunnel": 448 - ipv4 - ipv6 } }),
    );
    let exits: Vec<u8> = frames(&out)
        .iter()
        .filter_map(|(ethertype, packet)| match ethertype {
            0x0800 if packet[12..16] == [192, 0, 2, 2] => Some(0),
            0x86dd if packet[24..30] == [0x20, 0x01, 0x0d, 0xb8, 0, 0x0e] => Some(packet[39]),
            0x86dd if packet[23] == 2 => Some(0),
            _ => None,
        })
        .collect();
    let mut phases: Vec<u8> = exits.clone();
    phases.dedup();
    // IPv4: Paris, none, Tokyo; IPv6: none, Paris, none.
    assert_eq!(phases, [1, 0, 2, 0, 1, 0]);
}

#[test]
fn the_responders_packets_leave_and_the_initiators_come_in() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.pcapng");
    let trace = program::capture("bulk-tso.pcap");
    let report = replayed(&trace, "server-side.toml", Some(&out));
    counts(
        &report,
        json!({ "frames_in": 192, "frames_out": 192, "encapsulated": 98, "segments": 0,
                "passed": { "not_tunnel": 94 }, "dropped": {} }),
    );
    for (_, packet) in frames(&out) {
        if packet[6] == 17 && packet[24..30] == [0x20, 0x01, 0x0d, 0xb8, 0, 0x0e] {
            // Behind the outer headers: the server's address, or its port 5201.
            assert_eq!(packet[40..44], [0x17, 0xc0, 0x17, 0xc0]);
            assert_eq!(packet[48..52], [0, 0, 0, 0x2a]);
        }
    }
    assert_eq!(by_gateway(&out)[&Some(1)], 98);
}

#[test]
fn a_stated_segment_size_cuts_what_udp_segment_sent() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.pcapng");
    let trace = program::capture("udp-segment.pcap");
    let report = replayed(&trace, "udp-segment.toml", Some(&out));
    counts(
        &report,
        json!({ "frames_in": 32, "encapsulated": 16, "super_packets": 12, "segments": 202,
                "dropped": {}, "passed": { "not_tunnel": 16 } }),
    );
    let payload = |packet: &[u8]| {
        let inner = &packet[40..];
        let headers = if inner[0] >> 4 == 4 { 28 } else { 48 };
        inner.len() - headers
    };
    let ours: Vec<usize> = frames(&out)
        .iter()
        .filter(|(ethertype, packet)| *ethertype == 0x86dd && matches!(packet[6], 4 | 41))
        .map(|(_, packet)| payload(packet))
        .collect();
    assert_eq!(ours.len(), 206);
    assert!(ours.iter().all(|len| *len <= 1200), "{ours:?}");
    assert!(ours.iter().filter(|len| **len == 1200).count() > 150);
}

#[test]
fn segment_first_puts_out_the_frames_that_gso_aware_does() {
    let folder = tempfile::tempdir().unwrap();
    let [first, aware] = ["first.pcapng", "aware.pcapng"].map(|name| folder.path().join(name));
    let trace = program::capture("bulk-tso.pcap");
    let report = replayed(&trace, "segment-first.toml", Some(&first));
    counts(
        &report,
        json!({ "frames_in": 192, "frames_out": 552, "encapsulated": 94,
                "super_packets": 20, "segments": 380 }),
    );
    let text = std::fs::read_to_string(example("segment-first.toml")).unwrap();
    let other = text.replace("segmentation = \"segment-first\"", "");
    assert_ne!(text, other);
    let scenario = folder.path().join("aware.toml");
    std::fs::write(&scenario, other).unwrap();
    let mut command = replay(&trace, &["--engine", "model,vm"]);
    command.arg("--scenario").arg(scenario);
    command.arg("--write").arg(&aware);
    run(&mut command).exits(0);
    assert_eq!(frames(&first), frames(&aware));
}

#[test]
fn a_jumbo_uplink_carries_whole_what_fits_it() {
    let trace = program::capture("udp-segment.pcap");
    let report = replayed(&trace, "jumbo.toml", None);
    counts(
        &report,
        json!({ "encapsulated": 8, "segments": 0, "dropped": { "too_big": 8 },
                "passed": { "not_tunnel": 16 } }),
    );
}

#[test]
fn the_first_rule_that_matches_decides() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.pcapng");
    let trace = program::capture("dns.pcap");
    let report = replayed(&trace, "by-protocol.toml", Some(&out));
    counts(
        &report,
        json!({ "encapsulated": 52, "passed": { "no_exit": 4, "not_tunnel": 40 } }),
    );
    let gateways = by_gateway(&out);
    assert_eq!(
        gateways,
        BTreeMap::from([(None, 44), (Some(1), 48), (Some(2), 4)])
    );
}

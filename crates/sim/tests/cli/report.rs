//! The report: the keys of `--json`, and numbers that add up.

use crate::program::{capture, captures, replay, run};
use serde_json::Value;

const TOTALS: [&str; 9] = [
    "frames_in",
    "frames_out",
    "encapsulated",
    "decapsulated",
    "segments",
    "super_packets",
    "dropped",
    "passed",
    "over_mtu",
];

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn sorted<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    let mut all = parts.concat();
    all.sort_unstable();
    all
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn sum(table: &Value) -> u64 {
    table.as_object().unwrap().values().map(number).sum()
}

#[test]
fn the_json_report_has_these_keys_and_no_other() {
    let trace = capture("bulk-tso.pcap");
    let report = run(&mut replay(&trace, &["--engine", "vm,model", "--json"]))
        .exits(0)
        .json();
    let own = [
        "trace",
        "flows",
        "seconds",
        "divergences",
        "violations",
        "engines",
        "by_engine",
        "not_run",
        "stopped",
        "written",
    ];
    assert_eq!(keys(&report), sorted(&[&TOTALS, &own]));
    assert_eq!(report["engines"], serde_json::json!(["vm", "model"]));
    assert_eq!(keys(&report["by_engine"]), ["model", "vm"]);
    let measured = ["seconds", "packets_per_second"];
    for engine in ["model", "vm"] {
        let engine = &report["by_engine"][engine];
        assert_eq!(keys(engine), sorted(&[&TOTALS, &measured]));
        assert!(engine["packets_per_second"].as_f64().unwrap() > 0.0);
    }
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(report["flows"], 8);
    assert_eq!(report["stopped"], Value::Null);
    assert_eq!(report["not_run"], serde_json::json!({}));
    assert_eq!(report["written"], serde_json::json!([]));
}

#[test]
fn every_frame_of_every_capture_has_one_verdict_in_each_engine() {
    let folder = tempfile::tempdir().unwrap();
    let both = folder.path().join("both.toml");
    std::fs::write(&both, "[replay]\nside = \"both\"\n").unwrap();
    let mut super_packets = 0;
    for trace in captures() {
        for side in [None, Some(&both)] {
            let mut command = replay(&trace, &["--engine", "model,vm", "--json"]);
            if let Some(path) = side {
                command.arg("--scenario").arg(path);
            }
            let report = run(&mut command).exits(0).json();
            let name = trace.display();
            for (engine, totals) in report["by_engine"].as_object().unwrap() {
                let verdicts = number(&totals["encapsulated"])
                    + number(&totals["decapsulated"])
                    + sum(&totals["passed"])
                    + sum(&totals["dropped"]);
                assert_eq!(number(&totals["frames_in"]), verdicts, "{name}, {engine}");
                let dropped = sum(&totals["dropped"]);
                let whole = verdicts - dropped - number(&totals["super_packets"]);
                let out = whole + number(&totals["segments"]);
                assert_eq!(number(&totals["frames_out"]), out, "{name}, {engine}");
                assert_eq!(totals["over_mtu"], 0, "{name}, {engine}");
            }
            for key in TOTALS {
                assert_eq!(
                    report[key], report["by_engine"]["model"][key],
                    "{name}, {key}"
                );
                assert_eq!(report[key], report["by_engine"]["vm"][key], "{name}, {key}");
            }
            super_packets += number(&report["super_packets"]);
        }
    }
    assert!(super_packets > 0, "no capture was segmented");
}

#[test]
fn the_summary_for_a_person_has_the_numbers_of_the_json_report() {
    let trace = capture("udp-segment.pcap");
    let engines = ["--engine", "model,vm"];
    let text = run(&mut replay(&trace, &engines)).exits(0).stdout;
    let line = |label: &str| {
        let found = text
            .lines()
            .find(|line| line.trim_start().starts_with(label));
        let line = found.unwrap_or_else(|| panic!("no {label:?} in {text}"));
        line[label.len() + 2..].trim().to_owned()
    };
    let report = run(&mut replay(&trace, &["--engine", "model,vm", "--json"]))
        .exits(0)
        .json();
    for (label, key) in [
        ("frames in", "frames_in"),
        ("frames out", "frames_out"),
        ("encapsulated", "encapsulated"),
        ("over the MTU", "over_mtu"),
        ("divergences", "divergences"),
    ] {
        assert_eq!(line(label), report[key].to_string(), "{label}");
    }
    assert_eq!(line("dropped"), "12   too_big");
    assert_eq!(line("passed"), "16   not_tunnel");
}

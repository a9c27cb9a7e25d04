//! `dynsim bench`: a row for each engine, ratios to a plain read, exit codes.

use crate::program::{DYNSIM, Run, capture, run};
use std::process::Command;

fn bench(arguments: &[&str]) -> Run {
    run(Command::new(DYNSIM).arg("bench").args(arguments))
}

#[test]
fn the_table_has_a_row_for_each_engine_beside_a_plain_read() {
    let flags = ["--engine", "model,vm", "--rounds", "2", "--packets", "3000"];
    let ended = bench(&flags).exits(0);
    let text = &ended.stdout;
    assert!(text.contains("3000 packets, medians of 2 rounds"), "{text}");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .skip(2)
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][..2], ["plain", "read"], "{text}");
    assert_eq!(rows[0].last(), Some(&"1.000"), "{text}");
    for engine in ["model", "vm"] {
        let row = rows.iter().find(|row| row[0] == engine).unwrap();
        let numbers: Vec<f64> = row[1..].iter().map(|word| word.parse().unwrap()).collect();
        let [median, least, most, of_read] = numbers[..] else {
            panic!("{text}");
        };
        assert!(0.0 < least && least <= median && median <= most, "{text}");
        assert!(0.0 < of_read && of_read < 1.0, "{text}");
    }
}

#[test]
fn a_capture_is_measured_and_json_says_the_same() {
    let trace = capture("dns.pcap");
    let flags = [
        trace.to_str().unwrap(),
        "--engine",
        "model",
        "--rounds",
        "1",
        "--json",
    ];
    let table = bench(&flags).exits(0).json();
    assert_eq!(table["trace"], trace.to_str().unwrap());
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows[0]["name"], "plain read");
    assert_eq!(rows[1]["name"], "model");
    let of_read = rows[1]["median"].as_f64().unwrap() / rows[0]["median"].as_f64().unwrap();
    assert!((rows[1]["of_read"].as_f64().unwrap() / of_read - 1.0).abs() < 1e-6);
    assert!(table["packets"].as_u64().unwrap() > 0);
}

#[test]
fn the_trace_that_was_made_is_gone_afterwards() {
    let mut command = Command::new(DYNSIM);
    command.args([
        "bench",
        "--engine",
        "model",
        "--rounds",
        "1",
        "--packets",
        "10",
    ]);
    let child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let name = format!("dynsim-bench-{}.pcap", child.id());
    assert!(child.wait_with_output().unwrap().status.success());
    for folder in [std::env::temp_dir(), "/dev/shm".into()] {
        assert!(!folder.join(&name).exists(), "{}", folder.display());
    }
}

#[test]
fn bad_flags_and_traces_are_bad_usage() {
    let trace = capture("dns.pcap");
    let trace = trace.to_str().unwrap();
    let folder = std::env::temp_dir();
    let cases: [(&[&str], &str); 9] = [
        (&["--rounds", "0"], "--rounds"),
        (&["--rounds", "many"], "--rounds"),
        (&["--packets", "0"], "--packets"),
        (&["--packets", "10", trace], "--packets"),
        (&["--engine", "none"], "--engine"),
        (&["--write", "x"], "--write"),
        (
            &["/nonexistent.pcap"],
            "/nonexistent.pcap: cannot open the trace",
        ),
        (&[folder.to_str().unwrap()], "expected a file"),
        (
            &["--scenario", "/nonexistent.toml"],
            "cannot read the scenario",
        ),
    ];
    for (flags, says) in cases {
        let ended = bench(flags).exits(2);
        assert_eq!(ended.stdout, "", "{flags:?}");
        assert!(ended.stderr.contains(says), "{flags:?}: {}", ended.stderr);
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    bench(&[script, "--engine", "model", "--rounds", "1"]).exits(2);
    let object = [trace, "--object", script, "--engine", "vm", "--rounds", "1"];
    bench(&object).exits(2);
}

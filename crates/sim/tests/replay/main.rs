//! The differential suite: every capture of testdata, and of the shared traces where they are
//! present, through all engines and several scenarios. One test for each capture and scenario.
//!
//! The kernel runs where this process may; elsewhere its tests are reported as skipped with the
//! reason, or fail where `DYNENCAP_REQUIRE` names `kernel`.

#![expect(
    clippy::expect_used,
    reason = "a suite that cannot be set up has to stop"
)]

mod capture;
mod kernel;
mod reflected;
mod round_trip;

use capture::{Capture, Expected};
use dynencap_abi::object::REFLECT;
use dynencap_sim::built_in_object;
use dynencap_sim::compare::Divergence;
use dynencap_sim::director::Record;
use dynencap_sim::engine::{self, Attribution, Engine, EngineError, EngineKind, Outcomes};
use dynencap_sim::event::Batch;
use dynencap_sim::replay::{Observer, Replay, ReplayError};
use dynencap_sim::report::{self, Report};
use dynencap_sim::scenario::{Scenario, Segmentation, Side};
use dynencap_sim::trace::Reader;
use dynencap_vm::Machine;
use kernel::Worker;
use libtest_mimic::{Arguments, Failed, Trial};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

/// The object under test: the committed one, or that of `DYNENCAP_OBJECT`.
fn object() -> Vec<u8> {
    match std::env::var_os("DYNENCAP_OBJECT") {
        Some(path) => std::fs::read(path).expect("DYNENCAP_OBJECT names a readable file"),
        None => built_in_object(),
    }
}

/// A way to replay every capture.
struct Variant {
    name: &'static str,
    scenario: Scenario,
}

/// IPv4 headers outside, by protocol, in plain and in UDP.
const IPV4_OUTER: &str = r#"
[host]
source4 = "192.0.2.7"
hop_limit = 64
[replay]
side = "both"
[exit.plain]
gateway = "198.51.100.1"
[exit.udp]
gateway = "198.51.100.2"
udp = { destination_port = 6080, header = "dead beef 00" }
[[flow]]
match = { protocol = "tcp" }
exit = "plain"
[[flow.switch]]
at_flow_packet = 5
exit = "udp"
[[flow]]
exit = "udp"
"#;

/// Valid checksums, which want packets cut first.
const CHECKSUMS: &str = r#"
[host]
source4 = "192.0.2.7"
udp_checksum = true
segmentation = "segment-first"
[replay]
side = "both"
[exit.six]
gateway = "fd00:e::1"
udp = { destination_port = 6080, header = "0102030405060708" }
[exit.four]
gateway = "198.51.100.2"
udp = { destination_port = 6080, source_port = 7 }
[[flow]]
match = { protocol = "tcp" }
exit = "six"
[[flow]]
match = { protocol = "udp" }
exit = "four"
[[flow]]
exit = "six"
"#;

/// Cgroups whose policies change under live flows, and senders that are told.
const TENANTS: &str = r#"
[host]
uplink_mtu = 1280
tell_too_big = true
deny_by_default = true
[replay]
side = "both"
[exit.one]
gateway = "fd00:e::1"
[exit.two]
gateway = "fd00:e::2"
udp = { destination_port = 6080, header = "01020304" }
[[policy]]
allow = ["fd00:e::/64"]
ports = [6080]
custom_headers = true
source = "fd00:d::9"
[[policy]]
cgroup = "tenants"
allow = ["fd00:e::/64"]
[[policy]]
cgroup = "tenants/a"
remove = true
[[policy]]
cgroup = "tenants/a"
allow = ["fd00:e::/64"]
deny = ["fd00:e::2"]
at_packet = 9
[[policy]]
cgroup = "tenants"
remove = true
at_packet = 20
[[flow]]
match = { protocol = "tcp" }
cgroup = "tenants/a"
exit = "one"
[[flow.switch]]
at_flow_packet = 4
exit = "two"
[[flow.switch]]
at_flow_packet = 12
exit = "one"
[[flow]]
cgroup = "tenants"
exit = "two"
"#;

fn variants() -> Vec<Variant> {
    let written = |name, text| Variant {
        name,
        scenario: Scenario::parse(name, text).expect("the suite's own scenarios are sound"),
    };
    let side = |side| Scenario {
        side,
        ..Scenario::default()
    };
    let mut segment_first = side(Side::Both);
    segment_first.host.segmentation = Segmentation::SegmentFirst;
    let mut udp_segment = side(Side::Both);
    udp_segment.gso_size = Some(1200);
    let mut jumbo = side(Side::Responder);
    jumbo.host.config.uplink_mtu = 9000;
    vec![
        Variant {
            name: "default",
            scenario: Scenario::default(),
        },
        Variant {
            name: "both-sides",
            scenario: side(Side::Both),
        },
        Variant {
            name: "segment-first",
            scenario: segment_first,
        },
        Variant {
            name: "gso-size-1200",
            scenario: udp_segment,
        },
        Variant {
            name: "server-jumbo",
            scenario: jumbo,
        },
        written("ipv4-outer", IPV4_OUTER),
        written("checksums", CHECKSUMS),
        written("tenants", TENANTS),
    ]
}

/// Keeps the first differences in words.
#[derive(Default)]
struct Differences(Vec<String>);

impl Observer for Differences {
    fn batch(
        &mut self,
        batch: &Batch,
        _: &[Record],
        _: &Outcomes,
        divergences: &[Divergence],
    ) -> Result<(), ReplayError> {
        let room = 3usize.saturating_sub(self.0.len());
        self.0.extend(
            divergences
                .iter()
                .take(room)
                .map(|d| report::describe(d, batch)),
        );
        Ok(())
    }
}

/// What a replay came to: the report, why reading ended early, and the engines for more.
type Replayed = (Report, Option<String>, Vec<Box<dyn Engine>>);

fn replay(
    engines: Vec<Box<dyn Engine>>,
    capture: &Capture,
    scenario: &Scenario,
    observer: &mut dyn Observer,
) -> Result<Replayed, Failed> {
    let mut replay = Replay::new(scenario.clone(), engines);
    let mut reader = match Reader::open_path(&capture.path) {
        Ok(reader) => reader,
        Err(error) => {
            let report = replay.report(&capture.name);
            return Ok((report, Some(error.to_string()), replay.into_engines()));
        }
    };
    let error = loop {
        match reader.next_frame() {
            Ok(Some(frame)) => replay.frame(&frame, observer)?,
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    replay.flush(observer)?;
    Ok((replay.report(&capture.name), error, replay.into_engines()))
}

fn start(kind: EngineKind, scenario: &Scenario) -> Result<Box<dyn Engine>, EngineError> {
    engine::start(kind, &scenario.host, &object(), Attribution::PerBatch)
}

/// Replays on these engines, and holds what came of it against what must hold.
fn agree(
    capture: &Capture,
    scenario: &Scenario,
    engines: Vec<Box<dyn Engine>>,
) -> Result<Vec<Box<dyn Engine>>, Failed> {
    let mut differences = Differences::default();
    let (report, error, engines) = replay(engines, capture, scenario, &mut differences)?;
    match (&capture.expected, error) {
        (Expected::Refused(words), Some(error)) if error.contains(words) => return Ok(engines),
        (Expected::Refused(words), found) => {
            return Err(format!("expected a refusal with {words:?}, found {found:?}").into());
        }
        (Expected::Read, Some(error)) => return Err(error.into()),
        (Expected::Read, None) => {}
    }
    agree_on(&report, &differences)?;
    for engine in &report.engines {
        let totals = &engine.totals;
        if totals.over_mtu > 0 {
            return Err(format!("fits: {}: {} frames", engine.name, totals.over_mtu).into());
        }
    }
    Ok(engines)
}

/// Holds a report against what must hold for every trace.
fn agree_on(report: &Report, differences: &Differences) -> Result<(), Failed> {
    if report.divergences > 0 {
        let words = differences.0.concat();
        return Err(format!("{} differences\n{words}", report.divergences).into());
    }
    if !report.violations.is_empty() {
        return Err(report.violations.join("\n").into());
    }
    let reference = &report.engines[0];
    for engine in &report.engines {
        let totals = &engine.totals;
        if totals.frames_in == 0 || totals.with_verdict() != totals.frames_in {
            let name = engine.name;
            return Err(format!("total: {name}: verdicts do not add up: {totals:?}").into());
        }
        if totals != &reference.totals {
            let (left, right) = (reference.name, engine.name);
            return Err(format!("{left}: {:?}\n{right}: {totals:?}", reference.totals).into());
        }
    }
    Ok(())
}

/// Why the kernel's tests cannot run here, unless they must.
fn kernel_missing() -> Option<String> {
    match start(EngineKind::Kernel, &Scenario::default()) {
        Ok(_) => None,
        Err(EngineError::Unavailable { reason, .. }) => Some(reason),
        // Anything else is a failure of the tests themselves, not a reason to skip them.
        Err(_) => None,
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let captures = capture::all();
    let missing = kernel_missing();
    let required = std::env::var("DYNENCAP_REQUIRE").unwrap_or_default();
    let required = required.split(',').any(|tier| tier == "kernel");
    let skip = missing.is_some() && !required;
    if let Some(reason) = missing.filter(|_| skip) {
        // The harness says "ignored" without a reason.
        let _ = writeln!(std::io::stderr(), "skipped: every kernel test: {reason}");
    }
    let worker = Arc::new(Worker::start());
    let reflects = Machine::load(&object())
        .is_ok_and(|machine| machine.programs().any(|program| program == REFLECT));
    if !reflects {
        let why = "the object has no such program";
        let _ = writeln!(
            std::io::stderr(),
            "skipped: reflection but in the model: {why}"
        );
    }
    let mut trials = Vec::new();
    for variant in variants() {
        for capture in &captures {
            let name = format!("{}/{}", capture.name, variant.name);
            let (of, scenario) = (capture.clone(), variant.scenario.clone());
            trials.push(Trial::test(format!("model-vm/{name}"), move || {
                let engines = vec![
                    start(EngineKind::Model, &scenario)?,
                    start(EngineKind::Vm, &scenario)?,
                ];
                agree(&of, &scenario, engines).map(drop)
            }));
            let (of, scenario) = (capture.clone(), variant.scenario.clone());
            let on = Arc::clone(&worker);
            let trial = Trial::test(format!("kernel/{name}"), move || {
                on.run(move |bench| {
                    let kernel = bench.take(&scenario.host)?;
                    let engines = vec![start(EngineKind::Model, &scenario)?, kernel];
                    let kernel = agree(&of, &scenario, engines)?.pop();
                    kernel
                        .into_iter()
                        .for_each(|kernel| bench.put(&scenario.host, kernel));
                    Ok(())
                })
            });
            trials.push(trial.with_ignored_flag(skip));
        }
    }
    for capture in captures
        .iter()
        .filter(|of| matches!(of.expected, Expected::Read))
    {
        for kind in [EngineKind::Model, EngineKind::Vm] {
            let of = capture.clone();
            let name = format!("transparent-{}/{}", kind.name(), capture.name);
            trials.push(Trial::test(name, move || {
                let engine = start(kind, &round_trip::scenario())?;
                round_trip::check(&of, engine).map(drop)
            }));
        }
        let (of, on) = (capture.clone(), Arc::clone(&worker));
        let trial = Trial::test(format!("transparent-kernel/{}", capture.name), move || {
            on.run(move |bench| {
                let host = round_trip::scenario().host;
                let engine = round_trip::check(&of, bench.take(&host)?)?;
                bench.put(&host, engine);
                Ok(())
            })
        });
        trials.push(trial.with_ignored_flag(skip));
    }
    for capture in captures
        .iter()
        .filter(|of| matches!(of.expected, Expected::Read))
    {
        for kind in [EngineKind::Vm, EngineKind::Kernel] {
            let (of, on) = (capture.clone(), Arc::clone(&worker));
            let name = format!("reflected-{}/{}", kind.name(), capture.name);
            let trial = Trial::test(name, move || {
                if kind == EngineKind::Vm {
                    let model = start(EngineKind::Model, &reflected::server())?;
                    let engines = vec![model, start(kind, &reflected::server())?];
                    return reflected::check(&of, engines).map(drop);
                }
                on.run(move |bench| {
                    let host = reflected::server().host;
                    let model = start(EngineKind::Model, &reflected::server())?;
                    let engines = vec![model, bench.take(&host)?];
                    // What it remembers is no other capture's affair: the lab goes.
                    drop(reflected::check(&of, engines)?);
                    Ok(())
                })
            });
            let skip = !reflects || skip && kind == EngineKind::Kernel;
            trials.push(trial.with_ignored_flag(skip));
        }
        let of = capture.clone();
        trials.push(Trial::test(
            format!("reflected-model/{}", capture.name),
            move || {
                let engines = vec![start(EngineKind::Model, &reflected::server())?];
                let (came, _) = reflected::check(&of, engines)?;
                match (of.name.as_str(), came.replies, came.moved) {
                    ("testdata/http.pcapng" | "testdata/sack-loss.pcap", 10.., 2..) => Ok(()),
                    ("testdata/http.pcapng" | "testdata/sack-loss.pcap", replies, moved) => {
                        Err(format!("{replies} replies, {moved} moves are too few").into())
                    }
                    _ => Ok(()),
                }
            },
        ));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    worker.stop();
    conclusion.exit_code()
}

//! Whole replays from memory, as `dynsim replay` does them: reading, directing, one engine.
//!
//! The kernel is measured where this process may run it; otherwise that row is left out and
//! the reason is printed.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a bench whose set-up fails has nothing to measure"
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dynencap_sim::engine::{self, Attribution, Engine, EngineError, EngineKind};
use dynencap_sim::replay::{Replay, threads_of_use};
use dynencap_sim::scenario::Scenario;
use dynencap_sim::trace::Reading;
use dynencap_sim::workload;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;

const PACKETS: u32 = 200_000;

fn replay(trace: &[u8], engine: Box<dyn Engine>, threads: NonZeroUsize) -> Box<dyn Engine> {
    let mut replay = Replay::new(Scenario::default(), vec![engine]);
    let never = AtomicBool::new(false);
    replay
        .trace("memory", Reading(trace), threads, &never, &mut ())
        .expect("a trace of our own");
    let totals = replay.report("memory").engines.remove(0).totals;
    assert_eq!(totals.encapsulated, u64::from(PACKETS), "{totals:?}");
    replay.into_engines().remove(0)
}

fn replays(criterion: &mut Criterion) {
    let mut trace = Vec::new();
    workload::write(PACKETS, &mut trace).expect("a vector takes packets");
    let object = dynencap_sim::built_in_object();
    let host = Scenario::default().host;
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Elements(u64::from(PACKETS)));
    group.sample_size(10);
    for kind in EngineKind::ALL {
        let engine = match engine::start(kind, &host, &object, Attribution::PerBatch) {
            Ok(engine) => engine,
            Err(EngineError::Unavailable { engine, reason }) => {
                eprintln!("replay/{engine} is left out: {reason}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let mut engine = Some(engine);
        let mut rows = vec![(kind.name().to_owned(), NonZeroUsize::MIN)];
        let several = threads_of_use();
        if kind != EngineKind::Kernel && several > NonZeroUsize::MIN {
            rows.push((format!("{}_{several}_threads", kind.name()), several));
        }
        for (name, threads) in rows {
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let started = engine.take().expect("put back after each round");
                    engine = Some(replay(black_box(&trace), started, threads));
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, replays);
criterion_main!(benches);

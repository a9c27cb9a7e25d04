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
use dynencap_sim::replay::Replay;
use dynencap_sim::scenario::Scenario;
use dynencap_sim::trace::{LinkType, Packet, PcapWriter, Reader, Resolution, Timestamp};
use std::hint::black_box;

const PACKETS: u32 = 200_000;
const FLOWS: u32 = 1_000;
/// From the IP header on.
const LENGTH: usize = 500;

/// IPv6 TCP packets of many flows in turn, as a pcap file.
fn trace() -> Vec<u8> {
    let mut writer = PcapWriter::new(Vec::new(), LinkType::Raw, Resolution::Nanosecond)
        .expect("a vector takes a file header");
    let mut packet = [b'x'; LENGTH];
    packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, 6, 64]);
    packet[4..6].copy_from_slice(&((LENGTH - 40) as u16).to_be_bytes());
    packet[8..40].copy_from_slice(&[0x20; 32]);
    packet[52] = 0x50;
    packet[53] = 0x10;
    for number in 0..PACKETS {
        let port = 1024 + (number % FLOWS) as u16;
        packet[40..42].copy_from_slice(&port.to_be_bytes());
        let packet = Packet {
            time: Timestamp(u64::from(number) * 1_000),
            link_type: LinkType::Raw,
            bytes: &packet,
            original_len: LENGTH as u32,
            comment: None,
        };
        writer.write(&packet).expect("a vector takes a packet");
    }
    writer.into_inner()
}

fn replay(trace: &[u8], engine: Box<dyn Engine>) -> Box<dyn Engine> {
    let mut replay = Replay::new(Scenario::default(), vec![engine]);
    let mut reader = Reader::open("memory", trace).expect("a trace of our own");
    while let Some(frame) = reader.next_frame().expect("a trace of our own") {
        replay.frame(&frame, &mut ()).expect("the engine runs");
    }
    replay.flush(&mut ()).expect("the engine runs");
    let totals = replay.report("memory").engines.remove(0).totals;
    assert_eq!(totals.encapsulated, u64::from(PACKETS), "{totals:?}");
    replay.into_engines().remove(0)
}

fn replays(criterion: &mut Criterion) {
    let trace = trace();
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
        group.bench_function(kind.name(), |bencher| {
            bencher.iter(|| {
                let started = engine.take().expect("put back after each round");
                engine = Some(replay(black_box(&trace), started));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, replays);
criterion_main!(benches);

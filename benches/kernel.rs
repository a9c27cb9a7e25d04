//! The egress program in the running kernel, under real traffic in the lab: a criterion
//! measurement by the kernel's own clock. Each sample is the program's time less what an empty
//! program took for as many packets just before.
//!
//! Where this process may not run it, it says so and measures nothing.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a bench whose set-up fails has nothing to measure"
)]

use criterion::{
    BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use dynencap_benches::{Object, Run, egress};
use dynencap_kernel::{Feature, Interrupt};

/// Nanoseconds that the kernel counted for a program (`BPF_ENABLE_STATS`). Benches hand in what
/// they read, by `iter_custom`.
struct RunTime;

impl Measurement for RunTime {
    type Intermediate = ();
    type Value = f64;

    fn start(&self) {}

    fn end(&self, (): ()) -> f64 {
        panic!("a program's time is read by the bench, not taken around it")
    }

    fn add(&self, one: &f64, other: &f64) -> f64 {
        one + other
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn programs(criterion: &mut Criterion<RunTime>) {
    if let Err(missing) = Feature::REQUIRED.into_iter().try_for_each(Feature::probe) {
        eprintln!("skipped: egress in the kernel: {missing}");
        return;
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/bpf/dynencap.bpf.o");
    let object = Object {
        name: "dynencap".to_owned(),
        bytes: std::fs::read(path).expect("the committed object"),
    };
    let interrupt = Interrupt::default();
    let run = Run::start(vec![object], false, interrupt).expect("a cgroup of our own");
    let mut lineup = egress::lineup(&run).expect("the lab");
    let _statistics =
        aya::sys::enable_stats(aya::sys::Stats::RunTime).expect("the kernel's statistics");
    let variants: Vec<(usize, usize, String)> = lineup
        .variants()
        .map(|(number, variant)| (number, variant.base, variant.name.clone()))
        .collect();
    let mut group = criterion.benchmark_group("kernel/egress");
    group.throughput(Throughput::Elements(1));
    for (number, base, name) in variants {
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|iterations| {
                let packets = usize::try_from(iterations).expect("a count of packets");
                let mut run_time = |number| {
                    let time = lineup.run_time(number, packets);
                    time.expect("every packet arrives") * iterations as f64
                };
                // The empty program's own reading is shown as it is.
                let floor = if number == base { 0.0 } else { run_time(base) };
                (run_time(number) - floor).max(0.0)
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .with_measurement(RunTime)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(500));
    targets = programs
}
criterion_main!(benches);

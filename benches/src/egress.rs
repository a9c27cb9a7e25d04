//! The program alone: nanoseconds a run, less those of an empty program in the same round.

use crate::{
    Error, Row, Run,
    bed::Headroom,
    lineup::{Lineup, Passing},
    ours::Shape,
    sample::Samples,
};
use dynencap_kernel::Chain;

/// Packets a slice: a few milliseconds.
const PACKETS: usize = 4096;

/// What stands ready to be measured; the first of each section is the empty program.
pub fn lineup(run: &Run) -> Result<Lineup, Error> {
    let shapes = [
        Shape::Ip6,
        Shape::Udp8,
        Shape::Ip4,
        Shape::Udp32,
        Shape::Checksum,
    ];
    let mut lineup = Lineup::default();
    for headroom in [Headroom::None, Headroom::Device] {
        lineup.section(headroom);
        lineup.add_empty(run, headroom, Chain::here())?;
        lineup.add_by_hand(run, headroom)?;
        // Where there is no head to be copied, a few nanoseconds stand out.
        if headroom == Headroom::Device {
            lineup.add_features(run, headroom)?;
        }
        lineup.add_lookup(run, headroom)?;
        lineup.add_ours(run, headroom, Chain::here(), &shapes, Passing::Too)?;
    }
    Ok(lineup)
}

/// Measures it.
pub fn measure(run: &Run) -> Result<Vec<Row>, Error> {
    let mut lineup = lineup(run)?;
    let statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime);
    let _statistics = statistics.map_err(Error::reference("BPF_ENABLE_STATS"))?;
    let samples = Samples::take(lineup.len(), run.rounds(40), &run.interrupt, |number| {
        lineup.run_time(number, PACKETS)
    })?;
    let rows = lineup.variants().map(|(number, variant)| {
        let summary = if variant.base == number {
            samples.summary(number)
        } else {
            samples.less(number, variant.base)
        };
        Row::new("egress", &variant.name, "ns", summary)
    });
    Ok(rows.collect())
}

//! Packets a second through a whole host: socket, route, device, programs, on one CPU. Small
//! packets, so that what a packet costs is all there is.

use crate::{
    Error, Row, Run,
    bed::Headroom,
    lineup::{Lineup, Passing},
    ours::Shape,
    peer::Peer,
    sample::Samples,
};
use dynencap_kernel::Chain;

/// Packets a slice: a few milliseconds, shorter than what else there is may take the CPU for.
const PACKETS: usize = 4096;

fn lineup(run: &Run) -> Result<Lineup, Error> {
    let both = [Shape::Ip6, Shape::Udp8];
    let rest = [Shape::Ip4, Shape::Udp32, Shape::Checksum];
    let mut lineup = Lineup::default();
    for headroom in [Headroom::None, Headroom::Device] {
        lineup.section(headroom);
        lineup.add_plain(run, headroom)?;
        lineup.add_empty(run, headroom, Chain::Tcx)?;
        lineup.add_empty(run, headroom, Chain::Clsact)?;
        lineup.add_by_hand(run, headroom)?;
        lineup.add_ours(run, headroom, Chain::Tcx, &both, Passing::Not)?;
        lineup.add_ours(run, headroom, Chain::Clsact, &both, Passing::Not)?;
        if headroom == Headroom::None {
            lineup.add_ours(run, headroom, Chain::Tcx, &rest, Passing::Not)?;
        }
        for peer in Peer::ALL {
            lineup.add_peer(run, headroom, peer)?;
        }
    }
    Ok(lineup)
}

/// Measures it: rates, and for each variant its ratio to plain in the same round.
pub fn measure(run: &Run) -> Result<Vec<Row>, Error> {
    let mut lineup = lineup(run)?;
    let samples = Samples::take(lineup.len(), run.rounds(160), &run.interrupt, |number| {
        lineup.rate(number, PACKETS)
    })?;
    let mut rows = Vec::new();
    for (number, variant) in lineup.variants() {
        let rate = samples.summary(number).scaled(1e-6);
        rows.push(Row::new("packets", &variant.name, "Mpps", rate));
        let ratio = samples.ratio(number, variant.base);
        rows.push(Row::new("packets", &variant.name, "of plain", ratio));
    }
    Ok(rows)
}

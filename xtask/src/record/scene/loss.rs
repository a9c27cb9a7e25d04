//! A download across a wire that loses frames.

use std::path::{Path, PathBuf};

use crate::record::capture::{Capture, Tap};
use crate::record::lab::{Namespace, Pair, SERVER, UPLINK};
use crate::record::relay::{Relay, Rule};

use super::http::{curl, nginx};

/// Only full segments are lost: a lost SYN or a lost last segment costs a second and adds nothing
/// that the capture is for. The first losses are gaps within one window (slow start from 10 has
/// 40 segments under way there), so that SACK needs several blocks; the others come alone.
const LOSSY: Rule = Rule::Lose {
    length: 1_400,
    numbers: &[32, 35, 36, 40, 90, 120],
};

pub(super) fn download(home: &Path) -> anyhow::Result<PathBuf> {
    const PORTS: [&str; 2] = ["left", "right"];
    let wire = Namespace::new(home)?;
    let pair = Pair::through(home, &wire, PORTS)?;
    let _nginx = nginx(home, &pair.server)?;
    let capture = Capture::start(&pair.server, home, Tap::Device(UPLINK), "tcp port 80")?;
    for address in SERVER.both() {
        // Each transfer has a relay, and so a count, of its own.
        let _relay = Relay::start(&wire, PORTS, Rule::Forward, LOSSY)?;
        curl(home, &pair.client, address, &["200000"])?;
    }
    capture.finish()
}

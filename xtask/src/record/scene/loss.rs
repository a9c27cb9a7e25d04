//! A download across a wire that loses frames.

use std::path::{Path, PathBuf};

use crate::record::capture::{Capture, Tap};
use crate::record::lab::{Namespace, Pair, SERVER, UPLINK};
use crate::record::relay::{Relay, Rule};

use super::http::{curl, nginx};

pub(super) fn download(home: &Path) -> anyhow::Result<PathBuf> {
    const PORTS: [&str; 2] = ["left", "right"];
    let wire = Namespace::new(home)?;
    let pair = Pair::through(home, &wire, PORTS)?;
    // Only full segments are lost: a lost SYN or a lost last segment costs a second and adds
    // nothing that the capture is for.
    let lossy = Rule::Lose {
        nth: 23,
        length: 1_400,
    };
    let _relay = Relay::start(&wire, PORTS, Rule::Forward, lossy)?;
    let _nginx = nginx(home, &pair.server)?;
    let capture = Capture::start(&pair.server, home, Tap::Device(UPLINK), "tcp port 80")?;
    for address in SERVER.both() {
        curl(home, &pair.client, address, &["200000"])?;
    }
    capture.finish()
}

//! iperf3 at full speed on a device that segments for TCP.

use std::path::{Path, PathBuf};

use crate::record::capture::{Capture, Tap};
use crate::record::lab::{Offload, Pair, SERVER, UPLINK};
use crate::record::program::{Daemon, IPERF3, run};

use super::http::listening;

pub(super) fn super_packets(home: &Path) -> anyhow::Result<PathBuf> {
    let pair = Pair::direct(home, Offload::Segmentation)?;
    let _iperf3 = pair
        .server
        .enter(|| Daemon::start(IPERF3.command(home).arg("-s")))?;
    listening(&pair.server, 5201)?;
    let capture = Capture::start(&pair.client, home, Tap::Device(UPLINK), "tcp port 5201")?;
    for address in SERVER.both() {
        let address = address.to_string();
        let mut iperf3 = IPERF3.command(home);
        iperf3.args(["-c", &address, "-n", "256K", "-l", "64K"]);
        pair.client.enter(|| run(&mut iperf3))?;
    }
    capture.finish()
}

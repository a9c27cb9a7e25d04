//! iperf3 at full speed on a device that segments for TCP.

use std::path::{Path, PathBuf};

use crate::record::capture::{Capture, Tap};
use crate::record::lab::{CLIENT, Offload, Pair, SERVER, UPLINK};
use crate::record::program::{Daemon, IPERF3, run};

use super::http::listening;

pub(super) fn super_packets(home: &Path) -> anyhow::Result<PathBuf> {
    let pair = Pair::direct(home, Offload::Segmentation)?;
    // A super-packet is at most half of what may be under way: start with large windows, or a
    // short transfer never gets near 64 KB.
    pair.server
        .sysctl("net/ipv4/tcp_rmem", "4096 2097152 6291456")?;
    for (namespace, peer) in [(&pair.client, SERVER), (&pair.server, CLIENT)] {
        for address in peer.both() {
            let windows = "initcwnd 90 initrwnd 400";
            namespace.ip(home, &format!("route add {address} dev {UPLINK} {windows}"))?;
        }
    }
    let _iperf3 = pair
        .server
        .enter(|| Daemon::start(IPERF3.command(home).arg("-s")))?;
    listening(&pair.server, 5201)?;
    let capture = Capture::start(&pair.client, home, Tap::Device(UPLINK), "tcp port 5201")?;
    for address in SERVER.both() {
        let address = address.to_string();
        // Large writes for the longest super-packets, small ones for all lengths below.
        for (total, write) in [("192K", "64K"), ("63K", "9K")] {
            let mut iperf3 = IPERF3.command(home);
            iperf3.args(["-c", &address, "-n", total, "-l", write]);
            pair.client.enter(|| run(&mut iperf3))?;
        }
    }
    capture.finish()
}

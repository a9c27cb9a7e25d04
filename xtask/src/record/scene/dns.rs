//! dig against dnsmasq.

use std::path::{Path, PathBuf};

use crate::record::capture::{Capture, Tap};
use crate::record::lab::{Offload, Pair, SERVER, UPLINK};
use crate::record::program::{DIG, DNSMASQ, Daemon, run};

use super::http::listening;

/// RFC 2606 keeps this name for documentation.
const NAME: &str = "www.example.com";

pub(super) fn lookups(home: &Path) -> anyhow::Result<PathBuf> {
    let pair = Pair::direct(home, Offload::None)?;
    let mut dnsmasq = DNSMASQ.command(home);
    dnsmasq.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
    ]);
    dnsmasq.args([
        "--user=root",
        "--group=root",
        "--pid-file=",
        "--local=/example.com/",
    ]);
    dnsmasq.arg(format!("--host-record={NAME},192.0.2.80,fd00:5e::80"));
    dnsmasq.arg(format!(
        "--txt-record={NAME},{}",
        "a text of some length ".repeat(9)
    ));
    let _dnsmasq = pair.server.enter(|| Daemon::start(&mut dnsmasq))?;
    listening(&pair.server, 53)?;
    let capture = Capture::start(&pair.client, home, Tap::Device(UPLINK), "port 53")?;
    for server in SERVER.both() {
        for transport in ["+notcp", "+tcp"] {
            for (name, kind) in [
                (NAME, "A"),
                (NAME, "AAAA"),
                (NAME, "TXT"),
                ("missing.example.com", "A"),
            ] {
                let server = format!("@{server}");
                let mut dig = DIG.command(home);
                dig.args(["-r", &server, name, kind, transport, "+tries=1", "+time=5"]);
                pair.client.enter(|| run(&mut dig))?;
            }
        }
    }
    capture.finish()
}

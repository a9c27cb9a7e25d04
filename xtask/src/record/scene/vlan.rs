//! A trunk between two switches that tag the frames of one VLAN, captured on the trunk.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::record::capture::{Capture, Tap};
use crate::record::lab::{Namespace, Offload, Pair, Port, SERVER, join};
use crate::record::relay::{Relay, Rule};
use crate::record::socket::{self, Icmp};

use super::http::{curl, nginx};

const VLAN: u16 = 42;

pub(super) fn trunk(home: &Path) -> anyhow::Result<PathBuf> {
    let switch = Namespace::new(home)?;
    let pair = Pair::through(home, &switch, ["left", "right"])?;
    let port = |name, mac| Port {
        namespace: &switch,
        name,
        mac,
    };
    join(
        home,
        [&port("trunk", 0x21), &port("knurt", 0x22)],
        Offload::None,
    )?;
    let tag = Rule::Tag { vlan: VLAN };
    let _left = Relay::start(&switch, ["left", "trunk"], tag, Rule::Forward)?;
    let _right = Relay::start(&switch, ["right", "knurt"], tag, Rule::Forward)?;
    let _nginx = nginx(home, &pair.server)?;
    // Nothing but the two hosts speaks on this wire: no filter, so that ARP is in.
    let capture = Capture::start(&switch, home, Tap::Device("trunk"), "")?;
    for address in SERVER.both() {
        // The second is too long for one packet: the stack makes fragments.
        for payload in [56, 3_000] {
            ping(&pair.client, address, payload)?;
        }
        curl(home, &pair.client, address, &["1000"])?;
    }
    capture.finish()
}

/// Sends an echo request with `payload` bytes and waits for the reply.
fn ping(from: &Namespace, to: IpAddr, payload: usize) -> anyhow::Result<()> {
    let (version, request) = match to {
        IpAddr::V4(_) => (Icmp::V4, 8),
        IpAddr::V6(_) => (Icmp::V6, 128),
    };
    let socket = from.enter(|| socket::echo(version).context("an echo socket"))?;
    socket.connect(SocketAddr::new(to, 0)).context("connect")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    // Type, code; checksum and identifier are the kernel's; sequence number 1.
    let header = [request, 0, 0, 0, 0, 0, 0, 1];
    let message: Vec<u8> = header
        .into_iter()
        .chain((0..=255).cycle().take(payload))
        .collect();
    socket.send(&message).context("an echo request")?;
    socket
        .recv(&mut vec![0; message.len()])
        .context("no echo reply")?;
    Ok(())
}

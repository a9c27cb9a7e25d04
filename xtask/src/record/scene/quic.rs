//! A sender in QUIC's manner: many datagrams of one size in one call, small replies.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::record::capture::{Capture, Tap};
use crate::record::lab::{CLIENT, Offload, Pair, SERVER, UPLINK};
use crate::record::socket;

/// QUIC's smallest allowed maximum, which fits every path.
const DATAGRAM: u16 = 1200;

/// Lengths of the sends: whole and broken multiples, the kernel's maximum of datagrams in one
/// send that still fits 64 KB, and single datagrams, which are no super-packets.
const SENDS: [usize; 8] = [2_400, 12_000, 12_300, 3_601, 1_200, 700, 64_800, 24_000];

pub(super) fn super_datagrams(home: &Path) -> anyhow::Result<PathBuf> {
    let pair = Pair::direct(home, Offload::Segmentation)?;
    let capture = Capture::start(&pair.client, home, Tap::Device(UPLINK), "udp")?;
    for (client, server) in CLIENT.both().into_iter().zip(SERVER.both()) {
        let (client, server) = (
            SocketAddr::new(client, 50_000),
            SocketAddr::new(server, 4433),
        );
        let receiver = pair.server.enter(|| open(server, client))?;
        let sender = pair.client.enter(|| open(client, server))?;
        socket::segment_sends(&sender, DATAGRAM).context("UDP_SEGMENT")?;
        for (number, length) in SENDS.into_iter().enumerate() {
            let payload = payload(number, length);
            sender
                .send(&payload)
                .with_context(|| format!("a send of {length} bytes"))?;
            let mut datagram = [0; 2 * DATAGRAM as usize];
            for _ in 0..length.div_ceil(DATAGRAM.into()) {
                receiver
                    .recv(&mut datagram)
                    .context("a datagram did not arrive")?;
            }
            receiver.send(&payload[..40.min(length)])?;
            sender
                .recv(&mut datagram)
                .context("the reply did not arrive")?;
        }
    }
    capture.finish()
}

fn open(local: SocketAddr, peer: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind(local).with_context(|| format!("bind {local}"))?;
    socket
        .connect(peer)
        .with_context(|| format!("connect {peer}"))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

/// Each datagram starts like a QUIC packet with a short header and an 8-byte connection ID.
fn payload(number: usize, length: usize) -> Vec<u8> {
    const START: [u8; 9] = [0x40, 0xd1, 0x0e, 0xca, 0x9d, 0xd1, 0x0e, 0xca, 0x9d];
    (0..length)
        .map(|at| {
            let within = at % usize::from(DATAGRAM);
            START
                .get(within)
                .copied()
                .unwrap_or((at.wrapping_mul(167) ^ number) as u8)
        })
        .collect()
}

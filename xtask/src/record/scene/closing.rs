//! The ends of TCP connections. Both hosts are this process, so that the order of steps is ours.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::record::capture::{Capture, Tap};
use crate::record::lab::{Offload, Pair, SERVER, UPLINK};
use crate::record::socket;

const OPEN_PORT: u16 = 7000;
const CLOSED_PORT: u16 = 7001;

pub(super) fn endings(home: &Path) -> anyhow::Result<PathBuf> {
    let pair = Pair::direct(home, Offload::None)?;
    let capture = Capture::start(&pair.client, home, Tap::Device(UPLINK), "tcp")?;
    for server in SERVER.both() {
        let listener = pair.server.enter(|| {
            TcpListener::bind(SocketAddr::new(server, OPEN_PORT)).context("cannot listen")
        })?;
        time_wait(home, &pair, &listener, server)?;
        half_close(&pair, &listener, server)?;
        abort(&pair, &listener, server)?;
        closed_port(&pair, server)?;
    }
    capture.finish()
}

/// The client closes first and its last ACK is lost: the server repeats its FIN, and TIME_WAIT
/// answers.
fn time_wait(
    home: &Path,
    pair: &Pair,
    listener: &TcpListener,
    server: IpAddr,
) -> anyhow::Result<()> {
    let (mut client, mut peer) = connect(pair, listener, server)?;
    exchange(&mut client, &mut peer)?;
    drop(client);
    ensure!(peer.read(&mut [0; 8])? == 0, "the client did not close");
    // No route back for the ACK. The FIN comes again after 200 ms at the earliest, or after a
    // shorter loss probe; if the route is still gone then, it comes once more.
    pair.client
        .ip(home, &format!("route add blackhole {server}"))?;
    drop(peer);
    std::thread::sleep(Duration::from_millis(20));
    pair.client
        .ip(home, &format!("route del blackhole {server}"))?;
    std::thread::sleep(Duration::from_millis(1_500));
    Ok(())
}

/// The client has nothing more to say, the server still has.
fn half_close(pair: &Pair, listener: &TcpListener, server: IpAddr) -> anyhow::Result<()> {
    let (mut client, mut peer) = connect(pair, listener, server)?;
    exchange(&mut client, &mut peer)?;
    client.shutdown(Shutdown::Write)?;
    ensure!(
        peer.read(&mut [0; 8])? == 0,
        "the client's half did not close"
    );
    for _ in 0..3 {
        peer.write_all(&[b's'; 2_000])?;
    }
    drop(peer);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest)?;
    ensure!(
        rest.len() == 6_000,
        "the server's half was cut at {} bytes",
        rest.len()
    );
    Ok(())
}

/// The client gives up: RST in place of FIN.
fn abort(pair: &Pair, listener: &TcpListener, server: IpAddr) -> anyhow::Result<()> {
    let (mut client, mut peer) = connect(pair, listener, server)?;
    exchange(&mut client, &mut peer)?;
    socket::abort_on_close(&client).context("SO_LINGER")?;
    drop(client);
    ensure!(
        peer.read(&mut [0; 8]).is_err(),
        "the connection ended in order"
    );
    Ok(())
}

fn closed_port(pair: &Pair, server: IpAddr) -> anyhow::Result<()> {
    let address = SocketAddr::new(server, CLOSED_PORT);
    let refused = pair
        .client
        .enter(|| Ok(TcpStream::connect(address).is_err()))?;
    ensure!(refused, "somebody listens on the closed port");
    Ok(())
}

fn connect(
    pair: &Pair,
    listener: &TcpListener,
    server: IpAddr,
) -> anyhow::Result<(TcpStream, TcpStream)> {
    let address = SocketAddr::new(server, OPEN_PORT);
    let client = pair
        .client
        .enter(|| TcpStream::connect(address).context("cannot connect"))?;
    let (peer, _) = listener.accept().context("cannot accept")?;
    for stream in [&client, &peer] {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    }
    Ok((client, peer))
}

fn exchange(client: &mut TcpStream, peer: &mut TcpStream) -> anyhow::Result<()> {
    let mut buffer = [0; 100];
    client.write_all(&[b'c'; 100])?;
    peer.read_exact(&mut buffer)?;
    peer.write_all(&[b's'; 100])?;
    client.read_exact(&mut buffer)?;
    Ok(())
}

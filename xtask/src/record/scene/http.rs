//! nginx and curl: plain web traffic. The server and the client here also serve other scenes.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::record::capture::{Capture, Tap};
use crate::record::lab::{Namespace, Offload, Pair, SERVER, UPLINK};
use crate::record::program::{CURL, Daemon, NGINX, run};

/// Sizes of the pages that nginx serves, each under its size as name.
const PAGES: [usize; 4] = [1, 1_000, 20_000, 200_000];

pub(super) fn keep_alive(home: &Path) -> anyhow::Result<PathBuf> {
    let pair = Pair::direct(home, Offload::None)?;
    let _nginx = nginx(home, &pair.server)?;
    let capture = Capture::start(&pair.client, home, Tap::Device(UPLINK), "tcp port 80")?;
    for address in SERVER.both() {
        // One call, one connection: curl keeps it for all of them.
        curl(
            home,
            &pair.client,
            address,
            &["1", "1000", "20000", "missing", "1"],
        )?;
        let url = url(address, "20000");
        pair.client
            .enter(|| run(CURL.command(home).args(["-q", "-g", "-sS", "--head", &url])))?;
    }
    capture.finish()
}

pub(super) fn on_any_device(home: &Path) -> anyhow::Result<PathBuf> {
    let pair = Pair::direct(home, Offload::None)?;
    let _nginx = nginx(home, &pair.server)?;
    let capture = Capture::start(&pair.server, home, Tap::Any, "tcp port 80")?;
    for address in SERVER.both() {
        curl(home, &pair.client, address, &["1000"])?;
    }
    for loopback in ["127.0.0.1", "::1"] {
        curl(home, &pair.server, loopback.parse()?, &["1000"])?;
    }
    capture.finish()
}

/// Starts nginx on port 80 of every address and waits until it answers.
pub(super) fn nginx(home: &Path, namespace: &Namespace) -> anyhow::Result<Daemon> {
    for size in PAGES {
        let page: Vec<u8> = (b'a'..=b'z').cycle().take(size).collect();
        fs::write(home.join(size.to_string()), page).context("cannot write a page")?;
    }
    let root = home.display();
    let config = home.join("nginx.conf");
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {root}/{kind};"))
        .concat();
    let text = format!(
        "daemon off; master_process off; pid {root}/nginx.pid; error_log stderr; events {{}}\n\
         http {{ access_log off; server_tokens off; {temporary}\n\
         server {{ listen 80; listen [::]:80; root {root}; }} }}\n"
    );
    fs::write(&config, text).context("cannot write nginx's configuration")?;
    let mut command = NGINX.command(home);
    command.args(["-e", "stderr", "-c"]).arg(&config);
    let daemon = namespace.enter(|| Daemon::start(&mut command))?;
    listening(namespace, 80).context("nginx")?;
    Ok(daemon)
}

/// Waits until a program accepts connections on the loopback, where no capture sees the trial.
pub(super) fn listening(namespace: &Namespace, port: u16) -> anyhow::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let start = Instant::now();
    namespace.enter(|| {
        while TcpStream::connect(address).is_err() {
            ensure!(start.elapsed() < PATIENCE, "nobody listens on port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    })
}

/// Fetches pages one after the other over one connection.
pub(super) fn curl(
    home: &Path,
    namespace: &Namespace,
    server: IpAddr,
    pages: &[&str],
) -> anyhow::Result<()> {
    let mut command = CURL.command(home);
    // -q: nobody's .curlrc; -g: the brackets of an IPv6 address are no pattern.
    command
        .args(["-q", "-g", "-sS"])
        .args(pages.iter().map(|page| url(server, page)));
    namespace.enter(|| run(&mut command)).map(drop)
}

fn url(server: IpAddr, page: &str) -> String {
    format!("http://{}/{page}", SocketAddr::new(server, 80))
}

//! The namespaces around the inner process, and its end. All that recording starts and makes
//! lives in a PID, mount and network namespace whose first process is the inner one: when that
//! ends, however it ends, the kernel ends every process and removes every device.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::program::UNSHARE;

/// Far beyond what all captures take together (half a minute).
const PATIENCE: Duration = Duration::from_secs(600);

/// Namespaces and packet sockets are root's.
pub(super) fn require_root() -> anyhow::Result<()> {
    let user = std::fs::metadata("/proc/self").context("no /proc")?.uid();
    ensure!(
        user == 0,
        "recording makes network namespaces: run it as root"
    );
    Ok(())
}

/// Runs this program again as the inner process, and waits. On a signal that asks us to end, the
/// inner process and all that it started are gone when this returns with an error.
pub(super) fn run(staging: &Path, only: &[String]) -> anyhow::Result<()> {
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGINT, SIGTERM, SIGHUP] {
        let value = usize::try_from(number)?;
        signal_hook::flag::register_usize(number, Arc::clone(&signal), value)?;
    }
    let mut unshare = UNSHARE.command(staging);
    unshare.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    unshare
        .arg(std::env::current_exe()?)
        .args(["record", "--inside"])
        .arg(staging);
    unshare.args(only.iter().flat_map(|name| ["--only", name]));
    // A group of its own: Ctrl-C reaches us alone, and we end the others in order.
    unshare.stdin(Stdio::piped()).process_group(0);
    let mut child = unshare.spawn().context("cannot start unshare")?;
    // The lifeline: the inner process ends when this pipe is closed, also by our sudden death.
    let mut lifeline = child.stdin.take();
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            match signal.load(Ordering::Relaxed) {
                0 => {}
                number => bail!("ended by signal {number}; nothing is left running"),
            }
            ensure!(
                status.success(),
                "some captures could not be recorded (see above)"
            );
            return Ok(());
        }
        if signal.load(Ordering::Relaxed) != 0 || start.elapsed() > PATIENCE {
            lifeline.take();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// In the inner process: ends it when the outer one lets go of the lifeline.
pub(super) fn die_with_the_outer_process() {
    std::thread::spawn(|| {
        // Nothing is ever written: this returns at the end of the pipe.
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
}

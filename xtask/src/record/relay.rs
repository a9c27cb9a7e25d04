//! A wire with faults, in user space: carries frames between two ports and tags or loses some.
//! The kernel's own means (netem, 802.1Q devices) are modules that not every kernel has.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;

use super::lab::Namespace;
use super::socket;

/// What happens to a frame on its way.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    Forward,
    /// Inserts an 802.1Q tag. (Taking it off needs no rule: the kernel does so on receipt.)
    Tag {
        vlan: u16,
    },
    /// Loses these of the frames that are longer than `length`, counted from 1.
    Lose {
        length: usize,
        numbers: &'static [usize],
    },
}

/// Running relays; they end when this is dropped.
pub(super) struct Relay {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// How long a relay waits for a frame before it looks whether it should end.
const PATIENCE: Duration = Duration::from_millis(50);

impl Relay {
    /// Carries frames between the two ports of `middle`: `there` applies from the first to the
    /// second, `back` the other way.
    pub(super) fn start(
        middle: &Namespace,
        [first, second]: [&str; 2],
        there: Rule,
        back: Rule,
    ) -> anyhow::Result<Self> {
        let open = |name| socket::packet(name, PATIENCE).with_context(|| format!("port {name}"));
        let [a, b] = middle.enter(|| Ok([open(first)?, open(second)?]))?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (from, to, rule) in [(a.try_clone()?, b.try_clone()?, there), (b, a, back)] {
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || carry(from, to, rule, &stop)));
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A relay that panicked has shown as frames that are missing from the capture.
            let _ = thread.join();
        }
    }
}

fn carry(mut from: File, mut to: File, rule: Rule, stop: &AtomicBool) {
    let mut frame = vec![0; 1 << 16];
    let mut long = 0;
    while !stop.load(Ordering::Relaxed) {
        let length = match from.read(&mut frame) {
            Ok(length) => length,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                continue;
            }
            // The port is gone: the laboratory is being taken down.
            Err(_) => return,
        };
        let frame = frame.get(..length).unwrap_or_default();
        // A frame that cannot be sent is a frame lost on the wire.
        let _ = match rule {
            Rule::Forward => to.write(frame),
            Rule::Tag { vlan } => to.write(&tagged(frame, vlan)),
            Rule::Lose { length, numbers } => {
                let counts = frame.len() > length;
                long += usize::from(counts);
                if counts && numbers.contains(&long) {
                    Ok(0)
                } else {
                    to.write(frame)
                }
            }
        };
    }
}

/// The frame with an 802.1Q tag of priority 0 behind its two addresses.
fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    const ADDRESSES: usize = 12;
    let (addresses, rest) = frame.split_at(frame.len().min(ADDRESSES));
    [addresses, &[0x81, 0x00], &vlan.to_be_bytes(), rest].concat()
}

#[cfg(test)]
mod tests {
    use super::tagged;

    #[test]
    fn tag_stands_between_addresses_and_type() {
        let frame: Vec<u8> = (0..20).collect();
        let out = tagged(&frame, 0x0123);
        assert_eq!(out[..12], frame[..12]);
        assert_eq!(out[12..16], [0x81, 0x00, 0x01, 0x23]);
        assert_eq!(out[16..], frame[12..]);
    }
}

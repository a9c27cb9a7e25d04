//! Counts frames that devices of the lab dropped: a capture cannot miss what never reached it.

use crate::{Error, namespace::Namespace};
use std::{fs::File, os::unix::fs::FileExt};

/// The transmit-drop counters of all devices of one namespace.
pub(super) struct TransmitDrops {
    statistics: File,
    accounted: u64,
    place: &'static str,
}

impl TransmitDrops {
    pub(super) fn of(namespace: &Namespace, place: &'static str) -> Result<Self, Error> {
        // An open file of this kind keeps to the namespace in which it was opened.
        let statistics = namespace.in_namespace(|| {
            File::open("/proc/thread-self/net/dev").map_err(Error::syscall("/proc/net/dev"))
        })?;
        Ok(Self {
            statistics,
            accounted: 0,
            place,
        })
    }

    /// A drop of which the sender was told.
    pub(super) fn account(&mut self) {
        self.accounted += 1;
    }

    /// Fails if a device dropped more than was accounted for.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        let mut buffer = [0; 4096];
        let length = self
            .statistics
            .read_at(&mut buffer, 0)
            .map_err(Error::syscall("/proc/net/dev"))?;
        let drops = transmit_drops(&String::from_utf8_lossy(&buffer[..length]));
        match drops.checked_sub(self.accounted) {
            None | Some(0) => Ok(()),
            Some(frames) => {
                self.accounted = drops;
                Err(Error::Lost {
                    frames,
                    place: self.place,
                })
            }
        }
    }
}

/// The sum of the transmit `drop` columns:
///
/// ```text
/// face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop …
/// ```
fn transmit_drops(statistics: &str) -> u64 {
    statistics
        .lines()
        .filter_map(|line| {
            line.split_once(':')?
                .1
                .split_whitespace()
                .nth(11)?
                .parse()
                .ok()
        })
        .fold(0, |sum: u64, drops: u64| sum.saturating_add(drops))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transmit_drops_are_summed_over_devices() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop\n    \
                    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n   \
                    up0: 1 2 3 4 5 6 7 8 9 10 11 30 13 14 15 16\n";
        assert_eq!(transmit_drops(text), 42);
    }
}

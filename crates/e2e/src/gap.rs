//! How long a receiver waited: the longest time between two frames with payload.

use crate::capture::Observer;
use std::time::{Duration, Instant};

/// Frames shorter than this carry no bulk payload.
const PAYLOAD: usize = 600;

/// Watches the times at which frames arrive.
#[derive(Debug, Default)]
pub struct Gaps {
    last: Option<Instant>,
    /// The longest time without a frame, since the first one.
    pub longest: Duration,
    /// Frames with payload.
    pub frames: u64,
}

impl Observer for Gaps {
    fn frame(&mut self, bytes: &[u8]) {
        if bytes.len() < PAYLOAD {
            return;
        }
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(now - last);
        }
        self.frames += 1;
    }
}

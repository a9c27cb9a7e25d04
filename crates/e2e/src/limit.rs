//! How long to wait: the one function through which every time limit goes, so that a machine
//! that is slow throughout (an emulated one) needs one setting.

use std::{env, sync::OnceLock, time::Duration};

/// `time`, as many times as `DYNENCAP_SLOW` says (a number from 1 on; without it, once).
#[must_use]
pub fn limit(time: Duration) -> Duration {
    time * factor()
}

/// The same in seconds.
#[must_use]
pub fn seconds(seconds: u64) -> Duration {
    limit(Duration::from_secs(seconds))
}

/// How much to send: `amount`, and as much less where all takes longer.
#[must_use]
pub fn amount(amount: u64) -> u64 {
    amount / u64::from(factor())
}

fn factor() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    *FACTOR.get_or_init(|| match env::var("DYNENCAP_SLOW") {
        Ok(text) => text
            .parse()
            .ok()
            .filter(|&factor| factor > 0)
            .expect("DYNENCAP_SLOW: a number from 1 on"),
        Err(_) => 1,
    })
}

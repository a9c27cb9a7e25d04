//! A graceful stop: SIGINT and SIGTERM become a flag that a replay looks at, so that what
//! the lab made is taken down by its `Drop` as in any other end.

use crate::Error;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Whether a stop was asked for. Clones share the answer.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
}

impl Interrupt {
    /// Catches SIGINT and SIGTERM from now on. The second one ends the process at once.
    pub fn on_signals() -> Result<Self, Error> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // Registered first, so that it sees the flag of an earlier signal only.
            flag::register_conditional_default(signal, Arc::clone(&interrupt.flag))
                .map_err(Error::syscall("sigaction"))?;
            flag::register(signal, Arc::clone(&interrupt.flag))
                .map_err(Error::syscall("sigaction"))?;
        }
        Ok(interrupt)
    }

    /// Asks for a stop, as a signal does.
    pub fn request(&self) {
        self.flag.store(true, Ordering::SeqCst);
    }

    /// `Err(Error::Interrupted)` once a stop was asked for.
    pub fn check(&self) -> Result<(), Error> {
        if self.flag.load(Ordering::SeqCst) {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }
}

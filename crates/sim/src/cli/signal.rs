//! SIGINT and SIGTERM: the first asks for an orderly end, a second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Ended by a signal: its number is added, as shells do.
const EXIT_SIGNAL: u8 = 128;

/// What signals have come.
pub(crate) struct Signals {
    /// Set by the first.
    pub(crate) interrupted: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// Looks out for them from now on.
    pub(crate) fn watch() -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let number = Arc::new(AtomicUsize::new(0));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&interrupted))?;
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
            let value = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&number), value)?;
        }
        Ok(Self {
            interrupted,
            number,
        })
    }

    /// The exit code of a process that a signal ended.
    pub(crate) fn exit_code(&self) -> u8 {
        EXIT_SIGNAL + self.number.load(Ordering::Relaxed) as u8
    }
}

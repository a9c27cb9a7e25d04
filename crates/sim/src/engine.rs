//! The engines' common face: events in, outcomes out.
//!
//! This file owns what an outcome is; the adapters in `engine/` translate it to and from the
//! model, the vm and the kernel.

use crate::event::Batch;
use crate::scenario::HostSpec;
use dynencap_abi::Reason;
use std::ops::Range;

mod frames;
mod kernel;
mod model;
mod quote;
mod vm;

pub use frames::{Bytes, Frames, OutFrame, Port};
pub use kernel::KernelEngine;
pub use model::ModelEngine;
pub use vm::VmEngine;

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum EngineKind {
    /// The reference in pure Rust.
    Model,
    /// The real bytecode, interpreted.
    Vm,
    /// The real bytecode in the running kernel.
    Kernel,
}

impl EngineKind {
    /// All of them, the reference first.
    pub const ALL: [Self; 3] = [Self::Model, Self::Vm, Self::Kernel];

    /// The name in reports and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Vm => "vm",
            Self::Kernel => "kernel",
        }
    }
}

/// What one event led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The frame's verdict, where the engine knows it per event.
    pub reason: Option<Reason>,
    /// The errno of an option call, 0 for success.
    pub errno: Option<i32>,
    /// What an option read back.
    pub value: Option<Vec<u8>>,
    /// Frames that came out, as places in [`Outcomes::frames`].
    pub frames: Range<usize>,
    /// How many segments a super-packet was cut into; 0 for any other packet.
    pub segments: u32,
}

/// What a batch led to.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// One for each event of the batch.
    pub events: Vec<Outcome>,
    /// Everything that came out, in order.
    pub frames: Frames,
    /// Runs of the programs by reason, as the engine's own counters say, for this batch.
    pub counters: [u64; Reason::COUNT],
    /// The batch's frames by reason, one each: a super-packet that was cut first counts once,
    /// with its first segment's reason.
    pub verdicts: [u64; Reason::COUNT],
    /// Faults of the engine itself: a bytecode fault, a frame that could not be sent.
    pub faults: Vec<Fault>,
}

/// Something that an engine could not carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which event of the batch.
    pub event: usize,
    /// What went wrong, in words.
    pub what: String,
}

impl Outcomes {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.events.clear();
        self.frames.clear();
        self.counters = [0; Reason::COUNT];
        self.verdicts = [0; Reason::COUNT];
        self.faults.clear();
    }

    /// Adds what an event led to, and its verdict, if it has one, to the tally.
    fn push(&mut self, outcome: Outcome) {
        if let Some(count) = outcome
            .reason
            .and_then(|r| self.verdicts.get_mut(r as usize))
        {
            *count += 1;
        }
        self.events.push(outcome);
    }
}

/// Whether an engine can tell which event a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribution {
    /// Frames and reasons stand at their event.
    PerEvent,
    /// Frames stand in order for the whole batch; reasons are counters alone.
    PerBatch,
}

/// A host that events happen to.
pub trait Engine {
    /// Which one.
    fn kind(&self) -> EngineKind;
    /// What its outcomes can tell.
    fn attribution(&self) -> Attribution;
    /// Lets the events of a batch happen, in order. `outcomes` has been cleared.
    ///
    /// # Errors
    /// The engine as such failed (a lost capture, a socket that could not be made): the replay
    /// cannot go on with it.
    fn run(&mut self, batch: &Batch, outcomes: &mut Outcomes) -> Result<(), EngineError>;
}

/// An engine that cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It cannot run in this place, for this process.
    #[error("the {engine} engine cannot run here: {reason}")]
    Unavailable {
        /// Its name.
        engine: &'static str,
        /// Why, in words.
        reason: String,
    },
    /// It failed on the way.
    #[error("the {engine} engine failed: {reason}")]
    Failed {
        /// Its name.
        engine: &'static str,
        /// Why, in words.
        reason: String,
    },
}

impl EngineError {
    fn failed(kind: EngineKind, source: &dyn std::error::Error) -> Self {
        Self::Failed {
            engine: kind.name(),
            reason: chain(source),
        }
    }
}

/// An error with everything that caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Starts an engine for a host; `attribution` is what the kernel is asked for, the others
/// tell events apart in any case.
///
/// # Errors
/// [`EngineError::Unavailable`] where it cannot run, [`EngineError::Failed`] where it should
/// have.
pub fn start(
    kind: EngineKind,
    host: &HostSpec,
    object: &[u8],
    attribution: Attribution,
) -> Result<Box<dyn Engine>, EngineError> {
    Ok(match kind {
        EngineKind::Model => Box::new(ModelEngine::new(host)),
        EngineKind::Vm => Box::new(VmEngine::new(host, object)?),
        EngineKind::Kernel => Box::new(KernelEngine::new(host, object, attribution)?),
    })
}

//! The real kernel as an engine: loads and attaches the BPF object, makes a lab of network
//! namespaces to run it in, and replays packets through it.
//!
//! What the programs should do is left to the model, what to compare to the simulator. Nothing
//! here outlives the process: namespaces have no names, programs and maps are not pinned. What
//! stays is what operators want to stay: [`install`] and [`host`].

pub mod attach;
mod cgroup;
mod error;
pub mod feature;
pub mod host;
pub mod install;
mod interrupt;
pub mod lab;
pub mod namespace;
pub mod object;
mod policy;
pub mod replay;
pub mod sys;

pub use attach::{Chain, DeviceProgram};
pub use cgroup::Cgroup;
pub use error::Error;
pub use feature::{Feature, Unavailable, probe};
pub use interrupt::Interrupt;
pub use lab::Lab;
pub use namespace::Namespace;
pub use object::Loaded;
pub use replay::{FlowId, Gso, Packet, Port, Replay, Transport};

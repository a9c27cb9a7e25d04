//! dynsim: real traces through the model, the bytecode in the vm and the bytecode in the
//! kernel, compared byte for byte.
//!
//! ```text
//! trace ─► director ─► batch of events ─► each engine ─► outcomes ─► compare ─► report, writer
//!              ▲ scenario
//! ```
//!
//! This crate owns traces, scenarios, the engines' common face, the comparison and the report.
//! What a packet becomes is the engines' affair; none of them is known to another.

#![deny(unsafe_code)]

pub mod compare;
pub mod director;
pub mod engine;
pub mod event;
pub mod field;
pub mod measure;
pub mod replay;
pub mod report;
pub mod reproduce;
pub mod scenario;
pub mod trace;
pub mod workload;
pub mod writer;

/// The committed BPF object that this build carries.
#[must_use]
pub fn built_in_object() -> Vec<u8> {
    // Copied, since an ELF reader wants it aligned.
    include_bytes!("../../bpf/dynencap.bpf.o").to_vec()
}

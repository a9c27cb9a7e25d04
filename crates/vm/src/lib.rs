//! Runs the committed BPF object in user space, instruction by instruction, without root: the
//! same bytecode that the kernel runs, over emulated maps, sockets and helpers.
//!
//! Bird's-eye view: [`Machine`] owns everything. `object` takes programs and maps out of the
//! ELF file, `insn` decodes, `sequence` joins, `interpreter` runs, `memory` says which bytes a program may touch,
//! `helper` does what the kernel's helpers do, `context` lays out what programs get in r1,
//! `option`, `hook` and `machine` are the hooks, `socket` what they are about. [`gso`] is what the kernel does with a super-packet
//! after the program.
//!
//! Invariants: nothing here panics on any bytecode, frame or option; a run depends on nothing
//! but its inputs (clock and seed are inputs); a program that does what the verifier would have
//! refused gets a [`Fault`] that names program, instruction and source line.

#![forbid(unsafe_code)]

mod checksum;
mod context;
mod fault;
pub mod gso;
mod helper;
mod hook;
mod insn;
mod interpreter;
mod key;
mod machine;
mod map;
mod memory;
mod object;
mod option;
mod prefix;
mod room;
mod sequence;
mod skb;
mod socket;

#[cfg(test)]
mod tests;

pub use fault::{Access, Fault, FaultKind, LoadError, MapError};
pub use helper::{Direction, Redirect};
pub use hook::{ArrivalRun, CreateSocket, SockOpsRun};
pub use interpreter::Meter;
pub use machine::{Listed, Machine, MapEntry, Storages, TcRun};
pub use option::{GetOption, SetOption};
pub use sequence::LONGEST as LONGEST_SEQUENCE;
pub use skb::{Encapsulation, Gso, GsoKind, Skb, Tunnel};
pub use socket::{Endpoints, SocketId, SocketKind, TcpState};

//! The reference of the data path: sections 1 to 6 of `docs/datapath.md` in pure Rust.
//!
//! No I/O, no clock, no unsafe code, no knowledge of BPF. The step is total: whatever the
//! bytes, every packet gets exactly one reason and nothing panics. With the BPF programs it
//! shares the layouts and constants of `dynencap-abi` and no logic.
//!
//! Nothing is copied but headers: a [`Sink`] receives each frame as parts, of which the
//! payload still lies in the caller's packet.

#![forbid(unsafe_code)]

mod checksum;
mod decapsulation;
mod ecn;
mod encapsulation;
mod extension;
pub mod flow;
mod host;
pub mod mtu;
mod packet;
pub mod reflection;
pub mod segment;
mod socket;
mod tunnel;
mod wire;

pub use dynencap_abi as abi;
pub use host::{Egress, Host};
pub use packet::{Frame, Packet, Sink};
pub use socket::{Errno, OptionValue, Socket, SocketKind};
pub use tunnel::Tunnels;

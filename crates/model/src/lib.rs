//! The reference of the data path: sections 1 to 8 of `docs/datapath.md` in pure Rust.
//!
//! No I/O, no clock, no unsafe code, no knowledge of BPF. The step is total: whatever the
//! bytes, every packet gets exactly one reason and nothing panics. With the BPF programs it
//! shares the layouts and constants of `dynencap-abi` and no logic.
//!
//! Nothing is copied but headers: a [`Sink`] receives each frame as parts, of which the
//! payload still lies in the caller's packet. ([`Host::transmit`] alone copies each segment,
//! into one buffer that it keeps.)

#![forbid(unsafe_code)]

mod checksum;
mod custom;
mod decapsulation;
pub mod device;
mod ecn;
mod encapsulation;
mod extension;
pub mod flow;
mod hook;
mod host;
mod learning;
pub mod mss;
pub mod mtu;
mod option;
mod outer;
mod owner;
mod packet;
mod path;
mod policy;
pub mod reflection;
pub mod segment;
mod socket;
mod step;
mod storage;
mod too_big;
mod tunnel;
mod wire;

pub use dynencap_abi as abi;
pub use hook::{Hook, Need};
pub use host::Host;
pub use option::{Errno, OptionValue};
pub use owner::{Found, Origin, Sockets};
pub use packet::{Frame, Packet, Port, Sink};
pub use policy::Policies;
pub use reflection::{Incoming, Receiver, Sequence};
pub use socket::{Socket, SocketKind, TcpState};
pub use step::{Egress, Ingress};
pub use storage::Reflecting;
pub use tunnel::Tunnels;

//! What an application links to choose the exit of a connection, per socket and without
//! privileges. No BPF here, and no knowledge of who installed the programs.
//!
//! ```no_run
//! use dynencap::{Exit, ExitSocket};
//! use std::net::TcpStream;
//!
//! let stream = TcpStream::connect("[2001:db8:1::80]:80")?;
//! let exit: Exit = "2001:db8::1/udp:6080".parse()?;
//! stream.set_exit(&exit)?; // the next packet leaves through it
//! assert_eq!(stream.exit()?, Some(exit));
//! stream.clear_exit()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An exit that is set *before* `connect` gives the connection its smaller MSS from the first
//! packet on; one that is set later costs retransmissions where its overhead is larger than
//! every one before (docs/switch.md). Both work.
//!
//! Each `setsockopt` is atomic: the next packet goes to the new exit as a whole. A switch that
//! changes the gateway *and* the UDP part takes two of them, and packets in between (of other
//! threads, or retransmissions) carry the old gateway with the new UDP part; see
//! [`ExitSocket::set_exit`].
//!
//! A server answers through the path by which its clients came (reflection) where the operator
//! lets it; it can say so itself, listener by listener: [`ExitSocket::set_reflect`].
//!
//! In C: `include/dynencap.h`.

mod error;
mod exit;
mod reflect;
mod socket;
mod sys;

pub use dynencap_abi::Reason;
pub use error::Error;
pub use exit::{Exit, Header, ParseExitError, Udp};
pub use reflect::{ParseReflectError, Reflect};
pub use socket::{ExitSocket, Info};

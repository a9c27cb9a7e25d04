//! Packet captures: a streaming reader of pcap and pcapng, the split between a frame's
//! link layer and its network packet, and writers of both formats.
//!
//! What a packet means, and what becomes of it, is left to the engines; where a written
//! file goes and how it gets there in one piece is left to the caller.
//!
//! The framing is our own. `pcap-file` 2 refuses captures cut by their snap length
//! (original length over the file's snap length) and comments that are not UTF-8, takes
//! every pcapng timestamp for nanoseconds whatever the interface's resolution, and its
//! errors tell neither packet nor offset; it is also the slower of the two. It serves the
//! tests as the independent reader.
//!
//! Memory is bounded whatever the file says: one buffer, which grows to
//! [`MAX_BLOCK`] at most, and the interfaces of one section.

mod chunk;
mod error;
mod interface;
mod link;
mod link_type;
mod order;
mod pcap;
mod pcapng;
mod reader;
mod source;
mod time;
mod write;

pub use chunk::{CHUNK, Chunked, Chunks, HEADROOM, Reading, read_chunk};
pub use error::{Fault, TraceError, WriteError};
pub use link::{Direction, Link, LinkDefect, link};
pub use link_type::LinkType;
pub use reader::{Format, Frame, Reader};
pub use time::Timestamp;
pub use write::{Packet, PcapWriter, PcapngWriter, Resolution};

/// The longest packet taken from, or written to, any capture. BIG TCP reaches 512 KiB.
pub const MAX_CAPTURED: u32 = 1 << 20;

/// The longest packet taken when the capture states a lower snap length: captures exceed
/// theirs (BIG TCP under the once usual 65535), and 256 KiB is what libpcap forgives.
pub const FORGIVEN_CAPTURED: u32 = 256 << 10;

/// The longest pcapng block read as a whole (a packet or an interface with its options).
pub const MAX_BLOCK: u32 = 2 * MAX_CAPTURED;

/// The most bytes that a packet may have where the capture states this snap length; 0
/// stands for none stated.
fn captured_limit(snap_length: u32) -> u32 {
    match snap_length {
        0 => MAX_CAPTURED,
        stated => stated.clamp(FORGIVEN_CAPTURED, MAX_CAPTURED),
    }
}

#[cfg(test)]
mod tests;

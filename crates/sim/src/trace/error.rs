//! What can be wrong with a capture, and what cannot be written into one.

use std::io;

use super::{LinkType, Timestamp};

/// The one error that ends the reading of a broken capture.
#[derive(Debug, thiserror::Error)]
#[error("{file}: packet {packet} at byte {offset}: {fault}")]
pub struct TraceError {
    /// The capture's name as given to the reader.
    pub file: String,
    /// Number, from 1, of the packet that could not be read; for what stands before a
    /// packet (file header, interface), of the packet that would have followed.
    pub packet: u64,
    /// Where in the file the record or field begins that is wrong.
    pub offset: u64,
    /// What was expected there, and what was found. Not a source to errors' chains: the
    /// message above has it already.
    pub fault: Fault,
}

/// What was expected of the file, and what was found.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The input could not be read.
    #[error("expected to read on, found an input error: {source}")]
    Read {
        /// What the operating system said.
        source: io::Error,
    },
    /// The file ends inside a record.
    #[error("expected {wanted} bytes of {what}, found {found} and the end of the file")]
    Truncated {
        /// The record.
        what: &'static str,
        /// Its length.
        wanted: u64,
        /// How much of it is there.
        found: u64,
    },
    /// Neither pcap nor pcapng.
    #[error(
        "expected the magic number of pcap (a1b2c3d4, a1b23c4d) or pcapng (0a0d0d0a), found {:08x}",
        u32::from_be_bytes(*.found)
    )]
    Magic {
        /// The first bytes of the file.
        found: [u8; 4],
    },
    /// The pcap variant with longer record headers that patched libpcaps once wrote.
    #[error(
        "expected the magic number a1b2c3d4 or a1b23c4d, found a1b2cd34: Kuznetzov's modified pcap \
         is not supported, convert it first"
    )]
    Modified,
    /// Neither byte order gives pcapng's byte-order magic.
    #[error("expected the byte-order magic 1a2b3c4d, found {:08x}", u32::from_be_bytes(*.found))]
    ByteOrder {
        /// The bytes in its place.
        found: [u8; 4],
    },
    /// A version that this reader does not know.
    #[error("expected {format} version {expected}, found {major}.{minor}")]
    Version {
        /// pcap or pcapng.
        format: &'static str,
        /// The supported ones.
        expected: &'static str,
        /// Found.
        major: u16,
        /// Found.
        minor: u16,
    },
    /// A packet longer than its capture can hold.
    #[error("expected a captured length of at most {limit} bytes, found {found}")]
    CapturedLength {
        /// The limit that follows from the snap length.
        limit: u32,
        /// The stated length.
        found: u32,
    },
    /// A pcapng block whose length cannot be.
    #[error(
        "expected the {block} to be {minimum} to {maximum} bytes long, a multiple of 4, found {found}"
    )]
    BlockLength {
        /// The block's name.
        block: &'static str,
        /// Its fixed part.
        minimum: u32,
        /// The limit.
        maximum: u32,
        /// The stated length.
        found: u32,
    },
    /// The length behind a block differs from the one in front.
    #[error("expected {expected}, the {block}'s length, repeated behind it, found {found}")]
    TrailingLength {
        /// The block's name.
        block: &'static str,
        /// The length in front.
        expected: u32,
        /// The length behind.
        found: u32,
    },
    /// A packet longer than the block around it.
    #[error("expected the {block} to have room for {captured} captured bytes, found {room}")]
    Overrun {
        /// The block's name.
        block: &'static str,
        /// The stated captured length.
        captured: u32,
        /// What the block's own length leaves.
        room: u32,
    },
    /// An option longer than the block around it, or shorter than its value.
    #[error("expected option {code} to take {expected} bytes, found {found}")]
    OptionLength {
        /// The option's code.
        code: u16,
        /// Its stated or defined length.
        expected: usize,
        /// What is there.
        found: usize,
    },
    /// A packet of an interface that the section has not described.
    #[error(
        "expected one of the section's {count} interfaces, found a packet of interface {found}"
    )]
    Interface {
        /// Interfaces described so far.
        count: usize,
        /// The packet's.
        found: u32,
    },
    /// More interfaces in a section than are kept.
    #[error("expected at most {limit} interfaces in a section, found one more")]
    TooManyInterfaces {
        /// The limit.
        limit: usize,
    },
    /// A packet of a link type that cannot be replayed.
    #[error(
        "expected a link type among {}, found {number} ({}) on interface {interface}",
        LinkType::supported(),
        LinkType::name_of(*.number)
    )]
    LinkType {
        /// As in the file.
        number: u32,
        /// The packet's interface, counted over the whole file.
        interface: u32,
    },
}

/// A fault and its place; the reader adds file and packet.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) offset: u64,
    pub(super) fault: Fault,
}

/// Why a packet was not written. Nothing of it is then in the file, an input/output
/// error apart.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output could not be written.
    #[error("cannot write the capture")]
    Output {
        /// What the operating system said.
        #[from]
        source: io::Error,
    },
    /// More bytes than the reader would take back.
    #[error("a packet of {length} bytes is longer than a capture's {limit}")]
    PacketLength {
        /// The packet's.
        length: usize,
        /// [`super::MAX_CAPTURED`].
        limit: u32,
    },
    /// An option's length is a 16-bit number.
    #[error("a comment of {length} bytes is longer than an option's 65535")]
    CommentLength {
        /// The comment's.
        length: usize,
    },
    /// pcap has one link type for the whole file.
    #[error("a pcap file of link type {} cannot hold a packet of {}", .file.name(), .packet.name())]
    LinkType {
        /// The file's.
        file: LinkType,
        /// The packet's.
        packet: LinkType,
    },
    /// pcap counts seconds in 32 bits.
    #[error("pcap cannot tell an instant past 2106: {} ns", .time.0)]
    Time {
        /// The packet's.
        time: Timestamp,
    },
}

//! Writers of captures. Both stream; neither flushes, so that the caller decides when a
//! file is whole.

use std::io::Write;

use super::error::WriteError;
use super::interface::TIME_RESOLUTION;
use super::pcap::{MICROSECONDS, NANOSECONDS};
use super::pcapng::{BYTE_ORDER_MAGIC, ENHANCED_PACKET, INTERFACE, SECTION_HEADER};
use super::{LinkType, MAX_CAPTURED, Timestamp};

/// A packet to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When it was on the link.
    pub time: Timestamp,
    /// What `bytes` begin with.
    pub link_type: LinkType,
    /// What there is of it.
    pub bytes: &'a [u8],
    /// Its length on the wire.
    pub original_len: u32,
    /// Shown beside it by readers of pcapng; pcap has no room for one.
    pub comment: Option<&'a str>,
}

/// In what unit a pcap file counts the fraction of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// What every reader takes; finer times are cut.
    Microsecond,
    /// As precise as [`Timestamp`].
    Nanosecond,
}

/// Writes pcapng in nanoseconds, one interface per link type.
#[derive(Debug)]
pub struct PcapngWriter<W> {
    output: W,
    /// The place is the interface's number.
    interfaces: Vec<LinkType>,
    /// Of the block in hand, kept for its room.
    block: Vec<u8>,
}

const HARDWARE: u16 = 2;
const OPERATING_SYSTEM: u16 = 3;
const USER_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const COMMENT: u16 = 1;

impl<W: Write> PcapngWriter<W> {
    /// Writes the section header; interfaces follow as packets need them. The header
    /// says nothing of the machine: the same packets make the same file anywhere.
    pub fn new(output: W) -> Result<Self, WriteError> {
        let mut writer = PcapngWriter {
            output,
            interfaces: Vec::new(),
            block: Vec::new(),
        };
        writer.begin(SECTION_HEADER);
        writer.words([BYTE_ORDER_MAGIC]);
        writer.block.extend_from_slice(&[1, 0, 0, 0]);
        // The section's length: not known while streaming.
        writer.block.extend_from_slice(&u64::MAX.to_le_bytes());
        for code in [HARDWARE, OPERATING_SYSTEM, USER_APPLICATION] {
            writer.option(code, b"dynsim");
        }
        writer.option(0, &[]);
        writer.end()?;
        Ok(writer)
    }

    /// Writes one packet, after its interface where that is new.
    pub fn write(&mut self, packet: &Packet<'_>) -> Result<(), WriteError> {
        let comment = packet.comment.unwrap_or_default();
        if u16::try_from(comment.len()).is_err() {
            return Err(WriteError::CommentLength {
                length: comment.len(),
            });
        }
        let interface = self.interface(packet.link_type)?;
        self.block.clear();
        if !comment.is_empty() {
            self.option(COMMENT, comment.as_bytes());
            self.option(0, &[]);
        }
        let EnhancedPacket {
            front,
            padding,
            length,
        } = EnhancedPacket::new(packet, packet.bytes.len(), interface, self.block.len())?;
        self.output
            .write_all(front.map(u32::to_le_bytes).as_flattened())?;
        self.output.write_all(packet.bytes)?;
        self.output
            .write_all([0; 3].get(..padding).unwrap_or_default())?;
        self.output.write_all(&self.block)?;
        Ok(self.output.write_all(&length.to_le_bytes())?)
    }

    /// The same for a packet of `captured` bytes that the caller writes between what stands
    /// around them; the packet's own are not looked at, nor its comment.
    #[inline]
    pub(crate) fn enhanced_packet(
        &mut self,
        packet: &Packet<'_>,
        captured: usize,
    ) -> Result<EnhancedPacket, WriteError> {
        let interface = self.interface(packet.link_type)?;
        EnhancedPacket::new(packet, captured, interface, 0)
    }

    /// Where it writes to.
    #[inline]
    pub(crate) fn output_mut(&mut self) -> &mut W {
        &mut self.output
    }

    /// Gives the output back.
    pub fn into_inner(self) -> W {
        self.output
    }

    #[inline]
    fn interface(&mut self, link_type: LinkType) -> Result<u32, WriteError> {
        match self.interfaces.iter().position(|known| *known == link_type) {
            Some(known) => Ok(known as u32),
            None => self.new_interface(link_type),
        }
    }

    fn new_interface(&mut self, link_type: LinkType) -> Result<u32, WriteError> {
        self.begin(INTERFACE);
        // No snap length: packets are whole as far as this file is concerned.
        self.words([u32::from(link_type.number()), 0]);
        self.option(INTERFACE_NAME, link_type.name().as_bytes());
        self.option(TIME_RESOLUTION, &[9]);
        self.option(0, &[]);
        self.end()?;
        self.interfaces.push(link_type);
        Ok(self.interfaces.len() as u32 - 1)
    }

    fn begin(&mut self, kind: u32) {
        self.block.clear();
        // The length stands in as zero until the end shows it.
        self.words([kind, 0]);
    }

    fn words<const N: usize>(&mut self, words: [u32; N]) {
        for word in words {
            self.block.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    /// The caller has checked that the value's length fits.
    fn option(&mut self, code: u16, value: &[u8]) {
        self.words([u32::from(code) | (value.len() as u32) << 16]);
        self.padded(value);
    }

    fn end(&mut self) -> Result<(), WriteError> {
        let length = self.block.len() as u32 + 4;
        self.words([length]);
        if let Some(field) = self.block.get_mut(4..8) {
            field.copy_from_slice(&length.to_le_bytes());
        }
        Ok(self.output.write_all(&self.block)?)
    }
}

/// What stands around the bytes of a packet in its Enhanced Packet Block.
pub(crate) struct EnhancedPacket {
    front: [u32; Self::FRONT / 4],
    /// How many zeros fill the packet's last word.
    padding: usize,
    /// The block's.
    length: u32,
}

impl EnhancedPacket {
    const FRONT: usize = 28;

    #[inline]
    fn new(
        packet: &Packet<'_>,
        captured: usize,
        interface: u32,
        options: usize,
    ) -> Result<Self, WriteError> {
        const AROUND: u32 = EnhancedPacket::FRONT as u32 + 4;
        let captured = captured_length(captured)?;
        let padding = captured.next_multiple_of(4) - captured;
        // Options are two and shorter than 64 KiB.
        let length = AROUND + captured + padding + options as u32;
        let Timestamp(ticks) = packet.time;
        Ok(Self {
            front: [
                ENHANCED_PACKET,
                length,
                interface,
                (ticks >> 32) as u32,
                ticks as u32,
                captured,
                packet.original_len,
            ],
            padding: padding as usize,
            length,
        })
    }

    /// Adds what stands in front of the packet.
    #[inline]
    pub(crate) fn begin(&self, output: &mut Vec<u8>) {
        let at = output.len();
        // Word by word in its place: to build it elsewhere and copy it waits for each word.
        output.extend_from_slice(&[0; Self::FRONT]);
        let (fields, _) = output.get_mut(at..).unwrap_or_default().as_chunks_mut();
        for (field, word) in fields.iter_mut().zip(self.front) {
            *field = word.to_le_bytes();
        }
    }

    /// Adds what stands behind it, where there are no options.
    #[inline]
    pub(crate) fn end(&self, output: &mut Vec<u8>) {
        let end = output.len() + self.padding + 4;
        // Of constant length, and so without a call.
        output.extend_from_slice(&[0; 3 + 4]);
        output.truncate(end);
        if let Some(field) = output.last_chunk_mut() {
            *field = self.length.to_le_bytes();
        }
    }
}

/// Writes classic pcap.
#[derive(Debug)]
pub struct PcapWriter<W> {
    output: W,
    link_type: LinkType,
    resolution: Resolution,
}

impl<W: Write> PcapWriter<W> {
    /// Writes the file header.
    pub fn new(
        mut output: W,
        link_type: LinkType,
        resolution: Resolution,
    ) -> Result<Self, WriteError> {
        let magic = match resolution {
            Resolution::Microsecond => MICROSECONDS,
            Resolution::Nanosecond => NANOSECONDS,
        };
        let version = 4 << 16 | 2;
        let header = [
            magic,
            version,
            0,
            0,
            MAX_CAPTURED,
            u32::from(link_type.number()),
        ];
        output.write_all(header.map(u32::to_le_bytes).as_flattened())?;
        Ok(PcapWriter {
            output,
            link_type,
            resolution,
        })
    }

    /// Writes one packet of the file's link type; its comment is left out.
    pub fn write(&mut self, packet: &Packet<'_>) -> Result<(), WriteError> {
        if packet.link_type != self.link_type {
            return Err(WriteError::LinkType {
                file: self.link_type,
                packet: packet.link_type,
            });
        }
        let captured = captured_length(packet.bytes.len())?;
        let (seconds, nanoseconds) = packet.time.parts();
        let seconds = u32::try_from(seconds).map_err(|_| WriteError::Time { time: packet.time })?;
        let fraction = match self.resolution {
            Resolution::Microsecond => nanoseconds / 1000,
            Resolution::Nanosecond => nanoseconds,
        };
        let header = [seconds, fraction, captured, packet.original_len];
        self.output
            .write_all(header.map(u32::to_le_bytes).as_flattened())?;
        Ok(self.output.write_all(packet.bytes)?)
    }

    /// Gives the output back.
    pub fn into_inner(self) -> W {
        self.output
    }
}

fn captured_length(length: usize) -> Result<u32, WriteError> {
    u32::try_from(length)
        .ok()
        .filter(|length| *length <= MAX_CAPTURED)
        .ok_or(WriteError::PacketLength {
            length,
            limit: MAX_CAPTURED,
        })
}

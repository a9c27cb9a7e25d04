//! Framing of pcapng files: sections, interfaces and the three kinds of packet block.
//! Blocks of any other kind, and every option of a packet, are passed over.
//!
//! ```text
//! block            type 4 | length 4 | body | length 4
//! section header   byte-order magic 4 | major 2 | minor 2 | section length 8 | options
//! enhanced packet  interface 4 | ticks 8 | captured 4 | original 4 | the packet | options
//! packet           interface 2 | drops 2 | ticks 8 | captured 4 | original 4 | the packet | options
//! simple packet    original 4 | the packet
//! ```
//!
//! The section length is not used: it is often unset, and blocks are read in order.

use std::io::Read;

use super::error::{Broken, Fault};
use super::interface::Interface;
use super::order::ByteOrder;
use super::reader::Record;
use super::source::Source;
use super::{MAX_BLOCK, Timestamp, captured_limit};

/// The same in both byte orders.
pub(super) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
pub(super) const INTERFACE: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
pub(super) const ENHANCED_PACKET: u32 = 6;

pub(super) const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// What each block has around its body: type and length in front, length behind.
const FRONT: usize = 8;
const BEHIND: usize = 4;

/// Old packet blocks name their interface in 16 bits; no capture has come near it.
const MAX_INTERFACES: usize = 1 << 16;

/// Where the reading of a file stands.
#[derive(Debug)]
pub(super) struct Pcapng {
    order: ByteOrder,
    /// Of the current section.
    interfaces: Vec<Interface>,
    /// How many interfaces the sections before had.
    interfaces_before: u32,
    /// Of the last packet, for those that state none.
    time: Timestamp,
}

/// A kind of block whose body is read.
#[derive(Clone, Copy)]
enum Kind {
    SectionHeader,
    Interface,
    Packet,
    SimplePacket,
    EnhancedPacket,
    Other,
}

impl Kind {
    fn of(number: u32) -> Kind {
        match number {
            SECTION_HEADER => Kind::SectionHeader,
            INTERFACE => Kind::Interface,
            PACKET => Kind::Packet,
            SIMPLE_PACKET => Kind::SimplePacket,
            ENHANCED_PACKET => Kind::EnhancedPacket,
            _ => Kind::Other,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::SectionHeader => "section header block",
            Kind::Interface => "interface description block",
            Kind::Packet => "packet block",
            Kind::SimplePacket => "simple packet block",
            Kind::EnhancedPacket => "enhanced packet block",
            Kind::Other => "block",
        }
    }

    /// The body's fixed part.
    fn fixed(self) -> usize {
        match self {
            Kind::SectionHeader => 16,
            Kind::Interface => 8,
            Kind::Packet | Kind::EnhancedPacket => 20,
            Kind::SimplePacket => 4,
            Kind::Other => 0,
        }
    }

    /// Blocks that are passed over are never held, so any length will do.
    fn maximum(self) -> u32 {
        match self {
            Kind::Other => u32::MAX,
            _ => MAX_BLOCK,
        }
    }
}

impl Pcapng {
    /// Reads the first section header, whose type the caller has seen.
    pub(super) fn open<R: Read>(source: &mut Source<R>) -> Result<Pcapng, Broken> {
        let mut pcapng = Pcapng {
            order: ByteOrder::Little,
            interfaces: Vec::new(),
            interfaces_before: 0,
            time: Timestamp::default(),
        };
        pcapng.section(source)?;
        Ok(pcapng)
    }

    /// Whether the next packet and all blocks before it lie in the window as a whole.
    #[inline]
    pub(super) fn is_whole(&self, mut window: &[u8]) -> bool {
        loop {
            let Some([number, length]) = self.order.words(window) else {
                return false;
            };
            let Some(behind) = window.get(length as usize..).filter(|_| length > 0) else {
                return false;
            };
            match Kind::of(number) {
                Kind::Packet | Kind::SimplePacket | Kind::EnhancedPacket => return true,
                // Its byte order may be another from here on.
                Kind::SectionHeader => return false,
                Kind::Interface | Kind::Other => window = behind,
            }
        }
    }

    /// Reads on to the next packet.
    #[inline]
    pub(super) fn next<R: Read>(
        &mut self,
        source: &mut Source<R>,
    ) -> Result<Option<Record>, Broken> {
        loop {
            if source.fill(FRONT)? == 0 {
                return Ok(None);
            }
            source.require(FRONT, "block header")?;
            let [number, length] = self.order.words(source.bytes()).unwrap_or_default();
            let kind = Kind::of(number);
            match kind {
                Kind::SectionHeader => self.section(source)?,
                Kind::Interface => self.interface(source, length)?,
                Kind::Packet | Kind::SimplePacket | Kind::EnhancedPacket => {
                    return self.packet(source, kind, length).map(Some);
                }
                Kind::Other => self.pass_over(source, length)?,
            }
        }
    }

    /// Makes the whole of a block available, its two lengths checked against each other.
    #[inline]
    fn block<R: Read>(
        &self,
        source: &mut Source<R>,
        kind: Kind,
        length: u32,
    ) -> Result<(), Broken> {
        check_length(source, kind, length)?;
        let whole = length as usize;
        source.require(whole, kind.name())?;
        let behind = source.bytes().get(whole - BEHIND..).unwrap_or_default();
        let [found] = self.order.words(behind).unwrap_or_default();
        self.check_trailing(kind, length, found, source.offset())
    }

    /// `start` is the block's offset in the file.
    fn check_trailing(
        &self,
        kind: Kind,
        length: u32,
        found: u32,
        start: u64,
    ) -> Result<(), Broken> {
        if found == length {
            return Ok(());
        }
        let offset = start + u64::from(length) - BEHIND as u64;
        let fault = Fault::TrailingLength {
            block: kind.name(),
            expected: length,
            found,
        };
        Err(Broken { offset, fault })
    }

    /// A section begins: its byte order holds from its own length field on, and its
    /// interfaces are counted anew.
    fn section<R: Read>(&mut self, source: &mut Source<R>) -> Result<(), Broken> {
        let kind = Kind::SectionHeader;
        source.require(FRONT + 4, kind.name())?;
        let [_, _, magic] = ByteOrder::Big.words(source.bytes()).unwrap_or_default();
        self.order = if magic == BYTE_ORDER_MAGIC {
            ByteOrder::Big
        } else if magic.swap_bytes() == BYTE_ORDER_MAGIC {
            ByteOrder::Little
        } else {
            let offset = source.offset() + FRONT as u64;
            return Err(Broken {
                offset,
                fault: Fault::ByteOrder {
                    found: magic.to_be_bytes(),
                },
            });
        };
        let [_, length] = self.order.words(source.bytes()).unwrap_or_default();
        self.block(source, kind, length)?;

        let version = source.bytes().get(FRONT + 4..).unwrap_or_default();
        let [major, minor] = match version.as_chunks::<2>().0 {
            [major, minor, ..] => [*major, *minor].map(|bytes| self.order.u16(bytes)),
            _ => [0, 0],
        };
        // 1.2 is 1.0, written so by some; the specification asks readers to take both.
        if major != 1 || !matches!(minor, 0 | 2) {
            let offset = source.offset() + FRONT as u64 + 4;
            let fault = Fault::Version {
                format: "pcapng",
                expected: "1.0 or 1.2",
                major,
                minor,
            };
            return Err(Broken { offset, fault });
        }
        source.take(length as usize);
        self.interfaces_before = self
            .interfaces_before
            .saturating_add(self.interfaces.len() as u32);
        self.interfaces.clear();
        Ok(())
    }

    fn interface<R: Read>(&mut self, source: &mut Source<R>, length: u32) -> Result<(), Broken> {
        self.block(source, Kind::Interface, length)?;
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err(source.broken(Fault::TooManyInterfaces {
                limit: MAX_INTERFACES,
            }));
        }
        let body = source
            .bytes()
            .get(FRONT..length as usize - BEHIND)
            .unwrap_or_default();
        let interface =
            Interface::parse(self.order, body).map_err(|Broken { offset, fault }| Broken {
                offset: source.offset() + FRONT as u64 + offset,
                fault,
            })?;
        source.take(length as usize);
        self.interfaces.push(interface);
        Ok(())
    }

    #[inline]
    fn packet<R: Read>(
        &mut self,
        source: &mut Source<R>,
        kind: Kind,
        length: u32,
    ) -> Result<Record, Broken> {
        self.block(source, kind, length)?;
        let start = source.offset();
        let body = source.bytes().get(FRONT..).unwrap_or_default();
        let [first, high, low, captured, original] = match kind {
            Kind::SimplePacket => {
                let [original] = self.order.words(body).unwrap_or_default();
                [0, 0, 0, original, original]
            }
            _ => self.order.words(body).unwrap_or_default(),
        };
        let index = match (kind, self.order) {
            // Interface and drop count share the first word.
            (Kind::Packet, ByteOrder::Little) => first & 0xffff,
            (Kind::Packet, ByteOrder::Big) => first >> 16,
            _ => first,
        };
        let Some(interface) = self.interfaces.get(index as usize) else {
            let count = self.interfaces.len();
            let fault = Fault::Interface {
                count,
                found: index,
            };
            return Err(Broken {
                offset: start + FRONT as u64,
                fault,
            });
        };
        let number = self.interfaces_before.saturating_add(index);
        let Some(link_type) = interface.link_type else {
            let fault = Fault::LinkType {
                number: u32::from(interface.link_number),
                interface: number,
            };
            return Err(source.broken(fault));
        };

        // A simple packet states only its original length: what the snap length left
        // of it was captured.
        let captured = match (kind, interface.snap_length) {
            (Kind::SimplePacket, 1..) => captured.min(interface.snap_length),
            _ => captured,
        };
        let captured_at = match kind {
            Kind::SimplePacket => FRONT,
            _ => FRONT + 12,
        } as u64;
        let limit = captured_limit(interface.snap_length);
        if captured > limit {
            let fault = Fault::CapturedLength {
                limit,
                found: captured,
            };
            return Err(Broken {
                offset: start + captured_at,
                fault,
            });
        }
        let room = length - (FRONT + kind.fixed() + BEHIND) as u32;
        if captured > room {
            let fault = Fault::Overrun {
                block: kind.name(),
                captured,
                room,
            };
            return Err(Broken {
                offset: start + captured_at,
                fault,
            });
        }

        let ticks = u64::from(high) << 32 | u64::from(low);
        // Joined captures bring negative times and such: the order is what matters, and
        // it stays if the packet takes the time of the one before.
        let told = match kind {
            Kind::SimplePacket => None,
            _ => interface.clock.at(ticks),
        };
        let time = told.unwrap_or(self.time);
        self.time = time;
        let mut bytes = source.take(length as usize);
        bytes.start += FRONT + kind.fixed();
        bytes.end = bytes.start + captured as usize;
        Ok(Record {
            time,
            interface: number,
            link_type,
            bytes,
            original_len: original,
        })
    }

    fn pass_over<R: Read>(&mut self, source: &mut Source<R>, length: u32) -> Result<(), Broken> {
        let kind = Kind::Other;
        check_length(source, kind, length)?;
        let start = source.offset();
        let held = u64::from(length) - BEHIND as u64;
        let mut passed = source.skip(held)?;
        if passed == held && source.fill(BEHIND)? >= BEHIND {
            let [found] = self.order.words(source.bytes()).unwrap_or_default();
            self.check_trailing(kind, length, found, start)?;
            source.take(BEHIND);
            return Ok(());
        }
        passed += source.bytes().len() as u64;
        let fault = Fault::Truncated {
            what: kind.name(),
            wanted: u64::from(length),
            found: passed,
        };
        Err(Broken {
            offset: start,
            fault,
        })
    }
}

fn check_length<R: Read>(source: &Source<R>, kind: Kind, length: u32) -> Result<(), Broken> {
    let minimum = (FRONT + kind.fixed() + BEHIND) as u32;
    let maximum = kind.maximum();
    if (minimum..=maximum).contains(&length) && length.is_multiple_of(4) {
        return Ok(());
    }
    let fault = Fault::BlockLength {
        block: kind.name(),
        minimum,
        maximum,
        found: length,
    };
    Err(Broken {
        offset: source.offset() + 4,
        fault,
    })
}

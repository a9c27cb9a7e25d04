//! The link layer apart: what stands in front of the network packet, the packet, and
//! what the link put behind it. Nothing of the packet is judged beyond its length.

use super::LinkType;

/// More tags than any network stacks; behind them a frame counts as not understood.
const MAX_TAGS: u8 = 8;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// A frame in three parts: `header`, `payload` and `trailer` together are all its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// The link's header with any VLAN tags, to be put back when writing.
    pub header: &'a [u8],
    /// Of the payload, behind any tags. Below 1536 it is a length: the payload is LLC.
    /// 0x0800 or 0x86dd by family or version where the link has no ethertype of its own;
    /// 0 where there is a defect.
    pub ethertype: u16,
    /// The network packet, without padding; cut where the capture cut it.
    pub payload: &'a [u8],
    /// Padding or frame check sequence behind the packet, which egress never sees.
    pub trailer: &'a [u8],
    /// How many VLAN tags `header` ends in.
    pub vlan_tags: u8,
    /// Where the link type tells it.
    pub direction: Option<Direction>,
    /// Why the frame could not be taken apart; then `header` is all of it.
    pub defect: Option<LinkDefect>,
}

/// Which way a packet went, seen from the capturing host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It came in, to whomever it was addressed.
    Incoming,
    /// It went out.
    Outgoing,
}

/// Why a frame has no payload to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkDefect {
    /// It ends within its link header.
    #[error("link header of {needed} bytes, frame of {found}")]
    Short {
        /// The header's length, as far as it is known.
        needed: usize,
        /// The frame's.
        found: usize,
    },
    /// More VLAN tags than are followed.
    #[error("more than {limit} VLAN tags")]
    Tags {
        /// How many are.
        limit: u8,
    },
    /// A loopback frame of another protocol family.
    #[error("address family {found} is neither IPv4 nor IPv6")]
    Family {
        /// As read in the byte order that makes it the smaller number.
        found: u32,
    },
    /// A raw packet of another IP version.
    #[error("IP version {found} is neither 4 nor 6")]
    IpVersion {
        /// The packet's first nibble.
        found: u8,
    },
}

/// Takes a frame apart. Total: a frame that defies it comes back whole, with the reason.
#[inline]
pub fn link(link_type: LinkType, bytes: &[u8]) -> Link<'_> {
    let mut header = Header {
        length: 0,
        ethertype: 0,
        vlan_tags: 0,
        direction: None,
    };
    match header.parse(link_type, bytes) {
        Ok(()) => header.split(bytes),
        Err(defect) => Link {
            header: bytes,
            ethertype: 0,
            payload: &[],
            trailer: &[],
            vlan_tags: 0,
            direction: header.direction,
            defect: Some(defect),
        },
    }
}

/// A link header as far as it is read.
struct Header {
    length: usize,
    ethertype: u16,
    vlan_tags: u8,
    direction: Option<Direction>,
}

impl Header {
    #[inline]
    fn parse(&mut self, link_type: LinkType, bytes: &[u8]) -> Result<(), LinkDefect> {
        match link_type {
            LinkType::Ethernet => self.ethernet(bytes),
            LinkType::LinuxSll => self.cooked(bytes),
            LinkType::LinuxSll2 => self.cooked2(bytes),
            LinkType::Null | LinkType::Loop => self.loopback(bytes),
            LinkType::Raw => self.raw(bytes),
            LinkType::Ipv4 => {
                self.ethertype = IPV4;
                Ok(())
            }
            LinkType::Ipv6 => {
                self.ethertype = IPV6;
                Ok(())
            }
        }
    }

    /// ```text
    /// destination 6 | source 6 | ethertype 2
    /// ```
    #[inline]
    fn ethernet(&mut self, bytes: &[u8]) -> Result<(), LinkDefect> {
        let [.., high, low] = first::<14>(bytes)?;
        self.ethertype = u16::from_be_bytes([high, low]);
        self.length = 14;
        self.tags(bytes)
    }

    /// ```text
    /// packet type 2 | hardware type 2 | address length 2 | address 8 | protocol 2
    /// ```
    fn cooked(&mut self, bytes: &[u8]) -> Result<(), LinkDefect> {
        let [packet_high, packet_low, .., high, low] = first::<16>(bytes)?;
        self.direction = direction(u16::from_be_bytes([packet_high, packet_low]));
        self.ethertype = u16::from_be_bytes([high, low]);
        self.length = 16;
        self.tags(bytes)
    }

    /// ```text
    /// protocol 2 | reserved 2 | interface 4 | hardware type 2 | packet type 1 | address length 1 | address 8
    /// ```
    fn cooked2(&mut self, bytes: &[u8]) -> Result<(), LinkDefect> {
        let [high, low, _, _, _, _, _, _, _, _, packet, ..] = first::<20>(bytes)?;
        self.direction = direction(u16::from(packet));
        self.ethertype = u16::from_be_bytes([high, low]);
        self.length = 20;
        self.tags(bytes)
    }

    /// A family is a small number, so that its byte order shows by itself. NULL files are
    /// read on other machines than wrote them, and LOOP ones are written in either order.
    fn loopback(&mut self, bytes: &[u8]) -> Result<(), LinkDefect> {
        let family = first::<4>(bytes)?;
        let found = u32::from_le_bytes(family).min(u32::from_be_bytes(family));
        self.length = 4;
        self.ethertype = match found {
            2 => IPV4,
            // Linux, NetBSD and OpenBSD, FreeBSD, Darwin.
            10 | 24 | 28 | 30 => IPV6,
            _ => return Err(LinkDefect::Family { found }),
        };
        Ok(())
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), LinkDefect> {
        let [version] = first::<1>(bytes)?;
        self.ethertype = match version >> 4 {
            4 => IPV4,
            6 => IPV6,
            found => return Err(LinkDefect::IpVersion { found }),
        };
        Ok(())
    }

    /// Each tag is two bytes of tag, then the ethertype of what follows.
    #[inline]
    fn tags(&mut self, bytes: &[u8]) -> Result<(), LinkDefect> {
        while matches!(self.ethertype, 0x8100 | 0x88a8 | 0x9100) {
            if self.vlan_tags == MAX_TAGS {
                return Err(LinkDefect::Tags { limit: MAX_TAGS });
            }
            let needed = self.length + 4;
            let short = LinkDefect::Short {
                needed,
                found: bytes.len(),
            };
            let [_, _, high, low] = bytes
                .get(self.length..)
                .and_then(<[u8]>::first_chunk)
                .ok_or(short)?;
            self.ethertype = u16::from_be_bytes([*high, *low]);
            self.length = needed;
            self.vlan_tags += 1;
        }
        Ok(())
    }

    #[inline]
    fn split(self, bytes: &[u8]) -> Link<'_> {
        let Header {
            length,
            ethertype,
            vlan_tags,
            direction,
        } = self;
        let (header, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
        let own = ip_length(ethertype, rest).unwrap_or(rest.len());
        let (payload, trailer) = rest.split_at_checked(own).unwrap_or((rest, &[]));
        Link {
            header,
            ethertype,
            payload,
            trailer,
            vlan_tags,
            direction,
            defect: None,
        }
    }
}

/// An IP packet's length by its own account. None where it gives none: zero is what
/// BIG TCP leaves in the field, and a header that contradicts itself proves nothing.
#[inline]
fn ip_length(ethertype: u16, packet: &[u8]) -> Option<usize> {
    let (first, rest) = packet.split_first()?;
    match (ethertype, first >> 4) {
        (IPV4, 4) => {
            let [_, high, low] = *rest.first_chunk()?;
            let length = usize::from(u16::from_be_bytes([high, low]));
            let header = usize::from(first & 0x0f) * 4;
            (header >= 20 && length >= header).then_some(length)
        }
        (IPV6, 6) => {
            let [.., high, low] = *rest.first_chunk::<5>()?;
            let length = usize::from(u16::from_be_bytes([high, low]));
            (length != 0).then_some(40 + length)
        }
        _ => None,
    }
}

/// From the packet type of cooked captures (Linux's PACKET_*).
fn direction(packet_type: u16) -> Option<Direction> {
    match packet_type {
        0..=3 => Some(Direction::Incoming),
        4 => Some(Direction::Outgoing),
        _ => None,
    }
}

#[inline]
fn first<const N: usize>(bytes: &[u8]) -> Result<[u8; N], LinkDefect> {
    let short = LinkDefect::Short {
        needed: N,
        found: bytes.len(),
    };
    bytes.first_chunk().copied().ok_or(short)
}

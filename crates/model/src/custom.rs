//! The custom header behind an outer UDP header: how long it is, and what it says of the packet
//! behind it (section 4).

use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4, IPV6, be16};
use dynencap_abi::{MAX_HEADER_LEN, TunnelSpec};

/// A custom header, and what is behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Custom<'a> {
    pub(crate) header: &'a [u8],
    pub(crate) inner: &'a [u8],
    pub(crate) announced: Announced,
}

/// What the header says of the packet behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// Nothing.
    Either,
    /// A packet with this protocol number: 4 or 41.
    Only(u8),
    /// Something that is no IP packet.
    Neither,
}

impl Announced {
    pub(crate) fn allows(self, as_payload: u8) -> bool {
        match self {
            Self::Either => true,
            Self::Only(protocol) => protocol == as_payload,
            Self::Neither => false,
        }
    }
}

impl<'a> Custom<'a> {
    /// `bytes` begins behind the UDP header; none where the header's length is not known, more
    /// than an exit holds, or more than there is.
    pub(crate) fn parse(spec: &TunnelSpec, bytes: &'a [u8]) -> Option<Self> {
        let (len, announced) = match spec.format {
            TunnelSpec::FIXED => (usize::from(spec.header_len), Announced::Either),
            TunnelSpec::GUE => gue(bytes)?,
            TunnelSpec::GENEVE => geneve(bytes)?,
            _ => return None,
        };
        let (header, inner) = bytes.split_at_checked(len)?;
        (len <= MAX_HEADER_LEN).then_some(Self {
            header,
            inner,
            announced,
        })
    }
}

/// ```text
/// |ver|C| hlen  |proto/ctype|    flags    |  fields, private data …
/// ```
fn gue(bytes: &[u8]) -> Option<(usize, Announced)> {
    const VERSION: u8 = 0xc0;
    const DIRECT: u8 = 0x40;
    const CONTROL: u8 = 0x20;
    const WORDS: u8 = 0x1f;
    let first = *bytes.first()?;
    match first & VERSION {
        0 if first & CONTROL == 0 => {
            // Where the second byte is missing, so is room for the header.
            let announced = match bytes.get(1) {
                Some(&protocol @ (IPV4 | IPV6)) => Announced::Only(protocol),
                _ => Announced::Neither,
            };
            Some((4 + 4 * usize::from(first & WORDS), announced))
        }
        // Version 1 is no header at all: its bits are those of an IP header's own version.
        DIRECT => Some((0, Announced::Either)),
        _ => None,
    }
}

/// ```text
/// |ver| words |O|C| reserved | protocol (Ethernet type) |
/// |            VNI                      |   reserved    |  options …
/// ```
fn geneve(bytes: &[u8]) -> Option<(usize, Announced)> {
    const VERSION: u8 = 0xc0;
    const WORDS: u8 = 0x3f;
    /// Not a data packet; options that must be understood.
    const CONTROL_OR_CRITICAL: u8 = 0x80 | 0x40;
    const MIN_LEN: usize = 8;
    let header: &[u8; MIN_LEN] = bytes.first_chunk()?;
    if header[0] & VERSION != 0 || header[1] & CONTROL_OR_CRITICAL != 0 {
        return None;
    }
    let announced = match be16(header, 2) {
        ETHERTYPE_IPV4 => Announced::Only(IPV4),
        ETHERTYPE_IPV6 => Announced::Only(IPV6),
        _ => Announced::Neither,
    };
    Some((MIN_LEN + 4 * usize::from(header[0] & WORDS), announced))
}

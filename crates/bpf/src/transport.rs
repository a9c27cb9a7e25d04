//! Where an inner packet's transport header stands and what it says: the walk over IPv6
//! extension headers, the ports of the flow key, and the headers that each segment of a
//! super-packet repeats.

use crate::frame::Frame;
use dynencap_abi::MAX_EXTENSION_HEADERS;

const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const SCTP: u8 = 132;

const IPV6_LEN: u32 = 40;
const FRAGMENT_LEN: u32 = 8;
const TCP_LEN: u32 = 20;
const TCP_DATA_OFFSET: u32 = 12;
const UDP_LEN: u32 = 8;

/// Why the segments of a super-packet cannot be told.
pub(crate) enum Fault {
    Shape,
    Malformed,
}

/// Protocol and place of the transport header, in one word: `walk` is a function of its own,
/// and BPF functions return one register.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Transport(u64);

impl Transport {
    /// The transport header cannot be used: a fragment, or behind a chain that was not walked.
    const HIDDEN: u64 = 1 << 8;
    /// An authentication header stands before it: GSO cannot cut such a packet.
    const AUTHENTICATED: u64 = 1 << 9;
    const OFFSET_SHIFT: u32 = 32;

    #[inline(always)]
    fn visible(protocol: u8, offset: u32) -> Self {
        Self(u64::from(offset) << Self::OFFSET_SHIFT | u64::from(protocol))
    }

    #[inline(always)]
    fn hidden(protocol: u8) -> Self {
        Self(Self::HIDDEN | u64::from(protocol))
    }

    /// Of an IPv4 packet.
    #[inline(always)]
    pub(crate) fn behind_ipv4(protocol: u8, header_len: u32, is_fragment: bool) -> Self {
        if is_fragment {
            Self::hidden(protocol)
        } else {
            Self::visible(protocol, header_len)
        }
    }

    /// Of an IPv6 packet of `len` bytes.
    #[inline(always)]
    pub(crate) fn behind_ipv6(frame: &Frame, next_header: u8, len: u32) -> Self {
        match next_header {
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS => {
                walk(frame, next_header, len)
            }
            protocol => Self::visible(protocol, IPV6_LEN),
        }
    }

    #[inline(always)]
    pub(crate) fn protocol(self) -> u8 {
        self.0 as u8
    }

    #[inline(always)]
    fn offset(self) -> Option<u32> {
        if self.0 & Self::HIDDEN == 0 {
            Some((self.0 >> Self::OFFSET_SHIFT) as u32)
        } else {
            None
        }
    }

    /// Source and destination port of the flow key.
    #[inline(always)]
    pub(crate) fn ports(self, frame: &Frame) -> [u16; 2] {
        let ports: Option<u32> = match self.protocol() {
            TCP | UDP | SCTP => self.offset().and_then(|offset| frame.read(offset)),
            _ => None,
        };
        let ports = u32::from_be(ports.unwrap_or(0));
        [(ports >> 16) as u16, ports as u16]
    }

    /// Bytes up to the transport payload of a packet of `len` bytes, which every segment of a
    /// super-packet repeats.
    #[inline(always)]
    pub(crate) fn headers_len(self, frame: &Frame, len: u32) -> Result<u32, Fault> {
        if self.0 & Self::AUTHENTICATED != 0 {
            return Err(Fault::Shape);
        }
        let offset = self.offset().ok_or(Fault::Shape)?;
        match self.protocol() {
            TCP => {
                if offset + TCP_LEN > len {
                    return Err(Fault::Malformed);
                }
                let byte: u8 = frame
                    .read(offset + TCP_DATA_OFFSET)
                    .ok_or(Fault::Malformed)?;
                let header_len = u32::from(byte >> 4) * 4;
                if header_len < TCP_LEN || offset + header_len > len {
                    return Err(Fault::Malformed);
                }
                Ok(offset + header_len)
            }
            UDP if offset + UDP_LEN > len => Err(Fault::Malformed),
            UDP => Ok(offset + UDP_LEN),
            _ => Err(Fault::Shape),
        }
    }
}

/// Walks extension headers; a function of its own, since hardly a packet has any. (Not `#[cold]`:
/// that would move it to a section that loaders do not look into.)
/// Not `no_mangle` either: the verifier checks an exported function apart from its callers and
/// then knows nothing of the pointer.
#[inline(never)]
fn walk(frame: &Frame, first: u8, len: u32) -> Transport {
    let mut next = first;
    let mut offset = IPV6_LEN;
    let mut authenticated = 0;
    // One more than the headers walked: behind the last a fragment header may stand.
    for walked in 0..=MAX_EXTENSION_HEADERS {
        match next {
            FRAGMENT => {
                return match frame.read::<u8>(offset) {
                    Some(protocol) if offset + FRAGMENT_LEN <= len => Transport::hidden(protocol),
                    _ => Transport::hidden(FRAGMENT),
                };
            }
            HOP_BY_HOP | ROUTING | AUTHENTICATION | DESTINATION_OPTIONS => {}
            protocol => return Transport(Transport::visible(protocol, offset).0 | authenticated),
        }
        if walked == MAX_EXTENSION_HEADERS {
            break;
        }
        let Some(start) = frame.read::<u16>(offset) else {
            break;
        };
        let [following, units] = start.to_ne_bytes();
        let header_len = if next == AUTHENTICATION {
            authenticated = Transport::AUTHENTICATED;
            (u32::from(units) + 2) * 4
        } else {
            (u32::from(units) + 1) * 8
        };
        if offset + header_len > len {
            break;
        }
        offset += header_len;
        next = following;
    }
    Transport::hidden(next)
}

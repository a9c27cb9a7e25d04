//! Where an inner packet's transport header stands and what it says: the walk over IPv6
//! extension headers, the ports of the flow key, and the headers that each segment of a
//! super-packet repeats.

use crate::{frame::Frame, inside::Bytes};
use dynencap_abi::MAX_EXTENSION_HEADERS;

const HOP_BY_HOP: u8 = 0;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const SCTP: u8 = 132;

pub(crate) const IPV4_LEN: u32 = 20;
pub(crate) const IPV6_LEN: u32 = 40;
const TCP_LEN: u32 = 20;
pub(crate) const UDP_LEN: u32 = 8;
const FRAGMENT_LEN: u32 = 8;
const TCP_DATA_OFFSET: u32 = 12;
const _: () = assert!(40 + 8 * 256 * MAX_EXTENSION_HEADERS <= Transport::OFFSET as usize);
/// More fragments, and the fragment offset, of an IPv4 header.
pub(crate) const FRAGMENT_BITS: u16 = 0x3fff;

/// Why the segments of a super-packet cannot be told.
pub(crate) enum Fault {
    Shape,
    Malformed,
}

/// Protocol and place of the transport header, in one word: `walk` is a function of its own,
/// and BPF functions return one register.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Transport(u32);

impl Transport {
    /// The transport header cannot be used: a fragment, or behind a chain that was not walked.
    const HIDDEN: u32 = 1 << 24;
    /// An authentication header stands before it: GSO cannot cut such a packet.
    const AUTHENTICATED: u32 = 1 << 25;
    const PROTOCOL_SHIFT: u32 = 16;
    /// The offset stands in the lowest bits, so that taking it out bounds it for the verifier: no
    /// transport header stands further back.
    const OFFSET: u32 = 0x7fff;
    /// Of what has no IP header.
    pub(crate) const NONE: Self = Self(Self::HIDDEN);

    #[inline(always)]
    fn visible(protocol: u8, offset: u32) -> Self {
        Self(u32::from(protocol) << Self::PROTOCOL_SHIFT | offset & Self::OFFSET)
    }

    #[inline(always)]
    fn hidden(protocol: u8) -> Self {
        Self(Self::HIDDEN | u32::from(protocol) << Self::PROTOCOL_SHIFT)
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
    pub(crate) fn behind_ipv6(frame: &impl Bytes, next_header: u8, len: u32) -> Self {
        match next_header {
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS => {
                walk(frame, next_header, len)
            }
            protocol => Self::visible(frame.veiled(u64::from(protocol)) as u8, IPV6_LEN),
        }
    }

    #[inline(always)]
    pub(crate) fn protocol(self) -> u8 {
        (self.0 >> Self::PROTOCOL_SHIFT) as u8
    }

    /// Where the transport header begins; `None` where it cannot be used.
    #[inline(always)]
    pub(crate) fn offset(self) -> Option<u32> {
        if self.0 & Self::HIDDEN == 0 {
            Some(self.0 & Self::OFFSET)
        } else {
            None
        }
    }

    /// Whether the fixed part of a TCP or UDP header is in a packet of `len` bytes; not so for
    /// any other protocol.
    #[inline(always)]
    pub(crate) fn is_there(self, len: u32) -> bool {
        let header_len = match self.protocol() {
            TCP => TCP_LEN,
            UDP => UDP_LEN,
            _ => return false,
        };
        self.offset()
            .is_some_and(|offset| offset + header_len <= len)
    }

    /// Source and destination port of the flow key.
    #[inline(always)]
    pub(crate) fn ports(self, frame: &impl Bytes) -> [u16; 2] {
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
fn walk(frame: &impl Bytes, first: u8, len: u32) -> Transport {
    let Transport(found) = walked(frame, first, len);
    // Each number of headers gives bounds of its own.
    Transport(frame.veiled(u64::from(found)) as u32)
}

/// How far the walk has come.
struct Step {
    next: u8,
    offset: u32,
    authenticated: u32,
}

/// Written out, not as a loop: Linux 6.1 refuses one that LLVM enters in its middle.
#[inline(always)]
fn walked(frame: &impl Bytes, first: u8, len: u32) -> Transport {
    let mut step = Step {
        next: first,
        offset: IPV6_LEN,
        authenticated: 0,
    };
    macro_rules! walk {
        ($step:ident; $($number:literal)*) => {
            const WALKED: usize = [$($number),*].len();
            const _: () = assert!(WALKED == MAX_EXTENSION_HEADERS);
            $(walk!($step, $number);)*
        };
        ($step:ident, $number:literal) => {
            if let Some(found) = $step.found(frame, len) {
                return found;
            }
            if $step.advance(frame, len).is_none() {
                return Transport::hidden($step.next);
            }
        };
    }
    walk!(step; 1 2 3 4 5 6 7 8);
    // Behind the last one that is walked a fragment header may stand.
    match step.found(frame, len) {
        Some(found) => found,
        None => Transport::hidden(step.next),
    }
}

impl Step {
    /// The walk's end, if it is reached: no extension header follows, or a fragment's.
    #[inline(always)]
    fn found(&self, frame: &impl Bytes, len: u32) -> Option<Transport> {
        match self.next {
            FRAGMENT => Some(match frame.read::<u8>(self.offset) {
                Some(protocol) if self.offset + FRAGMENT_LEN <= len => Transport::hidden(protocol),
                _ => Transport::hidden(FRAGMENT),
            }),
            HOP_BY_HOP | ROUTING | AUTHENTICATION | DESTINATION_OPTIONS => None,
            protocol => {
                let transport = Transport::visible(protocol, self.offset);
                Some(Transport(transport.0 | self.authenticated))
            }
        }
    }

    /// To the next header; `None`: this one is not wholly in the packet.
    #[inline(always)]
    fn advance(&mut self, frame: &impl Bytes, len: u32) -> Option<()> {
        let start: u16 = frame.read(self.offset)?;
        let [following, units] = start.to_ne_bytes();
        let header_len = if self.next == AUTHENTICATION {
            self.authenticated = Transport::AUTHENTICATED;
            (u32::from(units) + 2) * 4
        } else {
            (u32::from(units) + 1) * 8
        };
        if self.offset + header_len > len {
            return None;
        }
        // Each way through the headers gives bounds of its own.
        self.offset =
            (frame.veiled(u64::from(self.offset + header_len)) as u32) & Transport::OFFSET;
        self.next = following;
        Some(())
    }
}

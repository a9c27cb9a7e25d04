//! Software segmentation of super-packets (section 3), with or without encapsulation: each
//! segment repeats the headers up to the transport payload.

use crate::checksum::Sum;
use crate::extension::{self, Upper};
use crate::packet::{Packet, Port, Sink};
use crate::wire::{IPV6_LEN, Ip, TCP, UDP, be16};
use dynencap_abi::{MAX_PAYLOAD_LEN, Reason, UDP_HEADER_LEN};

const TCP_MIN_LEN: usize = 20;
/// The longest IPv4 header, and the longest TCP header: 15 words each.
const MAX_LEN: usize = 60;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// A transport that can be segmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    fn protocol(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }
}

/// Where the headers that every segment repeats lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The transport.
    pub transport: Transport,
    /// Where its header begins.
    pub transport_offset: usize,
    /// Where its payload begins: the length of all headers.
    pub payload_offset: usize,
}

impl Layout {
    /// `GsoShape` or `Malformed` where the packet cannot be segmented.
    pub(crate) fn find(ip: &Ip<'_>, bytes: &[u8]) -> Result<Self, Reason> {
        Self::of(&extension::upper(ip, bytes), bytes)
    }

    pub(crate) fn of(upper: &Upper, bytes: &[u8]) -> Result<Self, Reason> {
        if upper.authenticated {
            return Err(Reason::GsoShape);
        }
        let (transport, transport_offset) = match (upper.protocol, upper.offset) {
            (TCP, Some(offset)) => (Transport::Tcp, offset),
            (UDP, Some(offset)) => (Transport::Udp, offset),
            _ => return Err(Reason::GsoShape),
        };
        let rest = bytes.get(transport_offset..).ok_or(Reason::Malformed)?;
        let len = match transport {
            Transport::Tcp => {
                let header: &[u8; TCP_MIN_LEN] = rest.first_chunk().ok_or(Reason::Malformed)?;
                4 * usize::from(header[12] >> 4)
            }
            Transport::Udp => UDP_HEADER_LEN,
        };
        if len > rest.len() || (transport == Transport::Tcp && len < TCP_MIN_LEN) {
            return Err(Reason::Malformed);
        }
        Ok(Self {
            transport,
            transport_offset,
            payload_offset: transport_offset + len,
        })
    }
}

/// Where the transport payload begins and which transport it is; none for anything that
/// cannot be a super-packet: not TCP or UDP, a fragment, or headers that do not hold up.
#[must_use]
pub fn layout(packet: &Packet<'_>) -> Option<Layout> {
    let ip = Ip::parse(packet.ethertype, packet.bytes)?;
    let layout = Layout::find(&ip, packet.bytes).ok()?;
    let len = packet.bytes.len();
    let longest_payload = (len - layout.payload_offset).min(segment_size(packet));
    let longest = layout.payload_offset - fixed_len(&ip) + longest_payload;
    ((ip.stated_len() == len || is_big(&ip, len)) && longest <= MAX_PAYLOAD_LEN).then_some(layout)
}

/// BIG TCP: longer than the IP header's length field can say, which is 0 then.
fn is_big(ip: &Ip<'_>, len: usize) -> bool {
    len - fixed_len(ip) > MAX_PAYLOAD_LEN && ip.stated_len() == fixed_len(ip)
}

/// The hop-by-hop header that BIG TCP puts before TCP: nothing but the jumbo payload option
/// (RFC 2675). It says the super-packet's length, so that no segment may repeat it.
fn is_jumbo(extensions: &[u8]) -> bool {
    const JUMBO_PAYLOAD: u8 = 0xc2;
    matches!(extensions, [TCP, 0, JUMBO_PAYLOAD, 4, _, _, _, _])
}

/// Bytes that the IP header's length field leaves out.
fn fixed_len(ip: &Ip<'_>) -> usize {
    match ip {
        Ip::V4(_) => 0,
        Ip::V6(_) => IPV6_LEN,
    }
}

fn segment_size(packet: &Packet<'_>) -> usize {
    match packet.gso_size {
        0 => usize::MAX,
        size => usize::from(size),
    }
}

/// Cuts a super-packet and returns the number of segments; none, with nothing emitted, if it
/// is not one or cannot be cut.
pub fn segment(packet: &Packet<'_>, sink: &mut impl Sink) -> Option<u32> {
    segment_to(Port::Wire, packet, sink)
}

pub(crate) fn segment_to(port: Port, packet: &Packet<'_>, sink: &mut impl Sink) -> Option<u32> {
    if packet.gso_size == 0 {
        return None;
    }
    let layout = layout(packet)?;
    let ip = Ip::parse(packet.ethertype, packet.bytes)?;
    cut(
        packet,
        &ip,
        &layout,
        |[fixed, extensions, transport, payload]| {
            sink.frame(
                port,
                packet.ethertype,
                &[fixed, extensions, transport, payload],
            );
        },
    )
}

/// Hands each segment to `each` as IP header, extension headers, transport header, payload.
pub(crate) fn cut(
    packet: &Packet<'_>,
    ip: &Ip<'_>,
    layout: &Layout,
    mut each: impl FnMut([&[u8]; 4]),
) -> Option<u32> {
    let (headers, payload) = packet.bytes.split_at_checked(layout.payload_offset)?;
    let (headers, transport) = headers.split_at_checked(layout.transport_offset)?;
    let (fixed, extensions) = headers.split_at_checked(ip.header_len())?;
    let jumbo = is_big(ip, packet.bytes.len()) && is_jumbo(extensions);
    let extensions = if jumbo { &[] } else { extensions };
    let pseudo = pseudo_header(ip, layout.transport);
    let size = segment_size(packet);
    let last = payload.len().saturating_sub(1) / size;

    for index in 0..=last {
        let offset = index * size;
        let rest = payload.get(offset..)?;
        let chunk = rest.get(..size).unwrap_or(rest);
        let upper_len = transport.len() + chunk.len();

        let mut fixed = Header::copy(fixed)?;
        if jumbo {
            fixed.octets[6] = TCP;
        }
        fixed.be16_at(
            match ip {
                Ip::V4(_) => 2,
                Ip::V6(_) => 4,
            },
            extensions.len() + upper_len + (fixed.len - fixed_len(ip)),
        );
        if let Ip::V4(ip) = ip {
            fixed.be16_at(4, usize::from(ip.identification()) + index);
            fixed.be16_at(10, 0);
            let checksum = Sum::default().bytes(fixed.bytes()).finish();
            fixed.octets[10..12].copy_from_slice(&checksum);
        }

        let mut transport = Header::copy(transport)?;
        let checksum_at = match layout.transport {
            Transport::Tcp => {
                transport.advance_tcp(offset, index, last);
                16
            }
            Transport::Udp => {
                transport.be16_at(4, upper_len);
                6
            }
        };
        transport.be16_at(checksum_at, 0);
        let checksum = pseudo
            .word(upper_len as u16)
            .bytes(transport.bytes())
            .bytes(chunk)
            .finish();
        let checksum = match (layout.transport, checksum) {
            // 0 would say that there is no checksum.
            (Transport::Udp, [0, 0]) => [0xff, 0xff],
            (_, checksum) => checksum,
        };
        transport.octets[checksum_at..checksum_at + 2].copy_from_slice(&checksum);

        each([fixed.bytes(), extensions, transport.bytes(), chunk]);
    }
    u32::try_from(last + 1).ok()
}

/// The pseudo-header without its length. With a routing header it holds the destination of
/// the IP header, as in the kernel's own segmentation.
fn pseudo_header(ip: &Ip<'_>, transport: Transport) -> Sum {
    let addresses = match ip {
        Ip::V4(ip) => Sum::default().bytes(&ip.header[12..20]),
        Ip::V6(ip) => Sum::default().bytes(&ip.header[8..40]),
    };
    addresses.word(u16::from(transport.protocol()))
}

/// A copy of one header in which a segment's own fields are written.
struct Header {
    octets: [u8; MAX_LEN],
    len: usize,
}

impl Header {
    fn copy(header: &[u8]) -> Option<Self> {
        let mut octets = [0; MAX_LEN];
        octets.get_mut(..header.len())?.copy_from_slice(header);
        Some(Self {
            octets,
            len: header.len(),
        })
    }

    fn bytes(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }

    /// Writes the low 16 bits of `value`.
    fn be16_at(&mut self, at: usize, value: usize) {
        if let Some(field) = self.octets.get_mut(at..at + 2) {
            field.copy_from_slice(&(value as u16).to_be_bytes());
        }
    }

    fn advance_tcp(&mut self, offset: usize, index: usize, last: usize) {
        let sequence = u32::from(be16(&self.octets, 4)) << 16 | u32::from(be16(&self.octets, 6));
        let sequence = sequence.wrapping_add(offset as u32);
        self.octets[4..8].copy_from_slice(&sequence.to_be_bytes());
        if index != last {
            self.octets[13] &= !(FIN | PSH);
        }
        if index != 0 {
            self.octets[13] &= !CWR;
        }
    }
}

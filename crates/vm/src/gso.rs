//! Software GSO: what the kernel sends for a super-packet after the TC programs, tunnel headers
//! included. Modelled on `skb_segment` and the offloads' callbacks that surround it
//! (`ipv6_gso_segment`, `inet_gso_segment`, `skb_udp_tunnel_segment`, `tcp_gso_segment`,
//! `__udp_gso_segment`).
//!
//! The super-packet's own transport checksum is taken for an offload's partial sum: each
//! segment's is computed in full.

use crate::checksum;
use crate::room::{ETH_P_IP, ETH_P_IPV6};
use crate::skb::{GsoKind, Skb, Tunnel};

const IPPROTO_HOPOPTS: u8 = 0;
const IPPROTO_IPIP: u8 = 4;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_IPV6: u8 = 41;
const IPPROTO_ROUTING: u8 = 43;
const IPPROTO_DSTOPTS: u8 = 60;

const IPV6_HEADER_LEN: usize = 40;
/// Bytes of a hop-by-hop header with nothing but the jumbo payload option.
const JUMBO_LEN: usize = 8;

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// Why a super-packet makes no segments: the kernel drops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GsoError {
    /// A header is cut off or contradicts itself.
    #[error("header at byte {at} is malformed")]
    Malformed {
        /// Where it begins.
        at: usize,
    },
    /// There is no offload for what stands there, or the frame does not announce it.
    #[error("no offload for protocol {protocol} at byte {at}")]
    Unsupported {
        /// An IP protocol, or an Ethernet type.
        protocol: u16,
        /// Where it begins.
        at: usize,
    },
}

/// A header whose fields change from segment to segment.
#[derive(Clone, Copy, Debug)]
enum Layer {
    Ipv4 {
        at: usize,
        header_len: usize,
    },
    Ipv6 {
        at: usize,
    },
    /// A tunnel's UDP header.
    Udp {
        at: usize,
    },
}

/// Headers of one super-packet.
#[derive(Debug)]
struct Shape {
    /// Outer IP, outer UDP, inner IP.
    layers: [Option<Layer>; 3],
    transport: usize,
    payload: usize,
    kind: GsoKind,
    gso_size: usize,
}

/// Gives the frames that leave for `skb`: one that is no super-packet as it is, another's
/// segments one after the other. Says how many.
///
/// # Errors
/// When the kernel's GSO cannot carry the super-packet: it is dropped, `out` is not called.
pub fn segment(skb: &Skb, out: &mut impl FnMut(&[u8])) -> Result<u32, GsoError> {
    let frame = skb.data();
    let Some(shape) = shape(skb)? else {
        out(frame);
        return Ok(1);
    };
    let mut unjumboed = Vec::new();
    let (frame, shape) = match without_jumbo(skb, &mut unjumboed) {
        true => (unjumboed.as_slice(), shape.behind_jumbo()),
        false => (frame, shape),
    };
    let (headers, payload) = frame.split_at(shape.payload);
    let mut segment = Vec::with_capacity(headers.len() + shape.gso_size);
    let mut offset = 0;
    let mut index = 0u32;
    loop {
        let end = payload.len().min(offset + shape.gso_size);
        segment.clear();
        segment.extend_from_slice(headers);
        segment.extend_from_slice(&payload[offset..end]);
        let position = Position {
            index,
            offset,
            is_last: end == payload.len(),
        };
        shape.finish(&mut segment, position);
        out(&segment);
        index += 1;
        offset = end;
        if position.is_last {
            return Ok(index);
        }
    }
}

/// Takes the hop-by-hop header with the jumbo payload option out of IPv6 BIG TCP, as
/// `ipv6_hopopt_jumbo_remove` does before segmentation; says whether there was one.
fn without_jumbo(skb: &Skb, into: &mut Vec<u8>) -> bool {
    const GRO_LEGACY_MAX_SIZE: usize = 65_536;
    const IPV6_TLV_JUMBO: u8 = 194;
    let (frame, at) = (skb.data(), skb.network_offset());
    let hop = at + IPV6_HEADER_LEN;
    let found = skb.protocol == ETH_P_IPV6
        && skb.encapsulation.is_none()
        && frame.len() > GRO_LEGACY_MAX_SIZE
        && frame[at + 6] == IPPROTO_HOPOPTS
        && frame[hop] == IPPROTO_TCP
        && frame[hop + 1] == 0
        && frame[hop + 2] == IPV6_TLV_JUMBO;
    if found {
        into.extend_from_slice(&frame[..hop]);
        into.extend_from_slice(&frame[hop + JUMBO_LEN..]);
        into[at + 6] = IPPROTO_TCP;
    }
    found
}

/// Which segment of the super-packet.
#[derive(Clone, Copy)]
struct Position {
    index: u32,
    /// Of its payload in the super-packet's.
    offset: usize,
    is_last: bool,
}

/// The headers that GSO would walk; nothing if the frame is no super-packet.
fn shape(skb: &Skb) -> Result<Option<Shape>, GsoError> {
    let Some(gso) = skb.gso.filter(|gso| gso.size > 0) else {
        return Ok(None);
    };
    let frame = skb.data();
    let mut layers = [None; 3];
    let mut used = 0;
    let mut protocol = skb.protocol;
    let mut at = skb.network_offset();
    let mut tunnel = skb.encapsulation;
    loop {
        let (layer, next, next_at) = network(frame, at, protocol)?;
        layers[used] = Some(layer);
        used += 1;
        match (next, tunnel) {
            (IPPROTO_TCP, _) if matches!(gso.kind, GsoKind::Tcp4 | GsoKind::Tcp6) => {
                let payload = next_at + tcp_header_len(frame, next_at)?;
                return Ok(Some(Shape {
                    layers,
                    transport: next_at,
                    payload,
                    kind: gso.kind,
                    gso_size: usize::from(gso.size),
                }));
            }
            (IPPROTO_UDP, Some(outer)) if outer.tunnel == Tunnel::Udp => {
                if outer.inner_network < next_at + 8 || outer.inner_network > frame.len() {
                    return Err(GsoError::Malformed { at: next_at });
                }
                layers[used] = Some(Layer::Udp { at: next_at });
                used += 1;
                (protocol, at) = (outer.inner_protocol, outer.inner_network);
                tunnel = None;
            }
            (IPPROTO_UDP, _) if gso.kind == GsoKind::Udp => {
                header(frame, next_at, 8)?;
                return Ok(Some(Shape {
                    layers,
                    transport: next_at,
                    payload: next_at + 8,
                    kind: gso.kind,
                    gso_size: usize::from(gso.size),
                }));
            }
            // SKB_GSO_IPXIP4 stands for an IPv4 header outside, SKB_GSO_IPXIP6 for IPv6.
            (IPPROTO_IPIP | IPPROTO_IPV6, Some(outer))
                if matches!(
                    (outer.tunnel, layer),
                    (Tunnel::Ipip4, Layer::Ipv4 { .. }) | (Tunnel::Ipip6, Layer::Ipv6 { .. })
                ) =>
            {
                protocol = match next {
                    IPPROTO_IPIP => ETH_P_IP,
                    _ => ETH_P_IPV6,
                };
                at = next_at;
                tunnel = None;
            }
            _ => {
                return Err(GsoError::Unsupported {
                    protocol: u16::from(next),
                    at: next_at,
                });
            }
        }
    }
}

fn header(frame: &[u8], at: usize, len: usize) -> Result<&[u8], GsoError> {
    frame
        .get(at..at.saturating_add(len))
        .ok_or(GsoError::Malformed { at })
}

fn tcp_header_len(frame: &[u8], at: usize) -> Result<usize, GsoError> {
    let len = usize::from(header(frame, at, 20)?[12] >> 4) * 4;
    if len < 20 || frame.len() < at + len {
        return Err(GsoError::Malformed { at });
    }
    Ok(len)
}

/// One IP header: the layer, the protocol behind it and where that begins.
fn network(frame: &[u8], at: usize, protocol: u16) -> Result<(Layer, u8, usize), GsoError> {
    match protocol {
        ETH_P_IP => {
            let ip = header(frame, at, 20)?;
            let header_len = usize::from(ip[0] & 0xf) * 4;
            if header_len < 20 || frame.len() < at + header_len {
                return Err(GsoError::Malformed { at });
            }
            let layer = Layer::Ipv4 { at, header_len };
            let fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff;
            if fragment != 0 {
                // A fragment's payload is no transport header.
                return Err(GsoError::Unsupported {
                    protocol: u16::from(ip[9]),
                    at,
                });
            }
            Ok((layer, ip[9], at + header_len))
        }
        ETH_P_IPV6 => {
            let mut next = header(frame, at, 40)?[6];
            let mut next_at = at + 40;
            // The extension headers that the kernel's GSO steps over.
            while matches!(next, IPPROTO_HOPOPTS | IPPROTO_ROUTING | IPPROTO_DSTOPTS) {
                let start = header(frame, next_at, 8)?;
                let len = (usize::from(start[1]) + 1) * 8;
                header(frame, next_at, len)?;
                next = start[0];
                next_at += len;
            }
            Ok((Layer::Ipv6 { at }, next, next_at))
        }
        _ => Err(GsoError::Unsupported { protocol, at }),
    }
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn read16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

impl Shape {
    /// The same headers once the jumbo header in front of the transport is gone.
    fn behind_jumbo(mut self) -> Self {
        self.transport -= JUMBO_LEN;
        self.payload -= JUMBO_LEN;
        self
    }

    /// Makes the headers of a segment right: lengths, numbers, flags, checksums.
    fn finish(&self, segment: &mut [u8], position: Position) {
        let len = segment.len();
        let mut pseudo_header = 0;
        for layer in self.layers.iter().flatten() {
            match *layer {
                Layer::Ipv4 { at, header_len } => {
                    put16(segment, at + 2, (len - at) as u16);
                    let id = read16(segment, at + 4).wrapping_add(position.index as u16);
                    put16(segment, at + 4, id);
                    put16(segment, at + 10, 0);
                    let sum = checksum::sum(&segment[at..at + header_len], 0);
                    put16(segment, at + 10, !checksum::fold(sum));
                    pseudo_header = checksum::sum(&segment[at + 12..at + 20], 0);
                }
                Layer::Ipv6 { at } => {
                    put16(segment, at + 4, (len - at - 40) as u16);
                    pseudo_header = checksum::sum(&segment[at + 8..at + 40], 0);
                }
                Layer::Udp { at } => put16(segment, at + 4, (len - at) as u16),
            }
        }
        let protocol = match self.kind {
            GsoKind::Udp => IPPROTO_UDP,
            GsoKind::Tcp4 | GsoKind::Tcp6 => IPPROTO_TCP,
        };
        let transport_len = (len - self.transport) as u64;
        let pseudo_header = pseudo_header + u64::from(protocol) + transport_len;
        let transport = &mut segment[self.transport..];
        match self.kind {
            GsoKind::Udp => finish_udp(transport, pseudo_header),
            GsoKind::Tcp4 | GsoKind::Tcp6 => finish_tcp(transport, pseudo_header, position),
        }
    }
}

fn finish_udp(datagram: &mut [u8], pseudo_header: u64) {
    put16(datagram, 4, datagram.len() as u16);
    put16(datagram, 6, 0);
    // RFC 768: 0 would mean "no checksum".
    let sum = match !checksum::fold(checksum::sum(datagram, pseudo_header)) {
        0 => 0xffff,
        sum => sum,
    };
    put16(datagram, 6, sum);
}

fn finish_tcp(segment: &mut [u8], pseudo_header: u64, position: Position) {
    let first = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
    let sequence = first.wrapping_add(position.offset as u32);
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    if !position.is_last {
        segment[13] &= !(TCP_FIN | TCP_PSH);
    }
    if position.index > 0 {
        segment[13] &= !TCP_CWR;
    }
    put16(segment, 16, 0);
    let sum = !checksum::fold(checksum::sum(segment, pseudo_header));
    put16(segment, 16, sum);
}

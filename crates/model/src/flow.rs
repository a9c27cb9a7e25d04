//! The inner flow: key, hash, and what the outer header takes from it. Formula and rules
//! stand in `abi::flow`.

use crate::extension::{self, Upper};
use crate::packet::Packet;
use crate::wire::{Ip, SCTP, TCP, UDP};
use dynencap_abi::hash::{K1, K2, K3, K4};
use dynencap_abi::{Exit, FlowKey};

/// The packet's flow; none where its IP header is malformed.
#[must_use]
#[inline]
pub fn key(packet: &Packet<'_>) -> Option<FlowKey> {
    let ip = Ip::parse(packet.ethertype, packet.bytes)?;
    Some(key_of(&ip, packet.bytes))
}

#[inline]
pub(crate) fn key_of(ip: &Ip<'_>, bytes: &[u8]) -> FlowKey {
    key_at(ip, &extension::upper(ip, bytes), bytes)
}

/// The same where the extension headers have been walked.
// Out of line, the key would be written by bytes and read by words.
#[inline(always)]
pub(crate) fn key_at(ip: &Ip<'_>, upper: &Upper, bytes: &[u8]) -> FlowKey {
    let ports = match (upper.protocol, upper.offset) {
        (TCP | UDP | SCTP, Some(offset)) => bytes.get(offset..).and_then(<[u8]>::first_chunk),
        _ => None,
    };
    let [s0, s1, d0, d1] = ports.copied().unwrap_or([0; 4]);
    FlowKey {
        source: ip.source(),
        destination: ip.destination(),
        source_port: [s0, s1],
        destination_port: [d0, d1],
        protocol: upper.protocol,
        version: match ip {
            Ip::V4(_) => 4,
            Ip::V6(_) => 6,
        },
        reserved: [0; 2],
    }
}

/// `flow_hash` of `abi::flow`.
#[must_use]
#[inline(always)]
pub fn hash(key: &FlowKey) -> u64 {
    let mut h = endpoint(&key.source, key.source_port)
        .wrapping_add(endpoint(&key.destination, key.destination_port))
        .wrapping_add(u64::from(key.protocol).wrapping_mul(K4));
    h ^= h >> 32;
    h = h.wrapping_mul(K1);
    h ^ h >> 29
}

#[inline(always)]
fn endpoint(address: &[u8; 16], port: [u8; 2]) -> u64 {
    let [
        a0,
        a1,
        a2,
        a3,
        a4,
        a5,
        a6,
        a7,
        b0,
        b1,
        b2,
        b3,
        b4,
        b5,
        b6,
        b7,
    ] = *address;
    let high = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
    let low = u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
    let port = u64::from(u16::from_be_bytes(port));
    let mut e = high.wrapping_mul(K1) ^ (low ^ port).wrapping_mul(K2);
    e ^= e >> 32;
    e = e.wrapping_mul(K3);
    e ^ e >> 29
}

/// The outer flow label: 20 bits, never 0, which RFC 6437 reads as "no label".
#[must_use]
pub fn flow_label(hash: u64) -> u32 {
    ((hash >> 44) as u32).max(1)
}

/// The outer UDP source port, in RFC 6335's dynamic range.
#[must_use]
pub fn udp_source_port(hash: u64) -> u16 {
    0xc000 | (hash & 0x3fff) as u16
}

/// The outer UDP source port as it stands on the wire: the exit's, or else the flow's.
pub(crate) fn source_port_of(exit: &Exit, hash: u64) -> [u8; 2] {
    match exit.source_port {
        [0, 0] => udp_source_port(hash).to_be_bytes(),
        port => port,
    }
}

//! The inner flow: its key, and the hash from which the outer flow label and UDP source port
//! come. The hash is specified here as a formula with test vectors and implemented by each
//! engine on its own.
//!
//! # The flow hash
//!
//! All arithmetic is on 64-bit unsigned integers modulo 2^64; `le64` reads eight bytes as
//! little-endian on every machine. IPv4 addresses stand as IPv4-mapped IPv6 addresses
//! (`::ffff:a.b.c.d`); ports are plain numbers 0–65535.
//!
//! ```text
//! endpoint(address, port):
//!     e  = (le64(address[0..8]) * K1) ^ ((le64(address[8..16]) ^ port) * K2)
//!     e ^= e >> 32;  e *= K3;  e ^= e >> 29
//! flow_hash(key):
//!     h  = endpoint(source, source_port) + endpoint(destination, destination_port)
//!          + protocol * K4
//!     h ^= h >> 32;  h *= K1;  h ^= h >> 29
//! flow_label      = h >> 44, or 1 where that is 0   (20 bits; RFC 6437: 0 means "none")
//! udp_source_port = 0xC000 | (h & 0x3FFF)           (49152–65535, RFC 6335 §6)
//! ```
//!
//! It is symmetric: both directions of a connection hash alike. Each endpoint is mixed
//! before the sum, so that moving a difference from one to the other changes the hash.
//!
//! # The key
//!
//! - TCP (6), UDP (17) and SCTP (132) have ports; every other protocol has ports 0.
//! - A fragment has ports 0, the first one too, so that all fragments hash alike: IPv4 with
//!   MF set or an offset, IPv6 with a fragment header (an atomic fragment as well).
//! - IPv6 extension headers (hop-by-hop 0, routing 43, destination options 60, AH 51) are
//!   walked, at most [`crate::MAX_EXTENSION_HEADERS`] of them. `protocol` is the first next
//!   header that is none of these, or the fragment header's next header. Where the chain is
//!   longer or cut off, `protocol` is the next header that could not be walked, ports 0.
//! - Where the packet ends before the four bytes of ports, they are 0.

use core::mem::{offset_of, size_of};

/// The constants of the formula: odd, with well-spread bits (the primes of xxHash64).
pub mod hash {
    /// `K1`.
    pub const K1: u64 = 0x9E37_79B9_7F4A_7C15;
    /// `K2`.
    pub const K2: u64 = 0xC2B2_AE3D_27D4_EB4F;
    /// `K3`.
    pub const K3: u64 = 0x1656_67B1_9E37_79F9;
    /// `K4`.
    pub const K4: u64 = 0x85EB_CA77_C2B2_AE63;
}

/// A 5-tuple as one direction of the flow shows it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Source address, network order; IPv4 as IPv4-mapped.
    pub source: [u8; 16],
    /// Destination address, network order; IPv4 as IPv4-mapped.
    pub destination: [u8; 16],
    /// Source port, network order, or 0.
    pub source_port: [u8; 2],
    /// Destination port, network order, or 0.
    pub destination_port: [u8; 2],
    /// Transport protocol.
    pub protocol: u8,
    /// IP version of the packet: 4 or 6.
    pub version: u8,
    /// Always zero.
    pub reserved: [u8; 2],
}

impl FlowKey {
    /// The same flow as the other side sees it.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }
}

const _: () = assert!(size_of::<FlowKey>() == 40 && offset_of!(FlowKey, protocol) == 36);

/// A key and what the formula gives for it, computed by a program of neither engine.
#[derive(Clone, Copy, Debug)]
pub struct FlowHashVector {
    /// The flow.
    pub key: FlowKey,
    /// `flow_hash(key)`.
    pub hash: u64,
    /// The outer flow label.
    pub flow_label: u32,
    /// The outer UDP source port.
    pub udp_source_port: u16,
}

#[expect(
    clippy::too_many_arguments,
    reason = "eight groups, as an IPv6 address is written"
)]
const fn v6(g0: u16, g1: u16, g2: u16, g3: u16, g4: u16, g5: u16, g6: u16, g7: u16) -> [u8; 16] {
    core::net::Ipv6Addr::new(g0, g1, g2, g3, g4, g5, g6, g7).octets()
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> [u8; 16] {
    core::net::Ipv4Addr::new(a, b, c, d)
        .to_ipv6_mapped()
        .octets()
}

const fn key(
    version: u8,
    source: [u8; 16],
    source_port: u16,
    destination: [u8; 16],
    destination_port: u16,
    protocol: u8,
) -> FlowKey {
    FlowKey {
        source,
        destination,
        source_port: source_port.to_be_bytes(),
        destination_port: destination_port.to_be_bytes(),
        protocol,
        version,
        reserved: [0; 2],
    }
}

const fn vector(key: FlowKey, hash: u64, flow_label: u32, udp_source_port: u16) -> FlowHashVector {
    FlowHashVector {
        key,
        hash,
        flow_label,
        udp_source_port,
    }
}

/// Every engine that computes the hash is tested against these.
#[rustfmt::skip]
pub const FLOW_HASH_VECTORS: &[FlowHashVector] = &[
    // :: port 0 -> :: port 0, protocol 0
    vector(key(6, v6(0x0, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0), 0, v6(0x0, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0), 0, 0), 0x0000_0000_0000_0000, 0x00001, 49152),
    // 2001:db8::1 port 1024 -> 2001:db8::2 port 443, protocol 6
    vector(key(6, v6(0x2001, 0xdb8, 0x0, 0x0, 0x0, 0x0, 0x0, 0x1), 1024, v6(0x2001, 0xdb8, 0x0, 0x0, 0x0, 0x0, 0x0, 0x2), 443, 6), 0x4509_2d40_171f_2178, 0x45092, 57720),
    // 2001:db8::2 port 443 -> 2001:db8::1 port 1024, protocol 6
    vector(key(6, v6(0x2001, 0xdb8, 0x0, 0x0, 0x0, 0x0, 0x0, 0x2), 443, v6(0x2001, 0xdb8, 0x0, 0x0, 0x0, 0x0, 0x0, 0x1), 1024, 6), 0x4509_2d40_171f_2178, 0x45092, 57720),
    // 2001:db8::1 port 1024 -> 2001:db8::2 port 443, protocol 17
    vector(key(6, v6(0x2001, 0xdb8, 0x0, 0x0, 0x0, 0x0, 0x0, 0x1), 1024, v6(0x2001, 0xdb8, 0x0, 0x0, 0x0, 0x0, 0x0, 0x2), 443, 17), 0x894f_ae04_60b6_20de, 0x894fa, 57566),
    // 2001:db8::1 port 1025 -> 2001:db8::2 port 443, protocol 6
    vector(key(6, v6(0x2001, 0xdb8, 0x0, 0x0, 0x0, 0x0, 0x0, 0x1), 1025, v6(0x2001, 0xdb8, 0x0, 0x0, 0x0, 0x0, 0x0, 0x2), 443, 6), 0x9fe6_220f_1139_6050, 0x9fe62, 57424),
    // 2001:db8::1 port 0 -> 2001:db8::2 port 0, protocol 58
    vector(key(6, v6(0x2001, 0xdb8, 0x0, 0x0, 0x0, 0x0, 0x0, 0x1), 0, v6(0x2001, 0xdb8, 0x0, 0x0, 0x0, 0x0, 0x0, 0x2), 0, 58), 0xdbe3_bcd8_08e6_0b73, 0xdbe3b, 52083),
    // 192.0.2.1 port 40000 -> 198.51.100.7 port 80, protocol 6
    vector(key(4, v4(192, 0, 2, 1), 40000, v4(198, 51, 100, 7), 80, 6), 0x7565_32ac_b9e8_01c8, 0x75653, 49608),
    // 198.51.100.7 port 80 -> 192.0.2.1 port 40000, protocol 6
    vector(key(4, v4(198, 51, 100, 7), 80, v4(192, 0, 2, 1), 40000, 6), 0x7565_32ac_b9e8_01c8, 0x75653, 49608),
    // 192.0.2.1 port 0 -> 198.51.100.7 port 0, protocol 1
    vector(key(4, v4(192, 0, 2, 1), 0, v4(198, 51, 100, 7), 0, 1), 0x3c44_c583_cae6_ee03, 0x3c44c, 60931),
    // fe80::1 port 65535 -> ff02::1:2 port 547, protocol 17
    vector(key(6, v6(0xfe80, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0, 0x1), 65535, v6(0xff02, 0x0, 0x0, 0x0, 0x0, 0x0, 0x1, 0x2), 547, 17), 0xe20c_597c_0777_3082, 0xe20c5, 61570),
    // ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff port 65535 -> ::1 port 1, protocol 255
    vector(key(6, v6(0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff), 65535, v6(0x0, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0, 0x1), 1, 255), 0x6150_55b1_3bd6_9e44, 0x61505, 56900),
];

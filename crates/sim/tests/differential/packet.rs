//! Random IP packets as a socket sends them: of every transport, whole and broken.

use crate::chain::{self, Extension};
use proptest::prelude::*;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// Everything of a packet in front of its transport header.
#[derive(Clone, Debug)]
pub(crate) enum Network {
    /// IPv4: type of service, identification, flags and offset, time to live, option words.
    V4 {
        class: u8,
        identification: u16,
        fragment: u16,
        hops: u8,
        options: u8,
        addresses: [u8; 2],
    },
    /// IPv6: traffic class, flow label, hop limit, extension headers.
    V6 {
        class: u8,
        label: u32,
        hops: u8,
        chain: Vec<Extension>,
        addresses: [u8; 2],
    },
}

/// A packet before it is written.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) network: Network,
    pub(crate) protocol: u8,
    /// The transport header: ports, sequence number, data offset, flags.
    pub(crate) ports: [u16; 2],
    pub(crate) sequence: u32,
    pub(crate) option_words: u8,
    pub(crate) flags: u8,
    /// What the payload is made of.
    pub(crate) seed: u32,
}

/// A written packet.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) ethertype: u16,
    pub(crate) bytes: Vec<u8>,
    pub(crate) transport_offset: usize,
}

/// Numbers that wrap soon, and others.
fn near_wrap() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..4, (u32::MAX - 40_000)..=u32::MAX, any::<u32>()]
}

fn fragment() -> impl Strategy<Value = u16> {
    // Whole (DF and not, the reserved bit), first, middle, last.
    let whole = || prop::sample::select(&[0, 0x4000, 0x8000][..]);
    prop_oneof![
        6 => whole(),
        1 => prop::sample::select(&[0x2000, 0x2001, 0x00b9, 0x3fff, 0x6000][..]),
    ]
}

pub(crate) fn v4(fragment: impl Strategy<Value = u16>) -> impl Strategy<Value = Network> {
    let options = prop_oneof![3 => Just(0u8), 1 => 1u8..=10];
    let addresses = any::<[u8; 2]>();
    (
        any::<u8>(),
        near_wrap(),
        fragment,
        any::<u8>(),
        options,
        addresses,
    )
        .prop_map(
            |(class, identification, fragment, hops, options, addresses)| Network::V4 {
                class,
                identification: identification as u16,
                fragment,
                hops,
                options,
                addresses,
            },
        )
}

pub(crate) fn v6(chain: impl Strategy<Value = Vec<Extension>>) -> impl Strategy<Value = Network> {
    let label = prop_oneof![Just(0), 0u32..1 << 20];
    let addresses = any::<[u8; 2]>();
    (any::<u8>(), label, any::<u8>(), chain, addresses).prop_map(
        |(class, label, hops, chain, addresses)| Network::V6 {
            class,
            label,
            hops,
            chain,
            addresses,
        },
    )
}

/// Unfragmented and with no header that segmentation cannot step over.
pub(crate) fn segmentable() -> impl Strategy<Value = Network> {
    let whole = prop::sample::select(&[0, 0x4000][..]);
    prop_oneof![v4(whole), v6(chain::segmentable_chain())]
}

pub(crate) fn with_network(
    network: impl Strategy<Value = Network>,
    protocol: impl Strategy<Value = u8>,
) -> impl Strategy<Value = Spec> {
    let ports = prop::array::uniform2(prop_oneof![any::<u16>(), Just(0)]);
    let transport = (protocol, ports, near_wrap(), 0u8..=10, any::<u8>());
    (network, transport, any::<u32>()).prop_map(|(network, transport, seed)| {
        let (protocol, ports, sequence, option_words, flags) = transport;
        Spec {
            network,
            protocol,
            ports,
            sequence,
            option_words,
            flags,
            seed,
        }
    })
}

/// Any packet that is sound in itself.
pub(crate) fn sound() -> impl Strategy<Value = Spec> {
    // ICMP, TCP, UDP, ICMPv6, SCTP, ESP, no next header, IP inside, and whatever.
    let known = prop::sample::select(&[1, TCP, TCP, UDP, UDP, 58, 132, 50, 59, 4, 41][..]);
    let protocol = prop_oneof![8 => known, 1 => any::<u8>()];
    let network = prop_oneof![v4(fragment()), v6(chain::any_chain())];
    with_network(network, protocol)
}

impl Spec {
    /// Headers up to the payload.
    pub(crate) fn headers_len(&self) -> usize {
        self.write(0).bytes.len()
    }

    /// The packet with that many bytes of payload.
    pub(crate) fn write(&self, payload: usize) -> Written {
        let mut upper = self.transport(payload);
        upper.extend(noise(self.seed, payload));
        match &self.network {
            Network::V4 {
                class,
                identification,
                fragment,
                hops,
                options,
                addresses,
            } => {
                let len = 20 + 4 * usize::from(*options);
                let mut bytes = vec![0x45 + options, *class];
                bytes.extend(((len + upper.len()) as u16).to_be_bytes());
                bytes.extend(identification.to_be_bytes());
                bytes.extend(fragment.to_be_bytes());
                bytes.extend([*hops, self.protocol, 0, 0]);
                bytes.extend([192, 0, 2, addresses[0], 198, 51, 100, addresses[1]]);
                // No-operation options.
                bytes.resize(len, 1);
                let sum = checksum(&bytes);
                bytes[10..12].copy_from_slice(&sum);
                bytes.extend(upper);
                Written {
                    ethertype: 0x0800,
                    bytes,
                    transport_offset: len,
                }
            }
            Network::V6 {
                class,
                label,
                hops,
                chain,
                addresses,
            } => {
                let (next, extensions) = chain::write(chain, self.protocol);
                let word = 6 << 28 | u32::from(*class) << 20 | label;
                let mut bytes = word.to_be_bytes().to_vec();
                bytes.extend(((extensions.len() + upper.len()) as u16).to_be_bytes());
                bytes.extend([next, *hops]);
                for last in addresses {
                    bytes.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, *last]);
                }
                bytes.extend(&extensions);
                bytes.extend(upper);
                Written {
                    ethertype: 0x86dd,
                    bytes,
                    transport_offset: 40 + extensions.len(),
                }
            }
        }
    }

    fn transport(&self, payload: usize) -> Vec<u8> {
        let mut header: Vec<u8> = self.ports.iter().flat_map(|p| p.to_be_bytes()).collect();
        match self.protocol {
            TCP => {
                header.extend(self.sequence.to_be_bytes());
                header.extend(self.seed.to_be_bytes());
                header.extend([(5 + self.option_words) << 4, self.flags, 0x12, 0x34]);
                header.extend([0xab, 0xcd, 0, 0]);
                header.resize(20 + 4 * usize::from(self.option_words), 1);
            }
            UDP => {
                header.extend(((8 + payload) as u16).to_be_bytes());
                header.extend([0xab, 0xcd]);
            }
            _ => {}
        }
        header
    }
}

/// Bytes that look like anything.
pub(crate) fn noise(seed: u32, len: usize) -> impl Iterator<Item = u8> {
    let mut state = seed | 1;
    (0..len).map(move |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    })
}

/// The one's complement sum of a header's words.
pub(crate) fn folded(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The Internet checksum of a header whose checksum field is 0.
fn checksum(header: &[u8]) -> [u8; 2] {
    (!folded(header)).to_be_bytes()
}

/// One thing wrong with a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Defect {
    /// A byte in the headers is another.
    Byte { at: usize, value: u8 },
    /// Bits of a byte in the headers are turned over.
    Bits { at: usize, bits: u8 },
    /// It ends early, so that so many bytes are left.
    Cut { len: usize },
    /// Bytes follow it.
    Trailer { len: usize },
    /// Its length field is off.
    Length { by: i16 },
}

/// One kind of defect or the other.
pub(crate) fn defect() -> impl Strategy<Value = Defect> {
    prop_oneof![
        (0usize..130, any::<u8>()).prop_map(|(at, value)| Defect::Byte { at, value }),
        (0usize..130, 0u32..8).prop_map(|(at, bit)| Defect::Bits { at, bits: 1 << bit }),
        (0usize..130).prop_map(|len| Defect::Cut { len }),
        (1usize..60).prop_map(|len| Defect::Trailer { len }),
        (-60i16..60).prop_map(|by| Defect::Length { by }),
    ]
}

impl Defect {
    /// Spoils `bytes`, in which a packet begins at `start`.
    pub(crate) fn spoil(self, bytes: &mut Vec<u8>, start: usize) {
        match self {
            Self::Byte { at, value } => {
                if let Some(byte) = bytes.get_mut(start + at) {
                    *byte = value;
                }
            }
            Self::Bits { at, bits } => {
                if let Some(byte) = bytes.get_mut(start + at) {
                    *byte ^= bits;
                }
            }
            Self::Cut { len } => bytes.truncate(start + len),
            Self::Trailer { len } => bytes.resize(bytes.len() + len, 0x5a),
            Self::Length { by } => {
                let at = match bytes.get(start).map(|byte| byte >> 4) {
                    Some(4) => start + 2,
                    _ => start + 4,
                };
                if let Some(field) = bytes.get_mut(at..at + 2) {
                    let length = u16::from_be_bytes([field[0], field[1]]);
                    field.copy_from_slice(&length.wrapping_add_signed(by).to_be_bytes());
                }
            }
        }
    }
}

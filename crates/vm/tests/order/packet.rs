//! Packets of the sockets' flow, bare, in our tunnels, and quoted by ICMP errors.

use crate::{GATEWAY, GATEWAY4, KERNELS, LOCAL, REMOTE};
use proptest::prelude::*;

pub(crate) fn v6(address: [u8; 4]) -> [u8; 16] {
    let mut bytes = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[12..].copy_from_slice(&address);
    bytes
}

/// TCP or UDP of the sockets' 5-tuple, either way, in either IP version.
pub(crate) fn packet(
    is_v6: bool,
    protocol: u8,
    leaves: bool,
    payload: &[u8],
    noise: &[(usize, u8)],
) -> Vec<u8> {
    let (from, to) = if leaves {
        (LOCAL, REMOTE)
    } else {
        (REMOTE, LOCAL)
    };
    let header = if protocol == 6 { 20 } else { 8 };
    let len = header + payload.len();
    let mut bytes = Vec::new();
    if is_v6 {
        bytes.extend([0x60, 0, 0, 0]);
        bytes.extend((len as u16).to_be_bytes());
        bytes.extend([protocol, 64]);
        bytes.extend(v6(from.0));
        bytes.extend(v6(to.0));
    } else {
        bytes.extend([0x45, 0]);
        bytes.extend((20 + len as u16).to_be_bytes());
        bytes.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
        bytes.extend(from.0);
        bytes.extend(to.0);
    }
    bytes.extend(from.1.to_be_bytes());
    bytes.extend(to.1.to_be_bytes());
    if protocol == 6 {
        bytes.extend([0, 0, 0, 100, 0, 0, 0, 9, 0x50, 0x14, 1, 0, 0, 0, 0, 0]);
    } else {
        bytes.extend((len as u16).to_be_bytes());
        bytes.extend([1, 2]);
    }
    bytes.extend(payload);
    for (at, byte) in noise {
        if let Some(place) = bytes.get_mut(*at) {
            *place = *byte;
        }
    }
    bytes
}

/// An outer header of ours around a packet.
pub(crate) fn tunnelled(outer_v6: bool, udp: bool, leaves: bool, inner: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    if udp {
        body.extend([0xc0, 0, 0x12, 0x34]);
        body.extend((8 + inner.len() as u16).to_be_bytes());
        body.extend([0, 0]);
    }
    body.extend(inner);
    let protocol = match (udp, inner.first().map(|byte| byte >> 4)) {
        (true, _) => 17,
        (false, Some(6)) => 41,
        _ => 4,
    };
    let mut bytes = Vec::new();
    if outer_v6 {
        bytes.extend([0x60, 0, 0, 0]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend([protocol, 64]);
        let ends = if leaves {
            [[0xfd; 16], GATEWAY]
        } else {
            [GATEWAY; 2]
        };
        bytes.extend(ends.concat());
    } else {
        bytes.extend([0x45, 0]);
        bytes.extend((20 + body.len() as u16).to_be_bytes());
        bytes.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
        bytes.extend([10, 0, 0, 1]);
        bytes.extend(GATEWAY4);
        let sum = bytes.chunks(2).fold(0u32, |sum, pair| {
            sum + u32::from(u16::from_be_bytes([pair[0], pair[1]]))
        });
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    bytes.extend(body);
    bytes
}

/// "Too big", quoting a packet.
pub(crate) fn too_big(is_v6: bool, mtu: u16, quoted: &[u8]) -> Vec<u8> {
    let mut icmp = vec![
        if is_v6 { 2 } else { 3 },
        if is_v6 { 0 } else { 4 },
        0,
        0,
        0,
        0,
    ];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(quoted);
    let mut bytes = Vec::new();
    if is_v6 {
        bytes.extend([0x60, 0, 0, 0]);
        bytes.extend((icmp.len() as u16).to_be_bytes());
        bytes.extend([58, 64]);
        bytes.extend([[7; 16], [0xfd; 16]].concat());
    } else {
        bytes.extend([0x45, 0]);
        bytes.extend((20 + icmp.len() as u16).to_be_bytes());
        bytes.extend([0, 1, 0, 0, 64, 1, 0, 0, 7, 7, 7, 7, 10, 0, 0, 1]);
    }
    bytes.extend(icmp);
    bytes
}

pub(crate) fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec((0..60usize, any::<u8>()), 0..3);
    let payload = (0..2500usize).prop_map(|len| vec![0x5a; len]);
    let protocol = prop::sample::select(vec![6u8, 6, 17, 58]);
    let plain = (any::<bool>(), protocol, any::<bool>(), payload, noise)
        .prop_map(|(six, protocol, leaves, payload, noise)| {
            packet(six, protocol, leaves, &payload, &noise)
        })
        .boxed();
    let noise = prop::collection::vec((0..60usize, any::<u8>()), 0..2);
    let wrapped = (any::<[bool; 3]>(), plain.clone(), noise)
        .prop_map(|([six, udp, leaves], inner, noise)| {
            let mut outer = tunnelled(six, udp, leaves, &inner);
            for (at, byte) in noise {
                if let Some(place) = outer.get_mut(at) {
                    *place = byte;
                }
            }
            // CE outside, now and then.
            if six && inner.len().is_multiple_of(5) {
                outer[1] |= 0x30;
            }
            outer
        })
        .boxed();
    let error = (any::<bool>(), any::<u16>(), wrapped.clone(), 0..1300usize).prop_map(
        |(six, mtu, mut quoted, len)| {
            quoted.truncate(len.max(28));
            too_big(six, mtu, &quoted)
        },
    );
    prop_oneof![
        6 => plain,
        3 => wrapped,
        2 => error,
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

/// What comes by a tunnel to the sockets' flow: segments near what they expect, datagrams, from one
/// of two gateways.
pub(crate) fn any_arrival() -> impl Strategy<Value = Vec<u8>> {
    let segment = (
        90..115u32,
        0..60u32,
        prop::sample::select(vec![2u8, 16, 16, 16, 18, 17, 4]),
    );
    let inner = (
        any::<bool>(),
        prop::sample::select(vec![6u8, 6, 6, 17]),
        segment,
        0..20usize,
    )
        .prop_map(
            |(six, protocol, (sequence, acknowledgement, flags), payload)| {
                let mut bytes = packet(six, protocol, false, &vec![1; payload], &[]);
                let at = if six { 40 } else { 20 };
                if protocol == 6 {
                    bytes[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
                    bytes[at + 8..at + 12].copy_from_slice(&acknowledgement.to_be_bytes());
                    bytes[at + 13] = flags;
                }
                bytes
            },
        );
    let ends = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (
        ends,
        inner,
        prop::option::weighted(0.1, (0..80usize, any::<u8>())),
    )
        .prop_map(|((six, udp, kernels, other), inner, noise)| {
            let mut outer = tunnelled(six, udp, false, &inner);
            if six {
                // The last byte of the source.
                outer[23] = if other { 7 } else { 9 };
                if kernels {
                    outer[24..40].copy_from_slice(&KERNELS);
                }
            }
            if let Some((at, byte)) = noise
                && let Some(place) = outer.get_mut(at)
            {
                *place = byte;
            }
            outer
        })
}

/// What stands inside a tunnel's packet; all of it where that cannot be told.
pub(crate) fn inner(packet: &[u8]) -> &[u8] {
    let (header, protocol) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => (20, packet.get(9)),
        _ => (40, packet.get(6)),
    };
    let at = match protocol {
        Some(4 | 41) => header,
        Some(17) => header + 8,
        _ => 0,
    };
    packet.get(at..).unwrap_or(packet)
}

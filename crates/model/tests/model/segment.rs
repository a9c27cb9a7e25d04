//! Section 3: segments reassemble to the payload, with the fields that make each a packet of
//! its own.

use crate::support::*;
use dynencap_abi::Reason;
use dynencap_model::segment::{self, Layout, Transport};
use dynencap_model::{Frame, Packet, Port};
use pnet_packet::Packet as _;
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::ipv6::Ipv6Packet;
use pnet_packet::tcp::TcpPacket;
use proptest::prelude::*;

const NO_FLAGS: u8 = 0;

fn cut(packet: Packet<'_>) -> Option<Vec<Frame>> {
    let mut frames = Vec::new();
    let count = segment::segment(&packet, &mut frames);
    assert_eq!(count.unwrap_or(0) as usize, frames.len());
    count.map(|_| frames)
}

#[test]
fn tcp_flags_and_sequence_numbers_follow_the_segment() {
    let bytes = ipv6_packet(TCP, &tcp_segment(FIN | PSH | CWR, &[1; 12], &pattern(2500)));
    let frames = cut(super_packet(V6, &bytes, 1000)).unwrap();
    let seen: Vec<_> = frames
        .iter()
        .map(|frame| {
            assert_checksums(frame, 40);
            let ip = Ipv6Packet::new(&frame.bytes).unwrap();
            let tcp = TcpPacket::new(ip.payload()).unwrap();
            assert_eq!(tcp.get_acknowledgement(), 0x0102_0304);
            (tcp.get_sequence(), tcp.get_flags(), ip.get_payload_length())
        })
        .collect();
    let expected = [
        (0xffff_fc00, (0x10 | CWR), 1032),
        (0xffff_fc00u32.wrapping_add(1000), 0x10, 1032),
        (0xffff_fc00u32.wrapping_add(2000), 0x10 | FIN | PSH, 532),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn ipv4_identifications_count_and_wrap() {
    let bytes = ipv4_packet(&[1; 8], TCP, &tcp_segment(NO_FLAGS, &[], &pattern(35)));
    let frames = cut(super_packet(V4, &bytes, 10)).unwrap();
    let seen: Vec<_> = frames
        .iter()
        .map(|frame| {
            assert_checksums(frame, 28);
            let ip = Ipv4Packet::new(&frame.bytes).unwrap();
            assert_eq!(
                (ip.get_flags(), ip.get_ttl(), ip.get_header_length()),
                (2, 57, 7)
            );
            (ip.get_identification(), usize::from(ip.get_total_length()))
        })
        .collect();
    assert_eq!(seen, [(0xfffe, 58), (0xffff, 58), (0, 58), (1, 53)]);
}

#[test]
fn what_fits_one_segment_leaves_as_one_with_its_checksum() {
    for payload in [0, 1, 999, 1000] {
        let tcp = tcp_segment(FIN | PSH | CWR, &[], &pattern(payload));
        let bytes = ipv6_packet(TCP, &tcp);
        let frames = cut(super_packet(V6, &bytes, 1000)).unwrap();
        assert_eq!(frames.len(), 1, "{payload}");
        assert_checksums(&frames[0], 40);
        let mut without_checksum = frames[0].bytes.clone();
        without_checksum[56..58].copy_from_slice(&[0xbe, 0xef]);
        assert_eq!(without_checksum, bytes);
    }
}

#[test]
fn a_udp_checksum_of_zero_is_written_as_all_ones() {
    // Two bytes of payload bring the sum to 0xffff: addresses, ports and lengths are fixed.
    let zero_sum = (0..=u16::MAX).find_map(|word| {
        let bytes = ipv6_packet(UDP, &udp_datagram(&word.to_be_bytes()));
        let frame = cut(super_packet(V6, &bytes, 8)).unwrap().remove(0);
        assert_ne!(frame.bytes[46..48], [0, 0]);
        (frame.bytes[46..48] == [0xff, 0xff]).then_some(frame)
    });
    assert_checksums(&zero_sum.unwrap(), 40);
}

#[test]
fn what_is_no_super_packet_is_not_cut() {
    let tcp = tcp_segment(NO_FLAGS, &[], &pattern(100));
    let sound = ipv6_packet(TCP, &tcp);
    let mut fragment = ipv4_packet(&[], TCP, &tcp);
    fragment[7] = 1;
    let mut options_missing = ipv4_packet(&[], TCP, &[]);
    options_missing[0] = 0x4f;
    options_missing[3] = 60;
    let cases = [
        ("gso_size 0", V6, sound.clone(), 0),
        ("ICMPv6", V6, ipv6_packet(58, &tcp), 10),
        ("fragment", V4, fragment, 10),
        ("cut off", V6, sound[..sound.len() - 1].to_vec(), 10),
        ("padded", V6, [&sound[..], &[0]].concat(), 10),
        ("not IP", 0x0806, sound.clone(), 10),
        ("IPv4 options missing", V4, options_missing, 10),
        ("nothing", V4, vec![], 10),
    ];
    for (name, ethertype, bytes, gso_size) in cases {
        let packet = super_packet(ethertype, &bytes, gso_size);
        assert_eq!(cut(packet), None, "{name}");
        let mut frames = Vec::new();
        let egress = host().egress(None, packet, &mut frames);
        assert_eq!(egress.segments, 0, "{name}");
        assert_eq!(
            frames,
            [Frame {
                port: Port::Wire,
                ethertype,
                bytes
            }],
            "{name}"
        );
    }
    assert_eq!(cut(super_packet(V6, &sound, 10)).unwrap().len(), 10);
}

#[test]
fn big_tcp_is_cut_where_it_passes() {
    let mut bytes = ipv6_packet(TCP, &tcp_segment(NO_FLAGS, &[], &pattern(100_000)));
    bytes[4..6].copy_from_slice(&[0, 0]);
    let frames = cut(super_packet(V6, &bytes, 1440)).unwrap();
    assert_eq!(frames.len(), 70);
    assert_checksums(&frames[69], 40);
    assert_eq!(
        cut(super_packet(V6, &bytes, u16::MAX)),
        None,
        "longer than any length field"
    );
    let mut frames = Vec::new();
    let egress = host().egress(
        Some(&ip_exit()),
        super_packet(V6, &bytes, 1440),
        &mut frames,
    );
    assert_eq!((egress.reason, frames.len()), (Reason::TooLong, 0));
}

#[test]
fn the_layout_tells_where_the_payload_begins() {
    let tcp = tcp_segment(NO_FLAGS, &[1; 12], b"payload");
    let tcp_at = |transport_offset| Layout {
        transport: Transport::Tcp,
        transport_offset,
        payload_offset: transport_offset + 32,
    };
    let routed = [&extension(60, 24)[..], &extension(TCP, 8), &tcp].concat();
    let cases = [
        (V6, ipv6_packet(TCP, &tcp), Some(tcp_at(40))),
        (V6, ipv6_packet(43, &routed), Some(tcp_at(72))),
        (V4, ipv4_packet(&[1; 40], TCP, &tcp), Some(tcp_at(60))),
        (
            V4,
            ipv4_packet(&[], UDP, &udp_datagram(&[])),
            Some(Layout {
                transport: Transport::Udp,
                transport_offset: 20,
                payload_offset: 28,
            }),
        ),
        (V6, ipv6_packet(58, &tcp), None),
        (V6, ipv6_packet(TCP, &tcp[..31]), None),
    ];
    for (ethertype, bytes, expected) in cases {
        assert_eq!(segment::layout(&packet(ethertype, &bytes)), expected);
    }
}

/// A super-packet and where its transport header and its payload begin.
#[derive(Debug)]
struct Shape {
    ethertype: u16,
    transport_offset: usize,
    payload_offset: usize,
    protocol: u8,
    bytes: Vec<u8>,
}

prop_compose! {
    fn shape()(
        ethertype in prop_oneof![Just(V4), Just(V6)],
        protocol in prop_oneof![Just(TCP), Just(UDP)],
        words in 0usize..=10, extensions in 0usize..=8, flags: u8,
        payload in prop::collection::vec(any::<u8>(), 0..9000),
    ) -> Shape {
        let (transport, transport_len) = match protocol {
            TCP => (tcp_segment(flags & !0x10, &vec![1; 4 * words], &payload), 20 + 4 * words),
            _ => (udp_datagram(&payload), 8),
        };
        let (bytes, transport_offset) = if ethertype == V4 {
            (ipv4_packet(&vec![1; 4 * words], protocol, &transport), 20 + 4 * words)
        } else {
            let mut chain = Vec::new();
            for index in 1..=extensions {
                let next = if index == extensions { protocol } else { 60 };
                chain.extend(extension(next, 8 * (1 + index % 3)));
            }
            let first = if extensions == 0 { protocol } else { 60 };
            let at = 40 + chain.len();
            chain.extend(transport);
            (ipv6_packet(first, &chain), at)
        };
        let payload_offset = transport_offset + transport_len;
        Shape { ethertype, transport_offset, payload_offset, protocol, bytes }
    }
}

proptest! {
    #[test]
    fn segments_reassemble_to_the_payload(shape in shape(), gso_size in 1u16..3000) {
        let frames = cut(super_packet(shape.ethertype, &shape.bytes, gso_size)).unwrap();
        let mut payload: Vec<u8> = Vec::new();
        for frame in &frames {
            assert_checksums(frame, shape.transport_offset);
            let ip_len = match shape.ethertype {
                V4 => usize::from(Ipv4Packet::new(&frame.bytes).unwrap().get_total_length()),
                _ => 40 + usize::from(Ipv6Packet::new(&frame.bytes).unwrap().get_payload_length()),
            };
            prop_assert_eq!(ip_len, frame.bytes.len());
            let upper = &frame.bytes[shape.transport_offset..];
            if shape.protocol == TCP {
                let sequence = TcpPacket::new(upper).unwrap().get_sequence();
                prop_assert_eq!(sequence, 0xffff_fc00u32.wrapping_add(payload.len() as u32));
            } else {
                prop_assert_eq!(upper[4..6].to_vec(), (upper.len() as u16).to_be_bytes());
            }
            let chunk = &frame.bytes[shape.payload_offset..];
            prop_assert!(chunk.len() <= usize::from(gso_size));
            payload.extend(chunk);
        }
        prop_assert_eq!(&payload, &shape.bytes[shape.payload_offset..]);
        let expected = payload.len().div_ceil(usize::from(gso_size)).max(1);
        prop_assert_eq!(frames.len(), expected);
    }

    #[test]
    fn each_segment_leaves_as_if_encapsulated_alone(
        shape in shape(), gso_size in 1u16..1000, header in prop::collection::vec(any::<u8>(), 0..=32),
    ) {
        let whole = super_packet(shape.ethertype, &shape.bytes, gso_size);
        for socket in [ip_exit(), udp_exit(&header)] {
            let mut together = Vec::new();
            let egress = host().egress(Some(&socket), whole, &mut together);
            prop_assert_eq!(egress.reason, Reason::Encapsulated);
            prop_assert_eq!(egress.segments as usize, together.len());
            let mut alone = Vec::new();
            for frame in cut(whole).unwrap() {
                host().egress(Some(&socket), frame_packet(&frame), &mut alone);
            }
            prop_assert_eq!(together, alone);
        }
    }
}

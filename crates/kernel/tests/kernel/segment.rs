//! Super-packets: the kernel's own GSO makes the segments.

use crate::{captured, frame, frame::IPV6, replay, require::require};
use dynencap_abi::option::{ENCAP_GW, ENCAP_UDP};
use dynencap_kernel::{Error, Feature, Gso, Packet, Port, Transport};

const SIZE: u16 = 1000;

fn tcp(bytes: &[u8]) -> Packet<'_> {
    super_packet(bytes, Transport::Tcp, SIZE)
}

fn super_packet(bytes: &[u8], transport: Transport, size: u16) -> Packet<'_> {
    Packet {
        ethertype: IPV6,
        bytes,
        gso: Some(Gso {
            size,
            transport,
            transport_offset: 40,
        }),
    }
}

/// Asserts that these are the segments of 1000 bytes of `payload`, FIN, PSH and CWR where
/// they belong.
#[track_caller]
fn assert_tcp_segments(segments: &[Vec<u8>], payload: &[u8]) {
    let chunks: Vec<&[u8]> = payload.chunks(SIZE.into()).collect();
    assert_eq!(segments.len(), chunks.len());
    for (index, (segment, chunk)) in segments.iter().zip(&chunks).enumerate() {
        assert_eq!(&segment[60..], *chunk, "segment {index}");
        assert_eq!(
            usize::from(segment[4]) << 8 | usize::from(segment[5]),
            20 + chunk.len()
        );
        let sequence = u32::from_be_bytes(segment[44..48].try_into().unwrap());
        assert_eq!(sequence, 4096 + 1000 * u32::try_from(index).unwrap());
        let mut flags = 0x10;
        if index == 0 {
            flags |= 0x80;
        }
        if index == chunks.len() - 1 {
            flags |= 0x09;
        }
        assert_eq!(segment[53], flags, "segment {index}");
        assert!(frame::checksum_is_valid(segment), "segment {index}");
    }
}

#[test]
fn a_tcp_super_packet_without_exit_leaves_as_its_segments() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let flow = replay.open_flow().unwrap();
    let payload = frame::pattern(60_123);
    let bytes = frame::tcp_in_ipv6(0x99, &payload);
    replay.send(flow, &tcp(&bytes)).unwrap();
    let segments: Vec<_> = captured(&mut replay)
        .into_iter()
        .map(|frame| frame.2)
        .collect();
    assert_tcp_segments(&segments, &payload);
    let mut cut = Vec::new();
    replay
        .segment(&tcp(&bytes), &mut |segment| cut.push(segment.to_vec()))
        .unwrap();
    assert_eq!(cut, segments);
}

#[test]
fn a_tcp_super_packet_leaves_with_headers_around_each_segment() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let flow = replay.open_flow().unwrap();
    let payload = frame::pattern(5_500);
    let bytes = frame::tcp_in_ipv6(0x99, &payload);
    let gateway = frame::address("2001:db8:9::9");
    for (option, overhead) in [
        (&[][..], 40),
        (&[0, 1, 0x17, 0xc0, 1, 2, 3, 4, 5, 6, 7, 8], 56),
    ] {
        replay.set_option(flow, ENCAP_UDP, option).unwrap().unwrap();
        replay
            .set_option(flow, ENCAP_GW, &gateway)
            .unwrap()
            .unwrap();
        replay.send(flow, &tcp(&bytes)).unwrap();
        let frames = captured(&mut replay);
        let mut segments = Vec::new();
        for (port, ethertype, bytes) in &frames {
            assert_eq!((*port, *ethertype), (Port::Wire, IPV6));
            let (outer, inner) = bytes.split_at(overhead);
            let length = u16::try_from(bytes.len() - 40).unwrap().to_be_bytes();
            assert_eq!(outer[..4], [0x6b, 0x94, 0x50, 0x92]);
            assert_eq!(outer[4..6], length);
            assert_eq!(outer[24..40], gateway);
            if overhead > 40 {
                let udp = [0, 1, 0x17, 0xc0, length[0], length[1], 0, 0];
                assert_eq!(outer[40..48], udp);
                assert_eq!(outer[48..], [1, 2, 3, 4, 5, 6, 7, 8]);
            }
            segments.push(inner.to_vec());
        }
        assert_tcp_segments(&segments, &payload);
    }
}

#[test]
fn a_udp_super_packet_leaves_as_datagrams() {
    if !require(&[Feature::UdpSegmentation]) {
        return;
    }
    let mut replay = replay();
    let flow = replay.open_flow().unwrap();
    let payload = frame::pattern(4_700);
    let bytes = frame::udp_in_ipv6(&payload);
    let packet = super_packet(&bytes, Transport::Udp, SIZE);
    for overhead in [0, 40] {
        replay.send(flow, &packet).unwrap();
        let frames = captured(&mut replay);
        let datagrams: Vec<Vec<u8>> = payload.chunks(1000).map(frame::udp_in_ipv6).collect();
        let inner: Vec<Vec<u8>> = frames
            .into_iter()
            .map(|(_, _, bytes)| bytes[overhead..].to_vec())
            .collect();
        assert_eq!(inner, datagrams);
        let gateway = frame::address("2001:db8:9::9");
        replay
            .set_option(flow, ENCAP_GW, &gateway)
            .unwrap()
            .unwrap();
    }
}

#[test]
fn a_super_packet_of_more_segments_than_the_kernel_queues_is_refused() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let flow = replay.open_flow().unwrap();
    let bytes = frame::tcp_in_ipv6(0x10, &frame::pattern(60_000));
    let packet = super_packet(&bytes, Transport::Tcp, 8);
    match replay.send(flow, &packet) {
        Err(Error::TooManySegments { segments, .. }) => assert_eq!(segments, 7_500),
        other => panic!("{other:?}"),
    }
    assert_eq!(captured(&mut replay), []);
}

#[test]
fn a_super_packet_longer_than_its_length_field_is_segmented_all_the_same() {
    if !require(&[Feature::BigTcp]) {
        return;
    }
    // As captures with BIG TCP show it: 80 KB, IPv6 payload length 0.
    let mut replay = replay();
    let flow = replay.open_flow().unwrap();
    let payload = frame::pattern(80_000);
    let mut bytes = frame::tcp_in_ipv6(0x99, &payload[..1000]);
    bytes.extend(&payload[1000..]);
    bytes[4..6].copy_from_slice(&[0, 0]);
    replay.send(flow, &tcp(&bytes)).unwrap();
    let segments: Vec<_> = captured(&mut replay)
        .into_iter()
        .map(|frame| frame.2)
        .collect();
    assert_tcp_segments(&segments, &payload);
}

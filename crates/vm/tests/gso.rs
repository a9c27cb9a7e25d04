//! Software GSO against expectations written by hand; checksums are verified by a sum of the
//! tests' own.

#![cfg(test)]

use dynencap_vm::gso::{self, GsoError};
use dynencap_vm::{Encapsulation, Gso, GsoKind, Skb, Tunnel};

/// RFC 1071, word by word, without shortcuts.
fn ones_complement_sum(parts: &[&[u8]]) -> u16 {
    let mut sum: u16 = 0;
    for pair in parts.concat().chunks(2) {
        let word = u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]);
        let (added, carry) = sum.overflowing_add(word);
        sum = added + u16::from(carry);
    }
    sum
}

fn ethernet(protocol: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(protocol.to_be_bytes());
    frame
}

fn ipv4(protocol: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0x12, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet.extend([192, 0, 2, 1, 198, 51, 100, 7]);
    packet.extend(payload);
    packet
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x6a, 0xb1, 0x23, 0x45, 0, 0, next, 63];
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(payload);
    packet
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7) as u8).collect()
}

/// 24 bytes of header; the checksum is rubbish on purpose.
fn tcp(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x12, 0x34, 0x01, 0xbb];
    segment.extend(sequence.to_be_bytes());
    segment.extend([
        0, 0, 0, 9, 0x60, flags, 0x20, 0, 0xbe, 0xef, 0, 0, 2, 4, 5, 0xb4,
    ]);
    segment.extend(payload);
    segment
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0x12, 0x34, 0x01, 0xbb];
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0xbe, 0xef]);
    datagram.extend(payload);
    datagram
}

fn super_packet(packet: &[u8], protocol: u16, size: u16, kind: GsoKind) -> Skb {
    let frame = [&ethernet(protocol)[..], packet].concat();
    let mut skb = Skb::new(&frame, protocol);
    skb.gso = Some(Gso { size, kind });
    skb
}

fn segments(skb: &Skb) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let count = gso::segment(skb, &mut |frame| frames.push(frame.to_vec())).unwrap();
    assert_eq!(count as usize, frames.len());
    frames
}

/// The transport checksum over the pseudo-header is right.
fn verify_transport(ip: &[u8]) {
    let (addresses, protocol, transport) = match ip[0] >> 4 {
        4 => (&ip[12..20], ip[9], &ip[20..]),
        _ => (&ip[8..40], ip[6], &ip[40..]),
    };
    let tail = [(transport.len() as u32).to_be_bytes(), [0, 0, 0, protocol]].concat();
    assert_eq!(ones_complement_sum(&[addresses, &tail, transport]), 0xffff);
}

#[test]
fn tcp_over_ipv4_numbers_its_segments() {
    let data = payload(250);
    // FIN, PSH, ACK, CWR; sequence and identification wrap.
    let packet = ipv4(6, 0xffff, &tcp(u32::MAX - 99, 0x99, &data));
    let frames = segments(&super_packet(&packet, 0x0800, 100, GsoKind::Tcp4));
    let expected = [
        (0xffff_u16, u32::MAX - 99, 0x90, 0..100),
        (0, 0, 0x10, 100..200),
        (1, 100, 0x19, 200..250),
    ];
    assert_eq!(frames.len(), 3);
    for (frame, (id, sequence, flags, range)) in frames.iter().zip(expected) {
        let mut wanted = ipv4(6, id, &tcp(sequence, flags, &data[range]));
        let ip = &frame[14..];
        assert_eq!(ones_complement_sum(&[&ip[..20]]), 0xffff);
        verify_transport(ip);
        wanted[10..12].copy_from_slice(&ip[10..12]);
        wanted[36..38].copy_from_slice(&ip[36..38]);
        assert_eq!(ip, wanted);
        assert_eq!(frame[..14], ethernet(0x0800));
    }
}

#[test]
fn tcp_over_ipv6_with_an_extension_header() {
    let data = payload(150);
    let options = [6, 0, 1, 4, 0, 0, 0, 0];
    let body = [&options[..], &tcp(5, 0x18, &data)].concat();
    let skb = super_packet(&ipv6(60, &body), 0x86dd, 100, GsoKind::Tcp6);
    let frames = segments(&skb);
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0].len(), 14 + 40 + 8 + 24 + 100);
    assert_eq!(frames[1][18..20], (8u16 + 24 + 50).to_be_bytes());
    assert_eq!(frames[1][14 + 48 + 4..][..4], 105u32.to_be_bytes());
    assert_eq!(frames[1][62 + 24..], data[100..]);
}

#[test]
fn datagrams_get_lengths_and_checksums_of_their_own() {
    let data = payload(250);
    let frames = segments(&super_packet(
        &ipv6(17, &udp(&data)),
        0x86dd,
        100,
        GsoKind::Udp,
    ));
    let lengths: Vec<_> = frames.iter().map(|frame| frame[58..60].to_vec()).collect();
    assert_eq!(lengths, [[0, 108], [0, 108], [0, 58]]);
    for (frame, chunk) in frames.iter().zip(data.chunks(100)) {
        verify_transport(&frame[14..]);
        assert_eq!(&frame[62..], chunk);
    }
}

#[test]
fn a_datagrams_checksum_is_never_zero() {
    // A payload word that makes the sum come out as 0xffff, so that its complement is 0.
    let mut packet = ipv6(17, &udp(&[0, 0]));
    packet[46..48].fill(0);
    let sum = ones_complement_sum(&[&packet[8..40], &[0, 10, 0, 17], &packet[40..]]);
    packet[48..50].copy_from_slice(&(!sum).to_be_bytes());
    let frames = segments(&super_packet(&packet, 0x86dd, 100, GsoKind::Udp));
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0][60..62], [0xff, 0xff]);
}

#[test]
fn what_fits_one_segment_is_one_frame_with_its_full_checksum() {
    let packet = ipv6(6, &tcp(7, 0x99, &payload(50)));
    let frames = segments(&super_packet(&packet, 0x86dd, 50, GsoKind::Tcp6));
    assert_eq!(frames.len(), 1);
    verify_transport(&frames[0][14..]);
    assert_eq!(frames[0][14 + 40 + 13], 0x99);
}

#[test]
fn ip_in_ip_repeats_the_outer_header() {
    let data = payload(150);
    let inner = ipv4(6, 10, &tcp(1, 0x10, &data));
    let mut skb = super_packet(&ipv6(4, &inner), 0x86dd, 100, GsoKind::Tcp4);
    skb.encapsulation = Some(Encapsulation {
        tunnel: Tunnel::Ipip6,
        inner_network: 54,
        inner_protocol: 0x0800,
    });
    let frames = segments(&skb);
    assert_eq!(frames.len(), 2);
    for (index, frame) in frames.iter().enumerate() {
        let inner = &frame[54..];
        assert_eq!(frame[14..18], ipv6(4, &[])[..4]);
        assert_eq!(frame[18..20], (inner.len() as u16).to_be_bytes());
        assert_eq!(frame[20..54], ipv6(4, &[])[6..40]);
        assert_eq!(inner[2..4], (inner.len() as u16).to_be_bytes());
        assert_eq!(inner[4..6], (10 + index as u16).to_be_bytes());
        assert_eq!(ones_complement_sum(&[&inner[..20]]), 0xffff);
        verify_transport(inner);
    }
}

#[test]
fn a_udp_tunnel_keeps_its_checksum_of_zero() {
    let data = payload(150);
    let inner = ipv6(17, &udp(&data));
    let custom = [9; 8];
    let mut outer = udp(&[&custom[..], &inner].concat());
    outer[6..8].fill(0);
    let mut skb = super_packet(&ipv6(17, &outer), 0x86dd, 100, GsoKind::Udp);
    skb.encapsulation = Some(Encapsulation {
        tunnel: Tunnel::Udp,
        inner_network: 14 + 40 + 8 + 8,
        inner_protocol: 0x86dd,
    });
    let frames = segments(&skb);
    assert_eq!(frames.len(), 2);
    for (frame, chunk) in frames.iter().zip(data.chunks(100)) {
        let len = 8 + 8 + 40 + 8 + chunk.len() as u16;
        assert_eq!(frame[18..20], len.to_be_bytes());
        assert_eq!(frame[58..60], len.to_be_bytes());
        assert_eq!(frame[60..62], [0, 0]);
        assert_eq!(frame[62..70], custom);
        verify_transport(&frame[70..]);
        assert_eq!(&frame[118..], chunk);
    }
}

/// What is inside, with its Ethernet type and the protocol that announces it.
fn inners(data: &[u8]) -> [(u16, u8, GsoKind, Vec<u8>); 4] {
    [
        (
            0x0800,
            4,
            GsoKind::Tcp4,
            ipv4(6, 0xffff, &tcp(1, 0x18, data)),
        ),
        (0x0800, 4, GsoKind::Udp, ipv4(17, 0xffff, &udp(data))),
        (0x86dd, 41, GsoKind::Tcp6, ipv6(6, &tcp(1, 0x18, data))),
        (0x86dd, 41, GsoKind::Udp, ipv6(17, &udp(data))),
    ]
}

/// `inet_gso_segment` numbers the outer headers of segments as it does the inner ones, and sums
/// each anew.
#[test]
fn an_ipv4_header_outside_counts_its_segments() {
    let data = payload(250);
    for (inner_protocol, protocol, kind, inner) in inners(&data) {
        for custom in [None, Some([7; 4])] {
            let (tunnel, packet) = match custom {
                None => (Tunnel::Ipip4, ipv4(protocol, 0xfffe, &inner)),
                Some(custom) => {
                    let mut outer = udp(&[&custom[..], &inner].concat());
                    outer[6..8].fill(0);
                    (Tunnel::Udp, ipv4(17, 0xfffe, &outer))
                }
            };
            let headers = packet.len() - inner.len();
            let mut skb = super_packet(&packet, 0x0800, 100, kind);
            skb.encapsulation = Some(Encapsulation {
                tunnel,
                inner_network: 14 + headers,
                inner_protocol,
            });
            // The same without a tunnel.
            let bare = segments(&super_packet(&inner, inner_protocol, 100, kind));
            let frames = segments(&skb);
            assert_eq!(frames.len(), 3);
            for ((frame, bare), id) in frames.iter().zip(&bare).zip([0xfffeu16, 0xffff, 0]) {
                let outer = &frame[14..];
                assert_eq!(outer[4..6], id.to_be_bytes());
                assert_eq!(outer[2..4], (outer.len() as u16).to_be_bytes());
                assert_eq!(ones_complement_sum(&[&outer[..20]]), 0xffff);
                let same = |range: std::ops::Range<usize>| outer[range.clone()] == packet[range];
                assert!(same(0..2) && same(6..10) && same(12..20));
                if custom.is_some() {
                    assert_eq!(outer[24..26], (outer.len() as u16 - 20).to_be_bytes());
                    assert!(same(20..24) && same(26..headers));
                }
                assert_eq!(outer[headers..], bare[14..]);
            }
        }
    }
}

#[test]
fn a_tunnel_is_refused_where_another_kind_was_announced() {
    let data = payload(150);
    for (inner_protocol, protocol, kind, inner) in inners(&data) {
        #[rustfmt::skip]
        let table = [
            (Tunnel::Ipip6, ipv4(protocol, 0, &inner), 0x0800, 20),
            (Tunnel::Ipip4, ipv6(protocol, &inner), 0x86dd, 40),
            (Tunnel::Udp, ipv4(protocol, 0, &inner), 0x0800, 20),
            (Tunnel::Gre, ipv4(47, 0, &inner), 0x0800, 20),
        ];
        for (tunnel, packet, outer_protocol, header_len) in table {
            let mut skb = super_packet(&packet, outer_protocol, 100, kind);
            skb.encapsulation = Some(Encapsulation {
                tunnel,
                inner_network: 14 + header_len,
                inner_protocol,
            });
            let result = gso::segment(&skb, &mut |_| panic!("left"));
            let refused =
                matches!(result, Err(GsoError::Unsupported { at, .. }) if at == 14 + header_len);
            assert!(refused, "{tunnel:?} {result:?}");
        }
    }
}

#[test]
fn shapes_without_an_offload_are_refused() {
    let tcp = tcp(1, 0x10, &payload(150));
    let fragment = [&[6, 0, 0, 0, 0, 0, 0, 1][..], &tcp].concat();
    let cut = &tcp[..19];
    let mut short_header = tcp.clone();
    short_header[12] = 0x40;
    #[rustfmt::skip]
    let table = [
        ("ICMPv6", ipv6(58, &tcp), GsoKind::Tcp6, GsoError::Unsupported { protocol: 58, at: 54 }),
        ("a fragment", ipv6(44, &fragment), GsoKind::Tcp6, GsoError::Unsupported { protocol: 44, at: 54 }),
        ("not announced", ipv6(41, &ipv6(6, &tcp)), GsoKind::Tcp6, GsoError::Unsupported { protocol: 41, at: 54 }),
        ("TCP that calls itself UDP", ipv6(6, &tcp), GsoKind::Udp, GsoError::Unsupported { protocol: 6, at: 54 }),
        ("a TCP header below 20", ipv6(6, &short_header), GsoKind::Tcp6, GsoError::Malformed { at: 54 }),
        ("cut off", ipv6(6, cut), GsoKind::Tcp6, GsoError::Malformed { at: 54 }),
    ];
    for (name, packet, kind, error) in table {
        let skb = super_packet(&packet, 0x86dd, 100, kind);
        let result = gso::segment(&skb, &mut |_| panic!("{name} left"));
        assert_eq!(result, Err(error), "{name}");
    }
}

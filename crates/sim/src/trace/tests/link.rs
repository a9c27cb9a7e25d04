//! Frames of each link type taken apart, and frames that defy it.

use super::*;
use crate::trace::{Direction, Link, LinkDefect, link};

const MACS: [u8; 12] = [2; 12];

fn v4(length: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.resize(20, 0);
    packet
}

fn v6(payload: u16) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(payload.to_be_bytes());
    packet.resize(40, 0);
    packet
}

fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = MACS.to_vec();
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 42]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Header length, ethertype, payload length, trailer length, tags.
#[track_caller]
fn check(link_type: LinkType, frame: &[u8], expected: (usize, u16, usize, usize, u8)) -> Link<'_> {
    let found = link(link_type, frame);
    assert_eq!(found.defect, None);
    let lengths = (
        found.header.len(),
        found.ethertype,
        found.payload.len(),
        found.trailer.len(),
    );
    assert_eq!(
        (lengths.0, lengths.1, lengths.2, lengths.3, found.vlan_tags),
        expected
    );
    assert_eq!([found.header, found.payload, found.trailer].concat(), frame);
    found
}

#[track_caller]
fn check_defect(link_type: LinkType, frame: &[u8], message: &str) {
    let found = link(link_type, frame);
    assert_eq!(
        found.defect.map(|defect| defect.to_string()).as_deref(),
        Some(message)
    );
    let rest = (
        found.header,
        found.payload,
        found.trailer,
        found.ethertype,
        found.vlan_tags,
    );
    assert_eq!(rest, (frame, &[][..], &[][..], 0, 0));
}

#[test]
fn ethernet_gives_its_payload_behind_any_vlan_tags() {
    let packet = v4(20);
    check(
        LinkType::Ethernet,
        &ethernet(&[], 0x0800, &packet),
        (14, 0x0800, 20, 0, 0),
    );
    check(
        LinkType::Ethernet,
        &ethernet(&[0x8100], 0x0800, &packet),
        (18, 0x0800, 20, 0, 1),
    );
    let tags = [0x88a8, 0x8100, 0x9100];
    check(
        LinkType::Ethernet,
        &ethernet(&tags, 0x86dd, &v6(0)),
        (26, 0x86dd, 40, 0, 3),
    );
    check(
        LinkType::Ethernet,
        &ethernet(&[0x8100; 8], 0x0800, &packet),
        (46, 0x0800, 20, 0, 8),
    );
    check_defect(
        LinkType::Ethernet,
        &ethernet(&[0x8100; 9], 0x0800, &packet),
        "more than 8 VLAN tags",
    );
    // ARP, and LLC by its length.
    check(
        LinkType::Ethernet,
        &ethernet(&[], 0x0806, &[0; 46]),
        (14, 0x0806, 46, 0, 0),
    );
    check(
        LinkType::Ethernet,
        &ethernet(&[], 38, &[0x45; 46]),
        (14, 38, 46, 0, 0),
    );
}

#[test]
fn what_stands_behind_an_ip_packet_is_the_links() {
    let ethertype_and_packet: [(u16, Vec<u8>, usize); 12] = [
        (0x0800, v4(20), 20),
        (0x0800, v4(25), 25),
        (0x86dd, v6(1), 41),
        // Cut by the snap length.
        (0x0800, v4(1500), 66),
        (0x86dd, v6(1500), 86),
        // BIG TCP.
        (0x0800, v4(0), 66),
        (0x86dd, v6(0), 86),
        // A length shorter than the header, a header shorter than any, another version.
        (0x0800, v4(19), 66),
        (0x0800, [&[0x44], &v4(20)[1..]].concat(), 66),
        (0x0800, [&[0x46], &v4(22)[1..]].concat(), 66),
        (0x0800, v6(1), 86),
        (0x86dd, v4(20), 66),
    ];
    for (ethertype, packet, own) in ethertype_and_packet {
        let padded = [&packet[..], &[0xee; 46]].concat();
        let frame = ethernet(&[0x8100], ethertype, &padded);
        check(
            LinkType::Ethernet,
            &frame,
            (18, ethertype, own, padded.len() - own, 1),
        );
    }
    // Too short to tell its length.
    check(
        LinkType::Ethernet,
        &ethernet(&[], 0x0800, &v4(20)[..3]),
        (14, 0x0800, 3, 0, 0),
    );
    check(
        LinkType::Ethernet,
        &ethernet(&[], 0x86dd, &v6(1)[..5]),
        (14, 0x86dd, 5, 0, 0),
    );
    check(
        LinkType::Ethernet,
        &ethernet(&[], 0x86dd, &[]),
        (14, 0x86dd, 0, 0, 0),
    );
}

#[test]
fn loopback_families_are_read_in_either_byte_order() {
    for link_type in [LinkType::Null, LinkType::Loop] {
        for order in BOTH {
            let frame = |family, packet: &[u8]| [&words(order, &[family])[..], packet].concat();
            check(link_type, &frame(2, &v4(20)), (4, 0x0800, 20, 0, 0));
            for family in [10, 24, 28, 30] {
                check(link_type, &frame(family, &v6(0)), (4, 0x86dd, 40, 0, 0));
            }
            let message = "address family 7 is neither IPv4 nor IPv6";
            check_defect(link_type, &frame(7, &v4(20)), message);
        }
        check_defect(link_type, &[2, 0, 0], "link header of 4 bytes, frame of 3");
    }
}

#[test]
fn raw_packets_are_told_apart_by_their_version() {
    check(LinkType::Raw, &v4(20), (0, 0x0800, 20, 0, 0));
    check(LinkType::Raw, &v6(0), (0, 0x86dd, 40, 0, 0));
    check_defect(LinkType::Raw, &[0x50], "IP version 5 is neither 4 nor 6");
    check_defect(LinkType::Raw, &[], "link header of 1 bytes, frame of 0");
    check(LinkType::Ipv4, &v4(20), (0, 0x0800, 20, 0, 0));
    check(LinkType::Ipv6, &v6(0), (0, 0x86dd, 40, 0, 0));
    check(LinkType::Ipv4, &[], (0, 0x0800, 0, 0, 0));
}

#[test]
fn cooked_captures_tell_the_direction() {
    let directions = [
        (0, Some(Direction::Incoming)),
        (3, Some(Direction::Incoming)),
        (4, Some(Direction::Outgoing)),
        (5, None),
    ];
    for (packet_type, direction) in directions {
        let mut cooked = vec![
            0,
            packet_type,
            0,
            1,
            0,
            6,
            2,
            2,
            2,
            2,
            2,
            2,
            0,
            0,
            0x86,
            0xdd,
        ];
        cooked.extend(v6(1));
        cooked.extend([0; 7]);
        let found = check(LinkType::LinuxSll, &cooked, (16, 0x86dd, 41, 6, 0));
        assert_eq!(found.direction, direction);

        let mut cooked = vec![0x81, 0, 0, 0, 0, 0, 0, 3, 0, 1, packet_type, 6];
        cooked.extend([2; 8]);
        cooked.extend([0, 42, 0x08, 0]);
        cooked.extend(v4(20));
        let found = check(LinkType::LinuxSll2, &cooked, (24, 0x0800, 20, 0, 1));
        assert_eq!(found.direction, direction);
    }
}

#[test]
fn a_frame_within_its_link_header_comes_back_whole_with_the_reason() {
    let cases = [
        (LinkType::Ethernet, ethernet(&[0x8100], 0x0800, &[]), 14, 18),
        (LinkType::LinuxSll, vec![0; 16], 0, 16),
        (LinkType::LinuxSll2, vec![0; 20], 0, 20),
    ];
    for (link_type, header, fixed, whole) in cases {
        for length in 0..whole {
            let needed = if length < fixed { fixed } else { whole };
            let defect = Some(LinkDefect::Short {
                needed,
                found: length,
            });
            let found = link(link_type, &header[..length]);
            assert_eq!((found.defect, found.header), (defect, &header[..length]));
        }
        assert_eq!(link(link_type, &header).defect, None);
    }
}

//! pcapng: sections, interfaces, each kind of packet block, and every way to be broken.

use super::*;

fn block(order: ByteOrder, kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = padded as u32 + 12;
    let mut bytes = words(order, &[kind, length]);
    bytes.extend(body);
    bytes.resize(padded + 8, 0);
    bytes.extend(words(order, &[length]));
    bytes
}

fn section(order: ByteOrder) -> Vec<u8> {
    let mut body = words(order, &[0x1a2b_3c4d]);
    body.extend(u16_in(order, 1));
    body.extend(u16_in(order, 0));
    body.extend([0xff; 8]);
    block(order, 0x0a0d_0d0a, &body)
}

fn option(order: ByteOrder, code: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = u16_in(order, code).to_vec();
    bytes.extend(u16_in(order, value.len() as u16));
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn interface(order: ByteOrder, link: u16, snap_length: u32, options: &[u8]) -> Vec<u8> {
    let mut body = u16_in(order, link).to_vec();
    body.extend([0, 0]);
    body.extend(words(order, &[snap_length]));
    body.extend(options);
    block(order, 1, &body)
}

/// Interface, ticks, captured length and original length.
fn enhanced(order: ByteOrder, head: (u32, u64, u32, u32), packet: &[u8]) -> Vec<u8> {
    let (interface, ticks, captured, original) = head;
    let ticks = [(ticks >> 32) as u32, ticks as u32];
    let mut body = words(order, &[interface, ticks[0], ticks[1], captured, original]);
    body.extend(packet);
    block(order, 6, &body)
}

fn simple(order: ByteOrder, original: u32, packet: &[u8]) -> Vec<u8> {
    let mut body = words(order, &[original]);
    body.extend(packet);
    block(order, 3, &body)
}

fn old(order: ByteOrder, interface: u16, drops: u16, packet: &[u8]) -> Vec<u8> {
    let mut body = u16_in(order, interface).to_vec();
    body.extend(u16_in(order, drops));
    body.extend(words(order, &[0, 9, packet.len() as u32, 77]));
    body.extend(packet);
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend(option(order, 2, &[0, 0, 0, 1]));
    block(order, 2, &body)
}

#[test]
fn sections_interfaces_and_each_kind_of_packet_block_are_read_in_both_byte_orders() {
    for order in BOTH {
        let other = match order {
            ByteOrder::Little => ByteOrder::Big,
            ByteOrder::Big => ByteOrder::Little,
        };
        let nano = option(order, 9, &[9]);
        let comment = option(order, 1, b"uplink");
        let mut two = enhanced(order, (1, 8, 2, 60), b"de");
        // A comment within the packet's block.
        two = block(order, 6, &[&two[8..two.len() - 4], &comment].concat());
        let file = [
            section(order),
            interface(order, 1, 4, &comment),
            interface(order, 101, 0, &[&nano[..], &option(order, 0, &[])].concat()),
            enhanced(order, (0, (1 << 32) + 5, 3, 3), b"abc"),
            block(order, 0x0bad_0001, &[1; 40]),
            two,
            simple(order, 9, b"efgh"),
            old(order, 1, 0xffff, b"ij"),
            section(other),
            interface(other, 113, 0, &option(other, 9, &[0])),
            enhanced(other, (0, 1, 1, 1), b"k"),
        ]
        .concat();
        let start = ((1u64 << 32) + 5) * 1000;
        let frames = [
            seen(start, 0, LinkType::Ethernet, b"abc", 3),
            seen(8, 1, LinkType::Raw, b"de", 60),
            seen(8, 0, LinkType::Ethernet, b"efgh", 9),
            seen(9, 1, LinkType::Raw, b"ij", 77),
            seen(1_000_000_000, 2, LinkType::LinuxSll, b"k", 1),
        ];
        check(&file, &frames, None);
        let mut reader = Reader::open("t", &file[..]).unwrap();
        while reader.next_frame().unwrap().is_some() {}
        let seen_types = [LinkType::Ethernet, LinkType::Raw, LinkType::LinuxSll];
        assert_eq!(reader.link_types(), seen_types);
        assert_eq!(reader.format(), crate::trace::Format::Pcapng);
    }
}

#[test]
fn a_block_that_is_passed_over_may_be_longer_than_the_window() {
    let order = ByteOrder::Little;
    let file = [
        section(order),
        block(order, 0xb, &vec![3; 5 << 20]),
        interface(order, 1, 0, &[]),
        enhanced(order, (0, 0, 1, 1), b"x"),
    ]
    .concat();
    let (frames, error) = read(&file[..]);
    assert_eq!(
        (frames, error),
        (vec![seen(0, 0, LinkType::Ethernet, b"x", 1)], None)
    );
}

#[test]
fn time_offset_and_resolution_of_an_interface_hold_for_its_packets() {
    for order in BOTH {
        let offset = match order {
            ByteOrder::Little => 100i64.to_le_bytes(),
            ByteOrder::Big => 100i64.to_be_bytes(),
        };
        let options = [option(order, 9, &[0x81]), option(order, 14, &offset)].concat();
        let file = [
            section(order),
            interface(order, 1, 0, &options),
            enhanced(order, (0, 3, 0, 0), b""),
        ]
        .concat();
        check(
            &file,
            &[seen(101_500_000_000, 0, LinkType::Ethernet, b"", 0)],
            None,
        );
    }
}

#[test]
fn an_instant_before_1970_becomes_that_of_the_packet_before() {
    let order = ByteOrder::Little;
    let early = option(order, 14, &(-1i64).to_le_bytes());
    let file = [
        section(order),
        interface(order, 1, 0, &[]),
        interface(order, 1, 0, &early),
        enhanced(order, (1, 2, 0, 0), b""),
        enhanced(order, (0, 3, 0, 0), b""),
        enhanced(order, (0, u64::MAX, 0, 0), b""),
        enhanced(order, (1, 1_000_000, 0, 0), b""),
    ]
    .concat();
    let at = |time, interface| seen(time, interface, LinkType::Ethernet, b"", 0);
    check(&file, &[at(0, 1), at(3000, 0), at(3000, 0), at(0, 1)], None);
}

/// A section (28 bytes), an interface (20) and a packet (36), then what is broken, at 84.
#[track_caller]
fn check_broken(tail: &[u8], message: &str) {
    let order = ByteOrder::Little;
    let file = [
        &section(order)[..],
        &interface(order, 1, 0, &[]),
        &enhanced(order, (0, 1, 4, 4), b"good"),
        tail,
    ]
    .concat();
    let message = format!("t.pcap: packet 2 at byte {message}");
    check(
        &file,
        &[seen(1000, 0, LinkType::Ethernet, b"good", 4)],
        Some(&message),
    );
}

#[test]
fn a_block_cut_by_the_end_of_the_file_is_told() {
    let order = ByteOrder::Little;
    let packet = enhanced(order, (0, 2, 4, 4), b"lost");
    check_broken(
        &packet[..7],
        "84: expected 8 bytes of block header, found 7 and the end of the file",
    );
    check_broken(
        &packet[..8],
        "84: expected 36 bytes of enhanced packet block, found 8 and the end of the file",
    );
    check_broken(
        &packet[..35],
        "84: expected 36 bytes of enhanced packet block, found 35 and the end of the file",
    );
    let unknown = block(order, 99, &[0; 20]);
    for cut in [8, 20, 28, 31] {
        check_broken(
            &unknown[..cut],
            &format!("84: expected 32 bytes of block, found {cut} and the end of the file"),
        );
    }
}

#[test]
fn lengths_that_contradict_each_other_are_told() {
    let order = ByteOrder::Little;
    let good = enhanced(order, (0, 2, 4, 4), b"lost");
    let with_length = |length: u32| {
        let mut packet = good.clone();
        packet[4..8].copy_from_slice(&length.to_le_bytes());
        packet
    };
    let blocks = "88: expected the enhanced packet block to be 32 to 2097152 bytes long, a \
                  multiple of 4, found";
    check_broken(&with_length(28), &format!("{blocks} 28"));
    check_broken(&with_length(35), &format!("{blocks} 35"));
    check_broken(&with_length(1 << 30), &format!("{blocks} 1073741824"));
    check_broken(
        &words(order, &[99, 8]),
        "88: expected the block to be 12 to 4294967295 bytes long, a multiple of 4, found 8",
    );
    let mut trailing = good.clone();
    trailing[32] = 40;
    check_broken(
        &trailing,
        "116: expected 36, the enhanced packet block's length, repeated behind it, found 40",
    );
    let mut passed_over = block(order, 99, &[0; 20]);
    passed_over[28] = 0;
    check_broken(
        &passed_over,
        "112: expected 32, the block's length, repeated behind it, found 0",
    );
    check_broken(
        &enhanced(order, (0, 2, 5, 5), b"lost"),
        "104: expected the enhanced packet block to have room for 5 captured bytes, found 4",
    );
    check_broken(
        &simple(order, 5, b"lost"),
        "92: expected the simple packet block to have room for 5 captured bytes, found 4",
    );
    check_broken(
        &enhanced(order, (0, 2, u32::MAX, 5), b"lost"),
        "104: expected a captured length of at most 1048576 bytes, found 4294967295",
    );
}

#[test]
fn a_packet_needs_an_interface_of_its_own_section_and_of_a_supported_link_type() {
    let order = ByteOrder::Little;
    check_broken(
        &enhanced(order, (7, 2, 0, 0), b""),
        "92: expected one of the section's 1 interfaces, found a packet of interface 7",
    );
    check_broken(
        &[section(order), simple(order, 0, b"")].concat(),
        "120: expected one of the section's 0 interfaces, found a packet of interface 0",
    );
    let wireless = [
        interface(order, 127, 0, &[]),
        enhanced(order, (1, 2, 0, 0), b""),
    ]
    .concat();
    check_broken(
        &wireless,
        "104: expected a link type among NULL 0, ETHERNET 1, RAW 101, LOOP 108, LINUX_SLL 113, \
         IPV4 228, IPV6 229, LINUX_SLL2 276, found 127 (IEEE802_11_RADIOTAP) on interface 1",
    );
    // As long as none of its packets comes, an interface is nobody's business.
    let unused = [
        interface(order, 127, 0, &[]),
        enhanced(order, (0, 2, 1, 1), b"y"),
    ]
    .concat();
    let file = [section(order), interface(order, 1, 0, &[]), unused].concat();
    check(&file, &[seen(2000, 0, LinkType::Ethernet, b"y", 1)], None);
}

#[test]
fn a_broken_interface_is_told() {
    let order = ByteOrder::Little;
    check_broken(
        &interface(order, 1, 0, &[9, 0, 40, 0, 6, 0, 0, 0]),
        "100: expected option 9 to take 40 bytes, found 4",
    );
    check_broken(
        &interface(order, 1, 0, &option(order, 14, &[0; 4])),
        "100: expected option 14 to take 8 bytes, found 4",
    );
    let many = interface(order, 1, 0, &[]).repeat(1 << 16);
    let message = format!(
        "{}: expected at most 65536 interfaces in a section, found one more",
        84 + 20 * 65535
    );
    let (frames, error) = read(
        &[
            &section(order)[..],
            &interface(order, 1, 0, &[]),
            &enhanced(order, (0, 1, 4, 4), b"good"),
            &many,
        ]
        .concat()[..],
    );
    assert_eq!(frames.len(), 1);
    assert_eq!(error, Some(format!("t.pcap: packet 2 at byte {message}")));
}

#[test]
fn a_broken_section_header_is_told() {
    let order = ByteOrder::Big;
    let mut magic = section(order);
    magic[8] = 0;
    check(
        &magic,
        &[],
        Some("t.pcap: packet 1 at byte 8: expected the byte-order magic 1a2b3c4d, found 002b3c4d"),
    );
    check_broken(
        &magic,
        "92: expected the byte-order magic 1a2b3c4d, found 002b3c4d",
    );
    for (major, minor, accepted) in [(1, 0, true), (1, 2, true), (1, 1, false), (2, 0, false)] {
        let mut version = section(order);
        (version[13], version[15]) = (major, minor);
        let message = format!(
            "t.pcap: packet 1 at byte 12: expected pcapng version 1.0 or 1.2, found {major}.{minor}"
        );
        check(&version, &[], (!accepted).then_some(&message[..]));
    }
    check(
        &section(order)[..11],
        &[],
        Some(
            "t.pcap: packet 1 at byte 0: expected 12 bytes of section header block, found 11 and \
             the end of the file",
        ),
    );
}

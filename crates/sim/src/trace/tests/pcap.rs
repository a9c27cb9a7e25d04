//! Classic pcap: every variant that is read, every one refused, every way to be broken.

use super::*;
use crate::trace::{FORGIVEN_CAPTURED, MAX_CAPTURED};

const MICRO: u32 = 0xa1b2_c3d4;
const NANO: u32 = 0xa1b2_3c4d;

fn header(order: ByteOrder, magic: u32, snap_length: u32, link: u32) -> Vec<u8> {
    let mut bytes = words(order, &[magic]);
    bytes.extend(u16_in(order, 2));
    bytes.extend(u16_in(order, 4));
    bytes.extend(words(order, &[0, 0, snap_length, link]));
    bytes
}

fn record(order: ByteOrder, head: [u32; 4], packet: &[u8]) -> Vec<u8> {
    let mut bytes = words(order, &head);
    bytes.extend(packet);
    bytes
}

#[test]
fn both_byte_orders_and_both_resolutions_are_read() {
    for order in BOTH {
        for (magic, unit) in [(MICRO, 1000), (NANO, 1)] {
            let mut file = header(order, magic, 65535, 1);
            file.extend(record(order, [5, 7, 3, 60], b"abc"));
            file.extend(record(order, [6, 999_999, 0, 0], b""));
            let frames = [
                seen(5_000_000_000 + 7 * unit, 0, LinkType::Ethernet, b"abc", 60),
                seen(
                    6_000_000_000 + 999_999 * unit,
                    0,
                    LinkType::Ethernet,
                    b"",
                    0,
                ),
            ];
            check(&file, &frames, None);
        }
    }
}

#[test]
fn each_supported_link_type_is_read_and_frame_check_bits_are_not_part_of_it() {
    let numbers = [
        (0, LinkType::Null),
        (1, LinkType::Ethernet),
        (12, LinkType::Raw),
        (14, LinkType::Raw),
        (101, LinkType::Raw),
        (108, LinkType::Loop),
        (113, LinkType::LinuxSll),
        (228, LinkType::Ipv4),
        (229, LinkType::Ipv6),
        (276, LinkType::LinuxSll2),
        (0x4400_0001, LinkType::Ethernet),
    ];
    for (number, link_type) in numbers {
        let mut file = header(ByteOrder::Little, MICRO, 65535, number);
        file.extend(record(ByteOrder::Little, [0, 0, 1, 1], b"x"));
        check(&file, &[seen(0, 0, link_type, b"x", 1)], None);
    }
}

#[test]
fn a_packet_may_exceed_the_snap_length_as_far_as_libpcap_forgives() {
    let order = ByteOrder::Little;
    // snap length, captured, whether it is taken
    let cases = [
        (65535, 80_000, true),
        (65535, FORGIVEN_CAPTURED, true),
        (65535, FORGIVEN_CAPTURED + 1, false),
        (524_288, 524_288, true),
        (524_288, 524_289, false),
        (0, MAX_CAPTURED, true),
        (u32::MAX, MAX_CAPTURED, true),
        (u32::MAX, MAX_CAPTURED + 1, false),
    ];
    for (snap_length, captured, taken) in cases {
        let packet = vec![7; captured as usize];
        let mut file = header(order, MICRO, snap_length, 1);
        file.extend(record(order, [0, 0, captured, captured], &packet));
        let (frames, error) = read(&file[..]);
        assert_eq!(frames.len(), usize::from(taken), "{snap_length} {captured}");
        assert_eq!(error.is_none(), taken, "{snap_length} {captured}");
        if taken {
            assert_eq!(frames[0].bytes, packet);
        }
    }
}

#[test]
fn a_broken_file_header_is_told_with_what_was_found() {
    let good = header(ByteOrder::Little, MICRO, 65535, 1);
    let mut version = good.clone();
    version[4..8].copy_from_slice(&[1, 0, 9, 0]);
    let mut big_version = header(ByteOrder::Big, NANO, 65535, 1);
    big_version[7] = 3;
    let modified = "t.pcap: packet 1 at byte 0: expected the magic number a1b2c3d4 or a1b23c4d, \
                    found a1b2cd34: Kuznetzov's modified pcap is not supported, convert it first";
    let cases: [(Vec<u8>, &str); 8] = [
        (
            vec![],
            "t.pcap: packet 1 at byte 0: expected 4 bytes of magic number, found 0 and the end of \
             the file",
        ),
        (
            vec![0xd4, 0xc3],
            "t.pcap: packet 1 at byte 0: expected 4 bytes of magic number, found 2 and the end of \
             the file",
        ),
        (
            b"GIF89a".to_vec(),
            "t.pcap: packet 1 at byte 0: expected the magic number of pcap (a1b2c3d4, a1b23c4d) or \
             pcapng (0a0d0d0a), found 47494638",
        ),
        (
            good[..23].to_vec(),
            "t.pcap: packet 1 at byte 0: expected 24 bytes of pcap file header, found 23 and the \
             end of the file",
        ),
        (header(ByteOrder::Little, 0xa1b2_cd34, 65535, 1), modified),
        (header(ByteOrder::Big, 0xa1b2_cd34, 65535, 1), modified),
        (
            version,
            "t.pcap: packet 1 at byte 4: expected pcap version 2.4, found 1.9",
        ),
        (
            big_version,
            "t.pcap: packet 1 at byte 4: expected pcap version 2.4, found 2.3",
        ),
    ];
    for (file, message) in cases {
        check(&file, &[], Some(message));
    }
}

#[test]
fn a_broken_record_is_told_after_the_packets_before_it() {
    let order = ByteOrder::Little;
    let mut good = header(order, MICRO, 65535, 1);
    good.extend(record(order, [1, 0, 3, 3], b"abc"));
    let next = record(order, [2, 0, 4, 4], b"defg");
    let cases: [(Vec<u8>, &str); 4] = [
        (
            next[..1].to_vec(),
            "t.pcap: packet 2 at byte 43: expected 16 bytes of record header, found 1 and the end \
             of the file",
        ),
        (
            next[..15].to_vec(),
            "t.pcap: packet 2 at byte 43: expected 16 bytes of record header, found 15 and the end \
             of the file",
        ),
        (
            next[..19].to_vec(),
            "t.pcap: packet 2 at byte 43: expected 20 bytes of record, found 19 and the end of the \
             file",
        ),
        (
            record(order, [2, 0, 0xffff_ffff, 4], b"defg"),
            "t.pcap: packet 2 at byte 51: expected a captured length of at most 262144 bytes, found \
             4294967295",
        ),
    ];
    for (tail, message) in cases {
        let file = [&good[..], &tail].concat();
        check(
            &file,
            &[seen(1_000_000_000, 0, LinkType::Ethernet, b"abc", 3)],
            Some(message),
        );
    }
}

#[test]
fn an_unsupported_link_type_is_refused_at_the_first_packet() {
    let order = ByteOrder::Little;
    let supported = "NULL 0, ETHERNET 1, RAW 101, LOOP 108, LINUX_SLL 113, IPV4 228, IPV6 229, \
                     LINUX_SLL2 276";
    for (number, name) in [
        (105, "IEEE802_11"),
        (4242, "unknown"),
        (0x0001_0001, "unknown"),
    ] {
        let mut file = header(order, MICRO, 65535, number);
        check(&file, &[], None);
        file.extend(record(order, [0, 0, 1, 1], b"x"));
        let message = format!(
            "t.pcap: packet 1 at byte 24: expected a link type among {supported}, found {number} \
             ({name}) on interface 0"
        );
        check(&file, &[], Some(&message));
    }
}

#[test]
fn an_input_error_is_told_with_its_place_and_an_interruption_is_not_one() {
    struct Failing<'a>(&'a [u8], Option<std::io::ErrorKind>);
    impl Read for Failing<'_> {
        fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
            if let Some(kind) = self
                .1
                .take_if(|kind| *kind == std::io::ErrorKind::Interrupted)
            {
                return Err(kind.into());
            }
            match (self.0.read(room)?, self.1) {
                (0, Some(kind)) => Err(kind.into()),
                (count, _) => Ok(count),
            }
        }
    }
    let mut file = header(ByteOrder::Little, MICRO, 65535, 1);
    file.extend(record(ByteOrder::Little, [0, 0, 1, 1], b"x"));
    let (frames, error) = read(Failing(&file, Some(std::io::ErrorKind::Interrupted)));
    assert_eq!((frames.len(), error), (1, None));
    let (frames, error) = read(Failing(&file, Some(std::io::ErrorKind::TimedOut)));
    assert_eq!(frames.len(), 1);
    let message = error.unwrap_or_default();
    assert!(
        message.starts_with("t.pcap: packet 2 at byte 41: expected to read on, found an input"),
        "{message}"
    );
}

//! What is written is read back as it was; what cannot be written is refused whole.

use super::*;
use crate::trace::{MAX_CAPTURED, Packet, PcapWriter, PcapngWriter, Resolution};

fn packet(time: u64, link_type: LinkType, bytes: &[u8]) -> Packet<'_> {
    let original_len = bytes.len() as u32 + 5;
    Packet {
        time: Timestamp(time),
        link_type,
        bytes,
        original_len,
        comment: None,
    }
}

#[test]
fn pcapng_keeps_nanoseconds_and_every_link_type() {
    let mut writer = PcapngWriter::new(Vec::new()).unwrap();
    let mut expected = Vec::new();
    for round in 0..2 {
        for (interface, link_type) in LinkType::ALL.into_iter().enumerate() {
            let bytes = vec![7; interface + round];
            let time = u64::MAX - interface as u64;
            let comment = (round == 1).then_some("drop: no exit");
            writer
                .write(&Packet {
                    comment,
                    ..packet(time, link_type, &bytes)
                })
                .unwrap();
            let original_len = bytes.len() as u32 + 5;
            expected.push(seen(
                time,
                interface as u32,
                link_type,
                &bytes,
                original_len,
            ));
        }
    }
    check(&writer.into_inner(), &expected, None);
}

#[test]
fn pcap_keeps_as_much_of_the_time_as_its_resolution() {
    let time = 5_000_000_000 + 123_456_789;
    for (resolution, kept) in [
        (Resolution::Microsecond, time - 789),
        (Resolution::Nanosecond, time),
    ] {
        let mut writer = PcapWriter::new(Vec::new(), LinkType::Raw, resolution).unwrap();
        writer.write(&packet(time, LinkType::Raw, b"abc")).unwrap();
        writer.write(&packet(0, LinkType::Raw, b"")).unwrap();
        let expected = [
            seen(kept, 0, LinkType::Raw, b"abc", 8),
            seen(0, 0, LinkType::Raw, b"", 5),
        ];
        check(&writer.into_inner(), &expected, None);
    }
}

#[test]
fn the_longest_packet_comes_back_from_both_formats() {
    let bytes = vec![9; MAX_CAPTURED as usize];
    let longest = packet(0, LinkType::Raw, &bytes);
    let mut pcap = PcapWriter::new(Vec::new(), LinkType::Raw, Resolution::Nanosecond).unwrap();
    pcap.write(&longest).unwrap();
    let mut pcapng = PcapngWriter::new(Vec::new()).unwrap();
    let comment = "c".repeat(65535);
    pcapng
        .write(&Packet {
            comment: Some(&comment),
            ..longest
        })
        .unwrap();
    for file in [pcap.into_inner(), pcapng.into_inner()] {
        let (frames, error) = read(&file[..]);
        assert_eq!(error, None);
        assert_eq!(
            frames,
            [seen(0, 0, LinkType::Raw, &bytes, MAX_CAPTURED + 5)]
        );
    }
}

#[test]
fn what_a_format_cannot_hold_is_refused_and_leaves_no_trace() {
    let long = vec![0; MAX_CAPTURED as usize + 1];
    let comment = "c".repeat(65536);
    let mut pcapng = PcapngWriter::new(Vec::new()).unwrap();
    let mut refusals = vec![
        pcapng.write(&packet(0, LinkType::Raw, &long)),
        pcapng.write(&Packet {
            comment: Some(&comment),
            ..packet(0, LinkType::Raw, b"")
        }),
    ];
    check(&pcapng.into_inner(), &[], None);
    let mut pcap = PcapWriter::new(Vec::new(), LinkType::Raw, Resolution::Microsecond).unwrap();
    refusals.push(pcap.write(&packet(0, LinkType::Raw, &long)));
    refusals.push(pcap.write(&packet(0, LinkType::Ethernet, b"")));
    refusals.push(pcap.write(&packet(u64::MAX, LinkType::Raw, b"")));
    check(&pcap.into_inner(), &[], None);

    let messages: Vec<String> = refusals
        .into_iter()
        .map(|refusal| refusal.unwrap_err().to_string())
        .collect();
    assert_eq!(
        messages,
        [
            "a packet of 1048577 bytes is longer than a capture's 1048576",
            "a comment of 65536 bytes is longer than an option's 65535",
            "a packet of 1048577 bytes is longer than a capture's 1048576",
            "a pcap file of link type RAW cannot hold a packet of ETHERNET",
            "pcap cannot tell an instant past 2106: 18446744073709551615 ns",
        ]
    );
}

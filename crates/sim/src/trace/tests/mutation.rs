//! Properties of the reader over bytes of any kind: it ends, it neither panics nor takes
//! more memory than it says, and damage never reaches what was read before it.

use proptest::prelude::*;

use super::*;
use crate::trace::{MAX_BLOCK, Packet, PcapWriter, PcapngWriter, Resolution, link};

/// What a file may cost in damage.
#[derive(Clone, Debug)]
enum Damage {
    Byte(u8),
    /// A length or count driven to an extreme.
    Word(u32),
    Insert(Vec<u8>),
    Remove(usize),
    Cut,
}

fn damage() -> impl Strategy<Value = Damage> {
    let extreme = prop_oneof![
        Just(0),
        Just(u32::MAX),
        Just(1 << 20),
        Just(1 << 12),
        Just(0x1000),
        any::<u32>()
    ];
    prop_oneof![
        any::<u8>().prop_map(Damage::Byte),
        extreme.prop_map(Damage::Word),
        prop::collection::vec(any::<u8>(), 1..40).prop_map(Damage::Insert),
        (1usize..40).prop_map(Damage::Remove),
        Just(Damage::Cut),
    ]
}

impl Damage {
    fn apply(self, at: usize, file: &mut Vec<u8>) {
        let overwrite = |file: &mut Vec<u8>, bytes: &[u8]| {
            for (old, new) in file.iter_mut().skip(at).zip(bytes) {
                *old = *new;
            }
        };
        match self {
            Damage::Byte(byte) => overwrite(file, &[byte]),
            Damage::Word(word) => overwrite(file, &word.to_le_bytes()),
            Damage::Insert(bytes) => drop(file.splice(at..at, bytes)),
            Damage::Remove(count) => drop(file.drain(at..file.len().min(at + count))),
            Damage::Cut => file.truncate(at),
        }
    }
}

fn packets() -> impl Strategy<Value = Vec<(LinkType, u64, Vec<u8>, Option<String>)>> {
    let packet = (
        prop::sample::select(LinkType::ALL.to_vec()),
        0..u64::from(u32::MAX) * 1_000_000_000,
        prop::collection::vec(any::<u8>(), 0..90),
        prop::option::of("[a-zé ]{0,9}"),
    );
    prop::collection::vec(packet, 0..12)
}

fn pcapng(packets: &[(LinkType, u64, Vec<u8>, Option<String>)]) -> Vec<u8> {
    let mut writer = PcapngWriter::new(Vec::new()).unwrap();
    for (link_type, time, bytes, comment) in packets {
        let time = Timestamp(*time);
        let original_len = bytes.len() as u32;
        let comment = comment.as_deref();
        writer
            .write(&Packet {
                time,
                link_type: *link_type,
                bytes,
                original_len,
                comment,
            })
            .unwrap();
    }
    writer.into_inner()
}

fn pcap(packets: &[(LinkType, u64, Vec<u8>, Option<String>)]) -> Vec<u8> {
    let link_type = LinkType::Ethernet;
    let mut writer = PcapWriter::new(Vec::new(), link_type, Resolution::Nanosecond).unwrap();
    for (_, time, bytes, _) in packets {
        let time = Timestamp(*time);
        let original_len = bytes.len() as u32;
        writer
            .write(&Packet {
                time,
                link_type,
                bytes,
                original_len,
                comment: None,
            })
            .unwrap();
    }
    writer.into_inner()
}

fn held_after_reading(file: &[u8]) -> usize {
    let Ok(mut reader) = Reader::open("t", file) else {
        return 0;
    };
    loop {
        match reader.next_frame() {
            Ok(Some(_)) => {}
            Ok(None) => return reader.held(),
            Err(error) => {
                assert!(error.offset <= file.len() as u64, "{error}");
                return reader.held();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_behind_any_beginning_end_within_bounds(
        start in prop::sample::select(vec![0usize, 4, 8, 12, 24, 28, 60]),
        kind in any::<bool>(),
        tail in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let head = if kind { pcap(&[]) } else { pcapng(&[]) };
        let file = [&head[..start.min(head.len())], &tail].concat();
        let (frames, error) = read(&file[..]);
        prop_assert!(frames.iter().map(|frame| frame.bytes.len()).sum::<usize>() <= file.len());
        prop_assert_eq!(read(Dripping(&file)), (frames, error));
        prop_assert!(held_after_reading(&file) <= MAX_BLOCK as usize);
    }

    #[test]
    fn damage_does_not_reach_what_was_read_before_it(
        packets in packets(),
        kind in any::<bool>(),
        place in any::<prop::sample::Index>(),
        damage in damage(),
    ) {
        let mut file = if kind { pcap(&packets) } else { pcapng(&packets) };
        let at = place.index(file.len());
        let (before, _) = read(&file[..at]);
        damage.apply(at, &mut file);
        let (frames, _) = read(&file[..]);
        prop_assert!(frames.starts_with(&before), "{:?}", frames);
        prop_assert!(held_after_reading(&file) <= MAX_BLOCK as usize);
    }

    #[test]
    fn a_cut_file_is_an_error_unless_it_ends_between_records(
        packets in packets(),
        place in any::<prop::sample::Index>(),
    ) {
        let whole = pcap(&packets);
        let at = place.index(whole.len());
        let mut ends = vec![24];
        for (_, _, bytes, _) in &packets {
            ends.push(ends.last().unwrap() + 16 + bytes.len());
        }
        let (frames, error) = read(&whole[..at]);
        prop_assert_eq!(error.is_none(), ends.contains(&at));
        prop_assert_eq!(frames.len(), ends.iter().filter(|end| **end <= at).count().saturating_sub(1));
    }

    #[test]
    fn what_is_written_is_read_back(packets in packets()) {
        let (frames, error) = read(&pcapng(&packets)[..]);
        prop_assert_eq!(error, None);
        prop_assert_eq!(frames.len(), packets.len());
        for (frame, (link_type, time, bytes, _)) in frames.iter().zip(&packets) {
            prop_assert_eq!((frame.link_type, frame.time), (*link_type, *time));
            prop_assert_eq!(&frame.bytes, bytes);
        }
        let (frames, error) = read(&pcap(&packets)[..]);
        prop_assert_eq!(error, None);
        let expected: Vec<Seen> = packets
            .iter()
            .map(|(_, time, bytes, _)| {
                seen(*time, 0, LinkType::Ethernet, bytes, bytes.len() as u32)
            })
            .collect();
        prop_assert_eq!(frames, expected);
    }

    #[test]
    fn the_parts_of_any_frame_are_all_of_it(
        link_type in prop::sample::select(LinkType::ALL.to_vec()),
        tags in prop::collection::vec(prop::sample::select(vec![0x8100u16, 0x88a8, 0x9100]), 0..10),
        tail in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut frame = vec![0; 12];
        for tag in tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 1]);
        }
        frame.extend([8, 0]);
        frame.extend(&tail);
        for bytes in [&frame, &tail] {
            let parts = link(link_type, bytes);
            prop_assert_eq!(&[parts.header, parts.payload, parts.trailer].concat(), bytes);
            prop_assert!(parts.defect.is_none() || parts.header.len() == bytes.len());
        }
    }
}

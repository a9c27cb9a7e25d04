//! Captures written byte by byte, and what the reader makes of them: the packets it
//! delivers, and the one message it ends with.

mod chunk;
mod link;
mod mutation;
mod pcap;
mod pcapng;
mod write;

use std::io::Read;

use super::order::ByteOrder;
use super::{LinkType, Reader, Timestamp};

/// A frame that outlives the reader's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    time: u64,
    interface: u32,
    link_type: LinkType,
    bytes: Vec<u8>,
    original_len: u32,
}

fn seen(time: u64, interface: u32, link_type: LinkType, bytes: &[u8], original_len: u32) -> Seen {
    Seen {
        time,
        interface,
        link_type,
        bytes: bytes.to_vec(),
        original_len,
    }
}

/// Gives a byte at a time, as a slow pipe may.
struct Dripping<'a>(&'a [u8]);

impl Read for Dripping<'_> {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let count = room.len().min(1);
        self.0.read(&mut room[..count])
    }
}

fn read(input: impl Read) -> (Vec<Seen>, Option<String>) {
    let mut frames = Vec::new();
    let mut reader = match Reader::open("t.pcap", input) {
        Ok(reader) => reader,
        Err(error) => return (frames, Some(error.to_string())),
    };
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => {
                assert_eq!(frame.number, frames.len() as u64 + 1);
                let Timestamp(time) = frame.time;
                let (interface, link_type) = (frame.interface, frame.link_type);
                frames.push(seen(
                    time,
                    interface,
                    link_type,
                    frame.bytes,
                    frame.original_len,
                ));
            }
            Ok(None) => return (frames, None),
            Err(error) => {
                assert!(
                    matches!(reader.next_frame(), Ok(None)),
                    "an error comes once"
                );
                return (frames, Some(error.to_string()));
            }
        }
    }
}

/// The packets that come before the end, and the error that ends them, if any.
#[track_caller]
fn check(file: &[u8], frames: &[Seen], error: Option<&str>) {
    let (found, message) = read(file);
    assert_eq!(message.as_deref(), error);
    assert_eq!(found, frames);
    assert_eq!(
        read(Dripping(file)),
        (found, message),
        "however the bytes arrive"
    );
}

const BOTH: [ByteOrder; 2] = [ByteOrder::Little, ByteOrder::Big];

fn u16_in(order: ByteOrder, value: u16) -> [u8; 2] {
    match order {
        ByteOrder::Little => value.to_le_bytes(),
        ByteOrder::Big => value.to_be_bytes(),
    }
}

fn words(order: ByteOrder, values: &[u32]) -> Vec<u8> {
    let bytes = |value: &u32| match order {
        ByteOrder::Little => value.to_le_bytes(),
        ByteOrder::Big => value.to_be_bytes(),
    };
    values.iter().flat_map(bytes).collect()
}

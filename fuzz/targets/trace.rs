//! Any bytes as a capture: the reader comes to an end, its packets keep their bounds, and
//! their link layers split without loss.

#![no_main]

use dynencap_fuzz::{Kind, plant};
use dynencap_sim::trace::{MAX_CAPTURED, Reader, link};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: plant("trace", Kind::Capture),
    |data: &[u8]| {
        let Ok(mut reader) = Reader::open("capture", data) else {
            return;
        };
        let mut number = 0;
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => {
                    number += 1;
                    assert_eq!(frame.number, number, "packets are numbered in order");
                    assert!(frame.bytes.len() <= MAX_CAPTURED as usize);
                    assert!(frame.bytes.len() <= data.len(), "more bytes than the file has");
                    let link = link(frame.link_type, frame.bytes);
                    let parts = link.header.len() + link.payload.len() + link.trailer.len();
                    assert_eq!(parts, frame.bytes.len(), "the link layer loses bytes");
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(error.packet, number + 1, "the error is the next packet's");
                    assert!(error.offset <= data.len() as u64, "an error behind the end");
                    break;
                }
            }
        }
        assert!(matches!(reader.next_frame(), Ok(None)), "the end is for ever");
    }
);

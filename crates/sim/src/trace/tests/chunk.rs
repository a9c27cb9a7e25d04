//! In chunks of any size the same packets come, at the places that are told, as from one piece.

use super::{Seen, read, seen};
use crate::trace::{Chunks, Frame, HEADROOM, Reader, Timestamp};
use std::io;

/// A file in pieces of so many bytes, with an error behind them where that is set.
struct Pieces<'a> {
    file: &'a [u8],
    size: usize,
    fails: bool,
}

impl Chunks for Pieces<'_> {
    fn next(&mut self, mut spare: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        let (piece, rest) = self.file.split_at(self.size.min(self.file.len()));
        self.file = rest;
        if piece.is_empty() {
            let failed = || Err(io::Error::other("the disk is gone"));
            return if std::mem::take(&mut self.fails) {
                failed()
            } else {
                Ok(None)
            };
        }
        // What a chunk that was used before may hold.
        spare.clear();
        spare.resize(HEADROOM, 0xee);
        spare.extend_from_slice(piece);
        Ok(Some(spare))
    }
}

/// As [`read`], by turning the window; every packet is looked up at its place in the memory
/// that was given away, once that is given.
fn read_in_chunks(chunks: Pieces<'_>) -> (Vec<Seen>, Option<String>) {
    let mut frames: Vec<Seen> = Vec::new();
    let mut reader = match Reader::open_chunks("t.pcap", chunks) {
        Ok(reader) => reader,
        Err(error) => return (frames, Some(error.to_string())),
    };
    let mut places: Vec<usize> = Vec::new();
    let check = |frames: &[Seen], places: &mut Vec<usize>, memory: &[u8]| {
        let last = frames.iter().rev().take(places.len()).rev();
        for (frame, place) in last.zip(places.drain(..)) {
            assert_eq!(memory[place..place + frame.bytes.len()], frame.bytes);
        }
    };
    let mut spare = Vec::new();
    let own = |(place, frame): (usize, Frame<'_>)| {
        let Timestamp(time) = frame.time;
        let (interface, link_type) = (frame.interface, frame.link_type);
        let (bytes, original) = (frame.bytes, frame.original_len);
        (place, seen(time, interface, link_type, bytes, original))
    };
    let ended = loop {
        let whole = reader.next_whole().map(|found| found.map(own));
        let found = match whole {
            Some(found) => found.map(Some),
            None => {
                spare = reader.turn(std::mem::take(&mut spare));
                check(&frames, &mut places, &spare);
                reader.next_placed().map(|found| found.map(own))
            }
        };
        match found {
            Ok(Some((place, frame))) => {
                frames.push(frame);
                places.push(place);
            }
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    check(&frames, &mut places, &reader.close());
    (frames, ended)
}

fn captures() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata");
    let files = std::fs::read_dir(folder).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let captures = paths.filter(|path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("pcap" | "pcapng"))
    });
    captures.map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn chunks_of_any_size_give_what_one_piece_gives() {
    let captures = captures();
    assert!(captures.len() >= 8);
    for capture in &captures {
        let expected = read(&capture[..]);
        for size in [23, 1000, 4096, 65_536, 200_000, usize::MAX] {
            // Few bytes at a time take long.
            let some = capture.len().min(size.saturating_mul(2_000));
            let file = &capture[..some];
            let expected = if some == capture.len() {
                expected.clone()
            } else {
                read(file)
            };
            let pieces = Pieces {
                file,
                size,
                fails: false,
            };
            assert!(read_in_chunks(pieces) == expected, "chunks of {size} bytes");
        }
    }
}

#[test]
fn a_broken_file_breaks_at_the_same_place() {
    for capture in &captures() {
        for cut in [0, 3, 10, 24, 30, 500, 5_000, capture.len() - 1] {
            let mut file = capture[..cut.min(capture.len())].to_vec();
            for flipped in [false, true] {
                if flipped {
                    let at = file.len() / 2;
                    let Some(byte) = file.get_mut(at) else {
                        continue;
                    };
                    *byte ^= 0x80;
                }
                for size in [61, 1_500, usize::MAX] {
                    let pieces = Pieces {
                        file: &file,
                        size,
                        fails: false,
                    };
                    let expected = read(&file[..]);
                    assert_eq!(read_in_chunks(pieces), expected, "{cut} in {size}");
                }
            }
        }
    }
}

#[test]
fn an_error_of_the_input_comes_behind_what_was_read() {
    let capture = captures().remove(0);
    let pieces = |fails| Pieces {
        file: &capture,
        size: 5_000,
        fails,
    };
    let (whole, none) = read_in_chunks(pieces(false));
    assert_eq!(none, None);
    let (frames, error) = read_in_chunks(pieces(true));
    assert_eq!(frames, whole);
    assert!(error.unwrap().contains("the disk is gone"));
}

//! How maps' keys are hashed: fast, and the same in every run. Whoever chooses the keys has
//! nothing to gain by collisions.

use std::hash::{BuildHasherDefault, Hasher};

/// For a [`std::collections::HashMap`] by keys.
pub(crate) type KeyState = BuildHasherDefault<KeyHasher>;

/// Odd, with no pattern in its bits: SplitMix64's first multiplier.
const MULTIPLIER: u64 = 0xbf58_476d_1ce4_e5b9;

/// Multiplies and turns, eight bytes at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeyHasher(u64);

impl KeyHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(MULTIPLIER);
    }
}

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            for (place, byte) in last.iter_mut().zip(rest) {
                *place = *byte;
            }
            self.mix(u64::from_le_bytes(last));
        }
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }

    fn finish(&self) -> u64 {
        // The table looks at the lowest bits first, a product's best are the highest.
        self.0.rotate_left(26)
    }
}

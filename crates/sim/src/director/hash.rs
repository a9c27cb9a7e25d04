//! The flow table's hash: cheap, and the same in every run. The table is bounded, so that a
//! trace made of collisions is slow and no more.

use std::hash::{BuildHasher, Hasher};

/// Makes [`Mixer`]s.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FlowHash;

/// Mixes eight bytes at a time.
pub(super) struct Mixer(u64);

/// 2^64 divided by the golden ratio, made odd.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl BuildHasher for FlowHash {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(0)
    }
}

impl Mixer {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(FACTOR);
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

impl Hasher for Mixer {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            for (place, byte) in last.iter_mut().zip(rest) {
                *place = *byte;
            }
            self.mix(u64::from_le_bytes(last) ^ (rest.len() as u64) << 56);
        }
    }

    #[inline]
    fn write_u8(&mut self, byte: u8) {
        self.mix(byte.into());
    }

    // The lengths of a key's fields never differ.
    #[inline]
    fn write_usize(&mut self, _: usize) {}

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dynencap_abi::FLOW_HASH_VECTORS;
    use std::collections::HashSet;

    #[test]
    fn keys_that_differ_in_a_bit_differ_in_high_and_low_bits() {
        let Some(vector) = FLOW_HASH_VECTORS.get(1) else {
            return;
        };
        let mut low = HashSet::new();
        let mut high = HashSet::new();
        for port in 0..1024u16 {
            let mut key = vector.key;
            key.source_port = port.to_be_bytes();
            let hash = FlowHash.hash_one(key);
            low.insert(hash & 0xffff);
            high.insert(hash >> 48);
        }
        assert!(low.len() > 1000, "{} of 1024", low.len());
        assert!(high.len() > 1000, "{} of 1024", high.len());
    }
}

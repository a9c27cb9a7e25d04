//! What the flow table is asked for: both directions of a flow, as words that are compared and
//! hashed without a look at memory.

use dynencap_abi::FlowKey;
use dynencap_model::flow::hash as flow_hash;
use std::hash::{BuildHasher, Hash, Hasher};

/// A flow, whichever direction it is seen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableKey {
    /// Addresses of the lesser end and of the other, their ports, and what they share.
    ends: [(u64, u64); 2],
    ports: [u16; 2],
    pub(super) protocol: u8,
    pub(super) version: u8,
    /// Of all of these; the same in both directions and in every run. The table is bounded, so
    /// that a trace made of collisions is slow and no more.
    hash: u64,
}

impl TableKey {
    /// The flow of this key, and whether the key's source is the lesser end.
    #[inline]
    pub(super) fn of(key: &FlowKey) -> (Self, bool) {
        let source = end(&key.source, key.source_port);
        let destination = end(&key.destination, key.destination_port);
        let from_lesser = source <= destination;
        let [lesser, other] = match from_lesser {
            true => [source, destination],
            false => [destination, source],
        };
        let this = Self {
            ends: [lesser.0, other.0],
            ports: [lesser.1, other.1],
            protocol: key.protocol,
            version: key.version,
            hash: flow_hash(key),
        };
        (this, from_lesser)
    }
}

#[inline]
fn end(address: &[u8; 16], port: [u8; 2]) -> ((u64, u64), u16) {
    let whole = u128::from_be_bytes(*address);
    let port = u16::from_be_bytes(port);
    (((whole >> 64) as u64, whole as u64), port)
}

impl Hash for TableKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Makes [`Taken`]s.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FlowHash;

/// Takes the hash that a key has.
pub(super) struct Taken(u64);

impl BuildHasher for FlowHash {
    type Hasher = Taken;

    #[inline]
    fn build_hasher(&self) -> Taken {
        Taken(0)
    }
}

impl Hasher for Taken {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        // No key writes bytes; whatever does is hashed badly, and found.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

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
            let (key, _) = TableKey::of(&key);
            let hash = FlowHash.hash_one(key);
            low.insert(hash & 0xffff);
            high.insert(hash >> 48);
        }
        assert!(low.len() > 1000, "{} of 1024", low.len());
        assert!(high.len() > 1000, "{} of 1024", high.len());
    }

    #[test]
    fn both_directions_are_one_flow_and_no_other_field_is_left_out() {
        let Some(vector) = FLOW_HASH_VECTORS.get(1) else {
            return;
        };
        let key = vector.key;
        let (forth, forward) = TableKey::of(&key);
        let (back, backward) = TableKey::of(&key.reversed());
        assert!(forth == back && forward != backward);
        let mut others = [key; 6];
        others[0].source[15] ^= 1;
        others[1].destination[0] ^= 1;
        others[2].source_port[1] ^= 1;
        others[3].destination_port[0] ^= 1;
        others[4].protocol ^= 1;
        others[5].version ^= 2;
        for other in others {
            assert_ne!(TableKey::of(&other).0, forth, "{other:?}");
        }
    }
}

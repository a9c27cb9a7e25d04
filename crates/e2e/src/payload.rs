//! Bytes to send that nobody has to store: a stream that its seed determines, and its hash.

use sha2::{Digest, Sha256};

/// splitmix64: passes for random, and is as fast as memory.
#[derive(Clone, Debug)]
pub struct Stream {
    state: u64,
}

impl Stream {
    /// The stream of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Its next bytes. A buffer that is no multiple of 8 ends a word early.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for word in buffer.chunks_mut(8) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let bytes = (mixed ^ (mixed >> 31)).to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
    }
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a datagram adds to the sum that tells sets of datagrams apart, whatever their order.
#[must_use]
pub fn fingerprint(datagram: &[u8]) -> u64 {
    let digest = Sha256::digest(datagram);
    u64::from_be_bytes(*digest.first_chunk().expect("32 bytes"))
}

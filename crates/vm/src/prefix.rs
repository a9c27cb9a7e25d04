//! Keys of an LPM trie: four bytes of prefix length in host order, then the bits from the most
//! significant one on (`struct bpf_lpm_trie_key`).

/// The longest key that the kernel takes: `LPM_DATA_SIZE_MAX` and the length in front.
const MAX_LEN: usize = 260;

/// The prefix length that a key names.
pub(crate) fn prefix_len(key: &[u8]) -> u32 {
    key.first_chunk().copied().map_or(0, u32::from_le_bytes)
}

/// How many bits a key of this size has room for.
pub(crate) fn prefix_bits(key: &[u8]) -> u32 {
    u32::try_from(key.len().saturating_sub(4) * 8).unwrap_or(0)
}

/// A key with all bits behind its prefix zero, so that equal prefixes are equal bytes.
pub(crate) struct Prefix {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl Prefix {
    /// The first `bits` bits of a key, if it has as many.
    pub(crate) fn of(key: &[u8], bits: u32) -> Option<Self> {
        if bits > prefix_bits(key) {
            return None;
        }
        let mut bytes = [0; MAX_LEN];
        let (whole, rest) = (4 + bits as usize / 8, bits % 8);
        bytes.get_mut(..whole)?.copy_from_slice(key.get(..whole)?);
        if rest > 0 {
            *bytes.get_mut(whole)? = *key.get(whole)? & !(0xff >> rest);
        }
        bytes.get_mut(..4)?.copy_from_slice(&bits.to_le_bytes());
        Some(Self {
            bytes,
            len: key.len(),
        })
    }

    pub(crate) fn key(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

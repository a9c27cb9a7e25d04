//! Keys of an LPM trie: four bytes of prefix length in host order, then the bits from the most
//! significant one on (`struct bpf_lpm_trie_key`).

/// The prefix length that a key names.
pub(crate) fn prefix_len(key: &[u8]) -> u32 {
    key.first_chunk().copied().map_or(0, u32::from_le_bytes)
}

/// How many bits a key of this size has room for.
pub(crate) fn prefix_bits(key: &[u8]) -> u32 {
    u32::try_from(key.len().saturating_sub(4) * 8).unwrap_or(0)
}

/// Whether the stored prefix is one of the key's.
pub(crate) fn covers(stored: &[u8], key: &[u8]) -> bool {
    let bits = prefix_len(stored) as usize;
    let (Some(stored), Some(key)) = (stored.get(4..), key.get(4..)) else {
        return false;
    };
    let whole = bits / 8;
    let rest_agrees = match (bits % 8, stored.get(whole), key.get(whole)) {
        (0, ..) => true,
        (rest, Some(a), Some(b)) => (a ^ b) >> (8 - rest) == 0,
        _ => false,
    };
    rest_agrees && stored.get(..whole) == key.get(..whole)
}

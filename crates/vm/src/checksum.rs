//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// The ones' complement sum of bytes, not folded; odd lengths are padded with zero. Words are
/// read as big-endian.
pub(crate) fn sum(bytes: &[u8], initial: u64) -> u64 {
    let mut chunks = bytes.chunks_exact(2);
    let mut total = initial;
    for pair in &mut chunks {
        total += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    if let [last] = chunks.remainder() {
        total += u64::from(*last) << 8;
    }
    total
}

/// Folds a sum to 16 bits.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// RFC 1624, equation 3: the checksum after its data's sum changed by `difference`.
pub(crate) fn replace(checksum: u16, difference: u64) -> u16 {
    !fold(u64::from(!checksum) + u64::from(fold(difference)))
}

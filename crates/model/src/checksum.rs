//! The Internet checksum: RFC 1071 in full, RFC 1624 for a change.

/// A ones'-complement sum in the making, in this machine's byte order (RFC 1071 §2 (B):
/// the sum does not depend on it).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds bytes; only the last ones added may be odd in number.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        // Eight independent lanes of 32-bit words in 64 bits: no carry is lost below 2^32
        // blocks, and the compiler makes vector code of it.
        let mut lanes = [0u64; 8];
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum = self.0;
        for lane in lanes {
            sum = add(sum, lane);
        }
        let (words, rest) = rest.as_chunks::<2>();
        for word in words {
            sum = add(sum, u64::from(u16::from_ne_bytes(*word)));
        }
        if let [last] = *rest {
            sum = add(sum, u64::from(u16::from_ne_bytes([last, 0])));
        }
        Self(sum)
    }

    /// Adds one number of 16 bits.
    pub(crate) fn word(self, word: u16) -> Self {
        Self(add(
            self.0,
            u64::from(u16::from_ne_bytes(word.to_be_bytes())),
        ))
    }

    /// Adds another sum.
    pub(crate) fn sum(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// The sum of the same bytes one place further on (RFC 1071 §2 (B)).
    pub(crate) fn shifted(self) -> Self {
        Self(u64::from(fold(self.0).swap_bytes()))
    }

    /// The checksum as it stands on the wire.
    pub(crate) fn finish(self) -> [u8; 2] {
        (!fold(self.0)).to_ne_bytes()
    }
}

/// RFC 1624 equation 3: HC' = ~(~HC + ~m + m'), where `before` became `after`.
pub(crate) fn update(checksum: u16, before: u16, after: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!before) + u64::from(after))
}

/// Ones'-complement addition: the carry comes back in at the bottom.
fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u64::from(carry)
}

fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    (sum as u16).wrapping_add((sum >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(
            Sum::default().bytes(&bytes).finish(),
            (!0xddf2u16).to_be_bytes()
        );
    }

    #[test]
    fn wide_lanes_agree_with_the_plain_sum_at_every_length() {
        let bytes: Vec<u8> = (0..400u32).map(|i| (i * i * 31 + 200) as u8).collect();
        for len in 0..bytes.len() {
            assert_eq!(
                Sum::default().bytes(&bytes[..len]).finish(),
                naive(&bytes[..len]).to_be_bytes(),
                "{len} bytes"
            );
        }
        assert_eq!(Sum::default().bytes(&[0xff; 4096]).finish(), [0, 0]);
    }

    #[test]
    fn the_sum_may_be_built_in_pieces() {
        let whole = [1, 2, 3, 4, 0xfe, 0xff, 7];
        let pieces = Sum::default()
            .bytes(&whole[..4])
            .word(0xfeff)
            .bytes(&whole[6..]);
        assert_eq!(pieces.finish(), Sum::default().bytes(&whole).finish());
    }

    #[test]
    fn a_sum_behind_an_odd_number_of_bytes_is_shifted() {
        let whole = [1, 2, 3, 0xfe, 0xff, 7, 8];
        let pieces = Sum::default()
            .bytes(&whole[..3])
            .sum(Sum::default().bytes(&whole[3..]).shifted());
        assert_eq!(pieces.finish(), Sum::default().bytes(&whole).finish());
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // §4: equation 3 gives 0x0000 where equation 2 of RFC 1141 gave 0xffff.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn an_update_agrees_with_the_sum_from_scratch_and_keeps_errors() {
        for (before, after) in [(0x4500, 0x4503), (0x4501, 0x4502), (0x45ff, 0x4500)] {
            let header = |word: u16| {
                let [a, b] = word.to_be_bytes();
                [a, b, 0x12, 0x34, 0xab, 0xcd]
            };
            let old = naive(&header(before));
            assert_eq!(update(old, before, after), naive(&header(after)));
            let wrong = old.wrapping_add(1);
            assert_ne!(update(wrong, before, after), naive(&header(after)));
        }
    }
}

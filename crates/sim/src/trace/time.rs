//! Instants of a capture, and the units in which pcapng interfaces count them.

/// Nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Whole seconds, and the nanoseconds behind them.
    pub const fn parts(self) -> (u64, u32) {
        ((self.0 / NANOS), (self.0 % NANOS) as u32)
    }
}

const NANOS: u64 = 1_000_000_000;

/// How an interface's 64-bit tick count becomes a [`Timestamp`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    unit: Unit,
    /// if_tsoffset in nanoseconds.
    offset: i128,
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    Multiply(u64),
    Divide(u128),
    /// Ticks of 2^-n s.
    Binary(u32),
}

impl Clock {
    /// From if_tsresol (6, microseconds, where absent) and if_tsoffset (seconds).
    pub(super) fn new(resolution: u8, offset: i64) -> Clock {
        let exponent = u32::from(resolution & 0x7f);
        let unit = if resolution & 0x80 != 0 {
            Unit::Binary(exponent)
        } else if exponent <= 9 {
            Unit::Multiply(10u64.pow(9 - exponent))
        } else {
            // Past 10^38 every 64-bit count is less than a nanosecond either way.
            Unit::Divide(10u128.checked_pow(exponent - 9).unwrap_or(u128::MAX))
        };
        Clock {
            unit,
            offset: i128::from(offset) * i128::from(NANOS),
        }
    }

    /// None where the instant lies before 1970 or past the range of [`Timestamp`] (2554).
    pub(super) fn at(self, ticks: u64) -> Option<Timestamp> {
        let since_start = match self.unit {
            Unit::Multiply(factor) => u128::from(ticks) * u128::from(factor),
            Unit::Divide(divisor) => u128::from(ticks) / divisor,
            Unit::Binary(exponent) => (u128::from(ticks) * u128::from(NANOS)) >> exponent,
        };
        let since_epoch = i128::try_from(since_start).ok()?.checked_add(self.offset)?;
        u64::try_from(since_epoch).ok().map(Timestamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_follow_resolution_and_offset() {
        let cases: [(u8, i64, u64, Option<u64>); 12] = [
            (6, 0, 1_500_000, Some(1_500_000_000)),
            (9, 0, 7, Some(7)),
            (0, 0, 3, Some(3_000_000_000)),
            (3, 2, 1, Some(2_001_000_000)),
            (12, 0, 1_999, Some(1)),
            (127, 0, u64::MAX, Some(0)),
            (0x80 | 10, 0, 1536, Some(1_500_000_000)),
            (0x80 | 127, 0, u64::MAX, Some(0)),
            (6, -1, 1_000_000, Some(0)),
            (6, -2, 1_000_000, None),
            (0, 0, u64::MAX, None),
            (9, i64::MAX, u64::MAX, None),
        ];
        for (resolution, offset, ticks, expected) in cases {
            let found = Clock::new(resolution, offset).at(ticks);
            assert_eq!(
                found,
                expected.map(Timestamp),
                "{resolution:#x} {offset} {ticks}"
            );
        }
    }
}

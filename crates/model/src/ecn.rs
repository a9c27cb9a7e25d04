//! ECN through a tunnel: RFC 6040 §4.2, how the two codepoints become one at decapsulation.

/// RFC 3168 §5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ecn {
    NotEct,
    Ect0,
    Ect1,
    Ce,
}

impl Ecn {
    pub(crate) const MASK: u8 = 0b11;

    pub(crate) fn of(traffic_class: u8) -> Self {
        match traffic_class & Self::MASK {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// `traffic_class` with this codepoint.
    pub(crate) fn within(self, traffic_class: u8) -> u8 {
        let bits = match self {
            Self::NotEct => 0b00,
            Self::Ect1 => 0b01,
            Self::Ect0 => 0b10,
            Self::Ce => 0b11,
        };
        traffic_class & !Self::MASK | bits
    }

    /// What is delivered; none where the packet must be dropped.
    pub(crate) fn combined(inner: Self, outer: Self) -> Option<Self> {
        match (inner, outer) {
            // "the packet MUST be dropped": its transport would not heed the mark.
            (Self::NotEct, Self::Ce) => None,
            (Self::NotEct, _) => Some(Self::NotEct),
            (Self::Ce, _) | (_, Self::Ce) => Some(Self::Ce),
            (Self::Ect0, Self::Ect1) => Some(Self::Ect1),
            (inner, _) => Some(inner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Ecn::{Ce, Ect0, Ect1, NotEct};

    #[test]
    fn the_whole_table_of_rfc_6040() {
        let outers = [NotEct, Ect0, Ect1, Ce];
        #[rustfmt::skip]
        let table = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0,   [Some(Ect0),   Some(Ect0),   Some(Ect1),   Some(Ce)]),
            (Ect1,   [Some(Ect1),   Some(Ect1),   Some(Ect1),   Some(Ce)]),
            (Ce,     [Some(Ce),     Some(Ce),     Some(Ce),     Some(Ce)]),
        ];
        for (inner, row) in table {
            for (outer, delivered) in outers.into_iter().zip(row) {
                assert_eq!(
                    Ecn::combined(inner, outer),
                    delivered,
                    "{inner:?} in {outer:?}"
                );
            }
        }
    }

    #[test]
    fn codepoints_survive_beside_any_dscp() {
        for octet in 0..=u8::MAX {
            assert_eq!(Ecn::of(octet).within(octet), octet);
            assert_eq!(Ce.within(octet), octet | 3);
        }
    }
}

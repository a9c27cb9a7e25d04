//! What a socket's replies take over from the packets that came in, and its text.

use dynencap_abi::option::{REFLECT_DSCP, REFLECT_LEN, REFLECT_MARK, REFLECT_PATH};
use std::{fmt, ops::BitOr, str::FromStr};

/// A set of what is reflected. As text: `off`, or names with commas between, as in `path,dscp`.
///
/// ```
/// use dynencap::Reflect;
///
/// let reflect: Reflect = "path,dscp".parse()?;
/// assert_eq!(reflect, Reflect::PATH | Reflect::DSCP);
/// assert!(reflect.contains(Reflect::PATH));
/// assert_eq!(Reflect::OFF.to_string(), "off");
/// # Ok::<(), dynencap::ParseReflectError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reflect(u32);

/// Name and bit of each part.
const NAMES: [(&str, Reflect); 3] = [
    ("path", Reflect::PATH),
    ("dscp", Reflect::DSCP),
    ("mark", Reflect::MARK),
];
const OFF: &str = "off";

impl Reflect {
    /// Nothing.
    pub const OFF: Self = Self(0);
    /// Replies leave through the outer header by which the packets came.
    pub const PATH: Self = Self(REFLECT_PATH);
    /// A TCP connection's replies carry the DSCP of its SYN.
    pub const DSCP: Self = Self(REFLECT_DSCP);
    /// A TCP connection's socket takes the mark of its SYN, dynencap's part excepted.
    pub const MARK: Self = Self(REFLECT_MARK);

    /// Whether all of `other` is in it.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// As the option and policies hold it.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// From such bits; `None` where some are not known.
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        let known = NAMES.iter().fold(0, |known, (_, part)| known | part.0);
        (bits & !known == 0).then_some(Self(bits))
    }

    pub(crate) fn to_value(self) -> [u8; REFLECT_LEN] {
        self.0.to_ne_bytes()
    }

    pub(crate) fn from_value(value: &[u8]) -> Option<Self> {
        Self::from_bits(u32::from_ne_bytes(value.try_into().ok()?))
    }
}

impl BitOr for Reflect {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Reflect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::OFF {
            return f.write_str(OFF);
        }
        let parts = NAMES.iter().filter(|(_, part)| self.contains(*part));
        for (number, (name, _)) in parts.enumerate() {
            f.write_str(if number == 0 { "" } else { "," })?;
            f.write_str(name)?;
        }
        Ok(())
    }
}

/// A text that names nothing that can be reflected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reflect `{text}`: expected `off`, or of `path`, `dscp`, `mark`, with commas between")]
pub struct ParseReflectError {
    text: String,
}

impl FromStr for Reflect {
    type Err = ParseReflectError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == OFF {
            return Ok(Self::OFF);
        }
        text.split(',').try_fold(Self::OFF, |all, name| {
            NAMES
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, part)| all | *part)
                .ok_or_else(|| ParseReflectError {
                    text: text.to_owned(),
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_has_one_text_and_one_value() {
        for bits in 0..8 {
            let reflect = Reflect::from_bits(bits).unwrap();
            assert_eq!(reflect.to_string().parse(), Ok(reflect));
            assert_eq!(Reflect::from_value(&reflect.to_value()), Some(reflect));
        }
        assert_eq!(Reflect::from_bits(8), None);
        assert_eq!(Reflect::from_value(&[0; 3]), None);
        for text in ["", "path,", "off,path", "vni", "Path", "path, dscp"] {
            let error = text.parse::<Reflect>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}

//! Custom headers between an outer UDP header and the packet inside: how long they are, and of
//! which version they say that packet is (docs/datapath.md §4).

use core::mem::{offset_of, size_of};
use dynencap_abi::{MAX_HEADER_LEN, TunnelSpec};

/// `abi::TunnelSpec` as one word.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Tunnel(u32);

const _: () = assert!(
    size_of::<TunnelSpec>() == size_of::<Tunnel>()
        && offset_of!(TunnelSpec, header_len) == 0
        && offset_of!(TunnelSpec, flags) == 1
        && offset_of!(TunnelSpec, format) == 2
);

impl Tunnel {
    /// One of `abi::TunnelSpec`'s flags.
    #[inline(always)]
    pub(crate) fn has(self, flag: u8) -> bool {
        (u32::from_le(self.0) >> 8) as u8 & flag != 0
    }

    #[inline(always)]
    fn header_len(self) -> u32 {
        u32::from_le(self.0) & 0xff
    }

    #[inline(always)]
    fn format(self) -> u8 {
        (u32::from_le(self.0) >> 16) as u8
    }
}

/// What is known of a custom header: one word, since `Option`s go through the stack.
#[derive(Clone, Copy)]
pub(crate) struct Custom(u32);

impl Custom {
    const UNKNOWN: Self = Self(u32::MAX);
    /// Of outer headers without UDP.
    pub(crate) const NONE: Self = Self(0);
    const VERSION_SHIFT: u32 = 8;
    /// Announces something that is no IP.
    const NO_IP: u32 = 1;

    #[inline(always)]
    fn new(len: u32, version: u32) -> Self {
        if len > MAX_HEADER_LEN as u32 {
            Self::UNKNOWN
        } else {
            Self(len | version << Self::VERSION_SHIFT)
        }
    }

    /// `start` has the header's first 8 bytes in network order, zeros where they are not there, of
    /// which there are `there`.
    #[inline(always)]
    pub(crate) fn of(tunnel: Tunnel, start: u64, there: u32) -> Self {
        match tunnel.format() {
            TunnelSpec::FIXED => Self::new(tunnel.header_len(), 0),
            TunnelSpec::GUE => Self::gue(start, there),
            TunnelSpec::GENEVE => Self::geneve(start, there),
            _ => Self::UNKNOWN,
        }
    }

    /// draft-ietf-intarea-gue-09 §3: version (2 bits), C, length in words (5), protocol.
    #[inline(always)]
    fn gue(start: u64, there: u32) -> Self {
        const CONTROL: u8 = 0x20;
        let [first, protocol, ..] = start.to_be_bytes();
        match first >> 6 {
            _ if there == 0 => Self::UNKNOWN,
            0 if first & CONTROL != 0 => Self::UNKNOWN,
            0 => {
                let version = match protocol {
                    4 => 4,
                    41 => 6,
                    _ => Self::NO_IP,
                };
                Self::new(4 + 4 * u32::from(first & 0x1f), version)
            }
            // GUE version 1 is the IP header itself.
            1 => Self::NONE,
            _ => Self::UNKNOWN,
        }
    }

    /// RFC 8926 §3.4: version (2 bits), length of options in words (6), O, C, protocol (an Ethernet
    /// type), VNI.
    #[inline(always)]
    fn geneve(start: u64, there: u32) -> Self {
        const OAM_OR_CRITICAL: u8 = 0xc0;
        let [first, flags, a, b, ..] = start.to_be_bytes();
        if there < 8 || first >> 6 != 0 || flags & OAM_OR_CRITICAL != 0 {
            return Self::UNKNOWN;
        }
        let version = match u16::from_be_bytes([a, b]) {
            0x0800 => 4,
            0x86dd => 6,
            _ => Self::NO_IP,
        };
        Self::new(8 + 4 * u32::from(first & 0x3f), version)
    }

    #[inline(always)]
    pub(crate) fn is_unknown(self) -> bool {
        self.0 == Self::UNKNOWN.0
    }

    #[inline(always)]
    pub(crate) fn len(self) -> u32 {
        self.0 & 0xff
    }

    /// Whether a packet of this version may stand behind it.
    #[inline(always)]
    pub(crate) fn allows(self, version: u32) -> bool {
        let announced = self.0 >> Self::VERSION_SHIFT;
        announced == 0 || announced == version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel(header_len: u8, format: u8) -> Tunnel {
        Tunnel(u32::from_ne_bytes([header_len, 0, format, 0]))
    }

    fn start(bytes: &[u8]) -> u64 {
        let mut start = [0; 8];
        start[..bytes.len()].copy_from_slice(bytes);
        u64::from_be_bytes(start)
    }

    #[test]
    fn the_length_is_that_of_the_format() {
        use TunnelSpec as T;
        let of = |len, format, bytes: &[u8]| {
            Custom::of(tunnel(len, format), start(bytes), bytes.len() as u32)
        };
        for (custom, len, versions) in [
            (of(8, T::FIXED, &[]), 8, &[4, 6][..]),
            (of(32, T::FIXED, &[]), 32, &[4, 6]),
            (of(9, T::GUE, &[0x01, 41, 0, 0]), 8, &[6]),
            (of(0, T::GUE, &[0x07, 4]), 32, &[4]),
            (of(0, T::GUE, &[0x00, 59]), 4, &[]),
            (of(0, T::GUE, &[0x45]), 0, &[4, 6]),
            (of(0, T::GENEVE, &[0, 0, 0x86, 0xdd, 0, 0, 7, 0]), 8, &[6]),
            (of(0, T::GENEVE, &[6, 0, 8, 0, 0, 0, 7, 0]), 32, &[4]),
            (of(0, T::GENEVE, &[0, 0, 0x65, 0x58, 0, 0, 7, 0]), 8, &[]),
        ] {
            assert!(!custom.is_unknown());
            assert_eq!(custom.len(), len);
            for version in [4, 6] {
                assert_eq!(custom.allows(version), versions.contains(&version));
            }
        }
        for custom in [
            of(33, T::FIXED, &[]),
            of(0, T::GUE, &[]),
            of(0, T::GUE, &[0x08, 41]),
            of(0, T::GUE, &[0x21, 41]),
            of(0, T::GUE, &[0x80, 41]),
            of(0, T::GENEVE, &[0, 0, 0x86, 0xdd, 0, 0, 7]),
            of(0, T::GENEVE, &[7, 0, 0x86, 0xdd, 0, 0, 7, 0]),
            of(0, T::GENEVE, &[0, 0x40, 0x86, 0xdd, 0, 0, 7, 0]),
            of(0, T::GENEVE, &[0x40, 0, 0x86, 0xdd, 0, 0, 7, 0]),
            of(0, 3, &[]),
        ] {
            assert!(custom.is_unknown());
        }
    }
}

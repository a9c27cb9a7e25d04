//! `abi::Exit` in words, and the size of the headers that it asks for. What an exit means is left
//! to the hooks.

use crate::flow::mapped;
use core::mem::{offset_of, size_of};
use dynencap_abi::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, UDP_HEADER_LEN};

/// `abi::Exit` as nine words. Byte arrays of 16 and 32 bytes would be copied byte by byte;
/// these are single loads and stores.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Exit {
    pub(crate) gateway: [u64; 2],
    pub(crate) source: [u64; 2],
    pub(crate) header: [u64; 4],
    /// source port, destination port, flags, header length, two reserved bytes.
    tail: u64,
}

const _: () = {
    assert!(size_of::<Exit>() == size_of::<dynencap_abi::Exit>());
    assert!(offset_of!(Exit, gateway) == offset_of!(dynencap_abi::Exit, gateway));
    assert!(offset_of!(Exit, source) == offset_of!(dynencap_abi::Exit, source));
    assert!(offset_of!(Exit, header) == offset_of!(dynencap_abi::Exit, header));
    assert!(offset_of!(Exit, tail) == offset_of!(dynencap_abi::Exit, source_port));
    assert!(offset_of!(dynencap_abi::Exit, destination_port) == offset_of!(Exit, tail) + 2);
    assert!(offset_of!(dynencap_abi::Exit, flags) == offset_of!(Exit, tail) + 4);
    assert!(offset_of!(dynencap_abi::Exit, header_len) == offset_of!(Exit, tail) + 5);
};

/// A gateway as an exit holds it, or none: all zero. No `Option`, since LLVM spills the undefined
/// payload of a `None`, and the verifier refuses to read what was never written.
#[derive(Clone, Copy)]
pub(crate) struct Gateway {
    /// IPv4 as IPv4-mapped.
    pub(crate) address: [u64; 2],
    /// `abi::Exit`'s `GATEWAY` and `IPV4`.
    flags: u8,
}

impl Gateway {
    pub(crate) const NONE: Self = Self {
        address: [0; 2],
        flags: 0,
    };

    /// None for the unspecified address, multicast, and what is an IPv4 address.
    #[inline(always)]
    pub(crate) fn ipv6(address: [u64; 2]) -> Self {
        let [high, low] = address.map(u64::from_le);
        let unspecified = high == 0 && low == 0;
        let multicast = high & 0xff == 0xff;
        let mapped = high == 0 && low as u32 == 0xffff_0000;
        if unspecified || multicast || mapped {
            return Self::NONE;
        }
        Self {
            address,
            flags: dynencap_abi::Exit::GATEWAY,
        }
    }

    /// The address as it stands in memory; none for the unspecified one, multicast, and
    /// broadcast.
    #[inline(always)]
    pub(crate) fn ipv4(address: u32) -> Self {
        let multicast = u32::from_be(address) >> 28 == 0xe;
        if address == 0 || address == u32::MAX || multicast {
            return Self::NONE;
        }
        Self {
            address: mapped(address),
            flags: dynencap_abi::Exit::GATEWAY | dynencap_abi::Exit::IPV4,
        }
    }

    #[inline(always)]
    pub(crate) fn is_none(self) -> bool {
        self.flags == 0
    }
}

/// The headers that most exits ask for, one kind a set of headers of constant length.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// IPv6.
    Ip,
    /// IPv6 and UDP.
    Udp,
    /// IPv6, UDP and a custom header of 8 bytes.
    Udp8,
    /// Others, or none.
    Other,
}

impl Exit {
    pub(crate) const NONE: Self = Self {
        gateway: [0; 2],
        source: [0; 2],
        header: [0; 4],
        tail: 0,
    };
    const FLAGS_SHIFT: u32 = 32;
    const HEADER_LEN_SHIFT: u32 = 40;

    /// As on the wire.
    #[inline(always)]
    pub(crate) fn source_port(&self) -> u16 {
        self.tail as u16
    }

    /// As on the wire.
    #[inline(always)]
    pub(crate) fn destination_port(&self) -> u16 {
        (self.tail >> 16) as u16
    }

    #[inline(always)]
    pub(crate) fn has_gateway(&self) -> bool {
        self.flag(dynencap_abi::Exit::GATEWAY)
    }

    #[inline(always)]
    pub(crate) fn has_udp(&self) -> bool {
        self.flag(dynencap_abi::Exit::UDP)
    }

    /// The outer IP header is IPv4; `gateway` and `source` are IPv4-mapped.
    #[inline(always)]
    pub(crate) fn is_ipv4(&self) -> bool {
        self.flag(dynencap_abi::Exit::IPV4)
    }

    /// It was captured, not chosen by the application.
    #[inline(always)]
    pub(crate) fn is_reflected(&self) -> bool {
        self.flag(dynencap_abi::Exit::REFLECTED)
    }

    /// The application has a say in it again.
    #[inline(always)]
    pub(crate) fn clear_reflected(&mut self) {
        self.set_flag(dynencap_abi::Exit::REFLECTED, false);
    }

    /// What is captured beside header and source: the port as on the wire, `None` without UDP.
    #[inline(always)]
    pub(crate) fn set_captured(&mut self, gateway: Gateway, udp: Option<u16>, header_len: u32) {
        use dynencap_abi::Exit as Abi;
        self.gateway = gateway.address;
        let flags = u64::from(gateway.flags | Abi::REFLECTED) << Self::FLAGS_SHIFT;
        self.tail = match udp {
            Some(port) => {
                u64::from(port) << 16
                    | flags
                    | u64::from(Abi::UDP) << Self::FLAGS_SHIFT
                    | u64::from(header_len) << Self::HEADER_LEN_SHIFT
            }
            None => flags,
        };
    }

    /// Whether all of it is the same.
    #[inline(always)]
    pub(crate) fn is(&self, other: &Self) -> bool {
        let difference = (self.gateway[0] ^ other.gateway[0])
            | (self.gateway[1] ^ other.gateway[1])
            | (self.source[0] ^ other.source[0])
            | (self.source[1] ^ other.source[1])
            | (self.header[0] ^ other.header[0])
            | (self.header[1] ^ other.header[1])
            | (self.header[2] ^ other.header[2])
            | (self.header[3] ^ other.header[3])
            | (self.tail ^ other.tail);
        difference == 0
    }

    /// It, or none: word by word, without a second one on the stack.
    #[inline(always)]
    pub(crate) fn if_asked(&self, is_asked: bool) -> Self {
        let kept = if is_asked { u64::MAX } else { 0 };
        Self {
            gateway: self.gateway.map(|word| word & kept),
            source: self.source.map(|word| word & kept),
            header: self.header.map(|word| word & kept),
            tail: self.tail & kept,
        }
    }

    /// Bytes of the custom header. The mask is wider than the longest, 32: whoever uses it as an
    /// offset gives the verifier a bound of its own.
    #[inline(always)]
    pub(crate) fn header_len(&self) -> u32 {
        (self.tail >> Self::HEADER_LEN_SHIFT) as u32 & 0xff
    }

    /// Bytes of all outer headers.
    ///
    /// Arithmetic, no branches: the verifier would follow all that comes behind for each flag.
    #[inline(always)]
    pub(crate) fn overhead(&self) -> u32 {
        const LESS_FOR_IPV4: u32 = (IPV6_HEADER_LEN - IPV4_HEADER_LEN) as u32;
        let ipv4 = self.bit(dynencap_abi::Exit::IPV4);
        let udp = self.bit(dynencap_abi::Exit::UDP);
        IPV6_HEADER_LEN as u32 - ipv4 * LESS_FOR_IPV4
            + udp * (UDP_HEADER_LEN as u32 + self.header_len())
    }

    /// Bytes of the outer header that its own length field does not count.
    #[inline(always)]
    pub(crate) fn uncounted(&self) -> u32 {
        let ipv4 = self.bit(dynencap_abi::Exit::IPV4);
        IPV6_HEADER_LEN as u32 * (1 - ipv4)
    }

    /// A flag as 0 or 1.
    #[inline(always)]
    fn bit(&self, flag: u8) -> u32 {
        (self.tail >> (Self::FLAGS_SHIFT + flag.trailing_zeros())) as u32 & 1
    }

    #[inline(always)]
    pub(crate) fn set_gateway(&mut self, gateway: Gateway) {
        use dynencap_abi::Exit as Abi;
        self.gateway = gateway.address;
        self.tail &= !(u64::from(Abi::GATEWAY | Abi::IPV4) << Self::FLAGS_SHIFT);
        self.tail |= u64::from(gateway.flags) << Self::FLAGS_SHIFT;
    }

    /// Ports as on the wire.
    #[inline(always)]
    pub(crate) fn set_udp(&mut self, source_port: u16, destination_port: u16, header_len: u32) {
        let kept = self.tail & (0xff << Self::FLAGS_SHIFT);
        self.tail = kept
            | u64::from(source_port)
            | u64::from(destination_port) << 16
            | u64::from(header_len) << Self::HEADER_LEN_SHIFT;
        self.set_flag(dynencap_abi::Exit::UDP, true);
    }

    #[inline(always)]
    pub(crate) fn clear_udp(&mut self) {
        self.header = [0; 4];
        self.tail &= 0xff << Self::FLAGS_SHIFT;
        self.set_flag(dynencap_abi::Exit::UDP, false);
    }

    #[inline(always)]
    fn flag(&self, flag: u8) -> bool {
        self.tail & u64::from(flag) << Self::FLAGS_SHIFT != 0
    }

    #[inline(always)]
    fn set_flag(&mut self, flag: u8, on: bool) {
        let bit = u64::from(flag) << Self::FLAGS_SHIFT;
        self.tail = if on {
            self.tail | bit
        } else {
            self.tail & !bit
        };
    }

    #[inline(always)]
    pub(crate) fn words(&self) -> [u64; 9] {
        let [g0, g1] = self.gateway;
        let [s0, s1] = self.source;
        let [h0, h1, h2, h3] = self.header;
        [g0, g1, s0, s1, h0, h1, h2, h3, self.tail]
    }

    /// Only the kind of one that another CPU may be writing.
    ///
    /// # Safety
    /// `from` points to an aligned `Exit`.
    #[inline(always)]
    pub(crate) unsafe fn read_kind(from: *const Self) -> Kind {
        use dynencap_abi::Exit as Abi;
        const ASKED: u32 = (Abi::GATEWAY | Abi::UDP | Abi::IPV4) as u32 | 0xff << 8;
        const IP: u32 = Abi::GATEWAY as u32;
        const UDP: u32 = (Abi::GATEWAY | Abi::UDP) as u32;
        const UDP_8: u32 = UDP | 8 << 8;
        // SAFETY: the upper half of the last word, of which the caller vouches.
        let half = unsafe {
            (&raw const (*from).tail)
                .cast::<u32>()
                .add(1)
                .read_volatile()
        };
        match u32::from_le(half) & ASKED {
            IP => Kind::Ip,
            UDP => Kind::Udp,
            UDP_8 => Kind::Udp8,
            _ => Kind::Other,
        }
    }

    /// Only its ports, source and destination, as they stand in the UDP header.
    ///
    /// # Safety
    /// As in [`Exit::read_kind`].
    #[inline(always)]
    pub(crate) unsafe fn read_ports(from: *const Self) -> u32 {
        // SAFETY: the lower half of the last word, of which the caller vouches.
        unsafe { (&raw const (*from).tail).cast::<u32>().read_volatile() }
    }

    /// Word by word, each loaded once and where it stands: what another CPU may be writing.
    ///
    /// # Safety
    /// `from` points to an aligned `Exit`.
    #[inline(always)]
    pub(crate) unsafe fn read_volatile(from: *const Self) -> Self {
        let words = from.cast::<u64>();
        // SAFETY: nine words, of which the caller vouches.
        unsafe {
            Self {
                gateway: [words.read_volatile(), words.add(1).read_volatile()],
                source: [words.add(2).read_volatile(), words.add(3).read_volatile()],
                header: [
                    words.add(4).read_volatile(),
                    words.add(5).read_volatile(),
                    words.add(6).read_volatile(),
                    words.add(7).read_volatile(),
                ],
                tail: words.add(8).read_volatile(),
            }
        }
    }
}

//! A packet as far as its flow depends on it (docs/datapath.md §2.1): versions and addresses, where
//! its transport header stands, TCP's flags.

use crate::{
    flow::mapped,
    frame,
    inside::Bytes,
    lookup::Flow,
    transport::{FRAGMENT_BITS, IPV4_LEN, IPV6_LEN, TCP, Transport},
};

const TCP_FLAGS: u32 = 13;
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// A packet as far as its flow depends on it.
pub(crate) struct Packet {
    /// 0: what step 8 of §2 calls malformed.
    pub(crate) version: u8,
    pub(crate) source: [u64; 2],
    pub(crate) destination: [u64; 2],
    pub(crate) transport: Transport,
    pub(crate) len: u32,
}

impl Packet {
    /// Of no flow. Not `None`: LLVM would carry on what is then undefined, and the verifier sees
    /// that it is.
    #[inline(always)]
    fn malformed() -> Self {
        Self {
            version: 0,
            source: [0; 2],
            destination: [0; 2],
            transport: Transport::NONE,
            len: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn parse(frame: &mut impl Bytes) -> Self {
        let packet = if frame.protocol() == frame::IPV6 {
            Self::ipv6(frame)
        } else {
            Self::ipv4(frame)
        };
        match packet {
            Some(packet) => packet,
            None => Self::malformed(),
        }
    }

    #[inline(always)]
    fn ipv6(frame: &mut impl Bytes) -> Option<Self> {
        let len = frame.len();
        if len < IPV6_LEN {
            return None;
        }
        let header = frame.pulled::<40>(0)?;
        if header.read::<u8, 0>() >> 4 != 6 {
            return None;
        }
        let next_header = header.read::<u8, 6>();
        let source = header.address::<8, 16>();
        let destination = header.address::<24, 32>();
        Some(Self {
            version: 6,
            source,
            destination,
            transport: Transport::behind_ipv6(frame, next_header, len),
            len,
        })
    }

    #[inline(always)]
    fn ipv4(frame: &mut impl Bytes) -> Option<Self> {
        let len = frame.len();
        if len < IPV4_LEN {
            return None;
        }
        let header = frame.pulled::<20>(0)?;
        let version_ihl = header.read::<u8, 0>();
        let header_len = u32::from(version_ihl & 0xf) * 4;
        let total_len = u32::from(u16::from_be(header.read::<u16, 2>()));
        if version_ihl >> 4 != 4 || header_len < IPV4_LEN || total_len < header_len {
            return None;
        }
        let is_fragment = u16::from_be(header.read::<u16, 6>()) & FRAGMENT_BITS != 0;
        Some(Self {
            version: 4,
            source: mapped(header.read::<u32, 12>()),
            destination: mapped(header.read::<u32, 16>()),
            transport: Transport::behind_ipv4(header.read::<u8, 9>(), header_len, is_fragment),
            len,
        })
    }

    /// TCP or UDP, with its header wholly there.
    #[inline(always)]
    pub(crate) fn has_transport(&self) -> bool {
        self.version != 0 && self.transport.is_there(self.len)
    }

    /// What tells it from others of its flow: of TCP sequence and acknowledgement number, of UDP
    /// length and checksum.
    #[inline(always)]
    pub(crate) fn print(&self, frame: &impl Bytes) -> u64 {
        let Some(offset) = self.transport.offset() else {
            return 0;
        };
        if self.transport.protocol() == TCP {
            u64::from_be(frame.read(offset + 4).unwrap_or(0))
        } else {
            u64::from(u32::from_be(frame.read(offset + 4).unwrap_or(0)))
        }
    }

    #[inline(always)]
    pub(crate) fn has_tcp_header(&self) -> bool {
        self.transport.protocol() == TCP && self.transport.is_there(self.len)
    }

    /// TCP's flags; 0 where there is no TCP header.
    #[inline(always)]
    pub(crate) fn tcp_flags(&self, frame: &impl Bytes) -> u8 {
        match self.transport.offset() {
            Some(offset) if self.has_tcp_header() => {
                frame.read::<u8>(offset + TCP_FLAGS).unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// DSCP and ECN.
    #[inline(always)]
    pub(crate) fn traffic_class(&self, frame: &impl Bytes) -> u8 {
        let start = u16::from_be(frame.read::<u16>(0).unwrap_or(0));
        if self.version == 6 {
            (start >> 4) as u8
        } else {
            start as u8
        }
    }

    #[inline(always)]
    pub(crate) fn flow(&self, frame: &impl Bytes) -> Flow {
        let [source_port, destination_port] = self.transport.ports(frame);
        Flow {
            version: self.version,
            protocol: self.transport.protocol(),
            source: self.source,
            destination: self.destination,
            source_port: source_port.to_be(),
            destination_port: destination_port.to_be(),
        }
    }
}

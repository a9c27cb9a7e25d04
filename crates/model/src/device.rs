//! The in-kernel dynencap that came before (T2): an IP tunnel device whose transmit function
//! finds destination and headers in the state of the packet's socket, `ENCAP_GW` and
//! `ENCAP_UDP` having put them there.
//!
//! A datapath of its own: the device offers no TSO, so that the stack cuts super-packets
//! before they reach it, and it pushes headers from the inside out, as `ip6_tnl_xmit` does. On
//! the wire it does the same as TC egress that segments first.

use crate::checksum::Sum;
use crate::packet::{Packet, Port, Sink};
use crate::segment;
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ip, UDP};
use crate::{flow, outer};
use dynencap_abi::{Config, Exit, IPV4_HEADER_LEN, IPV6_HEADER_LEN, MAX_OVERHEAD, UDP_HEADER_LEN};

/// The device.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// Holds one segment at a time.
    scratch: Vec<u8>,
}

impl Device {
    /// Transmits one packet of a socket with this state, and returns how many frames left. A
    /// packet that cannot be encapsulated, or exceeds the uplink's MTU with its headers,
    /// leaves none; so does a segment. The device knows no UDP checksums, no policy and no
    /// path MTU.
    pub fn transmit(
        &mut self,
        config: &Config,
        state: &Exit,
        packet: Packet<'_>,
        sink: &mut impl Sink,
    ) -> u32 {
        let mut transmission = Transmission {
            config,
            state,
            sink,
            sent: 0,
            scratch: &mut self.scratch,
        };
        if segment::segment(&packet, &mut transmission).is_none() && packet.gso_size == 0 {
            transmission.start_xmit(packet.ethertype, packet.bytes);
        }
        transmission.sent
    }
}

struct Transmission<'a, S> {
    config: &'a Config,
    state: &'a Exit,
    sink: &'a mut S,
    sent: u32,
    scratch: &'a mut Vec<u8>,
}

impl<S: Sink> Sink for Transmission<'_, S> {
    fn frame(&mut self, _: Port, ethertype: u16, parts: &[&[u8]]) {
        let mut segment = std::mem::take(self.scratch);
        segment.clear();
        for part in parts {
            segment.extend_from_slice(part);
        }
        self.start_xmit(ethertype, &segment);
        *self.scratch = segment;
    }
}

impl<S: Sink> Transmission<'_, S> {
    fn start_xmit(&mut self, ethertype: u16, bytes: &[u8]) {
        let mut headroom = Headroom::default();
        let Some(outer_type) = self.push_all(ethertype, bytes, &mut headroom) else {
            return;
        };
        let headers = headroom.bytes();
        let mtu = usize::try_from(self.config.uplink_mtu).unwrap_or(usize::MAX);
        if headers.len() + bytes.len() <= mtu {
            self.sink.frame(Port::Wire, outer_type, &[headers, bytes]);
            self.sent += 1;
        }
    }

    /// Custom header, UDP header, IP header: each in front of what is there.
    fn push_all(&self, ethertype: u16, bytes: &[u8], headroom: &mut Headroom) -> Option<u16> {
        let Self { config, state, .. } = self;
        let ip = Ip::parse(ethertype, bytes).filter(|ip| ip.stated_len() == bytes.len())?;
        if state.flags & Exit::GATEWAY == 0 {
            return None;
        }
        let source = outer::source(config, state, &ip)?;
        let hash = flow::hash(&flow::key_of(&ip, bytes));
        let mut protocol = ip.as_payload();
        if state.flags & Exit::UDP != 0 {
            let custom = state.header.get(..usize::from(state.header_len))?;
            headroom.push(custom)?;
            let len = u16::try_from(UDP_HEADER_LEN + custom.len() + bytes.len()).ok()?;
            let [s0, s1] = flow::source_port_of(state, hash);
            let [d0, d1] = state.destination_port;
            let [l0, l1] = len.to_be_bytes();
            headroom.push(&[s0, s1, d0, d1, l0, l1, 0, 0])?;
            protocol = UDP;
        }
        let carried = headroom.bytes().len() + bytes.len();
        let class = ip.traffic_class();
        let hops = match config.hop_limit {
            0 => ip.hop_limit(),
            limit => limit as u8,
        };
        if state.flags & Exit::IPV4 == 0 {
            let first = 6 << 28 | u32::from(class) << 20 | flow::flow_label(hash);
            let mut header = [0; IPV6_HEADER_LEN];
            header[..4].copy_from_slice(&first.to_be_bytes());
            header[4..6].copy_from_slice(&u16::try_from(carried).ok()?.to_be_bytes());
            header[6..8].copy_from_slice(&[protocol, hops]);
            header[8..24].copy_from_slice(&source);
            header[24..].copy_from_slice(&state.gateway);
            headroom.push(&header)?;
            return Some(ETHERTYPE_IPV6);
        }
        let total = u16::try_from(IPV4_HEADER_LEN + carried).ok()?;
        let identification = match ip {
            Ip::V4(ip) => ip.identification(),
            Ip::V6(_) => 0,
        };
        let mut header = [0; IPV4_HEADER_LEN];
        header[..2].copy_from_slice(&[0x45, class]);
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[4..6].copy_from_slice(&identification.to_be_bytes());
        header[6] = 0x40;
        header[8..10].copy_from_slice(&[hops, protocol]);
        header[12..16].copy_from_slice(&source[12..]);
        header[16..].copy_from_slice(&state.gateway[12..]);
        let checksum = Sum::default().bytes(&header).finish();
        header[10..12].copy_from_slice(&checksum);
        headroom.push(&header)?;
        Some(ETHERTYPE_IPV4)
    }
}

/// `skb_push`: grows towards its front.
struct Headroom {
    octets: [u8; MAX_OVERHEAD],
    start: usize,
}

impl Default for Headroom {
    fn default() -> Self {
        Self {
            octets: [0; MAX_OVERHEAD],
            start: MAX_OVERHEAD,
        }
    }
}

impl Headroom {
    fn push(&mut self, header: &[u8]) -> Option<()> {
        let start = self.start.checked_sub(header.len())?;
        self.octets
            .get_mut(start..self.start)?
            .copy_from_slice(header);
        self.start = start;
        Some(())
    }

    fn bytes(&self) -> &[u8] {
        self.octets.get(self.start..).unwrap_or_default()
    }
}

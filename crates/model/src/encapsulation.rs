//! Egress, section 2 steps 5 to 11: one packet or super-packet and its exit become frames.
//! Which exit that is, the host decides.

use crate::packet::{Packet, Sink};
use crate::segment::{self, Layout};
use crate::wire::{ETHERTYPE_IPV6, Ip, UDP};
use crate::{flow, mtu};
use dynencap_abi::{
    Config, Exit, IPV6_HEADER_LEN, MAX_OVERHEAD, MAX_PAYLOAD_LEN, Reason, UDP_HEADER_LEN,
};
use etherparse::{IpNumber, Ipv6FlowLabel, Ipv6Header, UdpHeader};

const UNSPECIFIED: [u8; 16] = [0; 16];

/// Emits the frames and returns the number of segments (0: not a super-packet that could be
/// cut), or says why it emitted nothing.
pub(crate) fn encapsulate(
    config: &Config,
    exit: &Exit,
    packet: &Packet<'_>,
    sink: &mut impl Sink,
) -> Result<u32, Reason> {
    let len = packet.bytes.len();
    let overhead = mtu::overhead(exit);
    if len + overhead - IPV6_HEADER_LEN > MAX_PAYLOAD_LEN {
        return Err(Reason::TooLong);
    }
    let ip = Ip::parse(packet.ethertype, packet.bytes).ok_or(Reason::Malformed)?;
    if ip.stated_len() != len {
        return Err(Reason::BadLength);
    }
    let source = source(config, exit, &ip)?;
    let uplink_mtu = usize::try_from(config.uplink_mtu).unwrap_or(usize::MAX);
    let layout = match packet.gso_size {
        0 => None,
        _ => Some(Layout::find(&ip, packet.bytes)?),
    };
    if len + overhead > uplink_mtu {
        let layout = layout.ok_or(Reason::TooBig)?;
        let segment = layout.payload_offset + usize::from(packet.gso_size);
        if segment + overhead > uplink_mtu {
            return Err(Reason::TooBig);
        }
    }

    let mut outer = Outer::new(exit, source, &ip, packet.bytes);
    if let Some(layout) = layout {
        let segments = segment::cut(
            packet,
            &ip,
            &layout,
            |[fixed, extensions, transport, payload]| {
                outer.carry(fixed.len() + extensions.len() + transport.len() + payload.len());
                sink.frame(
                    ETHERTYPE_IPV6,
                    &[outer.bytes(), fixed, extensions, transport, payload],
                );
            },
        );
        return segments.ok_or(Reason::Malformed);
    }
    outer.carry(len);
    sink.frame(ETHERTYPE_IPV6, &[outer.bytes(), packet.bytes]);
    Ok(0)
}

fn source(config: &Config, exit: &Exit, ip: &Ip<'_>) -> Result<[u8; 16], Reason> {
    match (exit.source, config.source, ip) {
        (UNSPECIFIED, _, Ip::V6(ip)) => Ok(ip.source()),
        (UNSPECIFIED, UNSPECIFIED, Ip::V4(_)) => Err(Reason::NoSource),
        (UNSPECIFIED, configured, Ip::V4(_)) => Ok(configured),
        (set, _, _) => Ok(set),
    }
}

/// The outer headers: written once, their lengths once more for each frame.
struct Outer {
    octets: [u8; MAX_OVERHEAD],
    len: usize,
}

impl Outer {
    fn new(exit: &Exit, source: [u8; 16], ip: &Ip<'_>, bytes: &[u8]) -> Self {
        let hash = flow::hash(&flow::key_of(ip, bytes));
        let with_udp = exit.flags & Exit::UDP != 0;
        let header = Ipv6Header {
            // RFC 6040 §4.1, normal mode: ECN is copied like DSCP.
            traffic_class: ip.traffic_class(),
            flow_label: Ipv6FlowLabel::try_new(flow::flow_label(hash)).unwrap_or_default(),
            payload_length: 0,
            next_header: IpNumber(if with_udp { UDP } else { ip.as_payload() }),
            hop_limit: ip.hop_limit(),
            source,
            destination: exit.gateway,
        };
        let mut octets = [0; MAX_OVERHEAD];
        octets[..40].copy_from_slice(&header.to_bytes());
        if with_udp {
            let udp = UdpHeader {
                source_port: u16::from_be_bytes(flow::source_port_of(exit, hash)),
                destination_port: u16::from_be_bytes(exit.destination_port),
                length: 0,
                // RFC 6935 §5: zero is allowed where the tunnelled packet has its own.
                checksum: 0,
            };
            octets[40..48].copy_from_slice(&udp.to_bytes());
            // Bytes past `header_len` are zero and not part of the frame.
            octets[48..].copy_from_slice(&exit.header);
        }
        Self {
            octets,
            len: mtu::overhead(exit),
        }
    }

    /// States the lengths for an inner packet of `len` bytes.
    fn carry(&mut self, len: usize) {
        let payload = ((self.len - IPV6_HEADER_LEN + len) as u16).to_be_bytes();
        self.octets[4..6].copy_from_slice(&payload);
        if self.len >= IPV6_HEADER_LEN + UDP_HEADER_LEN {
            self.octets[44..46].copy_from_slice(&payload);
        }
    }

    fn bytes(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

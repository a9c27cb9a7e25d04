//! Path MTU (section 8): which ICMP errors about tunnel packets are believed.

use crate::flow;
use crate::owner::{Found, Sockets};
use crate::packet::Packet;
use crate::path::{self, Paths};
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4, IPV6, Ip, Ipv4, Ipv6, TCP, UDP, be16};
use dynencap_abi::{
    Config, Exit, FlowKey, IPV4_HEADER_LEN, IPV6_HEADER_LEN, MIN_IPV4_MTU, MIN_UPLINK_MTU, PathKey,
    Reason, UDP_HEADER_LEN,
};
use etherparse::ip_number;

const ICMP_LEN: usize = 8;
/// What is quoted of a transport header at least, and suffices: ports, and TCP's sequence
/// number.
const TRANSPORT_LEN: usize = 8;

/// An ICMP error about a tunnel packet.
struct Report<'a> {
    key: PathKey,
    mtu: u32,
    /// The least that counts.
    least: u32,
    /// The quoted packet's protocol: 4, 41 or 17.
    protocol: u8,
    /// What is quoted behind the outer headers of section 2, custom header included.
    payload: &'a [u8],
    /// RFC 4443 §3.2 quotes as much as fits, RFC 792 asks for 8 bytes only.
    quotes_all: bool,
}

/// The reason, where the packet is such an error; learns from it, where it is believed.
pub(crate) fn learn(
    packet: &Packet<'_>,
    config: &Config,
    paths: &mut Paths,
    sockets: &impl Sockets,
    now: u64,
) -> Option<Reason> {
    let report = match packet.ethertype {
        ETHERTYPE_IPV6 => Report::icmpv6(packet.bytes)?,
        ETHERTYPE_IPV4 => Report::icmpv4(packet.bytes)?,
        _ => return None,
    };
    let Some(state) = paths.state(&report.key) else {
        // Over UDP it may be about anything; nobody but a tunnel sends 4 or 41.
        return (report.protocol != UDP).then_some(Reason::PathMtuRefused);
    };
    let mtu = report.mtu.max(report.least);
    let known = path::fresh(state, now).unwrap_or(u32::MAX);
    if !report.is_ours(state.header_len, sockets) || mtu >= config.uplink_mtu || mtu >= known {
        return Some(Reason::PathMtuRefused);
    }
    paths.learn(&report.key, mtu, now);
    Some(Reason::PathMtuLearned)
}

impl<'a> Report<'a> {
    fn icmpv6(bytes: &'a [u8]) -> Option<Self> {
        let ip = Ipv6::parse(bytes)?;
        let rest = bytes.get(IPV6_HEADER_LEN..)?;
        let (icmp, quote) = rest.split_first_chunk::<ICMP_LEN>()?;
        let quoted = Ipv6::parse(quote)?;
        let packet_too_big = ip.next_header() == ip_number::IPV6_ICMP.0 && icmp[..2] == [2, 0];
        if !packet_too_big {
            return None;
        }
        Self::about(
            &Ip::V6(quoted),
            quote.get(IPV6_HEADER_LEN..)?,
            u32::from(be16(icmp, 4)) << 16 | u32::from(be16(icmp, 6)),
        )
    }

    fn icmpv4(bytes: &'a [u8]) -> Option<Self> {
        let ip = Ipv4::view(bytes)?;
        let rest = bytes.get(IPV4_HEADER_LEN..)?;
        let (icmp, quote) = rest.split_first_chunk::<ICMP_LEN>()?;
        let quoted = Ipv4::view(quote)?;
        let payload = quote.get(IPV4_HEADER_LEN..)?;
        let fragmentation_needed = ip.header_len() == IPV4_HEADER_LEN
            && !ip.is_fragment()
            && ip.protocol() == ip_number::ICMP.0
            && icmp[..2] == [3, 4];
        if !fragmentation_needed
            || quoted.header_len() != IPV4_HEADER_LEN
            || payload.len() < TRANSPORT_LEN
        {
            return None;
        }
        Self::about(&Ip::V4(quoted), payload, u32::from(be16(icmp, 6)))
    }

    fn about(quoted: &Ip<'_>, payload: &'a [u8], mtu: u32) -> Option<Self> {
        let protocol = quoted.protocol();
        let (destination_port, flags, payload) = match protocol {
            IPV4 | IPV6 => ([0; 2], 0, payload),
            UDP => {
                let (udp, rest) = payload.split_first_chunk::<UDP_HEADER_LEN>()?;
                ([udp[2], udp[3]], Exit::UDP, rest)
            }
            _ => return None,
        };
        let over_v6 = matches!(quoted, Ip::V6(_));
        Some(Self {
            key: PathKey {
                gateway: quoted.destination(),
                destination_port,
                flags,
                reserved: 0,
            },
            mtu,
            least: if over_v6 {
                MIN_UPLINK_MTU
            } else {
                MIN_IPV4_MTU
            },
            protocol,
            payload,
            quotes_all: over_v6,
        })
    }

    /// Steps 2 and 3.
    fn is_ours(&self, header_len: u32, sockets: &impl Sockets) -> bool {
        let header_len = usize::try_from(header_len).unwrap_or(usize::MAX);
        let inner = self.payload.get(header_len..).and_then(inner_flow);
        let announced = |flow: &FlowKey| match self.protocol {
            IPV4 => flow.version == 4,
            IPV6 => flow.version == 6,
            _ => true,
        };
        let Some((flow, sequence)) = inner.filter(|(flow, _)| announced(flow)) else {
            return !self.quotes_all;
        };
        let found = match flow.protocol {
            TCP => sockets.tcp(&flow),
            _ => sockets.udp(&flow),
        };
        found.is_some_and(|found| {
            let same_path = found.socket.exit().and_then(path::key_of) == Some(self.key);
            same_path && (flow.protocol != TCP || in_flight(&found, sequence))
        })
    }
}

/// The flow and the sequence number (of UDP: meaningless) of a quoted packet, where it tells.
fn inner_flow(bytes: &[u8]) -> Option<(FlowKey, u32)> {
    let ip = match bytes.first()? >> 4 {
        4 => Ip::V4(Ipv4::view(bytes)?),
        6 => Ip::V6(Ipv6::parse(bytes)?),
        _ => return None,
    };
    let whole = match ip {
        Ip::V4(ip) => ip.header_len() == IPV4_HEADER_LEN && !ip.is_fragment(),
        Ip::V6(_) => true,
    };
    let transport: &[u8; TRANSPORT_LEN] = bytes.get(ip.header_len()..)?.first_chunk()?;
    if !whole || !matches!(ip.protocol(), TCP | UDP) {
        return None;
    }
    let sequence = u32::from(be16(transport, 4)) << 16 | u32::from(be16(transport, 6));
    Some((flow::key_of(&ip, bytes), sequence))
}

/// In `[snd_una, snd_nxt]`, modulo 2^32.
fn in_flight(found: &Found<'_>, sequence: u32) -> bool {
    sequence.wrapping_sub(found.snd_una) <= found.snd_nxt.wrapping_sub(found.snd_una)
}

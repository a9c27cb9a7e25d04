//! Which tunnels end on this host, and what arrives through one: section 4, steps 1 and 3
//! to 7.

use crate::checksum::Sum;
use crate::packet::Packet;
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4, IPV4_MIN_LEN, IPV6, Ip, UDP, be16};
use dynencap_abi::{Reason, TunnelKey, TunnelSpec, UDP_HEADER_LEN};
use std::collections::BTreeMap;

/// The tunnels that end on a host.
#[derive(Clone, Debug, Default)]
pub struct Tunnels {
    specs: BTreeMap<TunnelKey, TunnelSpec>,
}

impl Tunnels {
    /// Adds a tunnel, or changes how its headers are taken off.
    pub fn insert(&mut self, key: TunnelKey, spec: TunnelSpec) {
        self.specs.insert(key, spec);
    }

    /// Removes a tunnel and returns it.
    pub fn remove(&mut self, key: &TunnelKey) -> Option<TunnelSpec> {
        self.specs.remove(key)
    }
}

/// A packet that came through a tunnel of this host.
pub(crate) struct Tunnelled<'a> {
    pub(crate) outer: Ip<'a>,
    /// Destination port and custom header, where the tunnel has UDP.
    pub(crate) udp: Option<([u8; 2], &'a [u8])>,
    pub(crate) inner: Ip<'a>,
    pub(crate) inner_bytes: &'a [u8],
}

impl<'a> Tunnelled<'a> {
    /// Steps 1 and 3 to 7 in their order.
    pub(crate) fn parse(packet: &Packet<'a>, tunnels: &Tunnels) -> Result<Self, Reason> {
        if !matches!(packet.ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6) {
            return Err(Reason::NotIp);
        }
        let outer = Ip::view(packet.ethertype, packet.bytes).ok_or(Reason::NotTunnel)?;
        if let Ip::V4(ip) = outer
            && ip.is_fragment()
        {
            return Err(Reason::NotTunnel);
        }
        let protocol = outer.protocol();
        let payload = packet.bytes.get(outer.header_len()..).unwrap_or_default();
        let udp: Option<&[u8; UDP_HEADER_LEN]> = match protocol {
            IPV4 | IPV6 => None,
            UDP if outer.header_len() >= IPV4_MIN_LEN => {
                Some(payload.first_chunk().ok_or(Reason::NotTunnel)?)
            }
            _ => return Err(Reason::NotTunnel),
        };
        let port = udp.map_or([0, 0], |udp| [udp[2], udp[3]]);
        let key = TunnelKey {
            address: outer.destination(),
            protocol,
            reserved: 0,
            port,
        };
        let spec = tunnels.specs.get(&key).ok_or(Reason::NotTunnel)?;

        if outer.stated_len() != packet.bytes.len() || !is_plain(&outer) {
            return Err(Reason::BadOuter);
        }
        let (udp, inner_bytes) = match udp {
            None => (None, payload),
            Some(udp) => {
                if usize::from(be16(udp, 4)) != payload.len() {
                    return Err(Reason::BadOuter);
                }
                let (header, inner) = payload
                    .get(UDP_HEADER_LEN..)
                    .and_then(|rest| rest.split_at_checked(usize::from(spec.header_len)))
                    .ok_or(Reason::BadOuter)?;
                (Some((port, header)), inner)
            }
        };

        let inner = Ip::parse_inner(inner_bytes).ok_or(Reason::BadInner)?;
        let announced = protocol == UDP || protocol == inner.as_payload();
        if !announced || inner.stated_len() != inner_bytes.len() {
            return Err(Reason::BadInner);
        }
        Ok(Self {
            outer,
            udp,
            inner,
            inner_bytes,
        })
    }
}

/// An IPv4 header without options whose checksum is right; IPv6 has neither.
fn is_plain(outer: &Ip<'_>) -> bool {
    match outer {
        Ip::V4(ip) => {
            ip.header_len() == IPV4_MIN_LEN && Sum::default().bytes(ip.header).finish() == [0, 0]
        }
        Ip::V6(_) => true,
    }
}

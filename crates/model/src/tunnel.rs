//! Which tunnels end on this host, and what arrives through one: section 4, steps 1 to 6.

use crate::packet::Packet;
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4, IPV6, IPV6_LEN, Ip, Ipv6, UDP, be16};
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
    pub(crate) outer: Ipv6<'a>,
    /// Destination port and custom header, where the tunnel has UDP.
    pub(crate) udp: Option<([u8; 2], &'a [u8])>,
    pub(crate) inner: Ip<'a>,
    pub(crate) inner_bytes: &'a [u8],
}

impl<'a> Tunnelled<'a> {
    /// Steps 1 to 6 in their order.
    pub(crate) fn parse(packet: &Packet<'a>, tunnels: &Tunnels) -> Result<Self, Reason> {
        match packet.ethertype {
            ETHERTYPE_IPV6 => {}
            ETHERTYPE_IPV4 => return Err(Reason::NotTunnel),
            _ => return Err(Reason::NotIp),
        }
        let outer = Ipv6::parse(packet.bytes).ok_or(Reason::NotTunnel)?;
        let protocol = outer.next_header();
        let payload = packet.bytes.get(IPV6_LEN..).ok_or(Reason::NotTunnel)?;
        let udp: Option<&[u8; UDP_HEADER_LEN]> = match protocol {
            IPV4 | IPV6 => None,
            UDP => Some(payload.first_chunk().ok_or(Reason::NotTunnel)?),
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

        if usize::from(outer.payload_len()) != payload.len() {
            return Err(Reason::BadOuter);
        }
        let (udp, inner_bytes) = match udp {
            None => (None, payload),
            Some(udp) => {
                if be16(udp, 4) != outer.payload_len() {
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

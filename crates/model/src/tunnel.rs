//! Which tunnels end on this host, and what arrives through one: section 4, steps 1 and 3
//! to 7. What a custom header says is left to `custom`.

use crate::checksum::Sum;
use crate::custom::{Announced, Custom};
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

    /// The tunnel by which such a packet comes; `payload` is behind the outer IP header.
    pub(crate) fn of(&self, outer: &Ip<'_>, payload: &[u8]) -> Option<&TunnelSpec> {
        let protocol = outer.protocol();
        let port = match protocol {
            IPV4 | IPV6 => [0, 0],
            UDP => {
                let udp: &[u8; UDP_HEADER_LEN] = payload.first_chunk()?;
                [udp[2], udp[3]]
            }
            _ => return None,
        };
        self.specs.get(&TunnelKey {
            address: outer.destination(),
            protocol,
            reserved: 0,
            port,
        })
    }
}

/// A packet that came through a tunnel of this host.
pub(crate) struct Tunnelled<'a> {
    pub(crate) outer: Ip<'a>,
    /// Destination port and custom header, where the tunnel has UDP.
    pub(crate) udp: Option<([u8; 2], &'a [u8])>,
    pub(crate) inner: Ip<'a>,
    pub(crate) inner_bytes: &'a [u8],
    /// The tunnel's packets are captured for reflection.
    pub(crate) reflects: bool,
    /// A device of the kernel takes the headers off, not TC ingress.
    pub(crate) by_kernel: bool,
}

impl<'a> Tunnelled<'a> {
    /// Steps 1 and 3 to 7 in their order. Whatever is wrong with what a device of the kernel will
    /// judge itself, it is none of our tunnels'.
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
        if outer.header_len() < IPV4_MIN_LEN && outer.protocol() == UDP {
            return Err(Reason::NotTunnel);
        }
        let payload = packet.bytes.get(outer.header_len()..).unwrap_or_default();
        let spec = tunnels.of(&outer, payload).ok_or(Reason::NotTunnel)?;
        match Self::judged(packet, outer, payload, spec) {
            Err(_) if spec.flags & TunnelSpec::KERNEL != 0 => Err(Reason::NotTunnel),
            judged => judged,
        }
    }

    /// Steps 6 and 7.
    fn judged(
        packet: &Packet<'a>,
        outer: Ip<'a>,
        payload: &'a [u8],
        spec: &TunnelSpec,
    ) -> Result<Self, Reason> {
        if outer.stated_len() != packet.bytes.len() || !is_plain(&outer) {
            return Err(Reason::BadOuter);
        }
        let mut udp = None;
        let (inner_bytes, announced) = match outer.protocol() {
            UDP => {
                let (header, rest) = payload
                    .split_first_chunk::<UDP_HEADER_LEN>()
                    .ok_or(Reason::NotTunnel)?;
                if usize::from(be16(header, 4)) != payload.len() {
                    return Err(Reason::BadOuter);
                }
                let custom = Custom::parse(spec, rest).ok_or(Reason::BadOuter)?;
                udp = Some(([header[2], header[3]], custom.header));
                (custom.inner, custom.announced)
            }
            protocol => (payload, Announced::Only(protocol)),
        };

        let inner = Ip::parse_inner(inner_bytes).ok_or(Reason::BadInner)?;
        if !announced.allows(inner.as_payload()) || inner.stated_len() != inner_bytes.len() {
            return Err(Reason::BadInner);
        }
        Ok(Self {
            outer,
            udp,
            inner,
            inner_bytes,
            reflects: spec.flags & TunnelSpec::REFLECT != 0,
            by_kernel: spec.flags & TunnelSpec::KERNEL != 0,
        })
    }
}

/// An IPv4 header without options whose checksum is right; IPv6 has neither.
pub(crate) fn is_plain(outer: &Ip<'_>) -> bool {
    match outer {
        Ip::V4(ip) => {
            ip.header_len() == IPV4_MIN_LEN && Sum::default().bytes(ip.header).finish() == [0, 0]
        }
        Ip::V6(_) => true,
    }
}

//! One route in a form that can be compared: what the kernel tells of a route and what it is
//! asked to hold differ in order, and in what it adds by itself.

use super::{Family, PROTOCOL};
use rtnetlink::{
    packet_core::{Emitable, Nla},
    packet_route::route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
        RouteNextHopFlags, RouteProtocol, RouteType, RouteVia,
    },
};
use std::{fmt, net::IpAddr};

/// Index of the loopback device in every namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// A route of ours, or one that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route(RouteMessage);

/// What the kernel tells routes apart by: within one table, routes of one prefix rank by
/// their priority (`metric` in iproute2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    family: Option<Family>,
    table: u32,
    length: u8,
    destination: Option<IpAddr>,
    source: (u8, Option<IpAddr>),
    tos: u8,
    priority: u32,
}

impl Route {
    /// As the kernel told it, or as it is to be told, with our protocol.
    pub(super) fn new(message: &RouteMessage) -> Self {
        let RouteHeader {
            address_family,
            destination_prefix_length,
            source_prefix_length,
            tos,
            scope,
            kind,
            flags,
            ..
        } = message.header;
        let mut attributes: Vec<RouteAttribute> = message
            .attributes
            .iter()
            .filter(|attribute| kept(attribute, kind))
            .cloned()
            .collect();
        for attribute in &mut attributes {
            match attribute {
                RouteAttribute::Metrics(metrics) => metrics.sort_by_key(Nla::kind),
                RouteAttribute::MultiPath(hops) => {
                    for hop in &mut *hops {
                        hop.flags &= RouteNextHopFlags::Onlink;
                        hop.attributes.sort_by_key(Nla::kind);
                    }
                    // IPv6 does not promise to list them as they were given.
                    hops.sort_by_cached_key(|hop| {
                        let mut bytes = vec![0; hop.buffer_len()];
                        hop.emit(&mut bytes);
                        bytes
                    });
                }
                _ => {}
            }
        }
        attributes.push(RouteAttribute::Table(table(message)));
        attributes.sort_by_key(Nla::kind);
        let mut route = RouteMessage::default();
        route.header = RouteHeader {
            address_family,
            destination_prefix_length,
            source_prefix_length,
            tos,
            table: RouteHeader::RT_TABLE_UNSPEC,
            protocol: RouteProtocol::Other(PROTOCOL),
            scope,
            kind,
            flags: flags & RouteFlags::Onlink,
        };
        route.attributes = attributes;
        Self(route)
    }

    pub(super) fn message(&self) -> &RouteMessage {
        &self.0
    }

    /// In a form that names this route and no other of its key: IPv6 takes a request without
    /// a device for the first of them, whatever it is, and holds a `throw` on the loopback
    /// device.
    pub(super) fn to_be_deleted(&self) -> RouteMessage {
        let mut message = self.0.clone();
        if self.is_throw() && Family::of(message.header.address_family) == Some(Family::V6) {
            message.attributes.push(RouteAttribute::Oif(LOOPBACK));
        }
        message
    }

    /// Whether it says: not in this table.
    pub(super) fn is_throw(&self) -> bool {
        self.0.header.kind == RouteType::Throw
    }

    pub(super) fn key(&self) -> Key {
        let header = &self.0.header;
        let find = |of: fn(&RouteAttribute) -> Option<&RouteAddress>| {
            self.0.attributes.iter().find_map(of).and_then(address)
        };
        Key {
            family: Family::of(header.address_family),
            table: table(&self.0),
            length: header.destination_prefix_length,
            destination: find(|attribute| match attribute {
                RouteAttribute::Destination(address) => Some(address),
                _ => None,
            }),
            source: (
                header.source_prefix_length,
                find(|attribute| match attribute {
                    RouteAttribute::Source(address) => Some(address),
                    _ => None,
                }),
            ),
            tos: header.tos,
            priority: priority(&self.0),
        }
    }
}

/// What tells a route apart or says where it leads. The rest is the kernel's own: ages,
/// expiry (the watch sees a route go), and the device `lo` of an IPv6 route that leads nowhere.
fn kept(attribute: &RouteAttribute, kind: RouteType) -> bool {
    match attribute {
        RouteAttribute::Destination(_)
        | RouteAttribute::Source(_)
        | RouteAttribute::Priority(_) => true,
        _ if kind == RouteType::Throw => false,
        RouteAttribute::Metrics(metrics) => !metrics.is_empty(),
        RouteAttribute::Gateway(_)
        | RouteAttribute::Via(_)
        | RouteAttribute::Oif(_)
        | RouteAttribute::PrefSource(_)
        | RouteAttribute::MultiPath(_)
        | RouteAttribute::Preference(_)
        | RouteAttribute::Realm(_)
        | RouteAttribute::EncapType(_)
        | RouteAttribute::Encap(_) => true,
        _ => false,
    }
}

/// The table that a message names, by its attribute or, below 256, by its header.
pub(super) fn table(message: &RouteMessage) -> u32 {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        })
        .unwrap_or(u32::from(message.header.table))
}

fn priority(message: &RouteMessage) -> u32 {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Priority(priority) => Some(*priority),
            _ => None,
        })
        .unwrap_or(0)
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Words(&self.0))
    }
}

/// A route in the words of `ip route`, devices by index.
pub(super) struct Words<'a>(pub(super) &'a RouteMessage);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = &self.0.header;
        let family = Family::of(header.address_family);
        write!(f, "{} route ", family.map_or("?", Family::name))?;
        if header.kind != RouteType::Unicast {
            write!(f, "{} ", format!("{:?}", header.kind).to_lowercase())?;
        }
        let destination = self
            .0
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Destination(to) => address(to),
                _ => None,
            });
        match destination {
            Some(to) => write!(f, "{to}/{}", header.destination_prefix_length)?,
            None => f.write_str("default")?,
        }
        for attribute in &self.0.attributes {
            match attribute {
                RouteAttribute::Gateway(gateway) => match address(gateway) {
                    Some(gateway) => write!(f, " via {gateway}")?,
                    None => f.write_str(" via ?")?,
                },
                RouteAttribute::Via(RouteVia::Inet6(gateway)) => write!(f, " via {gateway}")?,
                RouteAttribute::Oif(index) => write!(f, " dev {index}")?,
                RouteAttribute::MultiPath(hops) => {
                    for hop in hops {
                        write!(f, " nexthop dev {}", hop.interface_index)?;
                    }
                }
                RouteAttribute::PrefSource(source) => {
                    if let Some(source) = address(source) {
                        write!(f, " src {source}")?;
                    }
                }
                RouteAttribute::Priority(priority) => write!(f, " metric {priority}")?,
                RouteAttribute::Metrics(metrics) => {
                    for metric in metrics {
                        match metric {
                            RouteMetric::Mtu(mtu) => write!(f, " mtu {mtu}")?,
                            RouteMetric::Advmss(mss) => write!(f, " advmss {mss}")?,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        match table(self.0) {
            main if main == u32::from(RouteHeader::RT_TABLE_MAIN) => Ok(()),
            table => write!(f, " table {table}"),
        }
    }
}

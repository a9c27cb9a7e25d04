//! The uplink, and what its MTU is.

use super::{Error, Plan, netlink::Netlink};
use dynencap_abi::{MAX_UPLINK_MTU, MIN_UPLINK_MTU};
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkMessage};

/// The device as it is now.
#[derive(Clone, Debug)]
pub(super) struct Uplink {
    pub(super) index: u32,
    /// In bytes from the outer IP header on.
    pub(super) mtu: u32,
}

pub(super) async fn find(netlink: &Netlink, plan: &Plan) -> Result<Uplink, Error> {
    let Some(link) = netlink.link(&plan.uplink).await? else {
        return Err(Error::NoDevice {
            name: plan.uplink.clone(),
        });
    };
    let mtu = mtu(&link);
    if mtu < MIN_UPLINK_MTU {
        return Err(Error::UplinkMtu {
            name: plan.uplink.clone(),
            mtu,
        });
    }
    Ok(Uplink {
        index: link.header.index,
        mtu,
    })
}

/// The device's, or what IPv6 uses of it if that is less: a router may advertise the link's
/// MTU (RFC 4861 §4.6.4), which then holds for every outer packet. Never more than the
/// programs encapsulate.
fn mtu(link: &LinkMessage) -> u32 {
    let device = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
    let ipv6 = link
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::AfSpecUnspec(families) => Some(families),
            _ => None,
        })
        .flatten()
        .filter_map(|family| match family {
            AfSpecUnspec::Inet6(attributes) => Some(attributes),
            _ => None,
        })
        .flatten()
        .find_map(|attribute| match attribute {
            AfSpecInet6::DevConf(configuration) => u32::try_from(configuration.mtu6).ok(),
            _ => None,
        })
        .filter(|&mtu| mtu > 0);
    [device, ipv6]
        .into_iter()
        .flatten()
        .fold(MAX_UPLINK_MTU, u32::min)
}

//! The segmenting pair: a veth pair in one namespace whose near end offers no offload, so that
//! the kernel cuts super-packets and completes checksums before it passes them to the far
//! end's TC ingress, where they can be encapsulated one by one.

use super::{Error, netlink, netlink::Netlink};
use crate::sys;
use rtnetlink::{
    LinkUnspec, LinkVeth,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        link::{
            AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags,
            LinkInfo, LinkMessage,
        },
    },
};
use std::{
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsFd,
};

/// The longest that veth takes: the MTU that counts is the route's.
const MTU: u32 = 65_535;
/// The alias (`ip link`) by which a pair is known to be ours.
const ALIAS: &str = "dynencap segmenting pair";

/// A pair that is there. Dropping the value leaves it: see [`Self::remove`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPair {
    near: End,
    far: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    name: String,
    index: u32,
}

/// What [`SegmentPair::ensure`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// There was no pair.
    Created,
    /// There was one of ours, with other settings.
    Repaired,
    /// All was as it should be. Offloads are switched off each time, unseen.
    Unchanged,
}

impl SegmentPair {
    /// Makes the pair, or brings the one of these names to its settings: no ARP, the largest
    /// MTU, no IPv6 address of its own, no offloads on the near end, both ends up.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignDevice`] if a device that is not ours has one of the names; else the
    /// kernel's. A pair that was new is gone again then. `CAP_NET_ADMIN` is needed.
    pub fn ensure(near: &str, far: &str) -> Result<(Self, Ensured), Error> {
        netlink::run(async |netlink| {
            let created = !there(&netlink, near, far).await?;
            if created {
                let pair = LinkVeth::new(near, far).arp(false).mtu(MTU).build();
                netlink
                    .change(
                        "adding a veth pair",
                        RouteNetlinkMessage::NewLink(pair),
                        NLM_F_CREATE | NLM_F_EXCL,
                    )
                    .await?;
            }
            let result = set_up(&netlink, near, far).await;
            if created && result.is_err() {
                let _ = delete(&netlink, near).await;
            }
            let (pair, changed) = result?;
            let ensured = match (created, changed) {
                (true, _) => Ensured::Created,
                (false, true) => Ensured::Repaired,
                (false, false) => Ensured::Unchanged,
            };
            Ok((pair, ensured))
        })
    }

    /// Takes the pair of these names away, if it is there; returns whether it was.
    ///
    /// # Errors
    ///
    /// As [`Self::ensure`].
    pub fn remove(near: &str, far: &str) -> Result<bool, Error> {
        netlink::run(async |netlink| {
            let there = there(&netlink, near, far).await?;
            if there {
                delete(&netlink, near).await?;
            }
            Ok(there)
        })
    }

    /// Interface index of the end to send to: `dynencap_abi::Config::segmenter`.
    #[must_use]
    pub fn near(&self) -> u32 {
        self.near.index
    }

    /// Interface index of the end at whose TC ingress the segments come out.
    #[must_use]
    pub fn far(&self) -> u32 {
        self.far.index
    }
}

/// Whether the pair is there and ours; an error if one of its names is taken.
async fn there(netlink: &Netlink, near: &str, far: &str) -> Result<bool, Error> {
    let links = (netlink.link(near).await?, netlink.link(far).await?);
    let foreign = |name: &str, reason| {
        Err(Error::ForeignDevice {
            name: name.to_owned(),
            reason,
        })
    };
    match links {
        (None, None) => Ok(false),
        (Some(_), None) => foreign(near, "its peer has another name"),
        (None, Some(_)) => foreign(far, "its peer has another name"),
        (Some(near_link), Some(far_link)) => {
            for (name, link, peer) in [(near, &near_link, &far_link), (far, &far_link, &near_link)]
            {
                if !is_veth(link) {
                    return foreign(name, "it is no veth");
                }
                if !has(link, &LinkAttribute::Link(peer.header.index)) {
                    return foreign(name, "its peer is another device");
                }
                if !has(link, &LinkAttribute::IfAlias(ALIAS.to_owned())) {
                    return foreign(name, "it lacks our alias");
                }
            }
            Ok(true)
        }
    }
}

/// Whether a device of this namespace puts checksums into what it sends. Where it does not, the
/// kernel's UDP super-packets have no partial checksum, and its GSO refuses them once their head
/// has moved (`__udp_gso_segment`, which looks for `csum_start`): they have to be cut first.
pub fn offers_checksums(device: &str) -> Result<bool, Error> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .map_err(crate::Error::syscall("socket(AF_INET)"))?;
    Ok(sys::offers_checksums(socket.as_fd(), device).map_err(crate::Error::syscall("ethtool"))?)
}

/// Brings both ends to their settings and up; whether anything was changed.
async fn set_up(netlink: &Netlink, near: &str, far: &str) -> Result<(SegmentPair, bool), Error> {
    // Any socket serves to reach a device of the namespace.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .map_err(crate::Error::syscall("socket(AF_INET)"))?;
    sys::switch_off_offloads(socket.as_fd(), near).map_err(crate::Error::syscall("ethtool"))?;
    let mut changed = false;
    let mut ends = Vec::with_capacity(2);
    for name in [near, far] {
        let link = netlink.link(name).await?.ok_or_else(|| Error::NoDevice {
            name: name.to_owned(),
        })?;
        let index = link.header.index;
        ends.push(End {
            name: name.to_owned(),
            index,
        });
        if !settled(&link) {
            changed = true;
            // Before the device comes up: no address of its own, so no solicitation.
            let silent = LinkUnspec::new_with_index(index)
                .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
                    vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)],
                )]))
                .build();
            match set(netlink, silent).await {
                // There is no IPv6 on the device, hence nothing to silence.
                Err(error) if error.errno() == Some(libc::EAFNOSUPPORT) => {}
                other => other?,
            }
            let up = LinkUnspec::new_with_index(index)
                .alias(ALIAS)
                .arp(false)
                .mtu(MTU)
                .up();
            set(netlink, up.build()).await?;
        }
    }
    match <[End; 2]>::try_from(ends) {
        Ok([near, far]) => Ok((SegmentPair { near, far }, changed)),
        Err(_) => Err(Error::NoDevice {
            name: near.to_owned(),
        }),
    }
}

async fn set(netlink: &Netlink, link: LinkMessage) -> Result<(), Error> {
    let message = RouteNetlinkMessage::SetLink(link);
    netlink.change("changing a link", message, 0).await
}

async fn delete(netlink: &Netlink, name: &str) -> Result<(), Error> {
    let link = LinkUnspec::new_with_name(name).build();
    let message = RouteNetlinkMessage::DelLink(link);
    netlink.change("deleting a link", message, 0).await
}

fn has(link: &LinkMessage, attribute: &LinkAttribute) -> bool {
    link.attributes.contains(attribute)
}

fn is_veth(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
        _ => false,
    })
}

/// Whether an end has all its settings, offloads apart.
fn settled(link: &LinkMessage) -> bool {
    let loud = link.attributes.iter().any(|attribute| {
        let LinkAttribute::AfSpecUnspec(families) = attribute else {
            return false;
        };
        families.iter().any(|family| {
            let AfSpecUnspec::Inet6(attributes) = family else {
                return false;
            };
            attributes.iter().any(|attribute| {
                matches!(attribute, AfSpecInet6::AddrGenMode(mode) if *mode != In6AddrGenMode::None)
            })
        })
    });
    !loud
        && link.header.flags.contains(LinkFlags::Up | LinkFlags::Noarp)
        && has(link, &LinkAttribute::Mtu(MTU))
        && has(link, &LinkAttribute::IfAlias(ALIAS.to_owned()))
}

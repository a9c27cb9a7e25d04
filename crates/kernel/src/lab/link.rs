//! The lab's veth pairs, by netlink: long frames, no neighbour discovery, no offloads.

use super::{CAPTURE, Links, SEGMENT, UPLINK};
use crate::{
    Error,
    namespace::Namespace,
    sys::{self, Link},
};
use futures_util::future::{self, Either};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, packet_route::link::LinkMessage};
use std::{
    os::fd::{AsFd, AsRawFd},
    pin::pin,
};

/// The longest that veth takes: our own check against the uplink's MTU is the one at work,
/// and a frame that is too long for the uplink would be seen.
const DEVICE_MTU: u32 = 65_535;

/// Makes all pairs, from the host namespace, and brings both ends up.
pub(super) fn build(host: &Namespace, peer: &Namespace) -> Result<Links, Error> {
    let pairs = [UPLINK, CAPTURE, SEGMENT];
    let near = host.in_namespace(|| {
        netlink(async |handle| {
            for [near, far] in pairs {
                let pair = LinkVeth::new(near, far).arp(false).mtu(DEVICE_MTU).build();
                request("adding a veth pair", handle.link().add(pair).execute()).await?;
                let there = LinkUnspec::new_with_name(far)
                    .setns_by_fd(peer.as_fd().as_raw_fd())
                    .build();
                change(&handle, there).await?;
            }
            Ok(())
        })?;
        let socket = sys::packet_socket().map_err(Error::syscall("socket(AF_PACKET)"))?;
        for device in [UPLINK[0], SEGMENT[0]] {
            sys::switch_off_offloads(socket.as_fd(), device).map_err(Error::syscall("ethtool"))?;
        }
        bring_up(pairs.map(|[near, _]| near))
    })?;
    let far = peer.in_namespace(|| bring_up(pairs.map(|[_, far]| far)))?;
    Ok(Links {
        up: [near[0], far[0]],
        cap: [near[1], far[1]],
        seg: [near[2], far[2]],
    })
}

/// Brings devices of the calling thread's namespace up.
fn bring_up(names: [&str; 3]) -> Result<[Link; 3], Error> {
    netlink(async |handle| {
        for name in names {
            let up = LinkUnspec::new_with_name(name);
            change(&handle, up.arp(false).mtu(DEVICE_MTU).up().build()).await?;
        }
        Ok(())
    })?;
    let [first, second, third] =
        names.map(|name| Link::named(name).map_err(Error::syscall("if_nametoindex")));
    Ok([first?, second?, third?])
}

async fn change(handle: &Handle, link: LinkMessage) -> Result<(), Error> {
    request("changing a link", handle.link().change(link).execute()).await
}

async fn request(
    request: &'static str,
    answer: impl Future<Output = Result<(), rtnetlink::Error>>,
) -> Result<(), Error> {
    answer.await.map_err(|source| Error::Netlink {
        request,
        source: Box::new(source),
    })
}

/// Runs netlink requests in the calling thread's namespace.
fn netlink(work: impl AsyncFnOnce(Handle) -> Result<(), Error>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(Error::syscall("starting a runtime"))?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(Error::syscall("socket(AF_NETLINK)"))?;
        match future::select(pin!(work(handle)), connection).await {
            Either::Left((result, _)) => result,
            Either::Right(((), _)) => Err(Error::Syscall {
                call: "netlink",
                source: std::io::ErrorKind::ConnectionAborted.into(),
            }),
        }
    })
}

//! Follows the uplink and main's routes: any change brings the plan about again.

use super::{Error, Installed, PROTOCOL, Plan, install, route};
use crate::{Interrupt, sys};
use rtnetlink::{
    constants::{
        RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV4_RULE, RTMGRP_IPV6_IFADDR,
        RTMGRP_IPV6_IFINFO, RTMGRP_IPV6_ROUTE, RTMGRP_LINK,
    },
    packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::LinkAttribute,
        route::{RouteHeader, RouteProtocol},
        rule::RuleAttribute,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use std::{io, os::fd::AsFd, time::Duration};

/// `RTNLGRP_IPV6_RULE` (19) as a bit, which the library does not name.
const RTMGRP_IPV6_RULE: u32 = 1 << 18;
const GROUPS: u32 = RTMGRP_LINK
    | RTMGRP_IPV4_ROUTE
    | RTMGRP_IPV6_ROUTE
    | RTMGRP_IPV4_RULE
    | RTMGRP_IPV6_RULE
    // IPv4 drops routes with their source address or device without a word about them.
    | RTMGRP_IPV4_IFADDR
    | RTMGRP_IPV6_IFADDR
    // The MTU that a router advertises.
    | RTMGRP_IPV6_IFINFO;

/// How long a request to stop may go unheard.
const PATIENCE: Duration = Duration::from_millis(100);
/// Changes come in bursts: what follows within this time belongs to the same one …
const SETTLED: Duration = Duration::from_millis(20);
/// … up to that many pauses.
const BURST: usize = 10;
/// Longer than any notification.
const DATAGRAM: usize = 1 << 16;

/// What the watch has done or met.
#[derive(Debug)]
pub enum Event<'a> {
    /// The plan was brought about: the first time, and whenever something had to be changed
    /// or the uplink's MTU is another. The programs' `Config::uplink_mtu` follows from it.
    Installed(&'a Installed),
    /// It could not be; what was there before still is. The watch goes on. A device that is
    /// gone ([`Error::NoDevice`]) may come back.
    Failed(&'a Error),
}

/// Installs `plan`, and again after each change of the uplink, of main's routes, or of our own
/// rules and routes by others, until `interrupt` asks for a stop. What is installed then
/// stays: see [`super::remove`].
///
/// # Errors
///
/// The first installation's, and those of the notification socket.
pub fn watch(
    plan: &Plan,
    interrupt: &Interrupt,
    mut on_event: impl FnMut(Event<'_>),
) -> Result<(), Error> {
    // Opened first, so that no change goes unseen.
    let socket = subscribe().map_err(crate::Error::syscall("socket(AF_NETLINK)"))?;
    let first = install(plan)?;
    on_event(Event::Installed(&first));
    let mut uplink_mtu = Some(first.uplink_mtu);
    let mut failure = None;
    while interrupt.check().is_ok() {
        if !wait(&socket, plan, PATIENCE)? {
            continue;
        }
        for _ in 0..BURST {
            if !wait(&socket, plan, SETTLED)? {
                break;
            }
        }
        match install(plan) {
            Ok(done) => {
                if !done.unchanged() || uplink_mtu != Some(done.uplink_mtu) {
                    on_event(Event::Installed(&done));
                }
                uplink_mtu = Some(done.uplink_mtu);
                failure = None;
            }
            Err(error) => {
                // Told once, not with each notification that changes nothing about it.
                let text = error.to_string();
                if failure.as_ref() != Some(&text) {
                    on_event(Event::Failed(&error));
                }
                failure = Some(text);
                uplink_mtu = None;
            }
        }
    }
    Ok(())
}

fn subscribe() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, GROUPS))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// Waits for a notification that concerns the plan, and reads all that have come.
fn wait(socket: &Socket, plan: &Plan, time: Duration) -> Result<bool, Error> {
    let mut concerns = false;
    if !sys::wait_readable(socket.as_fd(), time).map_err(crate::Error::syscall("poll"))? {
        return Ok(false);
    }
    let mut datagram = Vec::with_capacity(DATAGRAM);
    loop {
        datagram.clear();
        match socket.recv(&mut datagram, 0) {
            Ok(_) => concerns |= datagram_concerns(&datagram, plan),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(concerns),
                Some(libc::EINTR) => {}
                // Some were lost: one of them may have been ours.
                Some(libc::ENOBUFS) => concerns = true,
                _ => {
                    return Err(Error::Kernel(crate::Error::Syscall {
                        call: "recv(AF_NETLINK)",
                        source: error,
                    }));
                }
            },
        }
    }
}

fn datagram_concerns(datagram: &[u8], plan: &Plan) -> bool {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(header) = NetlinkBuffer::new_checked(&rest) else {
            return true;
        };
        let length = (header.length() as usize).next_multiple_of(4);
        // What cannot be read is looked at in full.
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest);
        if message.map_or(true, |message| message_concerns(&message.payload, plan)) {
            return true;
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    false
}

fn message_concerns(payload: &NetlinkPayload<RouteNetlinkMessage>, plan: &Plan) -> bool {
    use RouteNetlinkMessage as M;
    let NetlinkPayload::InnerMessage(message) = payload else {
        return true;
    };
    let ours = RouteProtocol::Other(PROTOCOL);
    match message {
        M::NewRoute(route) | M::DelRoute(route) => {
            route.header.protocol == ours
                || route::table(route) == u32::from(RouteHeader::RT_TABLE_MAIN)
        }
        M::NewRule(rule) | M::DelRule(rule) => {
            rule.attributes.contains(&RuleAttribute::Protocol(ours))
        }
        M::NewLink(link) | M::DelLink(link) => link.attributes.iter().any(
            |attribute| matches!(attribute, LinkAttribute::IfName(name) if *name == plan.uplink),
        ),
        _ => true,
    }
}

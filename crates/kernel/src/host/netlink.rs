//! Netlink requests in the calling thread's namespace: one at a time, each acknowledged.

use super::{Error, Family};
use futures_util::{
    future::{self, Either},
    stream::{Stream, StreamExt},
};
use rtnetlink::{
    Handle, IpVersion,
    packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage, link::LinkMessage, route::RouteMessage, rule::RuleMessage,
    },
};
use std::{io, pin::pin};

/// A connection to the kernel's routing part.
pub(super) struct Netlink {
    handle: Handle,
}

/// Opens a connection for `work`.
pub(super) fn run<T>(work: impl AsyncFnOnce(Netlink) -> Result<T, Error>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(crate::Error::syscall("starting a runtime"))?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(crate::Error::syscall("socket(AF_NETLINK)"))?;
        match future::select(pin!(work(Netlink { handle })), connection).await {
            Either::Left((result, _)) => result,
            Either::Right(((), _)) => Err(Error::Kernel(crate::Error::Syscall {
                call: "netlink",
                source: io::ErrorKind::ConnectionAborted.into(),
            })),
        }
    })
}

impl Netlink {
    /// The device of that name, if there is one.
    pub(super) async fn link(&self, name: &str) -> Result<Option<LinkMessage>, Error> {
        // Longer names would be looked up among the alternative ones, which no packet
        // program knows; the kernel refuses them with ERANGE.
        let get = self.handle.link().get().match_name(name);
        match all(get.execute()).await {
            Ok(links) => Ok(links.into_iter().next()),
            Err(error) => match failed("looking a device up", error) {
                gone if gone.errno() == Some(libc::ENODEV) => Ok(None),
                gone if gone.errno() == Some(libc::ERANGE) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// All routes of all tables; none where the kernel does not know the family.
    pub(super) async fn routes(&self, family: Family) -> Result<Vec<RouteMessage>, Error> {
        let mut request = RouteMessage::default();
        request.header.address_family = family.address_family();
        let mut routes = listed(
            "listing routes",
            all(self.handle.route().get(request).execute()).await,
        )?;
        // The kernel answers for all families where it does not know the one asked for.
        routes.retain(|route| route.header.address_family == family.address_family());
        Ok(routes)
    }

    /// All rules; none where the kernel does not know the family.
    pub(super) async fn rules(&self, family: Family) -> Result<Vec<RuleMessage>, Error> {
        let version = match family {
            Family::V4 => IpVersion::V4,
            Family::V6 => IpVersion::V6,
        };
        let mut rules = listed(
            "listing rules",
            all(self.handle.rule().get(version).execute()).await,
        )?;
        rules.retain(|rule| rule.header.family == family.address_family());
        Ok(rules)
    }

    /// Sends one request that changes something, and waits for its acknowledgement.
    /// `flags`: beyond those of any such request.
    pub(super) async fn change(
        &self,
        what: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut handle = self.handle.clone();
        let mut answers = handle
            .request(request)
            .map_err(|error| failed(what, error))?;
        while let Some(answer) = answers.next().await {
            // An acknowledgement is an error message with code 0, which has no code here.
            if let NetlinkPayload::Error(message) = answer.payload
                && message.code.is_some()
            {
                return Err(failed(what, rtnetlink::Error::NetlinkError(message)));
            }
        }
        Ok(())
    }
}

async fn all<T>(
    answers: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, rtnetlink::Error> {
    let mut answers = pin!(answers);
    let mut all = Vec::new();
    while let Some(answer) = answers.next().await {
        all.push(answer?);
    }
    Ok(all)
}

fn listed<T>(
    what: &'static str,
    result: Result<Vec<T>, rtnetlink::Error>,
) -> Result<Vec<T>, Error> {
    match result.map_err(|error| failed(what, error)) {
        Err(error) if matches!(error.errno(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => {
            Ok(Vec::new())
        }
        other => other,
    }
}

fn failed(request: &'static str, source: rtnetlink::Error) -> Error {
    let error = Error::Kernel(crate::Error::Netlink {
        request,
        source: Box::new(source),
    });
    if error.errno() == Some(libc::EPERM) {
        return Error::Kernel(crate::Error::NotPermitted {
            action: request,
            needs: "CAP_NET_ADMIN",
        });
    }
    error
}

//! The clsact qdisc, on which TC programs hang where the kernel has no TCX.

use super::{Error, hook};
use futures_util::{
    future::{self, Either},
    stream::StreamExt,
};
use rtnetlink::{Handle, packet_route::tc::TcHandle};
use std::{io, pin::pin};

/// Adds the qdisc; returns whether it was not there before.
pub(super) fn ensure(device: &str) -> Result<bool, Error> {
    use aya::programs::tc;
    match tc::qdisc_add_clsact(device) {
        Ok(()) => Ok(true),
        Err(tc::TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
            Ok(false)
        }
        Err(error) => Err(Error::Kernel(crate::object::attach_error(
            dynencap_abi::object::EGRESS,
        )(error.into()))),
    }
}

/// Removes the qdisc, unless someone has hung a filter on it meanwhile.
pub(super) fn remove(index: u32) -> Result<(), Error> {
    let index = i32::try_from(index).unwrap_or(0);
    netlink(async |handle| {
        if filters(&handle, index).await?.is_empty() {
            let mut request = handle.qdisc().del(index);
            let message = request.message_mut();
            message.header.parent = TcHandle::CLSACT;
            message.header.handle = TcHandle {
                major: 0xffff,
                minor: 0,
            };
            request.execute().await?;
        }
        Ok(())
    })
}

/// Whether filters of ours hang there: at ingress, at egress.
pub(super) fn ours(index: u32) -> Result<[bool; 2], Error> {
    let index = i32::try_from(index).unwrap_or(0);
    let filters = netlink(async |handle| filters(&handle, index).await)?;
    let at = |direction: usize| {
        filters
            .iter()
            .any(|(side, priority)| *side == direction && *priority == hook::PRIORITY)
    };
    Ok([at(0), at(1)])
}

/// Direction (0 ingress, 1 egress) and priority of each filter.
async fn filters(handle: &Handle, index: i32) -> Result<Vec<(usize, u16)>, rtnetlink::Error> {
    let mut found = Vec::new();
    for side in [0, 1] {
        let mut request = handle.traffic_filter(index);
        let request = if side == 0 {
            request.get().ingress()
        } else {
            request.get().egress()
        };
        let mut answers = pin!(request.execute());
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(filter) => found.push((side, (filter.header.info >> 16) as u16)),
                // There is no qdisc to hang on.
                Err(rtnetlink::Error::NetlinkError(message))
                    if message.code.is_some_and(|code| {
                        matches!(-code.get(), libc::EINVAL | libc::ENOENT | libc::EOPNOTSUPP)
                    }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

fn netlink<T>(work: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(crate::Error::syscall("starting a runtime"))?;
    let result = runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(crate::Error::syscall("socket(AF_NETLINK)"))?;
        match future::select(pin!(work(handle)), connection).await {
            Either::Left((result, _)) => result.map_err(|source| crate::Error::Netlink {
                request: "clsact",
                source: Box::new(source),
            }),
            Either::Right(((), _)) => Err(crate::Error::Syscall {
                call: "netlink",
                source: io::ErrorKind::ConnectionAborted.into(),
            }),
        }
    });
    Ok(result?)
}

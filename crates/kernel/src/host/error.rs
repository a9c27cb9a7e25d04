//! Why a host could not be configured, in words that name the remedy.

use super::Family;
use dynencap_abi::MIN_UPLINK_MTU;

/// Why the host could not be brought to a plan. Nothing was changed, or it was taken back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused, or may not be asked.
    #[error(transparent)]
    Kernel(#[from] crate::Error),
    /// The plan lists no overhead.
    #[error("the plan lists no overhead: there is nothing to install")]
    NoOverhead,
    /// No exit has such an overhead.
    #[error("an overhead of {overhead} bytes: exits have {} to {}", super::OVERHEADS.start(), super::OVERHEADS.end())]
    Overhead {
        /// Bytes.
        overhead: u8,
    },
    /// A table of the plan would be one of the kernel's own.
    #[error("table {table} (base {base} + overhead) is not free: choose another table base")]
    ReservedTable {
        /// Its number.
        table: u32,
        /// [`super::Plan::table_base`].
        base: u32,
    },
    /// The rules would stand before the one for local addresses, or behind main's.
    #[error("rule priority {priority}: expected 1 to 32765, between the tables local and main")]
    Priority {
        /// [`super::Plan::rule_priority`].
        priority: u32,
    },
    /// There is no such device.
    #[error("there is no device {name}")]
    NoDevice {
        /// Its name.
        name: String,
    },
    /// The uplink cannot carry an outer IPv6 header.
    #[error("uplink {name} has MTU {mtu}: at least {MIN_UPLINK_MTU} is needed (RFC 8200 §5)")]
    UplinkMtu {
        /// The uplink.
        name: String,
        /// Its MTU in bytes.
        mtu: u32,
    },
    /// Behind the overhead IPv6 has less than its minimum.
    #[error(
        "IPv6 behind an overhead of {overhead} bytes has {inner} of {outer} bytes, 1280 are \
         needed (RFC 8200 §5): raise the MTU of {limit}, leave the overhead out, or plan IPv4 alone"
    )]
    InnerMtu {
        /// Bytes.
        overhead: u8,
        /// The MTU of the outer packet.
        outer: u32,
        /// What is left of it.
        inner: u32,
        /// What has that MTU: the uplink, or a route of main's.
        limit: String,
    },
    /// One of main's routes uses the uplink and other devices at a time.
    #[error(
        "{route} goes through the uplink and through other devices: packets of sockets with \
         an exit would leave where nothing encapsulates them"
    )]
    MixedMultipath {
        /// The route, in the words of `ip route`.
        route: String,
    },
    /// A route refers to a nexthop object that the kernel does not resolve in its answers.
    #[error("{route} hides its nexthop: set net.ipv4.nexthop_compat_mode to 1")]
    HiddenNexthop {
        /// The route.
        route: String,
    },
    /// A table of the plan is in use by someone else.
    #[error(
        "{family} table {table} holds a route of someone else ({route}): choose another table base"
    )]
    ForeignTable {
        /// Whose routes.
        family: Family,
        /// Its number.
        table: u32,
        /// The first one there.
        route: String,
    },
    /// A device has the name of the segmenting pair's, and is none of ours.
    #[error("device {name} is not of our making: {reason}")]
    ForeignDevice {
        /// Its name.
        name: String,
        /// What it lacks.
        reason: &'static str,
    },
    /// The kernel does not hold what it was given, or others change it all the time.
    #[error("the host does not come to rest; still to do: {left}")]
    Unsettled {
        /// The first change that was still needed.
        left: String,
    },
}

impl Error {
    /// The errno of a refused netlink request.
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel(crate::Error::Netlink { source, .. }) => match source.as_ref() {
                rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
                _ => None,
            },
            _ => None,
        }
    }
}

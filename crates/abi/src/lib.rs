//! Layouts, option numbers, limits and reasons: the only thing that the model, the BPF
//! programs and user space share.
//!
//! What stands here is *data*: sizes, offsets, code points, and formulas written as prose
//! with test vectors. Logic does not: the model and the BPF programs each implement it on
//! their own, so that their agreement is evidence.
//!
//! Multi-byte fields named `*_port` hold the two bytes as they stand on the wire (network
//! byte order, type `[u8; 2]`); everything else is in host byte order.

#![no_std]
#![forbid(unsafe_code)]

mod config;
mod exit;
mod flow;
pub mod object;
pub mod option;
mod path;
mod policy;
mod reason;
mod reflect;
mod tunnel;

pub use config::Config;
pub use exit::{Exit, Info, SocketState};
pub use flow::{FLOW_HASH_VECTORS, FlowHashVector, FlowKey, hash};
pub use path::{Event, PathKey, PathState};
pub use policy::{
    POLICY_EXIT_CHOOSE, POLICY_EXIT_FOLLOW, POLICY_EXIT_REFLECT, Policy, PolicyExitKey, PortRange,
};
pub use reason::{Reason, Verdict};
pub use reflect::{REFLECT_WINDOW, Reflected, STAGED_TICKET, STAGED_TICKET_MASK, Staged};
pub use tunnel::{TunnelKey, TunnelSpec};

/// Bytes of an IPv4 header without options (RFC 791).
pub const IPV4_HEADER_LEN: usize = 20;
/// Bytes of an IPv6 header (RFC 8200 §3).
pub const IPV6_HEADER_LEN: usize = 40;
/// Bytes of a UDP header (RFC 768).
pub const UDP_HEADER_LEN: usize = 8;
/// The longest custom header that `ENCAP_UDP` takes, in bytes.
pub const MAX_HEADER_LEN: usize = 32;
/// The largest overhead that an exit can have: IPv6 + UDP + the longest custom header.
pub const MAX_OVERHEAD: usize = IPV6_HEADER_LEN + UDP_HEADER_LEN + MAX_HEADER_LEN;
/// The smallest MTU of an uplink, of a path, and of what the sender of an IPv6 packet can be told
/// (RFC 8200 §5), in bytes from the (outer) IP header on.
pub const MIN_UPLINK_MTU: u32 = 1280;
/// The smallest MTU of which the sender of an IPv4 packet is told, in bytes: below it the
/// kernel clamps (`net.ipv4.route.min_pmtu`, 552).
pub const MIN_IPV4_MTU: u32 = 576;
/// Bytes of the packet that an ICMP error of ours quotes.
pub const QUOTE_LEN: usize = 96;
/// How many levels of cgroups, the root's included, are searched for a policy.
pub const MAX_CGROUP_LEVELS: usize = 16;
/// The largest uplink MTU: jumbo frames. Beyond it the kernel's `bpf_skb_adjust_room`
/// refuses packets by a limit (`SKB_MAX_ALLOC`) that depends on page and cache-line size.
pub const MAX_UPLINK_MTU: u32 = 9216;
/// How many IPv6 extension headers are walked in search of the transport header; a longer
/// chain is hashed by the 3-tuple, and cannot be a super-packet.
pub const MAX_EXTENSION_HEADERS: usize = 8;
/// The longest packet that fits a 16-bit length: outer payload length of IPv6.
pub const MAX_PAYLOAD_LEN: usize = 65_535;

/// The part of `SO_MARK` that is ours; the application's own bits outside it are kept.
pub const MARK_MASK: u32 = 0x00ff_0000;
/// Set while a socket has a gateway: a packet that carries it and finds no exit is dropped.
pub const MARK_SENTINEL: u32 = 0x0080_0000;
/// Below the sentinel stands the *planned overhead* in bytes (at most [`MAX_OVERHEAD`]): the
/// largest that the socket's exits have had. Each has a route, and thereby an MTU, of its own.
pub const MARK_OVERHEAD_SHIFT: u32 = 16;
/// The bits of the planned overhead.
pub const MARK_OVERHEAD_MASK: u32 = MARK_MASK & !MARK_SENTINEL;
/// Our part of the mark on a packet that was encapsulated behind the segmenter: an overhead that
/// no exit has.
pub const MARK_DONE: u32 = MARK_OVERHEAD_MASK;

const _: () = assert!(MAX_OVERHEAD < 0x7f);

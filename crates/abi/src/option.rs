//! Socket-option level, names, and the errnos with which a call is refused.
//!
//! Set and read with `setsockopt(2)`/`getsockopt(2)` at level [`SOL_DYNENCAP`]. Without the
//! programs attached the kernel answers `ENOPROTOOPT`, never silence.

/// The level: collides with no `SOL_*` of Linux.
pub const SOL_DYNENCAP: i32 = 0xE9CA;

/// Exit point. Value: 16 bytes, an IPv6 address in network order, or 4 bytes, an IPv4 address;
/// length 0 clears it. Reads back as it was set, or as 16 zero bytes when there is none.
pub const ENCAP_GW: i32 = 1;

/// UDP encapsulation. Value: source port (2 bytes, network order; 0 = from the flow's hash),
/// destination port (2 bytes, network order; 0 is [`EINVAL`]), then 0–32 bytes of custom
/// header; length 0 returns to IP-in-IP. Without a gateway it does nothing until there is
/// one. Reads back as it was set, or as 4 zero bytes when there is none.
pub const ENCAP_UDP: i32 = 2;

/// What replies take over from the packets that came in: on a listener, for the connections that
/// it accepts; on a UDP socket; on a connection. Value: 4 bytes in host order, of the bits below;
/// 0 turns it off; length 0 goes back to the cgroup's default. Reads back as what is in force.
pub const ENCAP_REFLECT: i32 = 3;
/// Replies leave through the outer header by which the packets came.
pub const REFLECT_PATH: u32 = 1;
/// A connection's replies carry the DSCP of its SYN.
pub const REFLECT_DSCP: u32 = 2;
/// A connection's socket takes the mark of its SYN, our part excepted.
pub const REFLECT_MARK: u32 = 4;

/// The socket's counters, and why its last packet was dropped: reads as [`crate::Info`];
/// setting it is [`ENOPROTOOPT`].
pub const ENCAP_INFO: i32 = 4;

/// Length of an IPv6 gateway, in bytes.
pub const GATEWAY_LEN: usize = 16;
/// Length of an IPv4 gateway, in bytes.
pub const GATEWAY4_LEN: usize = 4;
/// Length of the value of [`ENCAP_REFLECT`].
pub const REFLECT_LEN: usize = 4;
/// Length of the two ports in front of `ENCAP_UDP`'s custom header.
pub const PORTS_LEN: usize = 4;

/// The cgroup's policy does not allow it.
pub const EPERM: i32 = 1;
/// No memory for the socket's storage.
pub const ENOMEM: i32 = 12;
/// Malformed value: wrong length, an address that cannot be an exit, port 0.
pub const EINVAL: i32 = 22;
/// An option that is not known (or not yet served) at this level.
pub const ENOPROTOOPT: i32 = 92;
/// A raw or MPTCP socket.
pub const EOPNOTSUPP: i32 = 95;
/// Not an IP socket, or a gateway of a family that is not served.
pub const EAFNOSUPPORT: i32 = 97;

/// `AF_INET`.
pub const AF_INET: u32 = 2;
/// `AF_INET6`.
pub const AF_INET6: u32 = 10;
/// `AF_PACKET`: accepted only with [`crate::Config::ALLOW_PACKET_SOCKETS`].
pub const AF_PACKET: u32 = 17;
/// `SOCK_RAW`.
pub const SOCK_RAW: u32 = 3;
/// `IPPROTO_MPTCP`.
pub const IPPROTO_MPTCP: u32 = 262;

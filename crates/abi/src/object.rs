//! Names by which user space finds programs and maps in the BPF object.

/// `cgroup/setsockopt` program.
pub const SET_OPTION: &str = "set_option";
/// `cgroup/getsockopt` program.
pub const GET_OPTION: &str = "get_option";
/// TC egress program: encapsulation.
pub const EGRESS: &str = "egress";
/// TC ingress program: decapsulation.
pub const INGRESS: &str = "ingress";
/// TC ingress program of the lab alone: runs behind [`INGRESS`] and redirects every frame to
/// the device whose index is value 0 of [`LAB_DEVICE`], so that what was delivered can be
/// captured (packet sockets see a frame only before TC ingress).
pub const LAB_DELIVER: &str = "lab_deliver";

/// `SK_STORAGE`: [`crate::SocketState`] of each socket.
pub const SOCKETS: &str = "SOCKETS";
/// `ARRAY` of one [`crate::Config`].
pub const CONFIG: &str = "CONFIG";
/// `PERCPU_ARRAY` of `u64`, indexed by [`crate::Reason`].
pub const COUNTERS: &str = "COUNTERS";
/// `HASH` from [`crate::TunnelKey`] to [`crate::TunnelSpec`].
pub const TUNNELS: &str = "TUNNELS";
/// `ARRAY` of one `u32`, see [`LAB_DELIVER`].
pub const LAB_DEVICE: &str = "LAB_DEVICE";
/// How many tunnels [`TUNNELS`] holds.
pub const MAX_TUNNELS: u32 = 1024;

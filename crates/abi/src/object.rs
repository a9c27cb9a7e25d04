//! Names by which user space finds programs and maps in the BPF object.

/// `cgroup/setsockopt` program.
pub const SET_OPTION: &str = "set_option";
/// `cgroup/getsockopt` program.
pub const GET_OPTION: &str = "get_option";
/// `cgroup/sock_create` program: default exits.
pub const SOCKET_CREATE: &str = "socket_create";
/// `sock_ops` program: keeps the exits of closing connections.
pub const TRACK: &str = "track";
/// `cgroup_skb/ingress` program: decides what is reflected, and for whom.
pub const REFLECT: &str = "reflect";
/// TC ingress program of the far end of the segmenting pair: encapsulates what [`EGRESS`]
/// sent there, now in segments, and sends it to the uplink.
pub const SEGMENTED: &str = "segmented";
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
/// `PERCPU_ARRAY` of `u64`, indexed by [`crate::Event`].
pub const EVENTS: &str = "EVENTS";
/// `HASH` from a cgroup's id (`u64`) to [`crate::Policy`].
pub const POLICIES: &str = "POLICIES";
/// `LPM_TRIE` from [`crate::PolicyExitKey`] to `u32`, of the bits `POLICY_EXIT_…`.
pub const POLICY_EXITS: &str = "POLICY_EXITS";
/// `LRU_HASH` from [`crate::FlowKey`], as the packets that leave show it, to [`crate::Exit`]:
/// connections whose socket is gone.
pub const CLOSING: &str = "CLOSING";
/// `LRU_HASH` from [`crate::FlowKey`], as the packets that leave show it, to
/// [`crate::Reflected`]: connections that are not established yet, peers of UDP sockets.
pub const REFLECTED: &str = "REFLECTED";
/// `ARRAY` of [`crate::Staged`], on the way from TC ingress to [`REFLECT`].
pub const STAGED: &str = "STAGED";
/// `PERCPU_ARRAY` of one `u32`: how many places of [`STAGED`] the CPU has used.
pub const STAGED_COUNT: &str = "STAGED_COUNT";
/// `LRU_HASH` from [`crate::PathKey`] to [`crate::PathState`].
pub const PATHS: &str = "PATHS";
/// `ARRAY` of one `u32`: 1 once a path MTU has been learned, so that until then no packet
/// pays for a look into [`PATHS`].
pub const PATHS_LEARNED: &str = "PATHS_LEARNED";
/// `ARRAY` of one `u32`, see [`LAB_DELIVER`].
pub const LAB_DEVICE: &str = "LAB_DEVICE";
/// How many tunnels [`TUNNELS`] holds.
pub const MAX_TUNNELS: u32 = 1024;
/// How many policies [`POLICIES`] holds.
pub const MAX_POLICIES: u32 = 1024;
/// How many prefixes [`POLICY_EXITS`] holds.
pub const MAX_POLICY_EXITS: u32 = 16_384;
/// How many entries [`REFLECTED`] holds unless the operator says otherwise (the talk's number).
pub const MAX_REFLECTED: u32 = 1000;
/// How many places [`STAGED`] has: 256 for each of 16 CPUs.
pub const MAX_STAGED: u32 = 4096;
/// How many connections [`CLOSING`] holds.
pub const MAX_CLOSING: u32 = 16_384;
/// How many exits [`PATHS`] holds.
pub const MAX_PATHS: u32 = 4096;

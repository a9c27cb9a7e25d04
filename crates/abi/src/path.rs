//! What is known of the way to an exit: key and value of the `PATHS` map, and the counters of
//! what happens beside the frames.

use core::mem::size_of;

/// A kind of exit that some socket chose: key of the `LRU_HASH` [`crate::object::PATHS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathKey {
    /// [`crate::Exit::gateway`].
    pub gateway: [u8; 16],
    /// [`crate::Exit::destination_port`]; 0 without UDP.
    pub destination_port: [u8; 2],
    /// [`crate::Exit::UDP`] or 0.
    pub flags: u8,
    /// Always zero.
    pub reserved: u8,
}

impl PathKey {
    /// The key's bytes as the map holds them.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..16].copy_from_slice(&self.gateway);
        bytes[16..18].copy_from_slice(&self.destination_port);
        bytes[18] = self.flags;
        bytes
    }
}

/// What is known of the path.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathState {
    /// When `mtu` was learned, in nanoseconds of `bpf_ktime_get_ns`.
    pub learned: u64,
    /// Path MTU in bytes from the outer IP header on; 0: none learned.
    pub mtu: u32,
    /// [`crate::Exit::header_len`] of who chose it last: where quotes have their inner packet.
    pub header_len: u32,
}

impl PathState {
    /// How long a learned path MTU holds: ten minutes (RFC 8201 §4), in nanoseconds.
    pub const LIFETIME: u64 = 600_000_000_000;
}

macro_rules! events {
    ($( $(#[$doc:meta])* $variant:ident = $code:literal, $name:literal; )*) => {
        /// What happens beside the frames. The code is the index of its counter in the map
        /// [`crate::object::EVENTS`].
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Event { $( $(#[$doc])* $variant = $code, )* }

        impl Event {
            /// Every event, in the order of the codes.
            pub const ALL: [Self; Self::COUNT] = [$( Self::$variant, )*];
            /// How many there are.
            pub const COUNT: usize = [$( $code, )*].len();

            /// Its name in reports: snake case.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }
        }
    };
}

events! {
    /// An option of ours was set or cleared.
    OptionSet = 0, "option_set";
    /// A call at our level was refused for its form (any errno but `EPERM`).
    OptionRefused = 1, "option_refused";
    /// A call was refused by policy: `EPERM`.
    OptionDenied = 2, "option_denied";
    /// A socket began with its cgroup's default exit.
    DefaultExit = 3, "default_exit";
    /// A socket was refused: MPTCP in a cgroup with a default exit.
    SocketRefused = 4, "socket_refused";
    /// A closing connection's exit was kept for what the kernel sends after it.
    ExitKept = 5, "exit_kept";
    /// A path MTU was learned or lowered.
    PathMtuLearned = 6, "path_mtu_learned";
    /// An ICMP error about a tunnel packet was not believed.
    PathMtuRefused = 7, "path_mtu_refused";
    /// An outer header was captured for a connection or peer that had none.
    ReflectCaptured = 8, "reflect_captured";
    /// An established connection took its captured exit over.
    ReflectTaken = 9, "reflect_taken";
    /// A connection's or peer's replies moved to another path.
    ReflectMoved = 10, "reflect_moved";
    /// A captured exit is not allowed by policy.
    ReflectRefused = 11, "reflect_refused";
    /// A segment that came by another path was late, out of the window, or not newer.
    ReflectIgnored = 12, "reflect_ignored";
    /// The map of captured exits had no place.
    ReflectFull = 13, "reflect_full";
}

const _: () = assert!(size_of::<PathKey>() == 20);
const _: () = assert!(size_of::<PathState>() == 16);

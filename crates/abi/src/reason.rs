//! Why a frame got the verdict that it got: one exhaustive enum, so that every engine must
//! answer for all of it.

/// What happened to a frame, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Left inside an outer header.
    Encapsulated,
    /// Delivered without its outer header.
    Decapsulated,
    /// Left as it was.
    Passed,
    /// Did not leave.
    Dropped,
}

macro_rules! reasons {
    ($( $(#[$doc:meta])* $variant:ident = $code:literal, $verdict:ident, $name:literal; )*) => {
        /// The verdict's reason. The code is the index of its counter in the map
        /// [`crate::object::COUNTERS`]; every frame that a program sees adds one to exactly
        /// one counter.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $( $(#[$doc])* $variant = $code, )* }

        impl Reason {
            /// Every reason, in the order of the codes.
            pub const ALL: [Self; Self::COUNT] = [$( Self::$variant, )*];
            /// How many there are.
            pub const COUNT: usize = [$( $code, )*].len();

            /// The verdict that it explains.
            #[must_use]
            pub const fn verdict(self) -> Verdict {
                match self { $( Self::$variant => Verdict::$verdict, )* }
            }

            /// Its name in reports: snake case.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }
        }
    };
}

reasons! {
    /// Egress: wrapped in the exit's headers.
    Encapsulated = 0, Encapsulated, "encapsulated";
    /// Ingress: the outer headers were taken off.
    Decapsulated = 1, Decapsulated, "decapsulated";
    /// Neither IPv4 nor IPv6 (ARP, in-band VLAN), and not marked.
    NotIp = 2, Passed, "not_ip";
    /// Egress: no socket at hand (forwarded, or sent by the kernel itself), and not marked.
    NoSocket = 3, Passed, "no_socket";
    /// Egress: the socket never set an option of ours, and the packet is not marked.
    NoExit = 4, Passed, "no_exit";
    /// Egress: the socket has storage but no gateway.
    NoGateway = 5, Passed, "no_gateway";
    /// Ingress: addressed to no tunnel of this host.
    NotTunnel = 6, Passed, "not_tunnel";
    /// Egress: carries our mark, yet neither IPv4 nor IPv6.
    MarkedNotIp = 7, Dropped, "marked_not_ip";
    /// Egress: carries our mark, yet no exit is found for it.
    MarkedWithoutExit = 8, Dropped, "marked_without_exit";
    /// Egress: the exit was being rewritten every time that it was read.
    ExitBusy = 9, Dropped, "exit_busy";
    /// Egress: the IP header is cut short or contradicts itself.
    Malformed = 10, Dropped, "malformed";
    /// Egress: the IP header's length is not the packet's (cut by a snap length, say).
    BadLength = 11, Dropped, "bad_length";
    /// Egress: with its outer headers it would exceed a 16-bit length (BIG TCP).
    TooLong = 12, Dropped, "too_long";
    /// Egress: with its outer headers it would exceed the uplink's MTU.
    TooBig = 13, Dropped, "too_big";
    /// Egress: a super-packet of a shape that GSO cannot carry (neither TCP nor UDP).
    GsoShape = 14, Dropped, "gso_shape";
    /// Egress: the packet is of the other IP version than the outer header, and no outer source
    /// address is configured.
    NoSource = 15, Dropped, "no_source";
    /// The kernel gave no room for the headers, or could not write them.
    NoRoom = 16, Dropped, "no_room";
    /// Ingress: the outer header's lengths contradict each other or the frame.
    BadOuter = 17, Dropped, "bad_outer";
    /// Ingress: what stands inside is not the IP packet that the outer header announces.
    BadInner = 18, Dropped, "bad_inner";
    /// Ingress: congestion was marked on a packet that is not ECN-capable (RFC 6040 §4.2).
    EcnDrop = 19, Dropped, "ecn_drop";
    /// Egress: comes from the segmenter and has its outer headers.
    AlreadyEncapsulated = 20, Passed, "already_encapsulated";
    /// Egress: a super-packet sent to the segmenter; each segment gets a reason there.
    Segmenting = 21, Passed, "segmenting";
    /// Egress: the policy of the socket's cgroup does not allow its exit.
    PolicyDenied = 22, Dropped, "policy_denied";
    /// Egress: as [`Reason::TooBig`], and the sender was told by an ICMP error.
    TooBigTold = 23, Dropped, "too_big_told";
    /// Egress: exceeds the path's MTU, and the sender can be told to send nothing smaller.
    PathTooSmall = 24, Dropped, "path_too_small";
    /// Egress: a valid outer UDP checksum is asked for and does not follow from the headers.
    NoChecksum = 25, Dropped, "no_checksum";
    /// Ingress: an ICMP error from which a path MTU was learned.
    PathMtuLearned = 26, Passed, "path_mtu_learned";
    /// Ingress: an ICMP error about a tunnel packet that is not known as ours.
    PathMtuRefused = 27, Passed, "path_mtu_refused";
}

impl Reason {
    /// The reason with this code.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_index_the_list_and_names_are_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert_eq!(Reason::from_code(index as u32), Some(*reason));
            assert_eq!(
                Reason::ALL
                    .iter()
                    .filter(|r| r.name() == reason.name())
                    .count(),
                1
            );
        }
        assert_eq!(Reason::from_code(Reason::COUNT as u32), None);
    }
}

//! The kernel's own ways to put packets into headers, each set up as its manual has it: routes
//! and devices of host H, and what takes the headers off again at P.

use crate::{
    Error,
    bed::{Bed, FAR, GATEWAY, HOST, UPLINK, ip},
    reference::Expected,
};
use std::io::Write as _;

/// The program for a route's lightweight tunnel.
const LWT_OBJECT: &[u8] = include_bytes!("../bpf/lwt.bpf.o");

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A VXLAN device.
    Vxlan,
    /// A VXLAN device with the generic protocol extension, and a route that names the exit.
    VxlanGpe,
    /// A route that pushes an IPv6 header with a segment routing header.
    Seg6,
    /// The same without the segment routing header.
    Seg6Reduced,
    /// A route that runs a BPF program (`bpf_lwt_push_encap`).
    LwtBpf,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Vxlan,
        Self::VxlanGpe,
        Self::Seg6,
        Self::Seg6Reduced,
        Self::LwtBpf,
    ];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::VxlanGpe => "vxlan-gpe",
            Self::Seg6 => "seg6 encap",
            Self::Seg6Reduced => "seg6 encap.red",
            Self::LwtBpf => "LWT BPF push_encap",
        }
    }

    /// What arrives.
    #[must_use]
    pub const fn expected(self) -> Expected {
        match self {
            // IPv6, UDP, VXLAN, Ethernet.
            Self::Vxlan => Expected::ipv6(17, 40 + 8 + 8 + 14),
            Self::VxlanGpe => Expected::ipv6(17, 40 + 8 + 8),
            // One segment: 8 bytes and an address.
            Self::Seg6 => Expected::ipv6(43, 40 + 24),
            Self::Seg6Reduced | Self::LwtBpf => Expected::IP6,
        }
    }

    /// Bytes of headers.
    #[must_use]
    pub const fn overhead(self) -> u32 {
        self.expected().inner_at
    }

    /// Leads what goes to the server through it.
    pub fn install(self, bed: &Bed) -> Result<(), Error> {
        let commands = match self {
            Self::Vxlan => format!(
                "link add vx0 address 02:00:00:00:02:01 mtu 1430 type vxlan id 42 dstport 4789 \
                   local {HOST} remote {GATEWAY} udp6zerocsumtx udp6zerocsumrx nolearning\n\
                 link set vx0 up\n\
                 neigh add fd00:8::2 lladdr 02:00:00:00:02:02 dev vx0 nud permanent\n\
                 addr add fd00:8::1/64 dev vx0 nodad\n\
                 -6 route replace fd00:9::/64 via fd00:8::2 dev vx0 src {HOST}"
            ),
            Self::VxlanGpe => format!(
                "link add vx0 mtu 1444 type vxlan dstport 4790 gpe external udp6zerocsumtx udp6zerocsumrx\n\
                 link set vx0 up\n\
                 -6 route replace fd00:9::/64 encap ip6 id 42 dst {GATEWAY} src {HOST} \
                   dev vx0 src {HOST}"
            ),
            Self::Seg6 => Self::segments("encap"),
            Self::Seg6Reduced => Self::segments("encap.red"),
            Self::LwtBpf => return lwt(bed),
        };
        ip(&bed.host, &commands)
    }

    fn segments(mode: &str) -> String {
        format!(
            "-6 route replace fd00:9::/64 encap seg6 mode {mode} segs {GATEWAY} \
             via fd00:1::2 dev {UPLINK} src {HOST}"
        )
    }

    /// Takes the headers off at P, and lets the packet in.
    pub fn receive(self, bed: &Bed) -> Result<(), Error> {
        let commands = match self {
            Self::Vxlan => format!(
                "addr add {GATEWAY}/128 dev lo\n\
                 link add vx0 address 02:00:00:00:02:02 type vxlan id 42 dstport 4789 \
                   local {GATEWAY} remote {HOST} udp6zerocsumtx udp6zerocsumrx nolearning\n\
                 link set vx0 up"
            ),
            Self::VxlanGpe => format!(
                "addr add {GATEWAY}/128 dev lo\n\
                 link add vx0 type vxlan dstport 4790 gpe external udp6zerocsumtx udp6zerocsumrx\n\
                 link set vx0 up"
            ),
            Self::Seg6 | Self::Seg6Reduced | Self::LwtBpf => {
                crate::bed::sysctl(&bed.peer, "ipv6/conf/all/seg6_enabled", "1")?;
                crate::bed::sysctl(&bed.peer, &format!("ipv6/conf/{FAR}/seg6_enabled"), "1")?;
                format!(
                    "-6 route add {GATEWAY}/128 encap seg6local action End.DT6 table 255 dev {FAR}"
                )
            }
        };
        ip(&bed.peer, &commands)
    }
}

/// `ip route` loads the program from a file.
fn lwt(bed: &Bed) -> Result<(), Error> {
    let mut file = tempfile::NamedTempFile::new().map_err(Error::io("a temporary file"))?;
    file.write_all(LWT_OBJECT)
        .map_err(Error::io("a temporary file"))?;
    let path = file.path().display();
    ip(
        &bed.host,
        &format!(
            "-6 route replace fd00:9::/64 encap bpf xmit obj {path} section xmit headroom 40 \
             via fd00:1::2 dev {UPLINK} src {HOST}"
        ),
    )
}

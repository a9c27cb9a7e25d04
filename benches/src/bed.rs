//! The network of a measurement: three hosts in namespaces without names, and nothing else in
//! them.
//!
//! ```text
//!   R ──────────────── H ──────────────────── P
//!   r0            h1       up0            up1
//!   packets without        measured here  what arrives is counted here
//!   a socket in H
//! ```
//!
//! Each variant has a bed of its own, so that all stand ready side by side and a round needs no
//! change of set-up. Neighbours are fixed: nobody but the senders sends.

use crate::Error;
use dynencap_kernel::Namespace;
use std::{
    fs,
    io::Write as _,
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd},
    process::{Command, Stdio},
};

/// The device at whose egress the programs are.
pub const UPLINK: &str = "up0";
/// The other end of its wire.
pub const FAR: &str = "up1";
/// H's own address.
pub const HOST: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);
/// H's own IPv4 address.
pub const HOST4: [u8; 4] = [10, 1, 0, 1];
/// The exit: a gateway behind P.
pub const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xe, 0, 0, 0, 0, 0, 1);
/// The same exit over IPv4.
pub const GATEWAY4: [u8; 4] = [10, 14, 0, 1];
/// Whom everybody sends to.
pub const SERVER: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 9);
/// At which port.
pub const PORT: u16 = 9;
/// MTU of every link.
pub const MTU: u32 = 1500;

/// Whether packets are made with room for headers in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headroom {
    /// As a veth pair comes: 16 bytes less an Ethernet header.
    None,
    /// The uplink asks for 70 bytes more (its far end is in a bridge with a device that needs
    /// them), as network cards and devices in front do.
    Device,
}

/// The hosts.
#[derive(Debug)]
pub struct Bed {
    /// H.
    pub host: Namespace,
    /// P.
    pub peer: Namespace,
    /// R.
    pub router: Namespace,
}

impl Bed {
    /// Builds it.
    pub fn new(headroom: Headroom) -> Result<Self, Error> {
        let bed = Self {
            host: Namespace::new()?,
            peer: Namespace::new()?,
            router: Namespace::new()?,
        };
        for (namespace, forwards) in [(&bed.host, "1"), (&bed.peer, "0"), (&bed.router, "0")] {
            settings(namespace, forwards)?;
        }
        let (peer, router) = (path(&bed.peer), path(&bed.router));
        ip(
            &bed.host,
            &format!(
                "link set lo up\n\
                 link add {UPLINK} address 02:00:00:00:00:01 mtu {MTU} type veth \
                   peer name {FAR} address 02:00:00:00:00:02 mtu {MTU} netns {peer}\n\
                 link add h1 address 02:00:00:00:01:01 type veth \
                   peer name r0 address 02:00:00:00:01:02 netns {router}\n\
                 link set {UPLINK} up\n\
                 link set h1 up\n\
                 addr add {HOST}/64 dev {UPLINK} nodad\n\
                 addr add 10.1.0.1/24 dev {UPLINK}\n\
                 addr add fd00:2::1/64 dev h1 nodad\n\
                 neigh add fd00:1::2 lladdr 02:00:00:00:00:02 dev {UPLINK} nud permanent\n\
                 neigh add 10.1.0.2 lladdr 02:00:00:00:00:02 dev {UPLINK} nud permanent\n\
                 neigh add fd00:2::2 lladdr 02:00:00:00:01:02 dev h1 nud permanent\n\
                 -6 route add fd00:e::/64 via fd00:1::2 dev {UPLINK}\n\
                 -6 route add fd00:9::/64 via fd00:1::2 dev {UPLINK}\n\
                 route add default via 10.1.0.2 dev {UPLINK}"
            ),
        )?;
        ip(&bed.peer, &format!("link set lo up\nlink set {FAR} up"))?;
        if headroom == Headroom::Device {
            ip(
                &bed.peer,
                &format!(
                    "link add br0 type bridge mcast_snooping 0\n\
                     link add room type vxlan id 1 dstport 4791 local ::1 remote ::2\n\
                     link set {FAR} master br0\n\
                     link set room master br0"
                ),
            )?;
        }
        ip(
            &bed.router,
            "link set lo up\n\
             link set r0 up\n\
             addr add fd00:2::2/64 dev r0 nodad\n\
             neigh add fd00:2::1 lladdr 02:00:00:00:01:01 dev r0 nud permanent\n\
             -6 route add default via fd00:2::1 dev r0",
        )?;
        Ok(bed)
    }

    /// Where everybody sends to.
    #[must_use]
    pub fn server() -> SocketAddrV6 {
        SocketAddrV6::new(SERVER, PORT, 0, 0)
    }
}

/// Runs commands of `ip`, one a line, in a namespace.
pub fn ip(namespace: &Namespace, commands: &str) -> Result<(), Error> {
    // `-batch` takes one family for all its lines.
    let lines: Vec<&str> = commands.lines().collect();
    for group in lines.chunk_by(|one, other| one.starts_with("-6 ") == other.starts_with("-6 ")) {
        let text: String = group
            .iter()
            .map(|line| format!("{}\n", line.trim_start_matches("-6 ")))
            .collect();
        let family = group.first().is_some_and(|line| line.starts_with("-6 "));
        batch(namespace, if family { &["-6"] } else { &[] }, &text)?;
    }
    Ok(())
}

fn batch(namespace: &Namespace, family: &[&str], text: &str) -> Result<(), Error> {
    let run = || {
        let mut child = Command::new("ip")
            .args(family)
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(text.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = namespace
        .in_namespace(|| Ok(run()))?
        .map_err(Error::io("ip"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: format!("ip -batch: {text}"),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Writes a setting below `/proc/sys/net`.
pub fn sysctl(namespace: &Namespace, name: &str, value: &str) -> Result<(), Error> {
    let path = format!("/proc/sys/net/{name}");
    namespace
        .in_namespace(|| Ok(fs::write(&path, value)))?
        .map_err(Error::io(&path))
}

fn settings(namespace: &Namespace, forwards: &str) -> Result<(), Error> {
    for (name, value) in [
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/router_solicitations", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/default/disable_ipv6", "0"),
        ("ipv6/conf/all/forwarding", forwards),
    ] {
        sysctl(namespace, name, value)?;
    }
    Ok(())
}

/// A namespace as `ip link … netns` takes it.
pub(crate) fn path(namespace: &Namespace) -> String {
    format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        namespace.as_fd().as_raw_fd()
    )
}

//! Network namespaces and the links between them. They are anonymous: the kernel removes them,
//! and the links in them, when the last descriptor and process are gone.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};

use super::program::{self, ETHTOOL, IP};
use super::socket;

/// A network namespace, alive as long as this.
pub(super) struct Namespace {
    handle: File,
}

impl Namespace {
    /// A new namespace with its loopback device up.
    pub(super) fn new(home: &Path) -> anyhow::Result<Self> {
        let opened = on_thread(|| {
            socket::unshare_network().context("unshare")?;
            File::open("/proc/thread-self/ns/net").context("open the namespace")
        });
        let namespace = Self {
            handle: opened.context("cannot make a network namespace")?,
        };
        namespace.ip(home, "link set lo up")?;
        // Only groups in this range may send echo requests without privileges, and the kernel
        // asks root for it too.
        namespace.sysctl("net/ipv4/ping_group_range", "0 0")?;
        // A new namespace takes the machine's choice; reno is the one that every kernel has.
        namespace.sysctl("net/ipv4/tcp_congestion_control", "reno")?;
        Ok(namespace)
    }

    /// Runs `work` on a thread inside the namespace. Sockets opened and programs started there
    /// stay there.
    pub(super) fn enter<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        on_thread(|| {
            socket::enter_network(&self.handle).context("cannot enter the network namespace")?;
            work()
        })
    }

    /// Runs `ip` with the words of `arguments` inside the namespace.
    pub(super) fn ip(&self, home: &Path, arguments: &str) -> anyhow::Result<()> {
        self.enter(|| ip(home, arguments))
    }

    /// Writes a setting below `/proc/sys`.
    pub(super) fn sysctl(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let path = Path::new("/proc/sys").join(name);
        self.enter(|| {
            std::fs::write(&path, value).with_context(|| format!("cannot write {value} to {name}"))
        })
    }

    /// A path that other processes can open.
    fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.handle.as_raw_fd()
        )
    }
}

/// What the network device does in place of the stack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Offload {
    /// Nothing: the captures hold frames as a wire would carry them, checksums included.
    None,
    /// Checksums and segmentation: the captures hold super-packets with partial checksums.
    Segmentation,
}

/// One end of a link: the device `name` in `namespace`.
pub(super) struct Port<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) name: &'a str,
    /// Last octet of the MAC address, from RFC 7042's range for documentation.
    pub(super) mac: u8,
}

/// Joins two namespaces by a veth pair and brings it up without addresses.
pub(super) fn join(home: &Path, [a, b]: [&Port<'_>; 2], offload: Offload) -> anyhow::Result<()> {
    let end = |port: &Port<'_>| {
        let Port {
            name,
            mac,
            namespace,
        } = port;
        format!(
            "name {name} address 00:00:5e:00:53:{mac:02x} netns {}",
            namespace.path()
        )
    };
    ip(
        home,
        &format!("link add {} type veth peer {}", end(a), end(b)),
    )?;
    for port in [a, b] {
        let Port {
            name, namespace, ..
        } = port;
        // Link-local addresses would bring router solicitations and multicast reports along.
        namespace.ip(home, &format!("link set {name} addrgenmode none"))?;
        namespace.sysctl(&format!("net/ipv6/conf/{name}/accept_ra"), "0")?;
        if offload == Offload::None {
            let mut ethtool = ETHTOOL.command(home);
            ethtool.args(["-K", name]);
            ethtool.args(["tx", "off", "tso", "off", "gso", "off", "gro", "off"]);
            namespace.enter(|| program::run(&mut ethtool))?;
        }
    }
    for port in [a, b] {
        port.namespace
            .ip(home, &format!("link set {} up", port.name))?;
    }
    Ok(())
}

/// The device that carries a host's addresses.
pub(super) const UPLINK: &str = "eth0";

/// A host's addresses: the IPv4 one from RFC 5737, the IPv6 one from RFC 4193.
#[derive(Clone, Copy)]
pub(super) struct Host {
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
}

impl Host {
    const fn new(number: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(192, 0, 2, number),
            v6: Ipv6Addr::new(0xfd00, 0x5e, 0, 0, 0, 0, 0, number as u16),
        }
    }

    /// Both addresses, for scenes that do the same over each.
    pub(super) fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

pub(super) const CLIENT: Host = Host::new(1);
pub(super) const SERVER: Host = Host::new(2);

/// A client and a server on one Ethernet segment.
pub(super) struct Pair {
    pub(super) client: Namespace,
    pub(super) server: Namespace,
}

impl Pair {
    /// Joined by one link.
    pub(super) fn direct(home: &Path, offload: Offload) -> anyhow::Result<Self> {
        let pair = Self::apart(home)?;
        let [client, server] = pair.ports();
        join(home, [&client, &server], offload)?;
        pair.address(home)?;
        Ok(pair)
    }

    /// Each joined to a port of a third namespace, which has to carry the frames across.
    pub(super) fn through(
        home: &Path,
        middle: &Namespace,
        [left, right]: [&str; 2],
    ) -> anyhow::Result<Self> {
        let pair = Self::apart(home)?;
        let [client, server] = pair.ports();
        let port = |name, mac| Port {
            namespace: middle,
            name,
            mac,
        };
        join(home, [&client, &port(left, 0x11)], Offload::None)?;
        join(home, [&server, &port(right, 0x12)], Offload::None)?;
        pair.address(home)?;
        Ok(pair)
    }

    fn apart(home: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            client: Namespace::new(home)?,
            server: Namespace::new(home)?,
        })
    }

    fn ports(&self) -> [Port<'_>; 2] {
        [(&self.client, 1), (&self.server, 2)].map(|(namespace, mac)| Port {
            namespace,
            name: UPLINK,
            mac,
        })
    }

    fn address(&self, home: &Path) -> anyhow::Result<()> {
        for (namespace, Host { v4, v6 }) in [(&self.client, CLIENT), (&self.server, SERVER)] {
            namespace.ip(home, &format!("address add {v4}/24 dev {UPLINK}"))?;
            namespace.ip(home, &format!("address add {v6}/64 dev {UPLINK} nodad"))?;
        }
        Ok(())
    }
}

fn ip(home: &Path, arguments: &str) -> anyhow::Result<()> {
    program::run(IP.command(home).args(arguments.split_whitespace())).map(drop)
}

/// A thread's namespace ends with the thread, so no step can forget to go back.
fn on_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(anyhow!("a worker thread panicked")))
}

//! Two namespaces and two wires between them; `ip` sets everything up and tells what is there.
//!
//! ```text
//!   host                                   peer
//!   up0  10.1.0.1/24  2001:db8:1::1/64 ─── up1  ….2    192.0.2.1, 2001:db8:99::1 on lo
//!   lan0 10.2.0.1/24  2001:db8:2::1/64 ─── lan1 ….2
//!   defaults through up0; 198.51.100.0/24 and 2001:db8:55::/48 through lan0
//! ```

use dynencap_kernel::Namespace;
use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
    process::Command,
    thread,
    time::{Duration, Instant},
};

pub(crate) const SERVER_V4: &str = "192.0.2.1";
pub(crate) const SERVER_V6: &str = "2001:db8:99::1";
/// Behind the other device.
pub(crate) const LAN_V4: &str = "198.51.100.7";
pub(crate) const LAN_V6: &str = "2001:db8:55::7";

pub(crate) struct Stage {
    pub(crate) host: Namespace,
    pub(crate) peer: Namespace,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let stage = Self {
            host: Namespace::new().unwrap(),
            peer: Namespace::new().unwrap(),
        };
        for namespace in [&stage.host, &stage.peer] {
            inside(namespace, || {
                fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0").unwrap();
                fs::write("/proc/sys/net/ipv4/tcp_timestamps", "0").unwrap();
            });
        }
        let peer = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            stage.peer.as_fd().as_raw_fd()
        );
        for (name, number) in [("up", 1), ("lan", 2)] {
            stage.ip(&format!("link add {name}0 type veth peer name {name}1"));
            stage.ip(&format!("link set {name}1 netns {peer}"));
            for (namespace, end, host) in [(&stage.host, 0, 1), (&stage.peer, 1, 2)] {
                let device = format!("{name}{end}");
                ip(namespace, &format!("link set {device} addrgenmode none"));
                let v4 = format!("10.{number}.0.{host}/24");
                ip(namespace, &format!("address add {v4} dev {device}"));
                let v6 = format!("2001:db8:{number}::{host}/64");
                ip(namespace, &format!("address add {v6} dev {device} nodad"));
                ip(namespace, &format!("link set {device} up"));
            }
        }
        stage.defaults();
        stage.ip("route add 198.51.100.0/24 via 10.2.0.2");
        stage.ip("-6 route add 2001:db8:55::/48 via 2001:db8:2::2");
        for command in [
            "link set lo up",
            "address add 192.0.2.1/32 dev lo",
            "address add 2001:db8:99::1/128 dev lo nodad",
        ] {
            ip(&stage.peer, command);
        }
        for (namespace, host) in [(&stage.host, 1), (&stage.peer, 2)] {
            settle(namespace, host);
        }
        stage
    }

    /// The default routes through the uplink, which the kernel drops when it goes down.
    pub(crate) fn defaults(&self) {
        self.ip("route add default via 10.1.0.2");
        self.ip("-6 route add default via 2001:db8:1::2");
    }

    /// Runs `ip` in the host's namespace.
    #[track_caller]
    pub(crate) fn ip(&self, arguments: &str) -> String {
        ip(&self.host, arguments)
    }

    /// How a packet with that mark would leave the host.
    #[track_caller]
    pub(crate) fn route(&self, to: &str, mark: u32) -> String {
        self.ip(&format!("route get {to} mark {mark:#x}"))
    }

    /// All rules and all routes of all tables of both families.
    #[track_caller]
    pub(crate) fn listing(&self) -> String {
        [
            "rule",
            "-6 rule",
            "-d route show table all",
            "-d -6 route show table all",
            "nexthop",
        ]
        .map(|command| self.ip(command))
        .join("--\n")
    }
}

/// Waits until the kernel has noticed that the devices are up, a while after it was told: it
/// adds the last routes then, and takes flags off others.
fn settle(namespace: &Namespace, host: u8) {
    let start = Instant::now();
    loop {
        let v4 = ip(namespace, "route show table all");
        let v6 = ip(namespace, "-6 route show table all");
        let noticed = [1, 2].iter().all(|number| {
            v6.contains(&format!("local 2001:db8:{number}::{host} dev"))
                && v6.matches("multicast ff00::/8").count() == 2
        });
        if noticed && !v4.contains("linkdown") && !v6.contains("linkdown") {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{v4}{v6}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs `work` in a namespace.
pub(crate) fn inside<T: Send>(namespace: &Namespace, work: impl FnOnce() -> T + Send) -> T {
    namespace.in_namespace(|| Ok(work())).unwrap()
}

/// Runs `ip` in a namespace; what it prints.
#[track_caller]
pub(crate) fn ip(namespace: &Namespace, arguments: &str) -> String {
    let output = inside(namespace, || {
        Command::new("ip")
            .args(arguments.split_whitespace())
            .output()
            .unwrap()
    });
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

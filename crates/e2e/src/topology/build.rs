//! Devices, addresses and routes, by `ip -batch`: a test's network reads best in the words of
//! an operator.

use super::{BOND, EXIT_DEVICES, GATEWAYS, MTU, ROUTER_DEVICES, SERVER_DEVICE, UPLINK};
use dynencap_kernel::{Namespace, sys};
use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    os::fd::{AsFd, AsRawFd},
    process::{Command, Stdio, id},
};

/// Connects the four hosts.
pub(super) fn connect(
    client: &Namespace,
    router: &Namespace,
    exit: &Namespace,
    server: &Namespace,
) {
    for (host, forwards) in [
        (client, false),
        (router, true),
        (exit, true),
        (server, false),
    ] {
        settings(host, forwards);
    }
    let [r0, r1] = ROUTER_DEVICES;
    let [x0, x1] = EXIT_DEVICES;
    let wire = |near: &str, far: &str, peer: &Namespace| {
        format!(
            "link add {near} type veth peer name {far} netns {}\n",
            path(peer)
        )
    };
    ip(client, &wire(UPLINK, r0, router));
    ip(router, &wire(r1, x0, exit));
    ip(exit, &wire(x1, SERVER_DEVICE, server));
    // What leaves must be cut and summed before it is captured.
    for (host, device) in [(client, UPLINK), (router, r1), (exit, x1)] {
        offloads_off(host, device);
    }
    ip(
        client,
        &end(
            UPLINK,
            "fd00:c::1",
            "10.1.0.1",
            Some("fd00:c::ff 10.1.0.254"),
        ),
    );
    ip(
        router,
        &[
            end(r0, "fd00:c::ff", "10.1.0.254", None),
            end(r1, "fd00:e::ff", "10.2.0.254", Some("fd00:e::1 10.2.0.1")),
        ]
        .concat(),
    );
    let gateways: String = (1..GATEWAYS)
        .map(|number| number + 1)
        .map(|number| {
            format!("addr add fd00:e::{number}/64 dev {x0} nodad\naddr add 10.2.0.{number}/24 dev {x0}\n")
        })
        .collect();
    ip(
        exit,
        &[
            end(x0, "fd00:e::1", "10.2.0.1", Some("fd00:e::ff 10.2.0.254")),
            gateways,
            end(x1, "fd00:5::ff", "10.3.0.254", None),
        ]
        .concat(),
    );
    ip(
        server,
        &end(
            SERVER_DEVICE,
            "fd00:5::1",
            "10.3.0.1",
            Some("fd00:5::ff 10.3.0.254"),
        ),
    );
}

/// One end of a wire, and the way to everyone else.
fn end(device: &str, address: &str, address4: &str, default: Option<&str>) -> String {
    let mut batch = format!(
        "link set lo up\n\
         link set {device} mtu {MTU} up\n\
         addr add {address}/64 dev {device} nodad\n\
         addr add {address4}/24 dev {device}\n"
    );
    if let Some((via, via4)) = default.and_then(|both| both.split_once(' ')) {
        let _ = write!(
            batch,
            "-6 route add default via {via}\nroute add default via {via4}\n"
        );
    }
    batch
}

/// Puts a bond in front of the client's uplink: addresses and routes are its.
pub(super) fn bond(client: &Namespace) {
    ip(
        client,
        &format!(
            "link add {BOND} type bond mode active-backup miimon 100\n\
             link set {UPLINK} down\n\
             addr flush dev {UPLINK}\n\
             link set {UPLINK} master {BOND}\n\
             {}",
            end(BOND, "fd00:c::1", "10.1.0.1", Some("fd00:c::ff 10.1.0.254"))
        ),
    );
}

fn settings(host: &Namespace, forwards: bool) {
    let forwarding = if forwards { "1" } else { "0" };
    for (name, value) in [
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/router_solicitations", "0"),
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/default/disable_ipv6", "0"),
        ("ipv6/conf/all/forwarding", forwarding),
        ("ipv4/ip_forward", forwarding),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
    ] {
        super::Topology::sysctl(host, name, value);
    }
}

pub(super) fn offloads_off(host: &Namespace, device: &str) {
    let off = || {
        let socket = sys::packet_socket()?;
        sys::switch_off_offloads(socket.as_fd(), device)
    };
    host.in_namespace(|| Ok(off()))
        .expect("setns")
        .expect("ethtool");
}

/// The namespace as `ip` takes it.
fn path(namespace: &Namespace) -> String {
    let path = format!("/proc/{}/fd/{}", id(), namespace.as_fd().as_raw_fd());
    assert!(fs::exists(&path).expect("/proc"));
    path
}

/// Runs commands of `ip` in a namespace, in their order: `ip -batch` takes the family from the
/// command line alone, so those that start with `-6` go by themselves.
pub fn ip(namespace: &Namespace, commands: &str) {
    let commands: Vec<&str> = commands.lines().collect();
    let is_six = |command: &str| command.starts_with("-6 ");
    for group in commands.chunk_by(|one, other| is_six(one) == is_six(other)) {
        if is_six(group[0]) {
            let six: Vec<&str> = group.iter().map(|command| &command[3..]).collect();
            batch(namespace, &["-6"], &six);
        } else {
            batch(namespace, &[], group);
        }
    }
}

fn batch(namespace: &Namespace, family: &[&str], commands: &[&str]) {
    let run = || {
        let mut child = Command::new("ip")
            .args(family)
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(commands.join("\n").as_bytes())?;
        input.write_all(b"\n")?;
        drop(input);
        child.wait_with_output()
    };
    let output = namespace
        .in_namespace(|| Ok(run()))
        .expect("setns")
        .expect("ip");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{commands:#?}");
}

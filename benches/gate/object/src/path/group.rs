//! The programs at cgroups: socket options, creation, sockets' lives.

use super::Path;
use crate::host::{ACTIVE_ESTABLISHED, GATEWAY, GATEWAY4, Host, UDP, UDP8, UDP32};
use dynencap_abi::object::{GET_OPTION, SET_OPTION, SOCKET_CREATE, TRACK};
use dynencap_abi::option::{EINVAL, ENCAP_GW, ENCAP_INFO, ENCAP_UDP, EPERM, IPPROTO_MPTCP};
use dynencap_abi::{Info, Policy};
use dynencap_vm::{Meter, SocketId, TcpState};

const IP6: (&[u8], &[u8]) = (&GATEWAY, &[]);
/// `BPF_SOCK_OPS_TCP_CONNECT_CB`, `BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB`, and one that is
/// nobody's of ours (`BPF_SOCK_OPS_RTO_CB`).
const CONNECT: u32 = 3;
const PASSIVE_ESTABLISHED: u32 = 5;
const TIMEOUT: u32 = 8;

pub(super) fn paths() -> Vec<Path> {
    let mut paths = set_option();
    paths.extend(get_option());
    paths.extend(create());
    paths.extend(track());
    paths
}

/// On a connected socket without an exit.
fn bare(
    program: &'static str,
    name: &'static str,
    run: impl Fn(&mut Host, SocketId) -> anyhow::Result<Meter> + 'static,
) -> Path {
    Path::new(program, name, move |host| {
        let socket = host.bare();
        run(host, socket)
    })
}

/// On one with an exit.
fn with_exit(
    program: &'static str,
    name: &'static str,
    exit: (&'static [u8], &'static [u8]),
    run: impl Fn(&mut Host, SocketId) -> anyhow::Result<Meter> + 'static,
) -> Path {
    Path::new(program, name, move |host| {
        let socket = host.socket(exit)?;
        run(host, socket)
    })
}

fn set_option() -> Vec<Path> {
    vec![
        bare(SET_OPTION, "other-level", Host::set_other),
        bare(SET_OPTION, "gateway/first", |host, socket| {
            host.set(socket, ENCAP_GW, &GATEWAY)
        }),
        with_exit(SET_OPTION, "gateway/again", IP6, |host, socket| {
            host.set(socket, ENCAP_GW, &GATEWAY)
        }),
        with_exit(SET_OPTION, "gateway/ipv4", IP6, |host, socket| {
            host.set(socket, ENCAP_GW, &GATEWAY4)
        }),
        with_exit(SET_OPTION, "gateway/clear", IP6, |host, socket| {
            host.set(socket, ENCAP_GW, &[])
        }),
        bare(SET_OPTION, "gateway/under-policy", |host, socket| {
            host.policy(|_| {})?;
            host.set(socket, ENCAP_GW, &GATEWAY)
        }),
        bare(SET_OPTION, "gateway/denied", |host, socket| {
            host.policy(|policy| policy.id = 4)?;
            let mut other = GATEWAY;
            other[1] ^= 0xff;
            other[0] = 0x30;
            host.set_refused(socket, ENCAP_GW, &other, EPERM)
        }),
        bare(SET_OPTION, "gateway/refused", |host, socket| {
            host.set_refused(socket, ENCAP_GW, &[0; 16], EINVAL)
        }),
        with_exit(SET_OPTION, "udp", IP6, |host, socket| {
            host.set(socket, ENCAP_UDP, &UDP)
        }),
        with_exit(SET_OPTION, "udp-32", IP6, |host, socket| {
            host.set(socket, ENCAP_UDP, &UDP32)
        }),
        with_exit(
            SET_OPTION,
            "udp/clear",
            (&GATEWAY, &UDP8),
            |host, socket| host.set(socket, ENCAP_UDP, &[]),
        ),
        with_exit(SET_OPTION, "udp-8/under-policy", IP6, |host, socket| {
            host.policy(|_| {})?;
            host.set(socket, ENCAP_UDP, &UDP8)
        }),
    ]
}

fn get_option() -> Vec<Path> {
    vec![
        bare(GET_OPTION, "other-level", Host::get_other),
        bare(GET_OPTION, "gateway/none", |host, socket| {
            host.get(socket, ENCAP_GW, 16)
        }),
        with_exit(GET_OPTION, "gateway", IP6, |host, socket| {
            host.get(socket, ENCAP_GW, 16)
        }),
        with_exit(GET_OPTION, "udp-8", (&GATEWAY, &UDP8), |host, socket| {
            host.get(socket, ENCAP_UDP, UDP8.len())
        }),
        with_exit(GET_OPTION, "info", IP6, |host, socket| {
            host.get(socket, ENCAP_INFO, size_of::<Info>())
        }),
    ]
}

fn create() -> Vec<Path> {
    let under = |name, flags, reserve, protocol, mark| {
        Path::new(SOCKET_CREATE, name, move |host| {
            host.policy(|policy| (policy.flags, policy.reserve) = (flags, reserve))?;
            host.create(protocol, mark)
        })
    };
    vec![
        Path::new(SOCKET_CREATE, "no-policy", |host| {
            host.create(6, Some(false))
        }),
        under("plain-policy", 0, 0, 6, Some(false)),
        under("reserve", 0, 40, 6, Some(true)),
        under("default-exit", Policy::DEFAULT_EXIT, 0, 6, Some(true)),
        under("refused", Policy::DEFAULT_EXIT, 0, IPPROTO_MPTCP, None),
    ]
}

fn track() -> Vec<Path> {
    let closes = |name, exit: Option<(&'static [u8], &'static [u8])>| {
        Path::new(TRACK, name, move |host| {
            let socket = match exit {
                Some(exit) => host.socket(exit)?,
                None => host.bare(),
            };
            host.tell(socket, ACTIVE_ESTABLISHED)?;
            host.state(socket, TcpState::Close)
        })
    };
    vec![
        bare(TRACK, "connect", |host, socket| host.tell(socket, CONNECT)),
        bare(TRACK, "established", |host, socket| {
            host.tell(socket, ACTIVE_ESTABLISHED)
        }),
        bare(TRACK, "accepted", |host, socket| {
            host.tell(socket, PASSIVE_ESTABLISHED)
        }),
        bare(TRACK, "nobodys-event", |host, socket| {
            host.tell(socket, TIMEOUT)
        }),
        bare(TRACK, "state", |host, socket| {
            host.tell(socket, ACTIVE_ESTABLISHED)?;
            host.state(socket, TcpState::FinWait1)
        }),
        closes("closed/no-exit", None),
        closes("closed/kept", Some(IP6)),
    ]
}

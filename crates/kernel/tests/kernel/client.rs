//! Real sockets for the tests of the control path: options, sockets of any kind, TCP connections
//! over the loopback of the lab's host namespace, and cgroups with policies.

use dynencap_abi::{Event, Exit, Info, Policy, PolicyExitKey, PortRange, option::SOL_DYNENCAP};
use dynencap_kernel::{Error, Replay, sys};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    process::Command,
};

const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;

pub(crate) fn set(socket: &impl AsFd, name: i32, value: &[u8]) -> Result<(), i32> {
    errno(sys::set_option(socket.as_fd(), SOL_DYNENCAP, name, value))
}

pub(crate) fn get(socket: &impl AsFd, name: i32, capacity: usize) -> Result<Vec<u8>, i32> {
    errno(sys::option(socket.as_fd(), SOL_DYNENCAP, name, capacity))
}

pub(crate) fn info(socket: &impl AsFd) -> Info {
    let bytes = get(socket, dynencap_abi::option::ENCAP_INFO, 64).unwrap();
    assert_eq!(bytes.len(), 32);
    Info::from_bytes(&bytes).unwrap()
}

pub(crate) fn mark(socket: &impl AsFd) -> u32 {
    let bytes = sys::option(socket.as_fd(), SOL_SOCKET, SO_MARK, 4).unwrap();
    u32::from_ne_bytes(bytes.try_into().unwrap())
}

fn errno<T>(result: io::Result<T>) -> Result<T, i32> {
    result.map_err(|error| error.raw_os_error().unwrap())
}

/// The errno with which `socket(2)` fails, or the socket.
pub(crate) fn open(domain: Domain, kind: Type, protocol: i32) -> Result<Socket, i32> {
    errno(Socket::new(domain, kind, Some(Protocol::from(protocol))))
}

pub(crate) fn udp6() -> Socket {
    open(Domain::IPV6, Type::DGRAM, 0).unwrap()
}

/// An address as exits and keys hold it.
pub(crate) fn octets(address: &str) -> [u8; 16] {
    match address.parse().unwrap() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// A policy that allows the ports 6080 to 6090 and says nothing else.
pub(crate) fn policy(id: u32) -> Policy {
    let mut ports = [PortRange::default(); Policy::MAX_PORTS];
    ports[0] = PortRange {
        first: 6080,
        last: 6090,
    };
    Policy {
        source: [0; 16],
        source4: [0; 4],
        id,
        flags: 0,
        reserve: 0,
        port_count: 1,
        reflect: 0,
        ports,
        default_exit: Exit::NONE,
    }
}

/// Gives the cgroup a policy with these gateways: prefix, its length, 1 or 0.
pub(crate) fn put(replay: &mut Replay, cgroup: u64, policy: &Policy, exits: &[(&str, u32, u32)]) {
    let loaded = replay.loaded_mut().unwrap();
    for (address, prefix_len, value) in exits {
        let skipped = if address.contains(':') { 0 } else { 96 };
        let key = PolicyExitKey {
            prefix_len: 32 + skipped + prefix_len,
            policy: policy.id,
            address: octets(address),
        };
        loaded.set_policy_exit(&key, *value).unwrap();
    }
    loaded.set_policy(cgroup, policy).unwrap();
    loaded.raise_policy_generation().unwrap();
}

/// Runs `work`, as a program would that knows nothing of us, in that cgroup of the lab; the
/// caller goes back to the lab's own.
pub(crate) fn inside<T>(replay: &mut Replay, cgroup: &str, work: impl FnOnce() -> T) -> T {
    replay.enter_cgroup(cgroup).unwrap();
    let result = work();
    replay.enter_cgroup("").unwrap();
    result
}

/// Asserts that these events, and no others, have been counted.
#[track_caller]
pub(crate) fn assert_events(replay: &mut Replay, expected: &[(Event, u64)]) {
    let events = replay.loaded_mut().unwrap().events().unwrap();
    let counted: Vec<(Event, u64)> = Event::ALL
        .into_iter()
        .map(|event| (event, events[event as usize]))
        .filter(|&(_, count)| count > 0)
        .collect();
    assert_eq!(counted, expected);
}

/// Runs `work` in the host namespace with its loopback up.
pub(crate) fn on_loopback<T: Send>(replay: &Replay, work: impl FnOnce() -> T + Send) -> T {
    replay
        .lab()
        .host()
        .in_namespace(|| {
            fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0").unwrap();
            let status = Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(status.unwrap().success());
            Ok::<_, Error>(work())
        })
        .unwrap()
}

/// A listener on that address, and where it listens.
pub(crate) fn listener(address: &str) -> (Socket, SocketAddr) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    listener.bind(&address.into()).unwrap();
    listener.listen(4).unwrap();
    let bound = listener.local_addr().unwrap().as_socket().unwrap();
    (listener, bound)
}

//! Socket options through the real hooks, as root on packet sockets and as nobody on IP
//! sockets.

use crate::{client, frame, replay, require::require};
use dynencap_abi::{
    Info,
    option::{
        EAFNOSUPPORT, EINVAL, ENCAP_GW, ENCAP_INFO, ENCAP_REFLECT, ENCAP_UDP, ENOPROTOOPT,
        EOPNOTSUPP, IPPROTO_MPTCP, SOL_DYNENCAP,
    },
};
use dynencap_kernel::sys;
use socket2::{Domain, Type};
use std::{
    env, fs, io, net::UdpSocket, os::fd::AsFd, os::unix::process::CommandExt, process::Command,
};

/// A name that means nothing at our level.
const UNKNOWN: i32 = 5;
/// Set in a child process that is in a lab's cgroup already.
const INSIDE: &str = "DYNENCAP_TEST_INSIDE";

const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;

fn set(socket: &UdpSocket, level: i32, name: i32, value: &[u8]) -> Result<(), i32> {
    errno(sys::set_option(socket.as_fd(), level, name, value))
}

fn get(socket: &UdpSocket, level: i32, name: i32, capacity: usize) -> Result<Vec<u8>, i32> {
    errno(sys::option(socket.as_fd(), level, name, capacity))
}

fn errno<T>(result: io::Result<T>) -> Result<T, i32> {
    result.map_err(|error| error.raw_os_error().unwrap())
}

fn mark(socket: &UdpSocket) -> u32 {
    let bytes = get(socket, SOL_SOCKET, SO_MARK, 4).unwrap();
    u32::from_ne_bytes(bytes.try_into().unwrap())
}

#[test]
fn an_ip_socket_sets_and_reads_its_exit() {
    let inside = env::var(INSIDE).is_ok();
    if !inside && !require(&[]) {
        return;
    }
    let _replay = (!inside).then(replay);
    let socket = UdpSocket::bind("[::]:0").unwrap();
    let gateway = frame::address("2001:db8:9::9");
    let set_own = |name, value: &[u8]| set(&socket, SOL_DYNENCAP, name, value);
    let get_own = |name, capacity| get(&socket, SOL_DYNENCAP, name, capacity);

    assert_eq!(get_own(ENCAP_GW, 64), Ok(vec![0; 16]));
    assert_eq!(get_own(ENCAP_UDP, 64), Ok(vec![0; 4]));
    assert_eq!(set_own(ENCAP_GW, &gateway), Ok(()));
    assert_eq!(mark(&socket), 0x00a8_0000, "sentinel and overhead 40");
    let udp = [0, 0, 0x17, 0xc0, 1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(set_own(ENCAP_UDP, &udp), Ok(()));
    assert_eq!(mark(&socket), 0x00b8_0000, "sentinel and overhead 56");
    let none_sent = Info {
        encapsulated: 0,
        dropped: 0,
        last_drop: 0,
        overhead: 56,
        mtu: 1444,
        reserved: 0,
    };
    let info = || Info::from_bytes(&get_own(ENCAP_INFO, 32).unwrap()).unwrap();
    assert_eq!(info(), none_sent);
    assert_eq!(get_own(ENCAP_INFO, 31), Err(EINVAL));
    assert_eq!(get_own(ENCAP_GW, 64), Ok(gateway.to_vec()));
    assert_eq!(get_own(ENCAP_UDP, 64), Ok(udp.to_vec()));
    assert_eq!(get_own(ENCAP_GW, 15), Err(EINVAL));

    // None of these changes anything.
    for address in [[0; 4], [224, 0, 0, 1], [239, 9, 9, 9], [255; 4]] {
        assert_eq!(set_own(ENCAP_GW, &address), Err(EINVAL));
    }
    assert_eq!(set_own(ENCAP_GW, &gateway[..15]), Err(EINVAL));
    assert_eq!(set_own(ENCAP_GW, &[0; 16]), Err(EINVAL));
    assert_eq!(set_own(ENCAP_GW, &frame::address("ff02::1")), Err(EINVAL));
    assert_eq!(
        set_own(ENCAP_GW, &frame::address("::ffff:192.0.2.1")),
        Err(EINVAL)
    );
    assert_eq!(set_own(ENCAP_UDP, &[0, 0, 0, 0]), Err(EINVAL));
    assert_eq!(set_own(ENCAP_UDP, &[1; 37]), Err(EINVAL));
    assert_eq!(set_own(ENCAP_REFLECT, &[1]), Err(EINVAL));
    assert_eq!(
        set_own(ENCAP_REFLECT, &8_u32.to_ne_bytes()),
        Err(EINVAL),
        "a bit that is not known"
    );
    assert_eq!(get_own(ENCAP_REFLECT, 3), Err(EINVAL));
    assert_eq!(get_own(ENCAP_REFLECT, 64), Ok(vec![0; 4]));
    assert_eq!(set_own(ENCAP_REFLECT, &3_u32.to_ne_bytes()), Ok(()));
    assert_eq!(get_own(ENCAP_REFLECT, 64), Ok(vec![3, 0, 0, 0]));
    assert_eq!(set_own(ENCAP_REFLECT, &[]), Ok(()));
    assert_eq!(get_own(ENCAP_REFLECT, 64), Ok(vec![0; 4]));
    assert_eq!(set_own(ENCAP_INFO, &[1]), Err(ENOPROTOOPT));
    assert_eq!(set_own(UNKNOWN, &[1]), Err(ENOPROTOOPT));
    assert_eq!(get_own(UNKNOWN, 64), Err(ENOPROTOOPT));
    assert_eq!(get_own(ENCAP_GW, 64), Ok(gateway.to_vec()));
    assert_eq!(get_own(ENCAP_UDP, 64), Ok(udp.to_vec()));

    assert_eq!(set_own(ENCAP_GW, &[192, 0, 2, 9]), Ok(()));
    assert_eq!(get_own(ENCAP_GW, 64), Ok(vec![192, 0, 2, 9]));
    assert_eq!(get_own(ENCAP_GW, 3), Err(EINVAL));
    assert_eq!(mark(&socket), 0x00b8_0000, "planned for 56 as before");
    assert_eq!((info().overhead, info().mtu), (36, 1464));

    assert_eq!(set_own(ENCAP_GW, &[]), Ok(()));
    assert_eq!(mark(&socket), 0x0038_0000, "planned, without the sentinel");
    assert_eq!((info().overhead, info().mtu), (0, 0));
    assert_eq!(get_own(ENCAP_GW, 64), Ok(vec![0; 16]));
    assert_eq!(
        get_own(ENCAP_UDP, 64),
        Ok(udp.to_vec()),
        "kept for the next gateway"
    );
}

#[test]
fn an_unprivileged_user_sets_and_reads_its_exit() {
    if !require(&[]) {
        return;
    }
    const NOBODY: u32 = 65_534;
    let replay = replay();
    let output = Command::new("/proc/self/exe")
        .args(["--exact", "option::an_ip_socket_sets_and_reads_its_exit"])
        .env(INSIDE, "1")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    drop(replay);
}

#[test]
fn the_applications_own_mark_bits_survive() {
    if !require(&[]) {
        return;
    }
    let _replay = replay();
    let socket = UdpSocket::bind("[::]:0").unwrap();
    let own = 0x1234_5678_u32;
    set(&socket, SOL_SOCKET, SO_MARK, &own.to_ne_bytes()).unwrap();
    let gateway = frame::address("2001:db8:9::9");
    set(&socket, SOL_DYNENCAP, ENCAP_GW, &gateway).unwrap();
    assert_eq!(mark(&socket), 0x12b4_5678, "0x34 bytes count as planned");
    set(&socket, SOL_DYNENCAP, ENCAP_GW, &[]).unwrap();
    assert_eq!(mark(&socket), own, "what was planned stays");
    // Bits that say that a packet is done plan nothing.
    set(&socket, SOL_SOCKET, SO_MARK, &0x127f_5678_u32.to_ne_bytes()).unwrap();
    set(&socket, SOL_DYNENCAP, ENCAP_GW, &[192, 0, 2, 9]).unwrap();
    assert_eq!(mark(&socket), 0x1294_5678);
}

#[test]
fn sockets_that_cannot_have_an_exit_are_refused_each_with_its_errno() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let config = dynencap_abi::Config {
        flags: 0,
        ..crate::config()
    };
    replay.set_config(config).unwrap();
    let gateway = frame::address("2001:db8:9::9");
    let attempt = |domain, kind, protocol| {
        let socket = client::open(domain, kind, protocol)?;
        let refused = client::set(&socket, ENCAP_GW, &gateway);
        assert_eq!(client::get(&socket, ENCAP_GW, 16).map(drop), refused);
        // The name is judged before the socket.
        let unknown = client::set(&socket, UNKNOWN, &gateway);
        assert_eq!(unknown, Err(ENOPROTOOPT));
        refused
    };
    let udp = 17;
    assert_eq!(attempt(Domain::IPV6, Type::DGRAM, udp), Ok(()));
    assert_eq!(attempt(Domain::IPV4, Type::RAW, udp), Err(EOPNOTSUPP));
    assert_eq!(attempt(Domain::IPV6, Type::RAW, udp), Err(EOPNOTSUPP));
    assert_eq!(attempt(Domain::UNIX, Type::DGRAM, 0), Err(EAFNOSUPPORT));
    assert_eq!(attempt(Domain::PACKET, Type::RAW, 0), Err(EAFNOSUPPORT));
    if fs::exists("/proc/sys/net/mptcp/enabled").unwrap() {
        let mptcp = attempt(Domain::IPV6, Type::STREAM, IPPROTO_MPTCP as i32);
        assert_eq!(mptcp, Err(EOPNOTSUPP));
    }
}

#[test]
fn other_options_reach_the_kernel_untouched_whatever_their_length() {
    if !require(&[]) {
        return;
    }
    const SOL_IP: i32 = 0;
    const IP_OPTIONS: i32 = 4;
    const SO_RCVBUF: i32 = 8;
    let mut replay = replay();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // An option with a value longer than the hook can show: MCAST_MSFILTER with 40 sources.
    const MCAST_JOIN_GROUP: i32 = 42;
    const MCAST_MSFILTER: i32 = 48;
    let group = {
        let mut group = vec![0; 128];
        group[..2].copy_from_slice(&2_u16.to_ne_bytes());
        group[4..8].copy_from_slice(&[239, 1, 2, 3]);
        group
    };
    let loopback = 1_u32.to_ne_bytes();
    let request = [&loopback[..], &[0; 4], &group].concat();
    assert_eq!(set(&socket, SOL_IP, MCAST_JOIN_GROUP, &request), Ok(()));
    let count = 40_u32;
    let mut filter = [
        &loopback[..],
        &[0; 4],
        &group,
        &1_u32.to_ne_bytes(),
        &count.to_ne_bytes(),
    ]
    .concat();
    for source in 0..count {
        let mut address = vec![0; 128];
        address[..2].copy_from_slice(&2_u16.to_ne_bytes());
        address[4..8].copy_from_slice(&[10, 0, 0, source as u8]);
        filter.extend(address);
    }
    assert!(filter.len() > 4096);
    // More than igmp_max_msf (10): the kernel has seen the whole value, for a cut one (with 40
    // sources announced) would be EINVAL.
    assert_eq!(
        set(&socket, SOL_IP, MCAST_MSFILTER, &filter),
        Err(105),
        "ENOBUFS"
    );

    assert_eq!(
        set(&socket, SOL_SOCKET, SO_RCVBUF, &8192_i32.to_ne_bytes()),
        Ok(())
    );
    let buffer = get(&socket, SOL_SOCKET, SO_RCVBUF, 4);
    assert_eq!(buffer, Ok(16_384_i32.to_ne_bytes().to_vec()));
    assert_eq!(set(&socket, SOL_IP, IP_OPTIONS, &[1; 41]), Err(EINVAL));
    assert_eq!(
        set(&socket, SOL_DYNENCAP + 1, 1, &[0; 16]),
        Err(ENOPROTOOPT)
    );

    let flow = replay.open_flow().unwrap();
    let mark = 0x55_u32.to_ne_bytes();
    assert_eq!(
        replay
            .set_option_at(flow, SOL_SOCKET, SO_MARK, &mark)
            .unwrap(),
        Ok(())
    );
    let read = replay.option_at(flow, SOL_SOCKET, SO_MARK, 4).unwrap();
    assert_eq!(read, Ok(mark.to_vec()));
}

#[test]
fn a_packet_socket_needs_the_switch() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let flow = replay.open_flow().unwrap();
    let gateway = frame::address("2001:db8:9::9");
    assert_eq!(replay.set_option(flow, ENCAP_GW, &gateway).unwrap(), Ok(()));
    let config = dynencap_abi::Config {
        flags: 0,
        ..crate::config()
    };
    replay.set_config(config).unwrap();
    assert_eq!(
        replay.set_option(flow, ENCAP_GW, &gateway).unwrap(),
        Err(EAFNOSUPPORT)
    );
    assert_eq!(
        replay.option(flow, ENCAP_GW, 16).unwrap(),
        Err(EAFNOSUPPORT)
    );
}

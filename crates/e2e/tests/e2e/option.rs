//! Options on real sockets of nobody's: what they accept, what they read back as, and that
//! every other option is what it was without the programs.

use crate::Test;
use dynencap_abi::{
    MARK_MASK, MARK_SENTINEL,
    option::{EINVAL, ENCAP_GW, ENCAP_UDP, EOPNOTSUPP, SOL_DYNENCAP},
};
use dynencap_e2e::{
    Place, Topology, User,
    agent::Job,
    socket::{SO_MARK, SOL_SOCKET, get, mark, set},
    topology::{gateway, server, server4},
};
use dynencap_kernel::sys;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

pub(crate) const JOBS: &[Job] = &[
    ("option-kinds", kinds),
    ("option-multipath", multipath),
    ("option-mark", own_mark),
    ("option-large", large),
    ("option-table", crate::table::run),
];

pub(crate) const TESTS: &[Test] = &[
    (
        "option::nobody_sets_and_reads_exits_on_every_kind_of_socket",
        &[],
        || as_nobody("option-kinds"),
    ),
    ("option::mptcp_is_refused", &[], || {
        as_nobody("option-multipath")
    }),
    ("option::the_applications_own_mark_survives", &[], || {
        let topology = Topology::new();
        let place = Place {
            user: User::Root,
            ..topology.at_client()
        };
        topology
            .start(place, "option-mark", ())
            .output(Duration::from_secs(20));
    }),
    ("option::values_over_4096_bytes_of_others_work", &[], || {
        let topology = Topology::new();
        Topology::sysctl(&topology.client, "ipv4/igmp_max_msf", "64");
        topology.run::<Value>("option-large", ());
    }),
    (
        "option::other_options_are_what_they_were_without_us",
        &[],
        table,
    ),
];

fn as_nobody(job: &str) {
    Topology::new().run::<Value>(job, ());
}

/// Every kind of socket that may have an exit: family, type, and where it is connected to.
fn sockets() -> Vec<(String, Socket)> {
    let mapped = |address: Ipv4Addr| IpAddr::V6(address.to_ipv6_mapped());
    let SocketAddr::V4(four) = server4(9002) else {
        unreachable!("it is IPv4")
    };
    let dual_stack = SocketAddr::new(mapped(*four.ip()), 9002);
    let mut sockets = Vec::new();
    for (family, domain, peer) in [
        ("IPv6", Domain::IPV6, server(9002)),
        ("IPv4", Domain::IPV4, server4(9002)),
        ("dual stack", Domain::IPV6, dual_stack),
    ] {
        let tcp = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
        sockets.push((format!("TCP {family}"), tcp));
        let udp = || Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        sockets.push((format!("UDP {family}"), udp()));
        let connected = udp();
        connected.connect(&peer.into()).unwrap();
        sockets.push((format!("connected UDP {family}"), connected));
    }
    sockets
}

fn address(number: u16) -> Vec<u8> {
    match gateway(number) {
        IpAddr::V6(address) => address.octets().to_vec(),
        IpAddr::V4(_) => unreachable!("it is IPv6"),
    }
}

fn kinds(_: Value) -> Value {
    let udp = [0, 0, 0x17, 0xc8, 1, 2, 3, 4, 5, 6, 7, 8];
    for (name, socket) in sockets() {
        let choose = |name, value: &[u8]| set(&socket, SOL_DYNENCAP, name, value);
        let read = |name| get(&socket, SOL_DYNENCAP, name, 64);
        let overhead = || (mark(&socket) & MARK_MASK & !MARK_SENTINEL) >> 16;
        assert_eq!(read(ENCAP_GW), Ok(vec![0; 16]), "{name}");
        assert_eq!(read(ENCAP_UDP), Ok(vec![0; 4]), "{name}");
        assert_eq!(mark(&socket), 0, "{name}");
        // UDP first: nothing happens until there is a gateway.
        assert_eq!(choose(ENCAP_UDP, &udp), Ok(()), "{name}");
        assert_eq!(mark(&socket) & MARK_SENTINEL, 0, "{name}");
        assert_eq!(choose(ENCAP_GW, &address(0)), Ok(()), "{name}");
        assert_eq!(
            (mark(&socket) & MARK_SENTINEL, overhead()),
            (MARK_SENTINEL, 56),
            "{name}"
        );
        assert_eq!(read(ENCAP_GW), Ok(address(0)), "{name}");
        assert_eq!(read(ENCAP_UDP), Ok(udp.to_vec()), "{name}");
        // A refused call changes nothing.
        assert_eq!(choose(ENCAP_GW, &[1; 15]), Err(EINVAL), "{name}");
        assert_eq!(choose(ENCAP_GW, &[0; 16]), Err(EINVAL), "{name}");
        assert_eq!(choose(ENCAP_GW, &[1; 5000]), Err(EINVAL), "{name}");
        assert_eq!(choose(ENCAP_UDP, &[0; 4]), Err(EINVAL), "{name}");
        assert_eq!(choose(ENCAP_UDP, &[1; 37]), Err(EINVAL), "{name}");
        assert_eq!(
            (read(ENCAP_GW), read(ENCAP_UDP)),
            (Ok(address(0)), Ok(udp.to_vec())),
            "{name}"
        );
        // Cleared, and in the other order.
        assert_eq!(choose(ENCAP_GW, &[]), Ok(()), "{name}");
        assert_eq!(choose(ENCAP_UDP, &[]), Ok(()), "{name}");
        assert_eq!(mark(&socket) & MARK_SENTINEL, 0, "{name}");
        assert_eq!(
            (read(ENCAP_GW), read(ENCAP_UDP)),
            (Ok(vec![0; 16]), Ok(vec![0; 4])),
            "{name}"
        );
        assert_eq!(choose(ENCAP_GW, &address(1)), Ok(()), "{name}");
        assert_eq!(choose(ENCAP_UDP, &udp), Ok(()), "{name}");
        assert_eq!(
            (mark(&socket) & MARK_SENTINEL, overhead()),
            (MARK_SENTINEL, 56),
            "{name}"
        );
    }
    Value::Null
}

fn multipath(_: Value) -> Value {
    const MPTCP: i32 = 262;
    for domain in [Domain::IPV6, Domain::IPV4] {
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::from(MPTCP))).unwrap();
        for (name, value) in [(ENCAP_GW, address(0)), (ENCAP_UDP, vec![0, 0, 1, 2])] {
            assert_eq!(set(&socket, SOL_DYNENCAP, name, &value), Err(EOPNOTSUPP));
            assert_eq!(get(&socket, SOL_DYNENCAP, name, 64), Err(EOPNOTSUPP));
        }
        assert_eq!(mark(&socket), 0);
    }
    Value::Null
}

fn own_mark(_: Value) -> Value {
    for (name, socket) in sockets() {
        let own = 0x1200_5678_u32;
        set(&socket, SOL_SOCKET, SO_MARK, &own.to_ne_bytes()).unwrap();
        set(&socket, SOL_DYNENCAP, ENCAP_GW, &address(0)).unwrap();
        assert_eq!(mark(&socket), 0x12a8_5678, "{name}");
        set(&socket, SOL_DYNENCAP, ENCAP_GW, &[]).unwrap();
        assert_eq!(mark(&socket) & (!MARK_MASK | MARK_SENTINEL), own, "{name}");
    }
    Value::Null
}

/// `MCAST_MSFILTER` (RFC 3678 §5.2.2) with 40 sources: `struct group_filter`, 5,264 bytes.
fn large(_: Value) -> Value {
    const MCAST_JOIN_GROUP: i32 = 42;
    const MCAST_MSFILTER: i32 = 48;
    const INCLUDE: u32 = 1;
    const SOURCES: u32 = 40;
    let device = sys::Link::named(dynencap_e2e::topology::UPLINK)
        .unwrap()
        .index()
        .to_ne_bytes();
    for domain in [Domain::IPV4, Domain::IPV6] {
        let (level, group) = if domain == Domain::IPV4 {
            (0, storage4(239, 0))
        } else {
            (41, storage6(0xff3e, 1))
        };
        let socket = Socket::new(domain, Type::DGRAM, None).unwrap();
        let join = [&device[..], &[0; 4], &group].concat();
        assert_eq!(
            set(&socket, level, MCAST_JOIN_GROUP, &join),
            Ok(()),
            "{domain:?}"
        );
        let head = |sources: u32| {
            [
                &device[..],
                &[0; 4],
                &group,
                &INCLUDE.to_ne_bytes(),
                &sources.to_ne_bytes(),
            ]
            .concat()
        };
        let sources: Vec<Vec<u8>> = (0..SOURCES as u16)
            .map(|number| {
                if domain == Domain::IPV4 {
                    storage4(10, number as u8)
                } else {
                    storage6(0xfd00, number)
                }
            })
            .collect();
        let filter = [head(SOURCES), sources.concat()].concat();
        assert_eq!(filter.len(), 5264);
        assert_eq!(
            set(&socket, level, MCAST_MSFILTER, &filter),
            Ok(()),
            "{domain:?}"
        );

        let mut read = head(SOURCES);
        read.resize(filter.len(), 0);
        let length = sys::read_option(socket.as_fd(), level, MCAST_MSFILTER, &mut read).unwrap();
        assert_eq!(length, filter.len(), "{domain:?}");
        assert_eq!(
            read[136..144],
            filter[136..144],
            "mode and count of sources"
        );
        let mut got: Vec<&[u8]> = read[144..].chunks(128).collect();
        let mut expected: Vec<&[u8]> = filter[144..].chunks(128).collect();
        // The kernel keeps them in an order of its own.
        got.sort_unstable();
        expected.sort_unstable();
        assert_eq!(got, expected, "{domain:?}");
    }
    Value::Null
}

/// A `sockaddr_storage` of 128 bytes.
fn storage4(first: u8, last: u8) -> Vec<u8> {
    let mut storage = vec![0; 128];
    storage[..2].copy_from_slice(&2_u16.to_ne_bytes());
    storage[4..8].copy_from_slice(&[first, 1, 2, last]);
    storage
}

fn storage6(first: u16, last: u16) -> Vec<u8> {
    let mut storage = vec![0; 128];
    storage[..2].copy_from_slice(&10_u16.to_ne_bytes());
    storage[8..10].copy_from_slice(&first.to_be_bytes());
    storage[22..24].copy_from_slice(&last.to_be_bytes());
    storage
}

fn table() {
    let mut topology = Topology::build();
    let run = |topology: &Topology| topology.run::<Vec<(String, Value)>>("option-table", ());
    let without = run(&topology);
    topology.attach();
    let with = run(&topology);
    assert!(without.len() >= 100, "{}", without.len());
    let worked = without
        .iter()
        .filter(|(_, outcome)| outcome["set"] == 0)
        .count();
    assert!(
        worked >= 80,
        "only {worked} of {} took their value",
        without.len()
    );
    for (before, after) in without.iter().zip(&with) {
        assert_eq!(before, after);
    }
    assert_eq!(without.len(), with.len());
}

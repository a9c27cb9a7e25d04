//! Sockets of programs that know nothing of us: default exits and reserved overheads.

use crate::{
    client::{assert_events, get, info, inside, mark, octets, open, policy, put, set, udp6},
    replay,
    require::require,
};
use dynencap_abi::{
    Event, Exit, Policy,
    option::{ENCAP_GW, ENCAP_UDP, EPERM, IPPROTO_MPTCP},
};
use socket2::{Domain, Type};

/// IPv6 and UDP with a custom header of four bytes.
fn exit() -> Exit {
    let mut header = [0; 32];
    header[..4].copy_from_slice(&[1, 2, 3, 4]);
    Exit {
        gateway: octets("2001:db8:9::9"),
        header,
        destination_port: 6081_u16.to_be_bytes(),
        flags: Exit::GATEWAY | Exit::UDP,
        header_len: 4,
        ..Exit::NONE
    }
}

fn default_exit(exit: Exit) -> Policy {
    Policy {
        flags: Policy::DEFAULT_EXIT,
        default_exit: exit,
        ..policy(7)
    }
}

#[test]
fn every_new_ip_socket_begins_with_the_default_exit_of_its_cgroup() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let id = replay.make_cgroup("tenant").unwrap();
    replay.make_cgroup("tenant/below").unwrap();
    put(&mut replay, id, &default_exit(exit()), &[]);
    let before = udp6();
    let sockets = inside(&mut replay, "tenant/below", || {
        [
            open(Domain::IPV6, Type::STREAM, 0).unwrap(),
            open(Domain::IPV6, Type::DGRAM, 0).unwrap(),
            open(Domain::IPV4, Type::STREAM, 0).unwrap(),
            open(Domain::IPV4, Type::DGRAM, 0).unwrap(),
        ]
    });
    for socket in &sockets {
        assert_eq!(get(socket, ENCAP_GW, 16), Ok(exit().gateway.to_vec()));
        let udp = vec![0, 0, 0x17, 0xc1, 1, 2, 3, 4];
        assert_eq!(get(socket, ENCAP_UDP, 36), Ok(udp));
        assert_eq!(mark(socket), 0x00b4_0000, "sentinel and overhead 52");
        assert_eq!(info(socket).overhead, 52);
        assert_eq!(info(socket).mtu, 1448);
    }
    assert_eq!(get(&before, ENCAP_GW, 16), Ok(vec![0; 16]));
    let unix = inside(&mut replay, "tenant", || {
        open(Domain::UNIX, Type::DGRAM, 0).unwrap()
    });
    assert_eq!(mark(&unix), 0);
    assert_eq!(mark(&udp6()), 0, "outside of the cgroup");
    assert_events(&mut replay, &[(Event::DefaultExit, 4)]);
}

#[test]
fn a_default_exit_can_be_ipv4_and_be_left_for_another() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let id = replay.make_cgroup("tenant").unwrap();
    let exit = Exit {
        gateway: octets("192.0.2.9"),
        flags: Exit::GATEWAY | Exit::IPV4,
        ..Exit::NONE
    };
    put(&mut replay, id, &default_exit(exit), &[("::", 0, 1)]);
    inside(&mut replay, "tenant", || {
        let socket = udp6();
        assert_eq!(get(&socket, ENCAP_GW, 16), Ok(vec![192, 0, 2, 9]));
        assert_eq!(mark(&socket), 0x0094_0000, "sentinel and overhead 20");
        let other = octets("2001:db8:9::9");
        assert_eq!(set(&socket, ENCAP_GW, &other), Ok(()));
        assert_eq!(mark(&socket), 0x00a8_0000);
        assert_eq!(set(&socket, ENCAP_GW, &[192, 0, 2, 9]), Ok(()));
        assert_eq!(mark(&socket), 0x00a8_0000, "the larger one stays planned");
        assert_eq!(info(&socket).overhead, 20);
        assert_eq!(set(&socket, ENCAP_GW, &[]), Ok(()));
        assert_eq!(mark(&socket), 0x0028_0000);
    });
}

#[test]
fn mptcp_is_refused_where_there_is_a_default_exit() {
    if !require(&[]) {
        return;
    }
    if std::fs::read_to_string("/proc/sys/net/mptcp/enabled").is_err() {
        // The kernel refuses it by itself.
        return;
    }
    let mut replay = replay();
    let id = replay.make_cgroup("tenant").unwrap();
    let mptcp = || open(Domain::IPV6, Type::STREAM, IPPROTO_MPTCP as i32);
    put(&mut replay, id, &policy(7), &[]);
    assert!(inside(&mut replay, "tenant", mptcp).is_ok());
    put(&mut replay, id, &default_exit(exit()), &[]);
    let refused = inside(&mut replay, "tenant", mptcp);
    assert_eq!(refused.map(drop), Err(EPERM));
    assert_events(&mut replay, &[(Event::SocketRefused, 1)]);
}

#[test]
fn a_reserve_is_planned_without_an_exit() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let id = replay.make_cgroup("tenant").unwrap();
    let rules = Policy {
        reserve: 48,
        ..policy(7)
    };
    put(&mut replay, id, &rules, &[("::", 0, 1)]);
    inside(&mut replay, "tenant", || {
        let socket = open(Domain::IPV4, Type::STREAM, 0).unwrap();
        assert_eq!(mark(&socket), 0x0030_0000);
        assert_eq!(get(&socket, ENCAP_GW, 16), Ok(vec![0; 16]));
        let gateway = octets("2001:db8:9::9");
        assert_eq!(set(&socket, ENCAP_GW, &gateway), Ok(()));
        assert_eq!(mark(&socket), 0x00b0_0000, "the route stays");
        assert_eq!(set(&socket, ENCAP_GW, &[]), Ok(()));
        assert_eq!(mark(&socket), 0x0030_0000);
    });
    assert_events(&mut replay, &[(Event::OptionSet, 2)]);
}

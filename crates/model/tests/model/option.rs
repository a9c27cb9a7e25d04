//! Section 1: `ENCAP_REFLECT`.

use crate::reflecting::*;
use crate::support::*;
use dynencap_abi::option::*;
use dynencap_abi::{Config, Event, Exit, Policy, SocketState};
use dynencap_model::{Errno, Socket};

const ALL: u32 = REFLECT_PATH | REFLECT_DSCP | REFLECT_MARK;

#[test]
fn only_three_bits_in_four_bytes_are_a_value() {
    let mut host = host();
    let cases: [(&str, &[u8], Result<(), i32>); 8] = [
        ("nothing", &0u32.to_ne_bytes(), Ok(())),
        ("all", &ALL.to_ne_bytes(), Ok(())),
        ("a bit too many", &8u32.to_ne_bytes(), Err(EINVAL)),
        ("the highest", &(1u32 << 31).to_ne_bytes(), Err(EINVAL)),
        ("3 bytes", &[0; 3], Err(EINVAL)),
        ("5 bytes", &[0; 5], Err(EINVAL)),
        ("1 byte", &[1], Err(EINVAL)),
        ("length 0", &[], Ok(())),
    ];
    for (name, value, expected) in cases {
        let set = host.set_option(&mut socket(), &CGROUP, ENCAP_REFLECT, value);
        assert_eq!(set, expected.map_err(Errno), "{name}");
    }
    assert_eq!(count(&host, Event::OptionSet), 3);
    assert_eq!(count(&host, Event::OptionRefused), 5);
}

#[test]
fn neither_exit_nor_mark_nor_path_changes_and_length_0_goes_back() {
    let mut host = host();
    let mut socket = udp_exit(b"head");
    let before = (*socket.exit().unwrap(), socket.mark());
    set_reflection(&mut host, &mut socket, REFLECT_DSCP);
    let flags = |socket: &Socket| socket.reflecting().map(|reflecting| reflecting.flags);
    assert_eq!(
        flags(&socket),
        Some(SocketState::REFLECT_SET | REFLECT_DSCP)
    );
    set_reflection(&mut host, &mut socket, 0);
    assert_eq!(flags(&socket), Some(SocketState::REFLECT_SET));
    assert_eq!((*socket.exit().unwrap(), socket.mark()), before);
    let key = dynencap_abi::PathKey {
        gateway: GATEWAY,
        destination_port: [0x17, 0xc0],
        flags: Exit::UDP,
        reserved: 0,
    };
    assert_eq!(host.path(&key), None);

    host.set_option(&mut socket, &CGROUP, ENCAP_REFLECT, &[])
        .unwrap();
    assert_eq!(flags(&socket), Some(0));
    let mut bare = Socket::new(STREAM);
    bare.set_mark(0x0012_0000);
    host.set_option(&mut bare, &CGROUP, ENCAP_REFLECT, &[])
        .unwrap();
    assert_eq!((bare.reflecting(), bare.mark()), (None, 0x0012_0000));
    host.set_option(&mut bare, &CGROUP, ENCAP_REFLECT, &[0; 4])
        .unwrap();
    assert!(bare.reflecting().is_some(), "0 is a value of its own");
}

#[test]
fn what_is_in_force_reads_back() {
    let mut host = host();
    let read = |host: &dynencap_model::Host, socket: &Socket, cgroup: &[u64]| {
        let value = host.option_for(socket, cgroup, ENCAP_REFLECT, 4).unwrap();
        u32::from_ne_bytes(value[..].try_into().unwrap())
    };
    let mut own = Socket::in_cgroup(STREAM, &CGROUP);
    assert_eq!(read(&host, &own, &CGROUP), 0);
    host.set_policy(
        SERVER,
        Policy {
            reflect: REFLECT_PATH | REFLECT_MARK | 1 << 7,
            ..policy(7)
        },
    );
    assert_eq!(read(&host, &own, &CGROUP), REFLECT_PATH | REFLECT_MARK);
    assert_eq!(read(&host, &own, &OTHER), 0, "the caller's policy");
    set_reflection(&mut host, &mut own, 0);
    assert_eq!(read(&host, &own, &CGROUP), 0);
    let short = host.option(&own, ENCAP_REFLECT, 3);
    assert_eq!(short, Err(Errno(EINVAL)));
}

#[test]
fn where_everything_is_denied_only_turning_it_off_is_not() {
    let mut host = host();
    host.set_config(Config {
        flags: Config::DENY_BY_DEFAULT,
        ..config()
    });
    let mut set = |cgroup: &[u64], value: &[u8], allow: bool| {
        if allow {
            host.set_policy(SERVER, policy(7));
        }
        host.set_option(&mut socket(), cgroup, ENCAP_REFLECT, value)
    };
    let bits = |bits: u32| bits.to_ne_bytes();
    assert_eq!(set(&CGROUP, &bits(REFLECT_DSCP), false), Err(Errno(EPERM)));
    assert_eq!(set(&CGROUP, &bits(0), false), Ok(()));
    assert_eq!(set(&CGROUP, &[], false), Ok(()));
    assert_eq!(set(&CGROUP, &bits(ALL), true), Ok(()));
    assert_eq!(set(&OTHER, &bits(REFLECT_PATH), true), Err(Errno(EPERM)));
}

#[test]
fn an_exit_that_the_application_sets_is_no_reflected_one() {
    for (name, value) in [
        (ENCAP_GW, &address(0x77)[..]),
        (ENCAP_GW, &[]),
        (ENCAP_UDP, &[0, 0, 1, 1]),
        (ENCAP_UDP, &[]),
    ] {
        let mut socket = socket();
        socket.set_exit(via(3));
        socket.set_option(&config(), name, value).unwrap();
        let flags = socket.exit().unwrap().flags;
        assert_eq!(flags & Exit::REFLECTED, 0, "{name} {value:?}");
    }
}

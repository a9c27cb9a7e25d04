//! Policies per cgroup: who may set which exit, and whose policy is asked.

use crate::{
    client::{assert_events, get, inside, mark, octets, policy, put, set, udp6},
    replay,
    require::require,
};
use dynencap_abi::{
    Config, Event, Policy, PortRange,
    option::{EINVAL, ENCAP_GW, ENCAP_UDP, EPERM},
};

const ALLOWED: &str = "2001:db8:9::9";
const OTHER: &str = "2001:db8:a::9";
const IPV4: [u8; 4] = [192, 0, 2, 9];

/// Ports 0 and 6081, then a custom header of that length.
fn udp(port: u16, header_len: usize) -> Vec<u8> {
    let mut value = vec![0, 0];
    value.extend(port.to_be_bytes());
    value.extend(vec![7; header_len]);
    value
}

#[test]
fn a_gateway_is_allowed_by_the_longest_prefix_of_its_policy() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let id = replay.make_cgroup("tenant").unwrap();
    let exits = [
        ("2001:db8::", 32, 1),
        ("2001:db8:a::", 48, 0),
        ("2001:db8:a::8", 128, 1),
        ("192.0.2.0", 24, 1),
        ("192.0.2.128", 25, 0),
    ];
    put(&mut replay, id, &policy(7), &exits);
    // Another policy's prefixes are none of this one's.
    let other = replay.make_cgroup("other").unwrap();
    put(&mut replay, other, &policy(8), &[("2001:db9::", 32, 1)]);

    inside(&mut replay, "tenant", || {
        let socket = udp6();
        let set = |address: &str| set(&socket, ENCAP_GW, &octets(address));
        assert_eq!(set(ALLOWED), Ok(()));
        assert_eq!(set(OTHER), Err(EPERM));
        assert_eq!(set("2001:db8:a::8"), Ok(()));
        assert_eq!(set("2001:db9::9"), Err(EPERM));
        assert_eq!(
            get(&socket, ENCAP_GW, 16),
            Ok(octets("2001:db8:a::8").to_vec())
        );
        let set = |address: [u8; 4]| crate::client::set(&socket, ENCAP_GW, &address);
        assert_eq!(set([192, 0, 2, 200]), Err(EPERM));
        assert_eq!(set(IPV4), Ok(()));
        assert_eq!(set([192, 0, 3, 1]), Err(EPERM));
        assert_eq!(get(&socket, ENCAP_GW, 16), Ok(IPV4.to_vec()));
        // The value is judged before the policy.
        assert_eq!(set([0; 4]), Err(EINVAL));
    });
    assert_events(
        &mut replay,
        &[
            (Event::OptionSet, 3),
            (Event::OptionRefused, 1),
            (Event::OptionDenied, 4),
        ],
    );
}

#[test]
fn udp_needs_a_port_of_the_policy_and_custom_headers_its_flag() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let id = replay.make_cgroup("tenant").unwrap();
    let mut rules = policy(7);
    // Held, but not counted.
    rules.ports[1] = PortRange {
        first: 7000,
        last: 7000,
    };
    rules.ports[7] = PortRange {
        first: 8000,
        last: 8000,
    };
    put(&mut replay, id, &rules, &[]);
    let attempts = || {
        let socket = udp6();
        [
            udp(6079, 0),
            udp(6080, 0),
            udp(6090, 0),
            udp(6091, 0),
            udp(7000, 0),
            udp(8000, 0),
            udp(6081, 1),
        ]
        .map(|value| set(&socket, ENCAP_UDP, &value))
    };
    let no = Err(EPERM);
    let results = inside(&mut replay, "tenant", attempts);
    assert_eq!(results, [no, Ok(()), Ok(()), no, no, no, no]);

    rules.port_count = 8;
    rules.flags = Policy::CUSTOM_HEADERS;
    put(&mut replay, id, &rules, &[]);
    let results = inside(&mut replay, "tenant", attempts);
    assert_eq!(results, [no, Ok(()), Ok(()), no, Ok(()), Ok(()), Ok(())]);

    rules.port_count = 0;
    put(&mut replay, id, &rules, &[]);
    let results = inside(&mut replay, "tenant", attempts);
    assert_eq!(results, [no; 7]);
    let cleared = inside(&mut replay, "tenant", || set(&udp6(), ENCAP_UDP, &[]));
    assert_eq!(cleared, Ok(()), "may always be cleared");
}

#[test]
fn a_required_gateway_can_be_changed_but_not_cleared() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let id = replay.make_cgroup("tenant").unwrap();
    let rules = Policy {
        flags: Policy::REQUIRED,
        ..policy(7)
    };
    put(&mut replay, id, &rules, &[("2001:db8::", 32, 1)]);
    inside(&mut replay, "tenant", || {
        let socket = udp6();
        assert_eq!(set(&socket, ENCAP_GW, &[]), Err(EPERM));
        assert_eq!(set(&socket, ENCAP_GW, &octets(ALLOWED)), Ok(()));
        assert_eq!(set(&socket, ENCAP_GW, &[]), Err(EPERM));
        assert_eq!(set(&socket, ENCAP_GW, &octets(OTHER)), Ok(()));
        assert_eq!(get(&socket, ENCAP_GW, 16), Ok(octets(OTHER).to_vec()));
        assert_eq!(mark(&socket), 0x00a8_0000);
    });
}

#[test]
fn the_nearest_cgroup_with_a_policy_decides() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let outer = replay.make_cgroup("outer").unwrap();
    for name in ["outer/plain", "outer/inner", "outer/inner/deep"] {
        replay.make_cgroup(name).unwrap();
    }
    let inner = replay.make_cgroup("outer/inner").unwrap();
    put(&mut replay, outer, &policy(1), &[("2001:db8:9::", 48, 1)]);
    put(&mut replay, inner, &policy(2), &[("2001:db8:a::", 48, 1)]);
    let attempts =
        || [ALLOWED, OTHER].map(|gateway| set(&udp6(), ENCAP_GW, &octets(gateway)).is_ok());
    assert_eq!(inside(&mut replay, "", attempts), [true, true]);
    for (name, expected) in [
        ("outer", [true, false]),
        ("outer/plain", [true, false]),
        ("outer/inner", [false, true]),
        ("outer/inner/deep", [false, true]),
    ] {
        assert_eq!(inside(&mut replay, name, attempts), expected, "{name}");
    }
    replay.loaded_mut().unwrap().remove_policy(inner).unwrap();
    let results = inside(&mut replay, "outer/inner/deep", attempts);
    assert_eq!(results, [true, false], "the next one up");
}

#[test]
fn where_there_is_no_policy_the_configuration_says_what_is_allowed() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let id = replay.make_cgroup("tenant").unwrap();
    let config = Config {
        flags: Config::DENY_BY_DEFAULT,
        ..crate::config()
    };
    replay.set_config(config).unwrap();
    put(&mut replay, id, &policy(7), &[("2001:db8:9::", 48, 1)]);
    let attempts = || {
        let socket = udp6();
        [
            set(&socket, ENCAP_GW, &octets(ALLOWED)),
            set(&socket, ENCAP_UDP, &udp(6081, 0)),
            set(&socket, ENCAP_UDP, &[]),
            set(&socket, ENCAP_GW, &[]),
        ]
    };
    let closed = inside(&mut replay, "", attempts);
    assert_eq!(closed, [Err(EPERM), Err(EPERM), Ok(()), Ok(())]);
    assert_eq!(inside(&mut replay, "tenant", attempts), [Ok(()); 4]);
}

#[test]
fn an_option_is_judged_by_its_caller_not_by_the_sockets_maker() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let one = replay.make_cgroup("one").unwrap();
    let two = replay.make_cgroup("two").unwrap();
    put(&mut replay, one, &policy(1), &[("2001:db8:9::", 48, 1)]);
    put(&mut replay, two, &policy(2), &[("2001:db8:a::", 48, 1)]);
    let socket = inside(&mut replay, "one", udp6);
    inside(&mut replay, "two", || {
        assert_eq!(set(&socket, ENCAP_GW, &octets(ALLOWED)), Err(EPERM));
        assert_eq!(set(&socket, ENCAP_GW, &octets(OTHER)), Ok(()));
    });
}

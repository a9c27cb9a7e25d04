//! Scenario files that are read, and those that are refused.

use super::*;

const FULL: &str = r#"
        [host]
        uplink_mtu = 9000
        source = "fd00::7"
        source4 = "192.0.2.7"
        hop_limit = 64
        udp_checksum = true
        tell_too_big = true
        deny_by_default = true
        segmentation = "segment-first"
        [replay]
        side = "both"
        gso_size = 1200
        [exit.paris]
        gateway = "2001:db8::1"
        [exit.tokyo]
        gateway = "2001:db8::2"
        udp = { destination_port = 4790, header = "0c00 0004 0000:7b00" }
        [exit.lima]
        gateway = "198.51.100.1"
        [[policy]]
        allow = ["2001:db8::/32", "198.51.100.0/24"]
        deny = ["2001:db8::2"]
        ports = [6080, "4789-4790"]
        custom_headers = true
        [[policy]]
        cgroup = "tenants/a"
        allow = ["::/0"]
        source = "fd00::9"
        source4 = "192.0.2.9"
        required = true
        at_packet = 7
        [[policy]]
        cgroup = "tenants/a"
        remove = true
        at_seconds = 2.5
        [[tunnel]]
        address = "192.0.2.7"
        carries = "ipv6"
        [[tunnel]]
        address = "fd00::7"
        carries = "udp"
        port = 6080
        header_len = 8
        [[flow]]
        match = { protocol = "tcp", destination = "2001:db8::/32", destination_port = 443 }
        exit = "paris"
        cgroup = "tenants/a"
        [[flow.switch]]
        at_flow_packet = 10
        exit = "tokyo"
        [[flow.switch]]
        at_seconds = 1.5
        exit = "lima"
        [[flow]]
        match = { protocol = 17, source = "192.0.2.1" }
        exit = "none"
    "#;

#[test]
fn a_full_file_is_read_and_survives_being_written() {
    let scenario = Scenario::parse("full.toml", FULL).unwrap();
    assert_eq!(scenario.host.config.uplink_mtu, 9000);
    assert_eq!(scenario.side, Side::Both);
    let Assignment::Rules(rules) = &scenario.assignment else {
        panic!("no rules")
    };
    assert_eq!(
        rules[0].switches[0].exit.header[..8],
        [0x0c, 0, 0, 4, 0, 0, 0x7b, 0]
    );
    assert_eq!(rules[0].switches[1].at, At::Nanoseconds(1_500_000_000));
    assert_eq!(rules[1].matches.source.unwrap().to_string(), "192.0.2.1/32");
    assert_eq!(rules[0].switches[1].exit.flags, Exit::GATEWAY | Exit::IPV4);
    assert_eq!(scenario.host.cgroups, ["", "tenants", "tenants/a"]);
    assert_eq!(rules[0].cgroup, CgroupId(2));
    let [own, tenant, removed] = &scenario.host.policies[..] else {
        panic!("three policies")
    };
    assert_eq!(
        (own.cgroup, own.at, own.exits.len()),
        (CgroupId(0), None, 3)
    );
    let keys: Vec<_> = own.keys(5).collect();
    assert_eq!((keys[0].0.prefix_len, keys[0].1), (32 + 32, 1));
    assert_eq!((keys[1].0.prefix_len, keys[1].1), (32 + 96 + 24, 1));
    assert_eq!((keys[2].0.prefix_len, keys[2].1), (32 + 128, 0));
    assert_eq!((keys[2].0.policy, own.policy.unwrap().port_count), (5, 2));
    assert_eq!(
        (tenant.at, tenant.policy.unwrap().source4),
        (Some(At::Packet(7)), [192, 0, 2, 9])
    );
    assert_eq!((removed.policy, removed.cgroup), (None, CgroupId(2)));
    let again = Scenario::parse("again.toml", &scenario.to_toml()).unwrap();
    assert_eq!(again, scenario);
    let default = Scenario::default();
    assert_eq!(
        Scenario::parse("default.toml", &default.to_toml()).unwrap(),
        default
    );
}

#[test]
fn what_reflects_is_read_and_turns_reflection_on() {
    let text = r#"
        [[tunnel]]
        address = "::1"
        carries = "udp"
        port = 6080
        format = "gue"
        reflect = true
        [[tunnel]]
        address = "192.0.2.1"
        carries = "udp"
        port = 6081
        format = "geneve"
        [[policy]]
        allow = ["::/0", "2001:db8::/32"]
        deny = ["2001:db8:1::/48"]
        reflect = ["::/0", "192.0.2.0/24"]
        follow = ["fd00::/8", "2001:db8::/32"]
        reflect_default = ["mark", "path"]
        [[flow]]
        exit = "none"
        [[flow.switch]]
        at_packet = 2
        exit = "reflect"
    "#;
    let scenario = Scenario::parse("reflect.toml", text).unwrap();
    let specs: Vec<_> = scenario.host.tunnels.iter().map(|(_, spec)| spec).collect();
    assert_eq!(
        (specs[0].format, specs[0].flags),
        (TunnelSpec::GUE, TunnelSpec::REFLECT)
    );
    assert_eq!((specs[1].format, specs[1].flags), (TunnelSpec::GENEVE, 0));
    let policy = &scenario.host.policies[0];
    let rights: Vec<u32> = policy.keys(1).map(|(_, rights)| rights).collect();
    assert_eq!(rights, [1 | 2, 1 | 2 | 4, 0, 2, 2 | 4]);
    assert_eq!(policy.policy.unwrap().reflect, 1 | 4);
    let again = Scenario::parse("again.toml", &scenario.to_toml()).unwrap();
    assert_eq!(again, scenario);

    let on = |text: &str| {
        let scenario = Scenario::parse("s.toml", text).unwrap();
        scenario.host.config.flags & Config::REFLECT != 0
    };
    assert!(on(text));
    assert!(on("[[flow]]\nexit = \"reflect\""));
    assert!(on("[[policy]]\nreflect = [\"::/0\"]"));
    assert!(on("[[policy]]\nreflect_default = [\"dscp\"]"));
    assert!(on(
        "[[tunnel]]\naddress = \"::1\"\ncarries = \"ipv6\"\nreflect = true"
    ));
    assert!(!on("[[tunnel]]\naddress = \"::1\"\ncarries = \"ipv6\""));
    assert!(!on(FULL));
}

#[test]
fn what_makes_no_sense_is_refused_with_file_field_and_expectation() {
    let cases: &[(&str, &[&str])] = &[
        (
            "[host]\nuplink_mtu = 100",
            &["s.toml: host.uplink_mtu: 100", "1280 to 9216"],
        ),
        (
            "[host]\nmtu = 1500",
            &["s.toml: ", "line 2", "unknown field `mtu`"],
        ),
        ("[replay]\ngso_size = 0", &["replay.gso_size: 0"]),
        (
            "[replay]\nside = \"left\"",
            &["unknown variant `left`", "initiator"],
        ),
        (
            "[exit.a]\ngateway = \"1.2.3\"",
            &["line 2", "invalid IP address"],
        ),
        (
            "[exit.a]\ngateway = \"255.255.255.255\"",
            &["exit.a.gateway: 255.255.255.255", "unicast"],
        ),
        (
            "[exit.a]\ngateway = \"::ffff:1.2.3.4\"",
            &["exit.a.gateway", "unicast"],
        ),
        ("[host]\nhop_limit = 256", &["line 2", "u8"]),
        (
            "[[policy]]\ncgroup = \"../b\"",
            &["policy[0].cgroup: \"../b\"", "below the host's own"],
        ),
        ("[[policy]]\nports = [0]", &["policy[0].ports: 0-0"]),
        (
            "[[policy]]\nports = [\"9-5\"]",
            &["policy[0].ports: 9-5", "1 to 65535"],
        ),
        (
            "[[policy]]\nports = [1, 2, 3, 4, 5, 6, 7, 8, 9]",
            &["policy[0].ports: 9 ranges", "at most 8"],
        ),
        ("[[policy]]\nports = [\"x\"]", &["policy[0].ports: \"x\""]),
        (
            "[[policy]]\nat_packet = 1\nat_seconds = 1.0",
            &["policy[0].at_packet: expected at most one"],
        ),
        (
            "[[policy]]\nremove = true\nallow = [\"::/0\"]",
            &["policy[0].remove"],
        ),
        (
            "[[policy]]\nallow = [\"::/0\"]\ndeny = [\"::/0\"]",
            &["policy[0].deny: ::/0 is named twice"],
        ),
        (
            "[[policy]]\ndeny = [\"::/0\"]\nfollow = [\"::/0\"]",
            &["policy[0].follow: ::/0 is named twice"],
        ),
        (
            "[[policy]]\nreflect = [\"::1\"]\nfollow = [\"::1/128\"]",
            &["policy[0].follow: ::1/128 is named twice"],
        ),
        (
            "[[policy]]\nremove = true\nreflect_default = [\"path\"]",
            &["policy[0].remove"],
        ),
        (
            "[[policy]]\nreflect_default = [\"tos\"]",
            &["line 2", "unknown variant `tos`"],
        ),
        (
            "[exit.reflect]\ngateway = \"::1\"",
            &["exit.reflect: this name means"],
        ),
        (
            "[[tunnel]]\naddress = \"::1\"\ncarries = \"ipv6\"\nformat = \"gue\"",
            &["tunnel[0].format: only a UDP tunnel"],
        ),
        (
            "[[tunnel]]\naddress = \"::1\"\ncarries = \"udp\"\nport = 5\nheader_len = 4\nformat = \"gue\"",
            &["tunnel[0].format: such a header says its length itself"],
        ),
        (
            "[[tunnel]]\naddress = \"::1\"\ncarries = \"udp\"\nport = 5\nformat = \"vxlan\"",
            &["unknown variant `vxlan`", "geneve"],
        ),
        (
            "[[flow]]\nexit = \"none\"\ncgroup = \"a b\"",
            &["flow[0].cgroup: \"a b\""],
        ),
        (
            "[exit.none]\ngateway = \"::1\"",
            &["exit.none: this name means"],
        ),
        (
            "[exit.a]\ngateway = \"::1\"\nudp = { destination_port = 0 }",
            &["exit.a.udp.destination_port: 0"],
        ),
        (
            "[exit.a]\ngateway = \"::1\"\nudp = { destination_port = 1, header = \"abc\" }",
            &["exit.a.udp.header: an odd number"],
        ),
        (
            "[exit.a]\ngateway = \"::1\"\nudp = { destination_port = 1, header = \"zz\" }",
            &["exit.a.udp.header: 'z' is no hexadecimal digit"],
        ),
        (
            "[[flow]]\nexit = \"b\"",
            &["flow[0].exit: no exit is named \"b\"", "none"],
        ),
        (
            "[[flow]]\nexit = \"none\"\n[[flow.switch]]\nexit = \"none\"",
            &["flow[0].switch[0]: expected exactly one of"],
        ),
        (
            "[[flow]]\nexit = \"none\"\n[[flow.switch]]\nat_packet = 0\nexit = \"none\"",
            &["numbered from 1"],
        ),
        (
            "[[tunnel]]\naddress = \"::1\"\ncarries = \"udp\"",
            &["tunnel[0].port"],
        ),
        (
            "[[tunnel]]\naddress = \"::1\"\ncarries = \"ipv6\"\nport = 5",
            &["tunnel[0].port: only a UDP tunnel"],
        ),
        (
            "[[tunnel]]\naddress = \"::1\"\ncarries = \"udp\"\nport = 5\nheader_len = 33",
            &["tunnel[0].header_len: 33 bytes"],
        ),
    ];
    for (text, expected) in cases {
        let message = Scenario::parse("s.toml", text).unwrap_err().to_string();
        for part in *expected {
            assert!(
                message.contains(part),
                "{text:?} gave {message:?}, without {part:?}"
            );
        }
    }
}

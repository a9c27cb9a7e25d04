//! Scenario files that are read, and those that are refused.

use super::*;

const FULL: &str = r#"
        [host]
        uplink_mtu = 9000
        source = "fd00::7"
        segmentation = "segment-first"
        [replay]
        side = "both"
        gso_size = 1200
        [exit.paris]
        gateway = "2001:db8::1"
        [exit.tokyo]
        gateway = "2001:db8::2"
        udp = { destination_port = 4790, header = "0c00 0004 0000:7b00" }
        [[tunnel]]
        address = "fd00::7"
        carries = "udp"
        port = 6080
        header_len = 8
        [[flow]]
        match = { protocol = "tcp", destination = "2001:db8::/32", destination_port = 443 }
        exit = "paris"
        [[flow.switch]]
        at_flow_packet = 10
        exit = "tokyo"
        [[flow.switch]]
        at_seconds = 1.5
        exit = "none"
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
    let again = Scenario::parse("again.toml", &scenario.to_toml()).unwrap();
    assert_eq!(again, scenario);
    let default = Scenario::default();
    assert_eq!(
        Scenario::parse("default.toml", &default.to_toml()).unwrap(),
        default
    );
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
        ("[exit.a]\ngateway = \"1.2.3.4\"", &["line 2", "IPv6"]),
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

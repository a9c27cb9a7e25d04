//! The text of exits: round trips, and errors that say what was expected.

#![allow(
    clippy::unwrap_used,
    reason = "a test: clippy exempts only functions marked as such"
)]

use dynencap::{Exit, Header, Udp};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[test]
fn every_form_is_read_and_written_again() {
    for text in [
        "2001:db8::1",
        "192.0.2.1",
        "2001:db8::1/udp:6080",
        "192.0.2.1/udp:4789,source-port=5000",
        "2001:db8::1/udp:4790,header=0c00000400000100,source-port=5000",
        "2001:db8::1/udp:65535,header=0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
    ] {
        let exit: Exit = text.parse().unwrap();
        assert_eq!(exit.to_string(), text);
    }
    let swapped: Exit = "2001:DB8:0::1/udp:4790,source-port=5000,header=0C"
        .parse()
        .unwrap();
    assert_eq!(
        swapped.to_string(),
        "2001:db8::1/udp:4790,header=0c,source-port=5000"
    );
}

#[test]
fn overhead_is_that_of_the_contract() {
    for (text, overhead) in [
        ("2001:db8::1", 40),
        ("192.0.2.1", 20),
        ("2001:db8::1/udp:6080", 48),
        ("192.0.2.1/udp:6080,header=0102", 30),
        ("2001:db8::1/udp:4790,header=0c00000400000100", 56),
    ] {
        let exit: Exit = text.parse().unwrap();
        assert_eq!(exit.overhead(), overhead, "{text}");
    }
}

#[test]
fn an_error_names_the_place_and_what_was_expected() {
    for (text, words) in [
        ("", "expected an IPv6 or IPv4 address"),
        ("example.org", "found `example.org`"),
        ("[2001:db8::1]", "expected an IPv6 or IPv4 address"),
        ("::", "cannot be an exit"),
        ("ff02::1", "cannot be an exit"),
        ("::ffff:192.0.2.1", "not IPv4-mapped"),
        ("0.0.0.0", "cannot be an exit"),
        ("224.0.0.1", "cannot be an exit"),
        ("255.255.255.255", "cannot be an exit"),
        ("2001:db8::1/", "expected `udp:PORT`"),
        (
            "2001:db8::1/64",
            "expected `udp:PORT` behind the slash, found `64`",
        ),
        ("2001:db8::1/udp:", "a port from 1 to 65535"),
        ("2001:db8::1/udp:0", "found `0`"),
        ("2001:db8::1/udp:+80", "found `+80`"),
        ("2001:db8::1/udp:65536", "found `65536`"),
        ("2001:db8::1/udp:80,", "expected `header=HEX`"),
        ("2001:db8::1/udp:80,header=", "found 0 digits"),
        ("2001:db8::1/udp:80,header=012", "found 3 digits"),
        ("2001:db8::1/udp:80,header=0x", "found `x`"),
        ("2001:db8::1/udp:80,header=é", "expected 1 to 32 bytes"),
        ("2001:db8::1/udp:80,header=01,header=02", "twice"),
        (
            "2001:db8::1/udp:80,ttl=3",
            "expected `header` or `source-port`",
        ),
        (
            "2001:db8::1/udp:80,source-port=0",
            "source-port: expected a port",
        ),
    ] {
        let error = text.parse::<Exit>().unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
        assert!(error.contains(&format!("`{text}`")), "{error}");
    }
    let long = format!("192.0.2.1/udp:80,header={}", "00".repeat(33));
    let error = long.parse::<Exit>().unwrap_err().to_string();
    assert!(error.contains("found 66 digits"), "{error}");
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ]
}

proptest! {
    #[test]
    fn text_and_layout_give_the_exit_back(
        address in address(),
        udp in any::<Option<(std::num::NonZeroU16, Option<std::num::NonZeroU16>)>>(),
        header in proptest::collection::vec(any::<u8>(), 0..=32),
    ) {
        let Some(mut exit) = Exit::new(address) else { return Ok(()) };
        if let Some((destination_port, source_port)) = udp {
            let header = Header::new(&header).unwrap();
            exit = exit.with_udp(Udp { destination_port, source_port, header });
        }
        prop_assert_eq!(exit.to_string().parse(), Ok(exit));
        prop_assert_eq!(Exit::from_abi(&exit.to_abi()), Some(exit));
    }

    #[test]
    fn no_text_makes_the_parser_fail_badly(text in ".{0,80}") {
        if let Ok(exit) = text.parse::<Exit>() {
            prop_assert_eq!(exit.to_string().parse(), Ok(exit));
        }
    }
}

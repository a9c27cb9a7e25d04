//! Encapsulation on the real kernel, against bytes written out by hand.

use crate::{
    assert_counted, captured, config, frame,
    frame::{IPV4, IPV6},
    object, replay,
    require::require,
    sent,
};
use dynencap_abi::{
    Reason,
    option::{ENCAP_GW, ENCAP_UDP},
};
use dynencap_kernel::{Loaded, Packet, Port};

const GATEWAY: &str = "2001:db8:9::9";

#[test]
fn the_verifier_accepts_every_program() {
    if !require(&[]) {
        return;
    }
    let loaded = Loaded::load(object()).unwrap();
    assert_eq!(loaded.counters().unwrap(), [0; Reason::COUNT]);
}

#[test]
fn ipv6_leaves_inside_ipv6() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let flow = replay.open_flow().unwrap();
    replay
        .set_option(flow, ENCAP_GW, &frame::address(GATEWAY))
        .unwrap()
        .unwrap();
    let inner = frame::tcp_in_ipv6(0x18, b"hello");
    // version 6, traffic class 0xb9 of the inner packet, flow label 0x45092;
    // payload 40 + 20 + 5; next header 41; hop limit 61
    let mut expected = vec![0x6b, 0x94, 0x50, 0x92, 0, 65, 41, 61];
    expected.extend(frame::address("2001:db8::1"));
    expected.extend(frame::address(GATEWAY));
    expected.extend(&inner);
    assert_eq!(
        sent(&mut replay, flow, IPV6, &inner),
        [(Port::Wire, IPV6, expected)]
    );
    assert_counted(&replay, &[(Reason::Encapsulated, 1)]);
}

#[test]
fn ipv6_leaves_inside_udp_with_a_custom_header() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let flow = replay.open_flow().unwrap();
    let value = [0, 0, 0x17, 0xc0, 1, 2, 3, 4, 5, 6, 7, 8];
    replay.set_option(flow, ENCAP_UDP, &value).unwrap().unwrap();
    replay
        .set_option(flow, ENCAP_GW, &frame::address(GATEWAY))
        .unwrap()
        .unwrap();
    let inner = frame::tcp_in_ipv6(0x18, b"hello");
    let mut expected = vec![0x6b, 0x94, 0x50, 0x92, 0, 81, 17, 61];
    expected.extend(frame::address("2001:db8::1"));
    expected.extend(frame::address(GATEWAY));
    // source port 57720 from the flow's hash, port 6080, length 81, no checksum
    expected.extend([0xe1, 0x78, 0x17, 0xc0, 0, 81, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    expected.extend(&inner);
    assert_eq!(
        sent(&mut replay, flow, IPV6, &inner),
        [(Port::Wire, IPV6, expected)]
    );
    assert_counted(&replay, &[(Reason::Encapsulated, 1)]);
}

#[test]
fn ipv4_leaves_inside_ipv6_from_the_configured_source() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let flow = replay.open_flow().unwrap();
    replay
        .set_option(flow, ENCAP_GW, &frame::address(GATEWAY))
        .unwrap()
        .unwrap();
    let inner = frame::tcp_in_ipv4(b"hello");
    // traffic class 0x2e, flow label 0x75653, payload 45, next header 4, hop limit 57
    let mut expected = vec![0x62, 0xe7, 0x56, 0x53, 0, 45, 4, 57];
    expected.extend(frame::address("2001:db8:5::5"));
    expected.extend(frame::address(GATEWAY));
    expected.extend(&inner);
    assert_eq!(
        sent(&mut replay, flow, IPV4, &inner),
        [(Port::Wire, IPV6, expected)]
    );
    replay
        .set_config(dynencap_abi::Config {
            source: [0; 16],
            ..config()
        })
        .unwrap();
    assert_eq!(sent(&mut replay, flow, IPV4, &inner), []);
    assert_counted(&replay, &[(Reason::Encapsulated, 1), (Reason::NoSource, 1)]);
}

#[test]
fn a_cleared_exit_lets_packets_leave_as_they_are() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let flow = replay.open_flow().unwrap();
    let gateway = frame::address(GATEWAY);
    replay
        .set_option(flow, ENCAP_GW, &gateway)
        .unwrap()
        .unwrap();
    replay.set_option(flow, ENCAP_GW, &[]).unwrap().unwrap();
    let packet = frame::tcp_in_ipv6(0x10, &[]);
    assert_eq!(
        sent(&mut replay, flow, IPV6, &packet),
        [(Port::Wire, IPV6, packet)]
    );
    assert_counted(&replay, &[(Reason::NoGateway, 1)]);
}

#[test]
fn bystander_frames_of_every_shape_pass_unchanged() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let flow = replay.open_flow().unwrap();
    let long = frame::ipv6(59, "2001:db8::1", "2001:db8::2", &frame::pattern(65_495));
    let frames: Vec<(u16, Vec<u8>)> = vec![
        (IPV6, frame::tcp_in_ipv6(0x10, b"x")),
        (IPV6, Vec::new()),
        (IPV6, vec![0x60]),
        (IPV4, vec![0x45; 19]),
        (IPV4, frame::tcp_in_ipv4(&frame::pattern(9000))),
        (IPV6, long),
        (0x0806, frame::pattern(28)),
        (
            0x8100,
            [&[0x20, 5, 0x86, 0xdd], &*frame::tcp_in_ipv6(0x10, b"y")].concat(),
        ),
        (
            0x88a8,
            [&[0, 9, 0x81, 0, 0, 7, 8, 0], &*frame::tcp_in_ipv4(b"z")].concat(),
        ),
        (0x88b5, frame::pattern(16)),
        (0x0026, frame::pattern(38)),
    ];
    for (ethertype, bytes) in &frames {
        let packet = Packet {
            ethertype: *ethertype,
            bytes,
            gso: None,
        };
        replay.send(flow, &packet).unwrap();
    }
    let expected: Vec<_> = frames
        .into_iter()
        .map(|(ethertype, bytes)| (Port::Wire, ethertype, bytes))
        .collect();
    let captured = captured(&mut replay);
    assert_eq!(captured.len(), expected.len());
    for (captured, expected) in captured.iter().zip(&expected) {
        assert!(
            captured == expected,
            "{:#06x}, {} bytes",
            expected.1,
            expected.2.len()
        );
    }
    assert_counted(&replay, &[(Reason::NotIp, 5), (Reason::NoExit, 6)]);
}

#[test]
fn what_cannot_leave_encapsulated_is_dropped_and_counted() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let flow = replay.open_flow().unwrap();
    let gateway = frame::address(GATEWAY);
    replay
        .set_option(flow, ENCAP_GW, &gateway)
        .unwrap()
        .unwrap();
    let fits = frame::tcp_in_ipv6(0x10, &frame::pattern(1400));
    let too_big = frame::tcp_in_ipv6(0x10, &frame::pattern(1401));
    let too_long = frame::ipv6(59, "2001:db8::1", "2001:db8::2", &frame::pattern(65_495));
    let mut wrong_length = frame::tcp_in_ipv6(0x10, b"abc");
    wrong_length.truncate(62);
    let mut captured = sent(&mut replay, flow, IPV6, &fits);
    assert_eq!(captured.len(), 1);
    assert_eq!(captured.remove(0).2.len(), 1500);
    for bytes in [
        &too_big,
        &wrong_length,
        &too_big[..39].to_vec(),
        &too_long,
        &Vec::new(),
    ] {
        assert_eq!(
            sent(&mut replay, flow, IPV6, bytes),
            [],
            "{} bytes",
            bytes.len()
        );
    }
    assert_eq!(sent(&mut replay, flow, 0x0806, &frame::pattern(28)), []);
    assert_counted(
        &replay,
        &[
            (Reason::Encapsulated, 1),
            (Reason::MarkedNotIp, 1),
            (Reason::Malformed, 2),
            (Reason::BadLength, 1),
            (Reason::TooBig, 2),
        ],
    );
}

#[test]
fn a_frame_longer_than_the_device_takes_is_refused_with_its_length() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let flow = replay.open_flow().unwrap();
    for length in [65_540, 80_000, 1 << 20] {
        let bytes = frame::pattern(length);
        let packet = Packet {
            ethertype: IPV6,
            bytes: &bytes,
            gso: None,
        };
        match replay.send(flow, &packet) {
            Err(dynencap_kernel::Error::Refused {
                length: refused,
                errno,
            }) => {
                assert_eq!((refused, errno), (length, 90), "EMSGSIZE");
            }
            other => panic!("{length}: {other:?}"),
        }
        assert_eq!(captured(&mut replay), []);
    }
    assert_counted(&replay, &[]);
}

#[test]
fn order_is_kept_through_many_frames_and_flows() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let flows: Vec<_> = (0..3).map(|_| replay.open_flow().unwrap()).collect();
    let gateway = frame::address(GATEWAY);
    replay
        .set_option(flows[1], ENCAP_GW, &gateway)
        .unwrap()
        .unwrap();
    const COUNT: u32 = 5000;
    for number in 0..COUNT {
        let packet = frame::tcp_in_ipv6(0x10, &number.to_be_bytes());
        let flow = flows[number as usize % 3];
        let packet = Packet {
            ethertype: IPV6,
            bytes: &packet,
            gso: None,
        };
        replay.send(flow, &packet).unwrap();
        replay.inject(0x88cc, &number.to_be_bytes()).unwrap();
    }
    let frames = captured(&mut replay);
    let numbers = |port: Port| -> Vec<u32> {
        let on_port = frames.iter().filter(|frame| frame.0 == port);
        on_port
            .map(|(_, _, bytes)| u32::from_be_bytes(*bytes.last_chunk().unwrap()))
            .collect()
    };
    assert_eq!(numbers(Port::Wire), Vec::from_iter(0..COUNT));
    assert_eq!(numbers(Port::Delivered), Vec::from_iter(0..COUNT));
}

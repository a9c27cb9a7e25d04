//! Super-packets on three ways to the wire (T12, T2): encapsulated once, cut first by the
//! segmenter, through the tunnel device of before.

use crate::outer::udp_checksums;
use crate::support::*;
use dynencap_abi::{Config, Reason};
use dynencap_model::device::Device;
use dynencap_model::{Frame, Host, Origin, Packet, Port, Socket};

fn first() -> Config {
    Config {
        flags: Config::SEGMENT_FIRST,
        segmenter: 3,
        ..config()
    }
}

fn transmit(config: Config, socket: &Socket, packet: Packet<'_>) -> (Host, Vec<Frame>) {
    let mut host = Host::new(config);
    let mut frames = Vec::new();
    let origin = Origin::Socket(socket);
    host.transmit(origin, socket.mark(), &(), packet, &mut frames);
    (host, frames)
}

fn exits() -> [Socket; 6] {
    [
        ip_exit(),
        udp_exit(b""),
        udp_exit(b"network"),
        ip4_exit(),
        udp4_exit(b""),
        udp4_exit(b"network"),
    ]
}

/// An outer IPv4 header's identification and checksum are where the ways differ.
fn apart(mut frames: Vec<Frame>, ethertype: u16) -> Vec<Frame> {
    for frame in &mut frames {
        if frame.ethertype == V4 && ethertype == V6 {
            frame.bytes[4..6].fill(0);
            frame.bytes[10..12].fill(0);
        }
    }
    frames
}

#[test]
fn the_ways_agree_on_the_wire() {
    for socket in exits() {
        for ethertype in [V4, V6] {
            for protocol in [TCP, UDP] {
                let bytes = sound_transport(ethertype, protocol, &pattern(5000));
                let packet = super_packet(ethertype, &bytes, 1200);
                let (host, cut_first) = transmit(first(), &socket, packet);
                assert_eq!(cut_first.len(), 5);
                assert!(cut_first.iter().all(|frame| frame.port == Port::Wire));
                for (reason, count) in [
                    (Reason::Segmenting, 1),
                    (Reason::Encapsulated, 5),
                    (Reason::AlreadyEncapsulated, 5),
                ] {
                    assert_eq!(host.counters()[reason as usize], count, "{reason:?}");
                }

                let mut device = Vec::new();
                let exit = socket.exit().unwrap();
                let sent = Device::default().transmit(&config(), exit, packet, &mut device);
                assert_eq!((sent, &device), (5, &cut_first), "T2");

                let (host, aware) = transmit(config(), &socket, packet);
                assert_eq!(host.counters()[Reason::Encapsulated as usize], 1);
                assert_eq!(apart(aware, ethertype), apart(cut_first, ethertype), "T12");
            }
        }
    }
}

#[test]
fn cut_first_every_segment_has_what_its_own_header_gives() {
    for (ethertype, ids) in [(V6, [0u16, 0, 0]), (V4, [0xfffe, 0xffff, 0])] {
        let bytes = sound_transport(ethertype, TCP, &pattern(3000));
        let packet = super_packet(ethertype, &bytes, 1000);
        let (_, frames) = transmit(first(), &ip4_exit(), packet);
        let found: Vec<_> = frames.iter().map(|f| [f.bytes[4], f.bytes[5]]).collect();
        assert_eq!(found, ids.map(u16::to_be_bytes));
    }
}

#[test]
fn segments_have_valid_udp_checksums() {
    let config = Config {
        flags: Config::UDP_CHECKSUM,
        ..first()
    };
    for socket in [udp_exit(b"odd"), udp4_exit(b"even")] {
        let bytes = sound_transport(V6, UDP, &pattern(5001));
        let (_, frames) = transmit(config, &socket, super_packet(V6, &bytes, 1200));
        assert_eq!(frames.len(), 5);
        for frame in &frames {
            let (stated, computed) = udp_checksums(frame);
            assert_eq!(stated, computed);
        }
    }
}

#[test]
fn segments_come_out_at_the_segmenter_as_they_are() {
    let bytes = sound_transport(V6, TCP, &pattern(3000));
    let mut frames: Vec<Frame> = Vec::new();
    let mut host = Host::new(first());
    let packet = super_packet(V6, &bytes, 1000);
    let egress = host.egress(Some(&ip_exit()), packet, &mut frames);
    assert_eq!((egress.reason, egress.segments), (Reason::Segmenting, 3));
    let mut plain: Vec<Frame> = Vec::new();
    dynencap_model::segment::segment(&packet, &mut plain);
    assert!(frames.iter().all(|frame| frame.port == Port::Segmenter));
    for (frame, plain) in frames.iter().zip(&plain) {
        assert_eq!(frame.bytes, plain.bytes);
    }
}

#[test]
fn what_cannot_be_cut_is_judged_behind_the_segmenter() {
    let bytes = ipv6_packet(58, &pattern(3000));
    let (host, frames) = transmit(first(), &ip_exit(), super_packet(V6, &bytes, 1000));
    assert!(frames.is_empty());
    assert_eq!(host.counters()[Reason::Segmenting as usize], 1);
    assert_eq!(host.counters()[Reason::GsoShape as usize], 1);
    assert_eq!(host.counters()[Reason::AlreadyEncapsulated as usize], 0);
}

#[test]
fn segments_that_do_not_fit_are_dropped_one_by_one() {
    let bytes = sound_transport(V6, TCP, &pattern(2800));
    let (host, frames) = transmit(first(), &ip_exit(), super_packet(V6, &bytes, 1450));
    assert_eq!(frames.len(), 1, "the short last one");
    assert_eq!(host.counters()[Reason::TooBig as usize], 1);
    assert_eq!(host.counters()[Reason::AlreadyEncapsulated as usize], 1);
}

#[test]
fn the_device_lets_nothing_out_that_egress_drops() {
    let bytes = sound_transport(V6, TCP, &pattern(1500));
    let mut frames: Vec<Frame> = Vec::new();
    let exit = *ip_exit().exit().unwrap();
    let unset = dynencap_abi::Exit::NONE;
    let mut device = Device::default();
    let mut sent = |exit, bytes: &[u8], gso_size| {
        let packet = super_packet(V6, bytes, gso_size);
        device.transmit(&config(), exit, packet, &mut frames)
    };
    assert_eq!(sent(&exit, &bytes, 0), 0, "over the MTU");
    assert_eq!(sent(&exit, &bytes, 1450), 1, "the last segment alone fits");
    assert_eq!(sent(&unset, &bytes[..100], 0), 0, "no gateway");
    assert_eq!(sent(&exit, &bytes[..100], 0), 0, "wrong length");
    assert_eq!(sent(&exit, &ipv6_packet(58, &[0; 90]), 10), 0, "no shape");
    assert_eq!(sent(&exit, &ipv6_packet(58, &[0; 90]), 0), 1);
}

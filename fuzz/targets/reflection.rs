//! Any bytes from the uplink: reflection and ingress each come to one answer, and reflection
//! answers with an exit only where ingress accepts.

#![no_main]

use arbitrary::Arbitrary;
use dynencap_fuzz::{Hosting, Kind, Shape, frame, plant, split};
use dynencap_model::abi::{Exit, MAX_HEADER_LEN, Reason, Verdict};
use dynencap_model::{Frame, Host, Port, reflection};
use libfuzzer_sys::fuzz_target;
use std::net::Ipv6Addr;

/// A head of zeros: tunnels of which the seeds' frames come out.
#[derive(Arbitrary, Debug)]
struct Head {
    hosting: Hosting,
    shape: Shape,
}

fuzz_target!(
    init: plant("reflection", Kind::Tunnelled(Head::size_hint(0).0)),
    |data: &[u8]| {
        let Some((head, rest)) = split::<Head>(data) else {
            return;
        };
        let mut host = Host::new(head.hosting.config());
        for (key, spec) in head.hosting.tunnels() {
            host.add_tunnel(key, spec);
        }
        let frame = frame(&head.shape, rest);
        let packet = head.shape.packet(&frame);
        let exit = reflection::parse(&packet, host.tunnels());
        let mut frames: Vec<Frame> = Vec::new();
        let reason = host.ingress(packet, &mut frames);

        assert_eq!(host.counters().iter().sum::<u64>(), 1);
        assert_eq!(host.counters()[reason as usize], 1);
        match reason.verdict() {
            Verdict::Dropped => assert!(frames.is_empty()),
            Verdict::Passed => {
                let delivered = Frame {
                    port: Port::Delivered,
                    ..frame.clone()
                };
                assert_eq!(frames, [delivered]);
            }
            Verdict::Decapsulated => assert!(frames.len() == 1 && frames[0] != frame),
            Verdict::Encapsulated => panic!("at ingress"),
        }
        match exit {
            // Section 5 reads what steps 2 to 6 accept; ECN (step 7) is decided behind them.
            Ok(exit) => {
                assert!(
                    matches!(reason, Reason::Decapsulated | Reason::EcnDrop),
                    "reflected, and {reason:?} at ingress"
                );
                assert_ne!(exit.flags & Exit::GATEWAY, 0);
                let [source, destination] = addresses(&frame);
                assert_eq!([exit.gateway, exit.source], [source, destination]);
                assert_eq!(exit.flags & Exit::IPV4 != 0, frame.ethertype == 0x0800);
                let len = usize::from(exit.header_len);
                assert!(len <= MAX_HEADER_LEN);
                assert!(exit.header[len..].iter().all(|byte| *byte == 0));
            }
            Err(Reason::BadOuter) if reason != Reason::BadOuter => {
                let source = Ipv6Addr::from(addresses(&frame)[0]);
                let nobody = match source.to_ipv4_mapped().filter(|_| frame.ethertype == 0x0800) {
                    Some(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
                    None => {
                        let mapped = source.to_ipv4_mapped().is_some();
                        source.is_unspecified() || source.is_multicast() || mapped
                    }
                };
                assert!(nobody, "BadOuter, and {reason:?} at ingress");
            }
            // An ICMP error is ingress's affair, and no tunnel's.
            Err(refused) if reason == Reason::PathMtuRefused => {
                assert!(matches!(refused, Reason::NotTunnel | Reason::BadOuter | Reason::BadInner));
            }
            Err(refused) => assert_eq!(refused, reason),
        }
    }
);

/// Source and destination of the outer header, IPv4 as IPv4-mapped.
fn addresses(frame: &Frame) -> [[u8; 16]; 2] {
    let field = |at: usize, len: usize| {
        let mut address = [0; 16];
        if len == 4 {
            address[10..12].fill(0xff);
        }
        address[16 - len..].copy_from_slice(&frame.bytes[at..at + len]);
        address
    };
    match frame.ethertype {
        0x0800 => [field(12, 4), field(16, 4)],
        _ => [field(8, 16), field(24, 16)],
    }
}

//! Any bytes from the uplink: reflection and ingress each come to one answer, and reflection
//! answers with an exit only where ingress accepts.

#![no_main]

use arbitrary::Arbitrary;
use dynencap_fuzz::{Hosting, Kind, Shape, frame, plant, split};
use dynencap_model::abi::{Exit, MAX_HEADER_LEN, Reason, Verdict};
use dynencap_model::{Frame, Host, reflection};
use libfuzzer_sys::fuzz_target;

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
            Verdict::Passed => assert_eq!(frames, std::slice::from_ref(&frame)),
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
                assert_eq!(exit.gateway[..], frame.bytes[8..24]);
                assert_eq!(exit.source[..], frame.bytes[24..40]);
                let len = usize::from(exit.header_len);
                assert!(len <= MAX_HEADER_LEN);
                assert!(exit.header[len..].iter().all(|byte| *byte == 0));
            }
            Err(Reason::BadOuter) if reason != Reason::BadOuter => {
                let source = &frame.bytes[8..24];
                assert!(
                    source == [0; 16] || source[0] == 0xff,
                    "BadOuter, and {reason:?} at ingress"
                );
            }
            Err(refused) => assert_eq!(refused, reason),
        }
    }
);

//! Replay is fast enough for whole captures: a floor far below what it does.

use crate::{captured, frame, frame::IPV6, replay, require::require};
use dynencap_abi::{Reason, option::ENCAP_GW};
use dynencap_kernel::{Packet, Port};
use std::{io::Write, time::Instant};

#[test]
fn a_hundred_thousand_packets_are_replayed_and_captured_whole() {
    if !require(&[]) {
        return;
    }
    let mut replay = replay();
    let flow = replay.open_flow().unwrap();
    let gateway = frame::address("2001:db8:9::9");
    replay
        .set_option(flow, ENCAP_GW, &gateway)
        .unwrap()
        .unwrap();
    let bytes = frame::tcp_in_ipv6(0x10, &frame::pattern(500));
    let packet = Packet {
        ethertype: IPV6,
        bytes: &bytes,
        gso: None,
    };
    const COUNT: u32 = 100_000;
    let start = Instant::now();
    let mut frames = 0;
    for number in 1..=COUNT {
        replay.send(flow, &packet).unwrap();
        if number % 200 == 0 {
            replay
                .barrier(&mut |port, _, bytes| {
                    frames += 1;
                    assert_eq!((port, bytes.len()), (Port::Wire, 600));
                })
                .unwrap();
        }
    }
    let rate = f64::from(COUNT) / start.elapsed().as_secs_f64();
    let _ = writeln!(std::io::stderr(), "replay: {rate:.0} packets/s");
    assert_eq!(frames, COUNT);
    assert_eq!(captured(&mut replay), []);
    let counters = replay.counters().unwrap();
    assert_eq!(counters[Reason::Encapsulated as usize], u64::from(COUNT));
}

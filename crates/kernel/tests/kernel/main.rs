//! The kernel engine against a real kernel. Needs root; without it every test says on stderr
//! that it was skipped, and why. With `kernel` in `DYNENCAP_REQUIRE` a skip is a failure, unless
//! the kernel is too old for what the test is about.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests are tests: clippy exempts only the functions marked as such"
)]

mod client;
mod closing;
mod create;
mod egress;
mod frame;
mod ingress;
mod option;
mod outer4;
mod policy;
mod reflect;
mod require;
mod segment;
mod throughput;

use dynencap_abi::{Config, Reason};
use dynencap_kernel::{FlowId, Packet, Port, Replay};
use std::sync::OnceLock;

/// The committed object, or the one that `DYNENCAP_OBJECT` names; read once.
fn object() -> &'static [u8] {
    static OBJECT: OnceLock<Vec<u8>> = OnceLock::new();
    OBJECT.get_or_init(|| {
        let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../bpf/dynencap.bpf.o");
        let path = std::env::var_os("DYNENCAP_OBJECT").unwrap_or_else(|| committed.into());
        std::fs::read(path).expect("a BPF object")
    })
}

/// What most tests start with.
fn config() -> Config {
    Config {
        source: frame::address("2001:db8:5::5"),
        uplink_mtu: 1500,
        flags: Config::ALLOW_PACKET_SOCKETS,
        ..Config::default()
    }
}

/// A replay of the committed object.
fn replay() -> Replay {
    Replay::start(object(), config()).unwrap()
}

/// A captured frame.
type Frame = (Port, u16, Vec<u8>);

/// Everything that came out since the last call.
fn captured(replay: &mut Replay) -> Vec<Frame> {
    let mut frames = Vec::new();
    replay
        .barrier(&mut |port, ethertype, bytes| frames.push((port, ethertype, bytes.to_vec())))
        .unwrap();
    frames
}

/// Sends one packet and returns what came of it.
fn sent(replay: &mut Replay, flow: FlowId, ethertype: u16, bytes: &[u8]) -> Vec<Frame> {
    let packet = Packet {
        ethertype,
        bytes,
        gso: None,
    };
    replay.send(flow, &packet).unwrap();
    captured(replay)
}

/// Asserts that these reasons, and no others, have been counted.
#[track_caller]
fn assert_counted(replay: &Replay, expected: &[(Reason, u64)]) {
    let counters = replay.counters().unwrap();
    let counted: Vec<(Reason, u64)> = Reason::ALL
        .into_iter()
        .map(|reason| (reason, counters[reason as usize]))
        .filter(|&(_, count)| count > 0)
        .collect();
    assert_eq!(counted, expected);
}

//! Histories with reflection: few peers ask through the tunnels of a host, by paths that change,
//! and its packet sockets answer.

use crate::agreement::agrees;
use crate::host;
use crate::packet::{self, Defect, Network, Spec, TCP, UDP, Written};
use crate::run::{outcomes, programs_reflect, require};
use crate::step::{FLOWS, Step, batch, size, step};
use dynencap_abi::option::{AF_PACKET, ENCAP_REFLECT, SOCK_RAW};
use dynencap_abi::{Config, Exit, MAX_HEADER_LEN, MAX_UPLINK_MTU, Reason, TunnelKey, TunnelSpec};
use dynencap_model::{Frame, Host, Packet, Socket, SocketKind};
use dynencap_sim::engine::{Attribution, EngineKind};
use dynencap_sim::event::FlowId;
use dynencap_sim::scenario::HostSpec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

const PEERS: u8 = 2;
const PATHS: u8 = 4;
const GUE_PORT: [u8; 2] = [0x1b, 0x59];
const GENEVE_PORT: [u8; 2] = [0x17, 0xc1];

/// What a peer asks, and by which path.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    peer: u8,
    v4: bool,
    protocol: u8,
    fragment: bool,
    flags: u8,
    class: u8,
    seed: u32,
    /// A place in [`tunnels`].
    tunnel: usize,
    path: u8,
    /// Words of a header that says its own length.
    words: u8,
    defects: Vec<Defect>,
}

/// Those of every host, and the formats that say their own length.
fn tunnels() -> Vec<(TunnelKey, TunnelSpec)> {
    let mut tunnels = host::tunnels();
    let plain: Vec<_> = tunnels
        .iter()
        .filter(|(key, _)| key.protocol == 41)
        .copied()
        .collect();
    for (key, spec) in plain {
        for (port, format) in [
            (GUE_PORT, TunnelSpec::GUE),
            (GENEVE_PORT, TunnelSpec::GENEVE),
        ] {
            let protocol = 17;
            tunnels.push((
                TunnelKey {
                    protocol,
                    port,
                    ..key
                },
                TunnelSpec { format, ..spec },
            ));
        }
    }
    tunnels
}

fn question() -> impl Strategy<Value = Question> {
    let who = (0..PEERS, any::<bool>(), any::<bool>(), any::<bool>());
    let odd = (
        prop::bool::weighted(0.05),
        any::<u8>(),
        any::<u8>(),
        any::<u32>(),
    );
    // Two more than there are: nobody's addresses.
    let path = prop_oneof![9 => 0..PATHS, 1 => PATHS..PATHS + 2];
    let path = (0..tunnels().len(), path, 0u8..9);
    let defects = prop_oneof![
        8 => Just(Vec::new()),
        1 => prop::collection::vec(packet::defect(), 1..3),
    ];
    (who, odd, path, defects).prop_map(
        |((peer, v4, tcp, syn), (fragment, flags, class, seed), (tunnel, path, words), defects)| {
            Question {
                peer,
                v4,
                protocol: if tcp { TCP } else { UDP },
                fragment,
                flags: if syn { 2 } else { flags },
                class,
                seed,
                tunnel,
                path,
                words,
                defects,
            }
        },
    )
}

impl Question {
    fn spec(&self, asks: bool) -> Spec {
        let turned = |ask: [u16; 2]| if asks { ask } else { [ask[1], ask[0]] };
        let addresses = turned([u16::from(self.peer), 100]).map(|last| last as u8);
        let (class, hops) = (self.class, 61);
        let network = if self.v4 {
            Network::V4 {
                class,
                identification: self.seed as u16,
                fragment: if self.fragment { 0x2000 } else { 0x4000 },
                hops,
                options: 0,
                addresses,
            }
        } else {
            Network::V6 {
                class,
                label: 0,
                hops,
                chain: Vec::new(),
                addresses,
            }
        };
        Spec {
            network,
            protocol: self.protocol,
            ports: turned([1000 + u16::from(self.peer), 443]),
            sequence: self.seed,
            option_words: 0,
            flags: self.flags,
            seed: self.seed,
        }
    }

    /// Ethernet type and bytes of the frame that comes in.
    pub(crate) fn ask(&self) -> (u16, Vec<u8>) {
        let inner = self.spec(true).write(usize::from(self.class) % 40);
        let Written {
            ethertype,
            mut bytes,
            ..
        } = self.through(&inner);
        for defect in &self.defects {
            defect.spoil(&mut bytes, 0);
        }
        (ethertype, bytes)
    }

    fn exit(&self, ethertype: u16) -> Exit {
        let (key, spec) = tunnels()[self.tunnel];
        let over_v4 = key.address[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let last = 0xc0 + self.path;
        let source = match (self.path.checked_sub(PATHS), over_v4) {
            (None, false) => host::address(last),
            (None, true) => v4([198, 51, 100, last]),
            (Some(0), false) => v4([192, 0, 2, 1]),
            (Some(0), true) => v4([255; 4]),
            (Some(_), false) => [0xff; 16],
            (Some(_), true) => v4([224, 0, 0, 1]),
        };
        let words = self.words;
        let next = if ethertype == 0x0800 { 4 } else { 41 };
        let mut bytes: Vec<u8> = packet::noise(self.seed, MAX_HEADER_LEN).collect();
        let len = match spec.format {
            TunnelSpec::GUE => {
                bytes[..2].copy_from_slice(&[words, next]);
                4 + 4 * usize::from(words)
            }
            TunnelSpec::GENEVE => {
                bytes[..2].copy_from_slice(&[words, self.flags & 0x3f]);
                bytes[2..4].copy_from_slice(&ethertype.to_be_bytes());
                8 + 4 * usize::from(words)
            }
            _ => usize::from(spec.header_len),
        };
        // What is longer, the tunnel takes for cut off.
        let len = len.min(MAX_HEADER_LEN);
        let mut header = [0; MAX_HEADER_LEN];
        header[..len].copy_from_slice(&bytes[..len]);
        let udp = if key.protocol == 17 { Exit::UDP } else { 0 };
        let family = if over_v4 { Exit::IPV4 } else { 0 };
        Exit {
            gateway: key.address,
            source,
            header,
            destination_port: key.port,
            // Reflected, so that its source need be no policy's.
            flags: Exit::GATEWAY | Exit::REFLECTED | udp | family,
            header_len: len as u8,
            ..Exit::NONE
        }
    }

    fn through(&self, inner: &Written) -> Written {
        let mut host = Host::new(Config {
            uplink_mtu: MAX_UPLINK_MTU,
            ..Config::default()
        });
        let mut socket = Socket::new(SocketKind {
            family: AF_PACKET,
            ty: SOCK_RAW,
            protocol: 0,
        });
        let exit = self.exit(inner.ethertype);
        socket.set_exit(exit);
        let mut frames: Vec<Frame> = Vec::new();
        let whole = Packet {
            ethertype: inner.ethertype,
            bytes: &inner.bytes,
            gso_size: 0,
        };
        host.egress(Some(&socket), whole, &mut frames);
        frames.pop().map_or_else(
            || inner.clone(),
            |frame| Written {
                ethertype: frame.ethertype,
                bytes: frame.bytes,
                transport_offset: 0,
            },
        )
    }
}

fn v4([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// What such a history is made of.
fn reflecting() -> impl Strategy<Value = Step> {
    let flow = || (1..=FLOWS).prop_map(FlowId);
    let values = [
        vec![1, 0, 0, 0],
        vec![1, 0, 0, 0],
        vec![7, 0, 0, 0],
        vec![0, 0, 0, 0],
        vec![8, 0, 0, 0],
        vec![],
        vec![1],
    ];
    let set = (flow(), prop::sample::select(values.to_vec())).prop_map(|(flow, value)| Step::Set {
        flow,
        name: ENCAP_REFLECT,
        value,
    });
    let read =
        (flow(), prop::sample::select(&[3, 4, 64][..])).prop_map(|(flow, capacity)| Step::Read {
            flow,
            name: ENCAP_REFLECT,
            capacity,
        });
    let answer = (flow(), question(), size()).prop_map(|(flow, question, size)| Step::Send {
        flow,
        packet: question.spec(false),
        size,
        defects: Vec::new(),
        ethertype: None,
    });
    prop_oneof![
        4 => question().prop_map(Step::Ask),
        6 => answer,
        2 => set,
        1 => read,
        1 => step(),
    ]
}

/// A host whose tunnels reflect, or some of them; devices of the kernel are to take the headers
/// of some off, which the lab does not have: their packets are captured and delivered as they came.
fn host_that_reflects() -> impl Strategy<Value = HostSpec> {
    let reflects = prop_oneof![1 => Just(0), 4 => Just(TunnelSpec::REFLECT)];
    let kernels = prop_oneof![4 => Just(0), 1 => Just(TunnelSpec::KERNEL)];
    let flags = (reflects, kernels).prop_map(|(reflects, kernels)| reflects | kernels);
    let flags = prop::collection::vec(flags, tunnels().len());
    let on = prop::bool::weighted(0.9);
    (host::host(), flags, on).prop_map(|(mut host, flags, on)| {
        host.tunnels = tunnels();
        for ((_, spec), flags) in host.tunnels.iter_mut().zip(flags) {
            spec.flags = flags;
        }
        if on {
            host.config.flags |= Config::REFLECT;
        }
        host
    })
}

#[test]
fn vm_reflects_as_the_model() {
    if !programs_reflect() {
        return;
    }
    let steps = reflecting();
    let engine = (EngineKind::Vm, Attribution::PerEvent);
    agrees(engine, host_that_reflects(), steps, 1..60, 3000);
}

#[test]
fn kernel_reflects_as_the_model_on_whole_batches() {
    if !programs_reflect() {
        return;
    }
    let steps = reflecting();
    let engine = (EngineKind::Kernel, Attribution::PerBatch);
    agrees(engine, host_that_reflects(), steps, 200..400, 12);
}

#[test]
fn kernel_reflects_as_the_model_event_by_event() {
    if !programs_reflect() {
        return;
    }
    let steps = reflecting();
    let engine = (EngineKind::Kernel, Attribution::PerEvent);
    agrees(engine, host_that_reflects(), steps, 200..400, 12);
}

/// What the histories are worth: answers that leave as they came, and others.
#[test]
fn histories_with_reflection_reach_answers() {
    let mut runner = TestRunner::deterministic();
    let input = (
        host_that_reflects(),
        prop::collection::vec(reflecting(), 20..60),
    );
    let (mut answered, mut unanswered, mut without) = (0, 0, 0);
    for _ in 0..600 {
        let (host, steps) = input.new_tree(&mut runner).unwrap().current();
        let mut model = require(EngineKind::Model, &host, Attribution::PerEvent).unwrap();
        let came = outcomes(model.as_mut(), &batch(&host, &steps));
        let count = |reason: Reason| came.counters[reason as usize];
        if host.config.flags & Config::REFLECT == 0 {
            without += 1;
            continue;
        }
        answered += count(Reason::Encapsulated);
        unanswered += count(Reason::NoGateway);
    }
    assert!(answered > 500, "{answered}");
    assert!(unanswered > 500, "{unanswered}");
    assert!(without > 5, "{without}");
}

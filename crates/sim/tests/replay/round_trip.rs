//! `transparent`: what an engine encapsulated, the same engine decapsulates to the packet as it
//! was, byte for byte.

use crate::capture::Capture;
use crate::{replay, start};
use dynencap_abi::{TunnelKey, TunnelSpec, Verdict};
use dynencap_sim::compare::Divergence;
use dynencap_sim::director::Record;
use dynencap_sim::engine::{Engine, EngineKind, Outcomes, Port};
use dynencap_sim::event::{Batch, Event};
use dynencap_sim::replay::{Observer, ReplayError};
use dynencap_sim::scenario::{Scenario, Side, default_exit};
use libtest_mimic::Failed;

/// What was sent and what became of it on the wire.
#[derive(Default)]
struct Pairs {
    before: Vec<(u16, Vec<u8>)>,
    wire: Vec<Vec<u8>>,
}

impl Observer for Pairs {
    fn batch(
        &mut self,
        batch: &Batch,
        _: &[Record],
        first: &Outcomes,
        _: &[Divergence],
    ) -> Result<(), ReplayError> {
        for (event, outcome) in batch.events().iter().zip(&first.events) {
            let Event::Egress {
                ethertype,
                packet,
                gso: None,
                ..
            } = event
            else {
                continue;
            };
            let encapsulated = outcome.reason.map(|reason| reason.verdict());
            if encapsulated != Some(Verdict::Encapsulated) {
                continue;
            }
            for frame in outcome
                .frames
                .clone()
                .filter_map(|at| first.frames.frame(at, batch))
            {
                self.before.push((*ethertype, batch.bytes(packet).to_vec()));
                self.wire.push(frame.bytes.to_vec());
            }
        }
        Ok(())
    }
}

/// The tunnels of every default exit.
fn tunnels() -> Vec<(TunnelKey, TunnelSpec)> {
    let mut tunnels = Vec::new();
    for hash in 0..16 {
        let exit = default_exit(hash);
        let spec = TunnelSpec {
            header_len: exit.header_len,
            flags: 0,
            format: TunnelSpec::FIXED,
            reserved: 0,
        };
        for protocol in [4, 41, 17] {
            let port = if protocol == 17 {
                exit.destination_port
            } else {
                [0; 2]
            };
            let udp = exit.header_len > 0;
            if (protocol == 17) == udp {
                tunnels.push((
                    TunnelKey {
                        address: exit.gateway,
                        protocol,
                        reserved: 0,
                        port,
                    },
                    spec,
                ));
            }
        }
    }
    tunnels
}

/// The host that both sends through the default exits and decapsulates at each of them.
pub(crate) fn scenario() -> Scenario {
    let mut scenario = Scenario {
        side: Side::Both,
        ..Scenario::default()
    };
    scenario.host.tunnels = tunnels();
    scenario
}

/// Takes an engine through a capture's round trip and gives it back.
pub(crate) fn check(
    capture: &Capture,
    mut engine: Box<dyn Engine>,
) -> Result<Box<dyn Engine>, Failed> {
    let scenario = scenario();
    // What the model puts on the wire is what every engine does: other tests compare it.
    let mut pairs = Pairs::default();
    replay(
        vec![start(EngineKind::Model, &scenario)?],
        capture,
        &scenario,
        &mut pairs,
    )?;
    let mut checked = 0;
    for (before, wire) in pairs.before.chunks(256).zip(pairs.wire.chunks(256)) {
        let mut batch = Batch::default();
        for (number, frame) in (1..).zip(wire) {
            let packet = batch.store(frame);
            batch.push(
                number,
                Event::Ingress {
                    ethertype: 0x86dd,
                    packet,
                },
            );
        }
        let mut outcomes = Outcomes::default();
        engine.run(&batch, &mut outcomes)?;
        let delivered: Vec<_> = outcomes.frames.iter(&batch).collect();
        if delivered.len() != before.len() {
            return Err(format!("{} of {} delivered", delivered.len(), before.len()).into());
        }
        for ((ethertype, packet), frame) in before.iter().zip(delivered) {
            if frame.port != Port::Delivered
                || frame.ethertype != *ethertype
                || frame.bytes != packet.as_slice().into()
            {
                return Err(format!(
                    "delivered\n{:02x?}\nin place of\n{packet:02x?}",
                    frame.bytes
                )
                .into());
            }
            checked += 1;
        }
    }
    if checked != pairs.before.len() {
        return Err(format!("{checked} of {} packets came back", pairs.before.len()).into());
    }
    Ok(engine)
}

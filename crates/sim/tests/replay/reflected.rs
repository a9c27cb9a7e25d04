//! Reflection on every capture: what one host encapsulated, its peer takes apart again, and
//! answers in the same headers. The peer's replies are held against what came in by a reader of
//! their own.

use crate::capture::Capture;
use crate::{agree_on, replay, start};
use dynencap_abi::{FlowKey, Reason, Verdict};
use dynencap_model::{Packet, flow};
use dynencap_sim::compare::Divergence;
use dynencap_sim::director::Record;
use dynencap_sim::engine::{Engine, EngineKind, Outcomes};
use dynencap_sim::event::{Batch, Event};
use dynencap_sim::replay::{Observer, Replay, ReplayError};
use dynencap_sim::report::Report;
use dynencap_sim::scenario::Scenario;
use dynencap_sim::trace::{Frame, LinkType, Timestamp};
use libtest_mimic::Failed;
use std::collections::BTreeMap;

/// A client whose connections change their path on the way, through every kind of header.
const CLIENT: &str = r#"
[host]
source4 = "192.0.2.7"
[exit.gue]
gateway = "fd00:e::1"
udp = { destination_port = 6080, header = "0129 0000 c0ff ee00" }
[exit.gue4]
gateway = "fd00:e::1"
udp = { destination_port = 6080, header = "0004 0000" }
[exit.geneve]
gateway = "198.51.100.2"
udp = { destination_port = 6081, header = "0200 0800 0000 7b00 0102 0301 dead beef" }
[exit.geneve6]
gateway = "fd00:e::2"
udp = { destination_port = 6081, header = "0000 86dd 0000 7b00" }
[exit.gpe]
gateway = "fd00:e::3"
udp = { destination_port = 4790, header = "0c00 0001 0000 7b00" }
[exit.plain]
gateway = "fd00:e::4"
[exit.plain4]
gateway = "198.51.100.4"
[[flow]]
match = { protocol = "tcp", source = "::/0" }
exit = "gue"
[[flow.switch]]
at_flow_packet = 3
exit = "geneve6"
[[flow.switch]]
at_flow_packet = 5
exit = "plain4"
[[flow]]
match = { protocol = "tcp", source = "0.0.0.0/0" }
exit = "geneve"
[[flow.switch]]
at_flow_packet = 3
exit = "gue4"
[[flow.switch]]
at_flow_packet = 5
exit = "gpe"
[[flow]]
match = { source = "::/0" }
exit = "plain"
[[flow]]
exit = "gpe"
"#;

/// Who is asked.
const SERVER: &str = r#"
[host]
source4 = "192.0.2.9"
[replay]
side = "responder"
[[tunnel]]
address = "fd00:e::1"
carries = "udp"
port = 6080
format = "gue"
reflect = true
[[tunnel]]
address = "198.51.100.2"
carries = "udp"
port = 6081
format = "geneve"
reflect = true
[[tunnel]]
address = "fd00:e::2"
carries = "udp"
port = 6081
format = "geneve"
reflect = true
[[tunnel]]
address = "fd00:e::3"
carries = "udp"
port = 4790
header_len = 8
reflect = true
[[tunnel]]
address = "fd00:e::4"
carries = "ipv6"
reflect = true
[[tunnel]]
address = "198.51.100.4"
carries = "ipv6"
reflect = true
[[flow]]
exit = "reflect"
"#;

/// The server's uplink.
const MTU: usize = 1500;
/// Flows that a host surely remembers.
const REMEMBERED: usize = 500;

fn parsed(name: &str, text: &str) -> Scenario {
    Scenario::parse(name, text).expect("the suite's own scenarios are sound")
}

/// The peer that reflects.
pub(crate) fn server() -> Scenario {
    parsed("server", SERVER)
}

/// Everything that the client's uplink carried, in order.
#[derive(Default)]
struct Wire(Vec<(u16, Vec<u8>)>);

impl Observer for Wire {
    fn batch(
        &mut self,
        batch: &Batch,
        _: &[Record],
        first: &Outcomes,
        _: &[Divergence],
    ) -> Result<(), ReplayError> {
        for (event, outcome) in batch.events().iter().zip(&first.events) {
            match event {
                Event::Egress { .. } => {
                    let out = outcome.frames.clone();
                    let out = out.filter_map(|at| first.frames.frame(at, batch));
                    self.0
                        .extend(out.map(|frame| (frame.ethertype, frame.bytes.to_vec())));
                }
                Event::Ingress { ethertype, packet } => {
                    self.0.push((*ethertype, batch.bytes(packet).to_vec()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The outer header without what is made anew: addresses, protocol, destination port and custom
/// header.
type Path = (Vec<u8>, Vec<u8>, u8, Vec<u8>);

/// An outer header as `inner` bytes follow it.
fn path(ethertype: u16, bytes: &[u8], inner: usize) -> Option<Path> {
    let (ip_len, source, destination, protocol) = match ethertype {
        0x0800 => (20, 12..16, 16..20, 9),
        _ => (40, 8..24, 24..40, 6),
    };
    let udp = bytes.get(ip_len..bytes.len().checked_sub(inner)?)?;
    let mut kept = udp.get(2..4).unwrap_or_default().to_vec();
    kept.extend(udp.get(8..).unwrap_or_default());
    Some((
        bytes.get(source)?.to_vec(),
        bytes.get(destination)?.to_vec(),
        *bytes.get(protocol)?,
        kept,
    ))
}

/// By which path each flow's last packet came, and whether the replies mirror it.
#[derive(Default)]
struct Mirror {
    came: BTreeMap<FlowKey, Path>,
    replies: usize,
    moved: usize,
    wrong: Vec<String>,
    words: crate::Differences,
}

fn whole(ethertype: u16, bytes: &[u8]) -> Option<FlowKey> {
    let gso_size = 0;
    let packet = Packet {
        ethertype,
        bytes,
        gso_size,
    };
    flow::key(&packet).filter(|key| {
        matches!(key.protocol, 6 | 17)
            && (key.source_port, key.destination_port) != ([0; 2], [0; 2])
    })
}

impl Observer for Mirror {
    fn batch(
        &mut self,
        batch: &Batch,
        records: &[Record],
        first: &Outcomes,
        divergences: &[Divergence],
    ) -> Result<(), ReplayError> {
        self.words.batch(batch, records, first, divergences)?;
        for (event, outcome) in batch.events().iter().zip(&first.events) {
            let mut out = outcome.frames.clone();
            match event {
                Event::Ingress { ethertype, packet }
                    if outcome.reason == Some(Reason::Decapsulated) =>
                {
                    let Some(inner) = out.next().and_then(|at| first.frames.frame(at, batch))
                    else {
                        continue;
                    };
                    let came = path(*ethertype, batch.bytes(packet), inner.bytes.len());
                    let bytes = inner.bytes.to_vec();
                    if let (Some(key), Some(came)) = (whole(inner.ethertype, &bytes), came) {
                        let before = self.came.insert(key.reversed(), came.clone());
                        self.moved += usize::from(before.is_some_and(|before| before != came));
                    }
                }
                Event::Egress {
                    ethertype,
                    packet,
                    gso,
                    ..
                } => {
                    let bytes = batch.bytes(packet);
                    let known = whole(*ethertype, bytes).and_then(|key| self.came.get(&key));
                    let Some((source, destination, protocol, kept)) = known else {
                        continue;
                    };
                    let reason = outcome.reason;
                    if reason.map(Reason::verdict) == Some(Verdict::Passed) {
                        self.wrong.push(format!("{reason:?}: {bytes:02x?}"));
                    }
                    if reason != Some(Reason::Encapsulated) {
                        continue;
                    }
                    let mirrored = (destination.clone(), source.clone(), *protocol, kept.clone());
                    for frame in out.filter_map(|at| first.frames.frame(at, batch)) {
                        // A segment is shorter than its packet: the header's length is known.
                        let ip = if frame.ethertype == 0x0800 { 20 } else { 40 };
                        let udp = if *protocol == 17 { 6 + kept.len() } else { 0 };
                        let inner = frame.bytes.len() - ip - udp;
                        let left = path(frame.ethertype, &frame.bytes.to_vec(), inner);
                        if left.as_ref() != Some(&mirrored) {
                            self.wrong
                                .push(format!("{left:?} in place of {mirrored:?}"));
                        }
                        if frame.bytes.len() > MTU {
                            self.wrong
                                .push(format!("fits: {} bytes", frame.bytes.len()));
                        }
                        if gso.is_none() && inner != bytes.len() {
                            self.wrong.push(format!("{inner} bytes of {}", bytes.len()));
                        }
                    }
                    self.replies += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// How often a capture's replies were mirrored, and moved to another path.
pub(crate) struct Shown {
    pub(crate) replies: usize,
    pub(crate) moved: usize,
}

/// Lets the first engine be asked what the capture's clients asked, and holds the others against
/// it.
pub(crate) fn check(
    capture: &Capture,
    engines: Vec<Box<dyn Engine>>,
) -> Result<(Shown, Vec<Box<dyn Engine>>), Failed> {
    let client = parsed("client", CLIENT);
    let mut wire = Wire::default();
    replay(
        vec![start(EngineKind::Model, &client)?],
        capture,
        &client,
        &mut wire,
    )?;
    let mut mirror = Mirror::default();
    let mut replay = Replay::new(server(), engines);
    for (number, (ethertype, bytes)) in (1..).zip(&wire.0) {
        let mut ethernet = vec![2; 12];
        ethernet.extend(ethertype.to_be_bytes());
        ethernet.extend(bytes);
        let frame = Frame {
            number,
            time: Timestamp(number),
            interface: 0,
            link_type: LinkType::Ethernet,
            original_len: u32::try_from(ethernet.len())?,
            bytes: &ethernet,
        };
        replay.frame(&frame, &mut mirror)?;
        if mirror.came.len() > REMEMBERED {
            break;
        }
    }
    replay.flush(&mut mirror)?;
    if !mirror.wrong.is_empty() {
        return Err(mirror.wrong[..mirror.wrong.len().min(3)].join("\n").into());
    }
    let report: Report = replay.report(&capture.name);
    if report.engines[0].totals.frames_in > 0 {
        agree_on(&report, &mirror.words)?;
    }
    let shown = Shown {
        replies: mirror.replies,
        moved: mirror.moved,
    };
    Ok((shown, replay.into_engines()))
}

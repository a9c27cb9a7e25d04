//! The comparison: what two engines made of the same batch, frame by frame and counter by
//! counter. It finds differences and says where; it judges neither engine.

use crate::engine::{Attribution, OutFrame, Outcome, Outcomes, Port};
use crate::event::{Batch, Event};
use crate::field;
use dynencap_abi::Reason;

/// One difference between two engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The trace's packet number that caused it; where frames cannot be told apart, the first
    /// of the batch.
    pub packet: u64,
    /// The event in the batch.
    pub event: usize,
    /// The engines' names: reference, other.
    pub engines: [&'static str; 2],
    /// What differs.
    pub difference: Difference,
}

/// What differs; the reference's side first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A frame's bytes.
    Bytes {
        /// The first field that differs.
        field: String,
        /// Offset of the first byte that differs, from the network header on.
        offset: usize,
        /// Both frames, from the network header on.
        frames: [Vec<u8>; 2],
    },
    /// One engine emitted a frame that the other did not.
    Frame {
        /// The frame, with `None` for the engine that did not.
        frames: [Option<Vec<u8>>; 2],
    },
    /// The verdict's reason.
    Reason {
        /// Both reasons' names.
        reasons: [&'static str; 2],
    },
    /// A counter.
    Counter {
        /// Which.
        reason: &'static str,
        /// How often in this batch.
        counts: [u64; 2],
    },
    /// The errno of an option call.
    Errno {
        /// Both.
        errnos: [Option<i32>; 2],
    },
    /// What an option read back.
    Value {
        /// Both.
        values: [Option<Vec<u8>>; 2],
    },
    /// An engine could not carry an event out.
    Fault {
        /// In its words.
        what: String,
    },
}

/// An engine's outcomes with what is needed to read them.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// The engine's name.
    pub engine: &'static str,
    /// What its outcomes can tell.
    pub attribution: Attribution,
    /// Its outcomes.
    pub outcomes: &'a Outcomes,
}

/// Appends every difference between a reference (attributed per event) and another engine.
pub fn compare(batch: &Batch, reference: Side<'_>, other: Side<'_>, found: &mut Vec<Divergence>) {
    let before = found.len();
    let mut differs = |event: usize, difference: Difference| {
        let engines = [reference.engine, other.engine];
        found.push(Divergence {
            packet: batch.cause(event),
            event,
            engines,
            difference,
        });
    };
    for fault in &other.outcomes.faults {
        differs(
            fault.event,
            Difference::Fault {
                what: fault.what.clone(),
            },
        );
    }
    match (reference.attribution, other.attribution) {
        (Attribution::PerEvent, Attribution::PerEvent) => {
            per_event(batch, reference.outcomes, other.outcomes, &mut differs);
        }
        // Where one side cannot tell events apart, their order is what can be compared.
        _ => per_batch(batch, reference.outcomes, other.outcomes, &mut differs),
    }
    options(reference.outcomes, other.outcomes, &mut differs);
    // A counter follows from frames and reasons: it is news only where they agree.
    if found.len() == before {
        let engines = [reference.engine, other.engine];
        for (reason, counts) in Reason::ALL.iter().zip(
            reference
                .outcomes
                .counters
                .iter()
                .zip(&other.outcomes.counters),
        ) {
            if counts.0 != counts.1 {
                let counts = [*counts.0, *counts.1];
                let difference = Difference::Counter {
                    reason: reason.name(),
                    counts,
                };
                let event = first_with(*reason, reference.outcomes).unwrap_or(0);
                found.push(Divergence {
                    packet: batch.cause(event),
                    event,
                    engines,
                    difference,
                });
            }
        }
    }
}

fn first_with(reason: Reason, outcomes: &Outcomes) -> Option<usize> {
    outcomes
        .events
        .iter()
        .position(|outcome| outcome.reason == Some(reason))
}

fn per_event(
    batch: &Batch,
    reference: &Outcomes,
    other: &Outcomes,
    differs: &mut impl FnMut(usize, Difference),
) {
    for (at, (left, right)) in reference.events.iter().zip(&other.events).enumerate() {
        if left.reason != right.reason {
            let name = |reason: Option<Reason>| reason.map_or("none", Reason::name);
            let reasons = [name(left.reason), name(right.reason)];
            differs(at, Difference::Reason { reasons });
        }
        for port in [Port::Wire, Port::Delivered] {
            let mut pair = (
                frames_at(port, batch, reference, left),
                frames_at(port, batch, other, right),
            );
            loop {
                let (left, right) = (pair.0.next(), pair.1.next());
                if left.is_none() && right.is_none() {
                    break;
                }
                if let Some(difference) = frame_difference(left, right) {
                    differs(at, difference);
                }
            }
        }
    }
}

/// The frames of an event at a port. In which order two ports see theirs is nobody's promise.
fn frames_at<'a>(
    port: Port,
    batch: &'a Batch,
    outcomes: &'a Outcomes,
    event: &Outcome,
) -> impl Iterator<Item = OutFrame<'a>> {
    let frames = event.frames.clone();
    let frames = frames.filter_map(|at| outcomes.frames.frame(at, batch));
    frames.filter(move |frame| frame.port == port)
}

/// Compares frame by frame in order, at each port by itself; after a difference the sequences
/// are put back in step where one side merely has a frame more.
fn per_batch(
    batch: &Batch,
    reference: &Outcomes,
    other: &Outcomes,
    differs: &mut impl FnMut(usize, Difference),
) {
    for port in [Port::Wire, Port::Delivered] {
        let mut left: Vec<(usize, OutFrame<'_>)> = Vec::new();
        for (event, outcome) in reference.events.iter().enumerate() {
            let frames = outcome
                .frames
                .clone()
                .filter_map(|at| reference.frames.frame(at, batch));
            left.extend(
                frames
                    .filter(|frame| frame.port == port)
                    .map(|frame| (event, frame)),
            );
        }
        let right: Vec<OutFrame<'_>> = other
            .frames
            .iter(batch)
            .filter(|frame| frame.port == port)
            .collect();
        let (mut l, mut r) = (0, 0);
        while l < left.len() || r < right.len() {
            let (a, b) = (left.get(l), right.get(r).copied());
            let last = left.last().map_or(0, |(event, _)| *event);
            let event = a.map_or(last, |(event, _)| *event);
            let a = a.map(|(_, frame)| *frame);
            let Some(difference) = frame_difference(a, b) else {
                (l, r) = (l + 1, r + 1);
                continue;
            };
            let missing_right = left.get(l + 1).is_some_and(|(_, next)| b == Some(*next));
            let missing_left = right.get(r + 1).is_some_and(|next| a == Some(*next));
            let own = |frame: Option<OutFrame<'_>>| frame.map(|frame| frame.bytes.to_vec());
            if missing_right {
                differs(
                    event,
                    Difference::Frame {
                        frames: [own(a), None],
                    },
                );
                l += 1;
            } else if missing_left {
                differs(
                    event,
                    Difference::Frame {
                        frames: [None, own(b)],
                    },
                );
                r += 1;
            } else {
                differs(event, difference);
                (l, r) = (l + 1, r + 1);
            }
        }
    }
}

fn frame_difference(left: Option<OutFrame<'_>>, right: Option<OutFrame<'_>>) -> Option<Difference> {
    let (a, b) = match (left, right) {
        (Some(a), Some(b)) if a == b => return None,
        (None, None) => return None,
        (Some(a), Some(b)) => (a, b),
        (a, b) => {
            let own = |frame: Option<OutFrame<'_>>| frame.map(|frame| frame.bytes.to_vec());
            return Some(Difference::Frame {
                frames: [own(a), own(b)],
            });
        }
    };
    let frames = [a.bytes.to_vec(), b.bytes.to_vec()];
    if a.ethertype != b.ethertype {
        let field = format!(
            "Ethernet type 0x{:04x} / 0x{:04x}",
            a.ethertype, b.ethertype
        );
        return Some(Difference::Bytes {
            field,
            offset: 0,
            frames,
        });
    }
    let [left, right] = &frames;
    let same = left.iter().zip(right).take_while(|(x, y)| x == y).count();
    let field = if same == left.len().min(right.len()) {
        format!("length {} / {}", left.len(), right.len())
    } else {
        field::name_at(left, a.ethertype, same)
    };
    Some(Difference::Bytes {
        field,
        offset: same,
        frames,
    })
}

fn options(reference: &Outcomes, other: &Outcomes, differs: &mut impl FnMut(usize, Difference)) {
    for (at, (left, right)) in reference.events.iter().zip(&other.events).enumerate() {
        if left.errno != right.errno {
            differs(
                at,
                Difference::Errno {
                    errnos: [left.errno, right.errno],
                },
            );
        } else if left.value != right.value {
            let values = [left.value.clone(), right.value.clone()];
            differs(at, Difference::Value { values });
        }
    }
}

/// The flow's event that a divergence is about, for reports.
#[must_use]
pub fn describe(batch: &Batch, event: usize) -> &'static str {
    match batch.events().get(event) {
        Some(Event::Open { .. }) => "open",
        Some(Event::Policy(_)) => "policy",
        Some(Event::Close(_)) => "close",
        Some(Event::SetOption { .. }) => "setsockopt",
        Some(Event::GetOption { .. }) => "getsockopt",
        Some(Event::Egress { gso: Some(_), .. }) => "egress of a super-packet",
        Some(Event::Egress { .. }) => "egress",
        Some(Event::Ingress { .. }) => "ingress",
        None => "nothing",
    }
}

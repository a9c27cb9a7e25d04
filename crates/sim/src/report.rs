//! The report: what a replay counted, as a summary for a person and as one JSON object.
//!
//! Counting and wording only; the numbers come from `replay`.

use crate::compare::{Difference, Divergence};
use crate::engine::Outcomes;
use crate::event::Batch;
use dynencap_abi::{Reason, Verdict};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// What one engine did with the trace. Every frame of the trace counts once under
/// `encapsulated`, `decapsulated`, `passed` or `dropped`; segments are counted beside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Frames of the trace.
    pub frames_in: u64,
    /// Frames on the wire, and frames delivered.
    pub frames_out: u64,
    /// Frames that left inside an exit's headers.
    pub encapsulated: u64,
    /// Frames delivered without their outer headers.
    pub decapsulated: u64,
    /// Segments made of super-packets.
    pub segments: u64,
    /// Super-packets that were cut into those.
    pub super_packets: u64,
    /// Frames dropped, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Frames passed as they were, by reason.
    pub passed: BTreeMap<&'static str, u64>,
    /// Frames on the wire that are longer than the uplink's MTU.
    pub over_mtu: u64,
}

impl Totals {
    /// Adds frames with one reason.
    pub fn add(&mut self, reason: Reason, count: u64) {
        if count == 0 {
            return;
        }
        match reason.verdict() {
            Verdict::Encapsulated => self.encapsulated += count,
            Verdict::Decapsulated => self.decapsulated += count,
            Verdict::Passed => *self.passed.entry(reason.name()).or_default() += count,
            Verdict::Dropped => *self.dropped.entry(reason.name()).or_default() += count,
        }
    }

    /// How many frames have a verdict; equal to `frames_in` when nothing is lost.
    #[must_use]
    pub fn with_verdict(&self) -> u64 {
        self.encapsulated
            + self.decapsulated
            + self.passed.values().sum::<u64>()
            + self.dropped.values().sum::<u64>()
    }

    /// Adds what a batch led to.
    pub fn add_batch(&mut self, outcomes: &Outcomes, uplink_mtu: u32) {
        use crate::engine::Port;
        self.frames_out += outcomes.frames.len() as u64;
        let mtu = uplink_mtu as usize;
        if outcomes.frames.longest() > mtu {
            let long = |(port, length): &(Port, usize)| *port == Port::Wire && *length > mtu;
            self.over_mtu += outcomes.frames.lengths().filter(long).count() as u64;
        }
        for outcome in outcomes
            .events
            .iter()
            .filter(|outcome| outcome.segments > 0)
        {
            self.super_packets += 1;
            self.segments += u64::from(outcome.segments);
        }
        for (reason, count) in Reason::ALL.iter().zip(outcomes.verdicts) {
            self.add(*reason, count);
        }
    }

    /// Adds a frame that no engine saw, under a reason of dynsim's own.
    pub fn add_unseen(&mut self, reason: &'static str) {
        *self.passed.entry(reason).or_default() += 1;
        self.frames_out += 1;
    }
}

/// What one engine did, and how fast.
#[derive(Clone, Debug, Serialize)]
pub struct EngineReport {
    /// Its name.
    #[serde(skip)]
    pub name: &'static str,
    /// What it counted.
    #[serde(flatten)]
    pub totals: Totals,
    /// Time spent in this engine alone.
    pub seconds: f64,
    /// Frames of the trace per second of that time.
    pub packets_per_second: f64,
}

/// A replay's result.
#[derive(Clone, Debug)]
pub struct Report {
    /// The trace's name.
    pub trace: String,
    /// Flows seen.
    pub flows: u64,
    /// Wall clock.
    pub seconds: f64,
    /// The engines that ran, in the order asked for.
    pub engines: Vec<EngineReport>,
    /// Engines that did not run, with the reason.
    pub not_run: Vec<(&'static str, String)>,
    /// How many differences between engines there were.
    pub divergences: u64,
    /// Invariants that an engine violated, in words.
    pub violations: Vec<String>,
    /// The trace could not be read to its end, or the replay was interrupted: why.
    pub stopped: Option<String>,
    /// Files that were written.
    pub written: Vec<String>,
}

impl Report {
    /// One JSON object: the first engine's totals, and an object per engine in `by_engine`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let totals = self.engines.first().map(|engine| &engine.totals);
        let mut object = serde_json::json!(totals.unwrap_or(&Totals::default()));
        let by_engine: BTreeMap<_, _> = self
            .engines
            .iter()
            .map(|engine| (engine.name, engine))
            .collect();
        let more = serde_json::json!({
            "trace": self.trace,
            "flows": self.flows,
            "seconds": self.seconds,
            "divergences": self.divergences,
            "violations": self.violations,
            "engines": self.engines.iter().map(|engine| engine.name).collect::<Vec<_>>(),
            "by_engine": by_engine,
            "not_run": self.not_run.iter().cloned().collect::<BTreeMap<_, _>>(),
            "stopped": self.stopped,
            "written": self.written,
        });
        if let (Some(object), serde_json::Value::Object(more)) = (object.as_object_mut(), more) {
            object.extend(more);
        }
        object
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.engines.iter().map(|engine| engine.name).collect();
        writeln!(
            f,
            "{}: {} flows, engines: {}",
            self.trace,
            self.flows,
            names.join(", ")
        )?;
        for (name, reason) in &self.not_run {
            writeln!(f, "  {name} did not run: {reason}")?;
        }
        if let Some(totals) = self.engines.first().map(|engine| &engine.totals) {
            writeln!(f, "  frames in          {:>12}", totals.frames_in)?;
            writeln!(f, "  frames out         {:>12}", totals.frames_out)?;
            writeln!(f, "  encapsulated       {:>12}", totals.encapsulated)?;
            if totals.decapsulated > 0 {
                writeln!(f, "  decapsulated       {:>12}", totals.decapsulated)?;
            }
            if totals.super_packets > 0 {
                let (segments, whole) = (totals.segments, totals.super_packets);
                writeln!(
                    f,
                    "  segments           {segments:>12}   of {whole} super-packets"
                )?;
            }
            for (what, reasons) in [("passed", &totals.passed), ("dropped", &totals.dropped)] {
                for (reason, count) in reasons {
                    writeln!(f, "  {what:<8}{count:>23}   {reason}")?;
                }
            }
            writeln!(f, "  over the MTU       {:>12}", totals.over_mtu)?;
        }
        writeln!(f, "  divergences        {:>12}", self.divergences)?;
        for engine in &self.engines {
            writeln!(
                f,
                "  {:<8}{:>23.0} packets/s",
                engine.name, engine.packets_per_second
            )?;
        }
        for violation in &self.violations {
            writeln!(f, "  violated: {violation}")?;
        }
        for file in &self.written {
            writeln!(f, "  wrote {file}")?;
        }
        Ok(())
    }
}

const COLUMN: usize = 16;

/// A divergence in words, with both frames side by side.
#[must_use]
pub fn describe(divergence: &Divergence, batch: &Batch) -> String {
    let [left, right] = divergence.engines;
    let event = crate::compare::describe(batch, divergence.event);
    let mut text = format!(
        "packet {}, {event}: {left} and {right} differ: ",
        divergence.packet
    );
    // Writing to a String cannot fail.
    let _ = match &divergence.difference {
        Difference::Bytes {
            field,
            offset,
            frames,
        } => {
            let _ = writeln!(text, "{field} (byte {offset} behind the link header)");
            side_by_side(&mut text, divergence.engines, frames);
            Ok(())
        }
        Difference::Frame { frames } => {
            let (has, not) = if frames.first().is_some_and(Option::is_some) {
                (left, right)
            } else {
                (right, left)
            };
            let _ = writeln!(text, "a frame that {has} emits and {not} does not");
            let [a, b] = frames.clone().map(Option::unwrap_or_default);
            side_by_side(&mut text, divergence.engines, &[a, b]);
            Ok(())
        }
        Difference::Reason { reasons: [a, b] } => writeln!(text, "verdict {a} / {b}"),
        Difference::Counter {
            reason,
            counts: [a, b],
        } => {
            writeln!(
                text,
                "counter {reason} {a} / {b} in the batch that begins here"
            )
        }
        Difference::Errno { errnos: [a, b] } => writeln!(text, "errno {a:?} / {b:?}"),
        Difference::Value { values: [a, b] } => writeln!(text, "value {a:02x?} / {b:02x?}"),
        Difference::Fault { what } => writeln!(text, "{right} could not carry it out: {what}"),
    };
    text
}

/// Rows of 16 bytes of either frame; `!` marks rows that differ, runs of equal rows behind
/// the first difference are left out.
fn side_by_side(text: &mut String, engines: [&str; 2], frames: &[Vec<u8>; 2]) {
    let [a, b] = frames;
    let width = COLUMN * 2 + COLUMN / 4;
    let _ = writeln!(text, "         {:<width$}   {}", engines[0], engines[1]);
    let mut skipped = false;
    for at in (0..a.len().max(b.len())).step_by(COLUMN) {
        let row = |frame: &[u8]| {
            let mut hex = String::new();
            let end = frame.len().min(at + COLUMN);
            for (nth, byte) in frame.get(at..end).unwrap_or_default().iter().enumerate() {
                let gap = if nth > 0 && nth % 4 == 0 { " " } else { "" };
                let _ = write!(hex, "{gap}{byte:02x}");
            }
            hex
        };
        let (left, right) = (row(a), row(b));
        // The headers are shown whole: at most 80 + 60 + 60 bytes.
        if left == right && at >= 208 {
            if !skipped {
                let _ = writeln!(text, "     ...");
            }
            skipped = true;
            continue;
        }
        skipped = false;
        let mark = if left == right { ' ' } else { '!' };
        let _ = writeln!(text, "  {mark} {at:>4}  {left:<width$}   {right}");
    }
}

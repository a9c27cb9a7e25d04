//! Reproduction: from a divergence to the smallest trace and scenario that show it again.
//!
//! The trace is read a second time up to the packet, its flow's frames are kept (at most
//! [`KEPT`]), and what can be left out is left out while fresh engines still differ.

use crate::compare::Divergence;
use crate::director::{Director, Fate, FlowName};
use crate::engine::{self, Attribution, EngineKind, Outcomes};
use crate::event::{Batch, Event};
use crate::replay::{Observer, Replay, ReplayError};
use crate::scenario::{Assignment, FlowMatch, Rule, Scenario, Side};
use crate::trace::{
    Frame, LinkType, Packet, PcapWriter, Reader, Resolution, Timestamp, WriteError,
};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// How many of a flow's frames before the divergence are kept.
pub const KEPT: usize = 1024;

/// A frame with its own bytes.
#[derive(Clone)]
struct Kept {
    time: Timestamp,
    link_type: LinkType,
    bytes: Vec<u8>,
    original_len: u32,
}

/// What replays again: the engines that differed and what they run.
pub struct Setting<'a> {
    /// The engines, reference first.
    pub engines: [EngineKind; 2],
    /// The BPF object.
    pub object: &'a [u8],
    /// The scenario in which they differed.
    pub scenario: &'a Scenario,
}

struct Found(bool);

impl Observer for Found {
    fn batch(
        &mut self,
        _: &Batch,
        _: &[crate::director::Record],
        _: &Outcomes,
        divergences: &[Divergence],
    ) -> Result<(), ReplayError> {
        self.0 |= !divergences.is_empty();
        Ok(())
    }
}

/// Writes `<stem>-packet<N>.pcap` and `.toml` into `directory`; `None` where the divergence
/// does not show again on the flow's frames alone.
///
/// # Errors
/// The trace cannot be read again, an engine fails, or the files cannot be written.
pub fn reproduce(
    trace: &Path,
    packet: u64,
    setting: &Setting<'_>,
    directory: &Path,
) -> Result<Option<[PathBuf; 2]>, ReplayError> {
    let (frames, here) = collect(trace, packet, setting.scenario)?;
    let Some((frames, scenario)) = smallest(frames, here, setting)? else {
        return Ok(None);
    };
    let stem = trace
        .file_stem()
        .map_or("trace".into(), |stem| stem.to_string_lossy());
    let base = directory.join(format!("{stem}-packet{packet}"));
    let (pcap, toml) = (base.with_extension("pcap"), base.with_extension("toml"));
    let failed = |path: &Path, source: WriteError| ReplayError::Output {
        path: path.display().to_string(),
        source,
    };
    std::fs::create_dir_all(directory).map_err(|e| failed(directory, e.into()))?;
    write_pcap(&pcap, &frames).map_err(|e| failed(&pcap, e))?;
    std::fs::write(&toml, scenario.to_toml()).map_err(|e| failed(&toml, e.into()))?;
    Ok(Some([pcap, toml]))
}

/// The frames of the packet's flow up to it, and the scenario that holds at it.
fn collect(
    trace: &Path,
    packet: u64,
    scenario: &Scenario,
) -> Result<(Vec<Kept>, Scenario), ReplayError> {
    let (flow, here) = locate(trace, packet, scenario)?;
    let mut frames = VecDeque::new();
    let mut reader = open(trace)?;
    let director = Director::new(scenario.clone());
    while let Some(frame) = reader.next_frame()? {
        let here = frame.number == packet;
        if here || flow.is_some() && director.flow_name(&frame) == flow {
            frames.push_back(keep(&frame));
        }
        if frames.len() > KEPT {
            frames.pop_front();
        }
        if here {
            break;
        }
    }
    Ok((frames.into(), here))
}

/// Which flow the packet belongs to, and a scenario in which its frame alone is what it was.
fn locate(
    trace: &Path,
    packet: u64,
    scenario: &Scenario,
) -> Result<(Option<FlowName>, Scenario), ReplayError> {
    let mut here = scenario.clone();
    let mut reader = open(trace)?;
    let mut director = Director::new(scenario.clone());
    let mut batch = Batch::default();
    while let Some(frame) = reader.next_frame()? {
        batch.clear();
        let record = director.direct(&frame, &mut batch);
        if frame.number != packet {
            continue;
        }
        // What held at the packet holds from the start of the smaller trace.
        here.host.policies.truncate(director.policies_in_effect());
        for policy in &mut here.host.policies {
            policy.at = None;
        }
        if let Some(exit) = director.exit_of(&frame) {
            let (matches, switches) = (FlowMatch::default(), Vec::new());
            let cgroup = director.cgroup_of(&frame);
            here.assignment = Assignment::Rules(vec![Rule {
                matches,
                cgroup,
                exit,
                switches,
            }]);
        }
        match record.fate {
            Fate::Event(at) => match batch.events().get(at) {
                Some(Event::Egress { gso, .. }) => {
                    here.side = Side::Both;
                    here.gso_size = gso.map(|gso| gso.size).or(here.gso_size);
                }
                // The only frame's sender counts as initiator: what it sends comes in.
                Some(Event::Ingress { .. }) => here.side = Side::Responder,
                _ => {}
            },
            Fate::Defect(_) | Fate::Jumbogram => {}
        }
        return Ok((director.flow_name(&frame), here));
    }
    Ok((None, here))
}

fn open(trace: &Path) -> Result<Reader<BufReader<File>>, ReplayError> {
    let name = trace.display().to_string();
    let file = File::open(trace).map_err(|e| ReplayError::Output {
        path: name.clone(),
        source: e.into(),
    })?;
    Ok(Reader::open(name, BufReader::new(file))?)
}

fn keep(frame: &Frame<'_>) -> Kept {
    Kept {
        time: frame.time,
        link_type: frame.link_type,
        bytes: frame.bytes.to_vec(),
        original_len: frame.original_len,
    }
}

/// The last frame alone, else the whole flow shortened from its front while it still shows.
fn smallest(
    frames: Vec<Kept>,
    here: Scenario,
    setting: &Setting<'_>,
) -> Result<Option<(Vec<Kept>, Scenario)>, ReplayError> {
    let last: Vec<Kept> = frames.last().cloned().into_iter().collect();
    if differs(&last, &here, setting)? {
        return Ok(Some((last, here)));
    }
    for scenario in [&here, setting.scenario] {
        if !differs(&frames, scenario, setting)? {
            continue;
        }
        let mut frames = frames;
        let mut step = frames.len() / 2;
        while step > 0 {
            let shorter: Vec<Kept> = frames.iter().skip(step).cloned().collect();
            if differs(&shorter, scenario, setting)? {
                frames = shorter;
                step = step.min(frames.len() / 2);
            } else {
                step /= 2;
            }
        }
        return Ok(Some((frames, scenario.clone())));
    }
    Ok(None)
}

fn differs(
    frames: &[Kept],
    scenario: &Scenario,
    setting: &Setting<'_>,
) -> Result<bool, ReplayError> {
    let mut engines = Vec::new();
    for kind in setting.engines {
        let attribution = Attribution::PerEvent;
        engines.push(engine::start(
            kind,
            &scenario.host,
            setting.object,
            attribution,
        )?);
    }
    let mut replay = Replay::new(scenario.clone(), engines);
    let mut found = Found(false);
    for (number, kept) in (1..).zip(frames) {
        let frame = Frame {
            number,
            time: kept.time,
            interface: 0,
            link_type: kept.link_type,
            bytes: &kept.bytes,
            original_len: kept.original_len,
        };
        replay.frame(&frame, &mut found)?;
    }
    replay.flush(&mut found)?;
    Ok(found.0)
}

fn write_pcap(path: &Path, frames: &[Kept]) -> Result<(), WriteError> {
    let link_type = frames
        .first()
        .map_or(LinkType::Ethernet, |kept| kept.link_type);
    let output = BufWriter::new(File::create(path)?);
    let mut writer = PcapWriter::new(output, link_type, Resolution::Nanosecond)?;
    for kept in frames.iter().filter(|kept| kept.link_type == link_type) {
        writer.write(&Packet {
            time: kept.time,
            link_type,
            bytes: &kept.bytes,
            original_len: kept.original_len,
            comment: None,
        })?;
    }
    writer.into_inner().flush()?;
    Ok(())
}

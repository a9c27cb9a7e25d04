//! The vm's table of sequences (`crates/vm/src/sequence/table.rs`), made from what the paths
//! execute: runs are weighed here, [`code`] knows what stands where, [`select`] selects. The same
//! object and paths give the same bytes, whatever the table at hand holds.

mod code;
mod select;

use crate::path::{self, Path};
use anyhow::{Context, ensure};
use code::{Code, Node};
use dynencap_vm::Machine;
use select::{Run, Selection};
use std::collections::BTreeMap;

/// Fewer leave out what common packets execute; more save nothing on these, and each is code in
/// the interpreter, which as a whole gets slower. Measured by replays with 150 (4 % slower) and
/// 320 (6 % slower).
const SEQUENCES: usize = 200;
/// What a line of the table holds, as everywhere.
const WIDTH: usize = 99;
const INDENT: &str = "            ";

/// Weights of the paths that packets take most often, against [`RARE`] of every other. A replay
/// of a capture consists of nothing but these, a simulation mostly; so they get as much of the
/// table as saves anything, and what all others have in common the rest. The likelier of two
/// shapes does not weigh more: which that is depends on the deployment.
const COMMON: &[(&str, u64)] = &[
    ("egress/ip6/tcp6", PACKET),
    ("egress/ip6/udp6", PACKET),
    ("egress/ip6/tcp4", PACKET),
    ("egress/udp6-8/tcp6", PACKET),
    ("egress/udp6-8/udp6", PACKET),
    ("egress/udp6-8/tcp4", PACKET),
    ("egress/no-exit", PACKET),
    ("egress/no-socket", PACKET),
    ("ingress/ip6/tcp6", PACKET),
    ("ingress/ip6/tcp4", PACKET),
    ("ingress/udp6-8/tcp6", PACKET),
    ("ingress/udp6-8/tcp4", PACKET),
    ("ingress/not-tunnel/tcp6", PACKET),
    ("set_option/gateway/first", CALL),
    ("set_option/udp", CALL),
];
const PACKET: u64 = 100;
/// Once for a flow of many packets.
const CALL: u64 = 10;
const RARE: u64 = 1;

const HEAD: &str = "\
//! The sequences that save the most dispatches on the gate's paths (`benches/gate/object`), those
//! weighed that packets take most often. `cargo xtask sequences` writes this file, from the
//! committed object. On another object it may save less; what a program does is the same.

/// Calls a macro with all sequences. Of each instruction: operation, whether its operand is a
/// register or an immediate, destination and source (15: none).
macro_rules! sequences {
    ($with:ident $($first:tt)*) => {
        $with! {
            $($first)*
";
const TAIL: &str = "        }
    };
}
pub(crate) use sequences;
";

/// See the module.
pub(crate) struct Table {
    /// The file.
    pub(crate) text: String,
    /// What the common paths cost with it: path, instructions, dispatches.
    pub(crate) costs: Vec<(String, usize, usize)>,
}

/// Makes it.
pub(crate) fn table(object: &[u8]) -> anyhow::Result<Table> {
    let mut loaded = Machine::load(object)?;
    let code = Code::new(&loaded)?;
    loaded.record_executed();
    let paths = path::all(&loaded)?;
    for (name, _) in COMMON {
        ensure!(
            paths.iter().any(|path| path.title() == *name),
            "{name} is weighed, and there is no such path"
        );
    }

    let mut runs: BTreeMap<Run, u64> = BTreeMap::new();
    let mut common = Vec::new();
    for path in paths {
        let executed = executed(&path, &loaded, &code)?;
        let title = path.title();
        let weight = COMMON.iter().find(|(name, _)| *name == title);
        let straight = code.straight(&executed);
        for run in &straight {
            *runs.entry(run.clone()).or_default() += weight.map_or(RARE, |(_, weight)| *weight);
        }
        if weight.is_some() {
            common.push((title, executed.len(), straight));
        }
    }

    let selection = Selection::make(&code, &runs, SEQUENCES);
    let costs = common.into_iter().map(|(title, instructions, runs)| {
        let dispatches = runs.iter().map(|run| selection.dispatches(run)).sum();
        (title, instructions, dispatches)
    });
    Ok(Table {
        costs: costs.collect(),
        text: render(&code, selection.chosen()),
    })
}

/// Which slots of all code a path's program executes.
fn executed(path: &Path, loaded: &Machine, code: &Code) -> anyhow::Result<Run> {
    let (cost, host) = path.run(loaded)?;
    let (program, slots) = host.machine.executed().context("nothing was recorded")?;
    // A path that runs other programs after its own would be taken for one of theirs.
    ensure!(
        program == path.program && slots.len() as u64 == cost.instructions,
        "{}: its program's run is not the last",
        path.title()
    );
    code.places(program, slots)
}

fn render(code: &Code, chosen: impl Iterator<Item = Node>) -> String {
    let mut sequences: Vec<Vec<&str>> = chosen.map(|node| code.steps(node)).collect();
    sequences.sort_unstable();
    let mut text = HEAD.to_owned();
    for steps in sequences {
        let mut line = format!("{INDENT}[");
        let last = steps.len().saturating_sub(1);
        for (at, step) in steps.iter().enumerate() {
            let end = if at == last { "]" } else { "," };
            if line.len() + 1 + step.len() + end.len() > WIDTH {
                text.push_str(&line);
                text.push('\n');
                line = INDENT.to_owned();
            }
            if !line.ends_with('[') {
                line.push(' ');
            }
            line.push_str(step);
            line.push_str(end);
        }
        text.push_str(&line);
        text.push('\n');
    }
    text + TAIL
}

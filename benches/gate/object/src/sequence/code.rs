//! The code of all programs, one behind the other, and which sequences begin at which place.
//! Equal sequences are one, wherever they stand: a [`Node`] of a tree in which each is the child
//! of what it is without its last instruction.

use anyhow::Context;
use dynencap_vm::{LONGEST_SEQUENCE, Listed, Machine};
use std::collections::BTreeMap;

/// A sequence. Numbers follow from where sequences first stand, and so from the object alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node(u32);

impl Node {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What stands at a place.
#[derive(Debug)]
pub(super) struct Place {
    /// The sequences that begin here, of one instruction, of two, …; each with the place behind.
    pub(super) sequences: Vec<(Node, usize)>,
    /// The place of the next instruction, unless control goes elsewhere.
    next: Option<usize>,
}

/// See the module.
pub(super) struct Code {
    pub(super) places: Vec<Place>,
    /// Where each program begins.
    starts: BTreeMap<String, usize>,
    /// Of each node: what it is without its last instruction, and that instruction.
    nodes: Vec<(Option<Node>, String)>,
}

impl Code {
    pub(super) fn new(machine: &Machine) -> anyhow::Result<Self> {
        let mut programs = Vec::new();
        for program in machine.programs() {
            let listing = machine.listing(program).context("a program without code")?;
            programs.push((program.to_owned(), listing));
        }
        Ok(Self::of(programs))
    }

    pub(super) fn of(programs: Vec<(String, Vec<Listed>)>) -> Self {
        let mut code = Self {
            places: Vec::new(),
            starts: BTreeMap::new(),
            nodes: Vec::new(),
        };
        let mut known = BTreeMap::new();
        for (program, listing) in programs {
            let start = code.places.len();
            code.starts.insert(program, start);
            for at in 0..listing.len() {
                let place = code.place(&listing, start, at, &mut known);
                code.places.push(place);
            }
        }
        code
    }

    fn place(
        &mut self,
        listing: &[Listed],
        start: usize,
        at: usize,
        known: &mut BTreeMap<(Option<Node>, String), Node>,
    ) -> Place {
        let (mut sequences, mut behind, mut parent) = (Vec::new(), at, None);
        while let Some(insn) = listing.get(behind) {
            behind += insn.slots;
            let key = (parent, insn.step.clone());
            let node = *known.entry(key).or_insert_with_key(|key| {
                self.nodes.push(key.clone());
                Node(self.nodes.len() as u32 - 1)
            });
            sequences.push((node, start + behind));
            parent = Some(node);
            if !insn.goes_on || sequences.len() == LONGEST_SEQUENCE {
                break;
            }
        }
        let here = listing.get(at);
        Place {
            sequences,
            next: here
                .filter(|insn| insn.goes_on)
                .map(|insn| start + at + insn.slots),
        }
    }

    /// Every sequence.
    pub(super) fn nodes(&self) -> impl ExactSizeIterator<Item = Node> {
        (0..self.nodes.len()).map(|number| Node(number as u32))
    }

    /// The places of a program's slots.
    pub(super) fn places(&self, program: &str, slots: &[usize]) -> anyhow::Result<Vec<usize>> {
        let start = self.starts.get(program).context("a program without code")?;
        Ok(slots.iter().map(|slot| start + slot).collect())
    }

    /// Cuts where control does not go on to the next instruction: no sequence reaches over that.
    pub(super) fn straight(&self, executed: &[usize]) -> Vec<Vec<usize>> {
        executed
            .chunk_by(|at, then| self.places.get(*at).and_then(|at| at.next) == Some(*then))
            .map(<[usize]>::to_vec)
            .collect()
    }

    /// The sequence of so many instructions that begins at a place.
    pub(super) fn sequence(&self, at: usize, len: usize) -> Option<Node> {
        let sequences = &self.places.get(at)?.sequences;
        sequences.get(len.checked_sub(1)?).map(|(node, _)| *node)
    }

    /// A sequence's instructions.
    pub(super) fn steps(&self, node: Node) -> Vec<&str> {
        let mut steps = Vec::new();
        let mut at = Some(node);
        while let Some((parent, step)) = at.and_then(|at| self.nodes.get(at.index())) {
            steps.push(step.as_str());
            at = *parent;
        }
        steps.reverse();
        steps
    }
}

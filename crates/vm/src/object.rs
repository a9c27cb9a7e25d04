//! Takes programs and maps out of a BPF object file: `aya-obj` parses and relocates with
//! pretended map descriptors, counted from 1 in the order of the maps' names.

use crate::fault::LoadError;
use crate::insn::{Insn, decode};
use crate::map::Definition;
use crate::sequence::{self, Window};
use aya_obj::{Map, Object};
use std::collections::HashSet;

/// A program, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    /// Every instruction by itself.
    pub(crate) code: Vec<Window>,
    /// The same with sequences.
    pub(crate) joined: Vec<Window>,
    /// Slot and source line, by slot.
    lines: Vec<(u32, u32)>,
}

impl Program {
    #[cfg(test)]
    pub(crate) fn from_raw(name: &str, raw: &[aya_obj::generated::bpf_insn]) -> Self {
        Self::new(name, raw, Vec::new())
    }

    fn new(name: &str, raw: &[aya_obj::generated::bpf_insn], lines: Vec<(u32, u32)>) -> Self {
        Self {
            lines,
            ..Self::from_code(name, &decode(raw))
        }
    }

    pub(crate) fn from_code(name: &str, code: &[Insn]) -> Self {
        Self {
            name: name.to_owned(),
            joined: sequence::join(code),
            code: sequence::single(code),
            lines: Vec::new(),
        }
    }

    /// The source line of an instruction.
    pub(crate) fn line(&self, pc: usize) -> Option<u32> {
        let after = self
            .lines
            .partition_point(|(start, _)| *start as usize <= pc);
        self.lines.get(after.checked_sub(1)?).map(|(_, line)| *line)
    }
}

/// What an object holds.
pub(crate) struct Contents {
    pub(crate) programs: Vec<Program>,
    pub(crate) maps: Vec<Definition>,
}

pub(crate) fn load(bytes: &[u8]) -> Result<Contents, LoadError> {
    let mut object = Object::parse(bytes).map_err(|source| LoadError::Parse { source })?;
    let mut named: Vec<(String, Map)> = object
        .maps
        .iter()
        .map(|(name, map)| (name.clone(), map.clone()))
        .collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    let text: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    let descriptors = named
        .iter()
        .zip(1..)
        .map(|((name, map), descriptor)| (name.as_str(), descriptor, map));
    object
        .relocate_maps(descriptors, &text)
        .and_then(|()| object.relocate_calls(&text))
        .map_err(|source| LoadError::Relocate { source })?;
    let mut programs: Vec<_> = object
        .programs
        .iter()
        .filter_map(|(name, program)| {
            let function = object.functions.get(&program.function_key())?;
            let mut lines: Vec<_> = function
                .line_info
                .line_info
                .iter()
                .map(|info| (info.insn_off, info.line_col >> 10))
                .collect();
            lines.sort_by_key(|(start, _)| *start);
            Some(Program::new(name, &function.instructions, lines))
        })
        .collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Contents {
        programs,
        maps: named.into_iter().map(definition).collect(),
    })
}

fn definition((name, map): (String, Map)) -> Definition {
    Definition {
        name,
        ty: map.map_type(),
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map.max_entries(),
        flags: map.map_flags(),
        data: map.data().to_vec(),
    }
}

//! Tests that need the inside: hand-assembled programs on a machine of their own.

mod arrival;
mod frame;
mod fuzz;
mod hook;
mod isa;
mod lookup;
mod map;
mod memory;
mod option;
mod record;
mod room;
mod sequence;

use crate::fault::FaultKind;
use crate::machine::Machine;
use crate::map::{Definition, Map};
use crate::object::Program;
use crate::skb::Skb;
use aya_obj::generated::bpf_insn;

pub(crate) const EXIT: bpf_insn = insn(0x95, 0, 0, 0, 0);

pub(crate) const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> bpf_insn {
    bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: aya_obj::generated::__BindgenBitfieldUnit::new([src << 4 | dst]),
        off,
        imm,
    }
}

/// `dst = imm`.
pub(crate) const fn mov(dst: u8, imm: i32) -> bpf_insn {
    insn(0xb7, dst, 0, 0, imm)
}

/// `dst = src`.
pub(crate) const fn copy(dst: u8, src: u8) -> bpf_insn {
    insn(0xbf, dst, src, 0, 0)
}

/// `dst += imm`.
pub(crate) const fn add(dst: u8, imm: i32) -> bpf_insn {
    insn(0x07, dst, 0, 0, imm)
}

pub(crate) const fn call(helper: i32) -> bpf_insn {
    insn(0x85, 0, 0, 0, helper)
}

/// `dst = value`, in two slots.
pub(crate) fn wide(dst: u8, value: u64) -> [bpf_insn; 2] {
    [
        insn(0x18, dst, 0, 0, value as u32 as i32),
        insn(0, 0, 0, 0, (value >> 32) as u32 as i32),
    ]
}

/// `dst = handle of the map with this index`.
pub(crate) fn map_fd(dst: u8, index: i32) -> [bpf_insn; 2] {
    [insn(0x18, dst, 1, 0, index + 1), insn(0, 0, 0, 0, 0)]
}

pub(crate) fn machine(program: &[bpf_insn]) -> Machine {
    let mut machine = Machine::empty();
    machine.programs.push(Program::from_raw("main", program));
    machine
}

pub(crate) fn add_map(machine: &mut Machine, ty: u32, key: u32, value: u32, entries: u32) {
    let number = machine.maps.len();
    let definition = Definition {
        name: format!("map{number}"),
        ty,
        key_size: key,
        value_size: value,
        max_entries: entries,
        // Tries and socket storages must have BPF_F_NO_PREALLOC.
        flags: u32::from(matches!(ty, 11 | 24)),
        data: Vec::new(),
    };
    let map = Map::create(definition, number, &mut machine.memory).unwrap();
    machine.maps.push(map);
}

/// A 60-byte frame with an IPv6 Ethernet type.
pub(crate) fn frame() -> Skb {
    let mut bytes = [0; 60];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = index as u8;
    }
    Skb::new(&bytes, 0x86dd)
}

/// Runs as TC program; gives the low 32 bits of r0.
pub(crate) fn run(machine: &mut Machine) -> Result<u32, FaultKind> {
    machine
        .run_tc("main", &mut frame())
        .map(|run| run.action as u32)
        .map_err(|fault| fault.kind)
}

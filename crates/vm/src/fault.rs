//! What goes wrong inside the machine, and where: faults of a program, of loading, of maps.

use std::fmt;

/// A program did what no verified program can do, or what this machine does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("program {program}, instruction {pc}{}: {kind}", Line(*line))]
pub struct Fault {
    /// The program's name.
    pub program: String,
    /// Index of the instruction slot.
    pub pc: usize,
    /// The source line, where the object's line info has it.
    pub line: Option<u32>,
    /// What happened.
    pub kind: FaultKind,
}

struct Line(Option<u32>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, " (line {line})"))
    }
}

/// Which access a memory fault was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Writing.
    Write,
}

/// The kinds of [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// Memory that the program may not touch in this way.
    #[error("{access:?} of {len} bytes at {address:#x}")]
    Memory {
        /// Guest address.
        address: u64,
        /// How many bytes.
        len: usize,
        /// Reading or writing.
        access: Access,
    },
    /// Not an instruction.
    #[error("opcode {code:#04x} is no instruction")]
    Opcode {
        /// The first byte.
        code: u8,
    },
    /// Control left the program.
    #[error("no such instruction")]
    ProgramCounter,
    /// A helper that is not known, or not to this kind of program.
    #[error("helper {helper} is not available")]
    UnknownHelper {
        /// Its number.
        helper: i32,
    },
    /// A helper was given what the verifier would have refused.
    #[error("helper {helper}: {reason}")]
    HelperArgument {
        /// Its number.
        helper: i32,
        /// What is wrong.
        reason: &'static str,
    },
    /// Too many instructions.
    #[error("ran longer than {budget} instructions")]
    Budget {
        /// How many were granted.
        budget: u64,
    },
    /// Too many nested calls.
    #[error("calls nest deeper than {limit} frames")]
    Depth {
        /// How many may nest.
        limit: usize,
    },
    /// A program ended without giving back the sockets that it looked up.
    #[error("ended with {count} sockets not released")]
    References {
        /// How many.
        count: usize,
    },
    /// The object has no program of that name.
    #[error("no such program")]
    NoProgram,
    /// The socket was closed, or never opened.
    #[error("no such socket")]
    NoSocket,
}

/// Why an object cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not a BPF object.
    #[error("cannot parse the object")]
    Parse {
        /// The parser's reason.
        #[source]
        source: aya_obj::ParseError,
    },
    /// Its references cannot be resolved.
    #[error("cannot relocate the object")]
    Relocate {
        /// The relocator's reason.
        #[source]
        source: aya_obj::relocation::EbpfRelocationError,
    },
    /// A map of a type that is not emulated, or of sizes that make no sense.
    #[error("map {map} of type {ty}, key {key_size}, value {value_size}, {max_entries} entries")]
    Map {
        /// Its name.
        map: String,
        /// `BPF_MAP_TYPE_*`.
        ty: u32,
        /// Bytes of a key.
        key_size: u32,
        /// Bytes of a value.
        value_size: u32,
        /// How many entries.
        max_entries: u32,
    },
}

/// Why a map cannot be read or written from outside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The object has no such map.
    #[error("no map {map}")]
    NoMap {
        /// The name asked for.
        map: String,
    },
    /// The key or value has the wrong length.
    #[error("map {map}: {len} bytes where {expected} are due")]
    Length {
        /// The map.
        map: String,
        /// What is due.
        expected: usize,
        /// What was given.
        len: usize,
    },
    /// The map refused, as the kernel's would.
    #[error("map {map}: errno {errno}")]
    Refused {
        /// The map.
        map: String,
        /// Why.
        errno: i32,
    },
}

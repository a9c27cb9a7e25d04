//! The machine: a loaded object with its maps and sockets, and the runs of its TC programs.
//! Socket-option hooks stand in [`crate::option`].

use crate::context::{begin_sk_buff, end_sk_buff};
use crate::fault::{Fault, FaultKind, LoadError, MapError};
use crate::helper::{Hook, Host};
use crate::interpreter::{Cpu, Meter, Stop};
use crate::map::Map;
use crate::memory::Memory;
use crate::object::{self, Program};
use crate::skb::Skb;
use crate::socket::{SocketId, SocketKind, Sockets};

/// More instructions than any verified program of ours runs.
const DEFAULT_BUDGET: u64 = 1_000_000;

/// What a TC program made of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcRun {
    /// Its return value.
    pub action: i32,
    /// What it cost.
    pub meter: Meter,
    /// The device that `bpf_redirect` named.
    pub redirect: Option<u32>,
}

/// An emulated host that runs a BPF object.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(crate) programs: Vec<Program>,
    pub(crate) maps: Vec<Map>,
    pub(crate) sockets: Sockets,
    pub(crate) memory: Memory,
    clock: u64,
    random: u64,
    budget: u64,
}

impl Machine {
    /// Loads an object file.
    ///
    /// # Errors
    /// When it is no BPF object, or has maps that are not emulated.
    pub fn load(object: &[u8]) -> Result<Self, LoadError> {
        let contents = object::load(object)?;
        let mut machine = Self::empty();
        machine.programs = contents.programs;
        for (number, definition) in contents.maps.into_iter().enumerate() {
            let map = Map::create(definition, number, &mut machine.memory)?;
            machine.maps.push(map);
        }
        Ok(machine)
    }

    pub(crate) fn empty() -> Self {
        Self {
            programs: Vec::new(),
            maps: Vec::new(),
            sockets: Sockets::default(),
            memory: Memory::new(),
            clock: 0,
            random: 0,
            budget: DEFAULT_BUDGET,
        }
    }

    /// The programs' names, sorted.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        self.programs.iter().map(|program| program.name.as_str())
    }

    /// What `bpf_ktime_get_ns` gives from now on.
    pub fn set_clock(&mut self, nanoseconds: u64) {
        self.clock = nanoseconds;
    }

    /// From what `bpf_get_prandom_u32` starts.
    pub fn set_seed(&mut self, seed: u64) {
        self.random = seed;
    }

    /// How many instructions a run may take.
    pub fn set_budget(&mut self, instructions: u64) {
        self.budget = instructions;
    }

    fn map_and_key(&mut self, name: &str, key: &[u8]) -> Result<usize, MapError> {
        let index = self.map_index(name)?;
        check_len(name, self.maps[index].key_len, key.len())?;
        Ok(index)
    }

    fn map_index(&self, name: &str) -> Result<usize, MapError> {
        self.maps
            .iter()
            .position(|map| map.name == name)
            .ok_or_else(|| MapError::NoMap {
                map: name.to_owned(),
            })
    }

    /// Sets an entry, as `bpf(BPF_MAP_UPDATE_ELEM, BPF_ANY)` does.
    ///
    /// # Errors
    /// No such map, wrong lengths, or the map's refusal.
    pub fn update_map(&mut self, map: &str, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        let index = self.map_and_key(map, key)?;
        check_len(map, self.maps[index].value_len, value.len())?;
        self.maps[index]
            .update(key, value, 0, &mut self.memory)
            .map_err(|errno| refused(map, errno))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// No such map, or a key of the wrong length.
    pub fn map_value(&self, map: &str, key: &[u8]) -> Result<Option<Vec<u8>>, MapError> {
        let entry = &self.maps[self.map_index(map)?];
        check_len(map, entry.key_len, key.len())?;
        Ok(entry
            .find(key)
            .map(|slot| entry.value(slot, &self.memory).to_vec()))
    }

    /// Removes an entry.
    ///
    /// # Errors
    /// No such map, wrong lengths, or the map's refusal (`ENOENT`: no such entry).
    pub fn delete_map_entry(&mut self, map: &str, key: &[u8]) -> Result<(), MapError> {
        let index = self.map_and_key(map, key)?;
        self.maps[index]
            .delete(key)
            .map_err(|errno| refused(map, errno))
    }

    /// All values of an array of `u64`.
    ///
    /// # Errors
    /// No such map, or values of another size.
    pub fn counters(&self, map: &str) -> Result<Vec<u64>, MapError> {
        let entry = &self.maps[self.map_index(map)?];
        check_len(map, 8, entry.value_len)?;
        Ok((0..entry.entries)
            .map(|slot| entry.value(slot, &self.memory))
            .map(|value| value.first_chunk().copied().map_or(0, u64::from_le_bytes))
            .collect())
    }

    /// As [`Machine::counters`], into a buffer of the caller's: as many values as it holds.
    ///
    /// # Errors
    /// As [`Machine::counters`].
    pub fn read_counters(&self, map: &str, into: &mut [u64]) -> Result<(), MapError> {
        let entry = &self.maps[self.map_index(map)?];
        check_len(map, 8, entry.value_len)?;
        for (slot, counter) in (0..entry.entries).zip(into) {
            let value = entry.value(slot, &self.memory);
            *counter = value.first_chunk().copied().map_or(0, u64::from_le_bytes);
        }
        Ok(())
    }

    /// The value of a socket's storage.
    ///
    /// # Errors
    /// No such map.
    pub fn storage(&self, map: &str, socket: SocketId) -> Result<Option<Vec<u8>>, MapError> {
        let entry = &self.maps[self.map_index(map)?];
        Ok(self
            .sockets
            .slot(socket)
            .and_then(|slot| entry.storage(slot))
            .map(|slot| entry.value(slot, &self.memory).to_vec()))
    }

    /// Opens a socket.
    pub fn open_socket(&mut self, kind: SocketKind) -> SocketId {
        self.sockets.open(kind, &mut self.memory)
    }

    /// Closes a socket and frees its storages; a closed one is left alone.
    pub fn close_socket(&mut self, socket: SocketId) {
        if let Some(slot) = self.sockets.close(socket, &mut self.memory) {
            for map in &mut self.maps {
                // No storage, or a map of another type: nothing to free.
                let _ = map.drop_storage(slot);
            }
        }
    }

    /// The socket that a listener's handshake makes: of its kind, with its mark and with a copy
    /// of each storage whose map is `BPF_F_CLONE`. A closed listener gives a child of no kind.
    pub fn clone_socket(&mut self, listener: SocketId) -> SocketId {
        let kind = self.sockets.kind(listener).unwrap_or(SocketKind {
            family: 0,
            ty: 0,
            protocol: 0,
        });
        let child = self.open_socket(kind);
        if let (Some(from), Some(to)) = (self.sockets.slot(listener), self.sockets.slot(child)) {
            let mark = self.sockets.mark(from);
            self.sockets.set_mark(to, mark, &mut self.memory);
            for map in &mut self.maps {
                map.clone_storage(from, to, &mut self.memory);
            }
        }
        child
    }

    /// The socket's `SO_MARK`; 0 for a closed one.
    #[must_use]
    pub fn mark(&self, socket: SocketId) -> u32 {
        self.sockets
            .slot(socket)
            .map_or(0, |slot| self.sockets.mark(slot))
    }

    /// Sets the socket's `SO_MARK`; a closed one is left alone.
    pub fn set_mark(&mut self, socket: SocketId, mark: u32) {
        if let Some(slot) = self.sockets.slot(socket) {
            self.sockets.set_mark(slot, mark, &mut self.memory);
        }
    }

    /// Runs a TC program over a frame and leaves the frame as the program left it.
    ///
    /// # Errors
    /// When the program faults; the frame is then as it stood at the fault.
    pub fn run_tc(&mut self, program: &str, skb: &mut Skb) -> Result<TcRun, Fault> {
        self.tc(program, skb, u64::MAX, &mut |_| {})
    }

    /// As [`Machine::run_tc`], with another CPU at work: after every `every` instructions
    /// `interfere` may rewrite sockets' storages.
    ///
    /// # Errors
    /// As [`Machine::run_tc`].
    pub fn run_tc_interleaved(
        &mut self,
        program: &str,
        skb: &mut Skb,
        every: u64,
        interfere: &mut dyn FnMut(&mut Storages<'_>),
    ) -> Result<TcRun, Fault> {
        self.tc(program, skb, every.max(1), interfere)
    }

    fn tc(
        &mut self,
        program: &str,
        skb: &mut Skb,
        every: u64,
        interfere: &mut dyn FnMut(&mut Storages<'_>),
    ) -> Result<TcRun, Fault> {
        let index = self.program_index(program)?;
        std::mem::swap(&mut self.memory.skb, skb);
        begin_sk_buff(&mut self.memory, &self.sockets);
        let result = self.run(index, Hook::Tc, every, interfere);
        end_sk_buff(&mut self.memory);
        std::mem::swap(&mut self.memory.skb, skb);
        result.map(|run| TcRun {
            action: run.value as i32,
            meter: run.meter,
            redirect: run.redirect,
        })
    }

    pub(crate) fn program_index(&self, name: &str) -> Result<usize, Fault> {
        self.programs
            .iter()
            .position(|program| program.name == name)
            .ok_or_else(|| fault(name, FaultKind::NoProgram))
    }

    /// Runs a program on the context that stands in memory.
    pub(crate) fn run(
        &mut self,
        index: usize,
        hook: Hook,
        every: u64,
        interfere: &mut dyn FnMut(&mut Storages<'_>),
    ) -> Result<Run, Fault> {
        let program = &self.programs[index];
        let mut cpu = Cpu::new();
        let mut redirect = None;
        loop {
            let mut host = Host {
                hook,
                maps: &mut self.maps,
                sockets: &mut self.sockets,
                clock: self.clock,
                random: &mut self.random,
                redirect,
            };
            let limit = cpu
                .meter
                .instructions
                .saturating_add(every)
                .min(self.budget);
            let stop = cpu.run(&program.code, &mut self.memory, &mut host, limit);
            redirect = host.redirect;
            let kind = match stop {
                Ok(Stop::Exited(value)) => {
                    return Ok(Run {
                        value,
                        meter: cpu.meter,
                        redirect,
                    });
                }
                Ok(Stop::Paused) if cpu.meter.instructions < self.budget => {
                    interfere(&mut Storages {
                        maps: &mut self.maps,
                        sockets: &self.sockets,
                        memory: &mut self.memory,
                    });
                    continue;
                }
                Ok(Stop::Paused) => FaultKind::Budget {
                    budget: self.budget,
                },
                Err(kind) => kind,
            };
            return Err(Fault {
                program: program.name.clone(),
                pc: cpu.pc(),
                line: program.line(cpu.pc()),
                kind,
            });
        }
    }
}

/// How a run of any program ended.
pub(crate) struct Run {
    pub(crate) value: u64,
    pub(crate) meter: Meter,
    pub(crate) redirect: Option<u32>,
}

/// Sockets' storages, as another CPU sees them in the middle of a run.
pub struct Storages<'a> {
    maps: &'a mut [Map],
    sockets: &'a Sockets,
    memory: &'a mut Memory,
}

impl Storages<'_> {
    /// The value of a socket's storage, if it has one.
    pub fn value_mut(&mut self, map: &str, socket: SocketId) -> Option<&mut [u8]> {
        let slot = self.sockets.slot(socket)?;
        let map = self.maps.iter().find(|entry| entry.name == map)?;
        Some(map.value_mut(map.storage(slot)?, self.memory))
    }
}

/// A fault before the first instruction.
pub(crate) fn fault(program: &str, kind: FaultKind) -> Fault {
    Fault {
        program: program.to_owned(),
        pc: 0,
        line: None,
        kind,
    }
}

fn check_len(map: &str, expected: usize, len: usize) -> Result<(), MapError> {
    if expected == len {
        return Ok(());
    }
    Err(MapError::Length {
        map: map.to_owned(),
        expected,
        len,
    })
}

fn refused(map: &str, errno: i32) -> MapError {
    MapError::Refused {
        map: map.to_owned(),
        errno,
    }
}

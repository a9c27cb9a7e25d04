//! The machine: a loaded object with its maps and sockets, and the runs of its TC programs.
//! Socket options' hooks stand in [`crate::option`], those of sockets' lives in
//! [`crate::hook`].

mod map;
mod record;
mod socket;

pub use map::MapEntry;
pub use record::Listed;

use crate::context::{begin_sk_buff, end_sk_buff};
use crate::fault::{Fault, FaultKind, LoadError};
use crate::helper::{Hook, Host, Redirect, TC_ACT_REDIRECT};
use crate::interpreter::{Cpu, Meter, Stop};
use crate::map::Map;
use crate::memory::Memory;
use crate::object::{self, Program};
use crate::skb::Skb;
use crate::socket::{SocketId, Sockets};
use record::Record;
use std::sync::Arc;

/// More instructions than any verified program of ours runs.
const DEFAULT_BUDGET: u64 = 1_000_000;

/// The id of cgroup v2's root.
const ROOT_CGROUP: u64 = 1;

/// What a TC program made of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcRun {
    /// Its return value.
    pub action: i32,
    /// What it cost.
    pub meter: Meter,
    /// Where the frame goes; set with the action `TC_ACT_REDIRECT` alone, and with that action
    /// nothing means that the kernel drops the frame.
    pub redirect: Option<Redirect>,
}

/// An emulated host that runs a BPF object.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(crate) programs: Vec<Program>,
    pub(crate) maps: Vec<Map>,
    pub(crate) sockets: Sockets,
    pub(crate) memory: Memory,
    /// The cgroup of the task at work: ids from the root on.
    pub(crate) task_cgroup: Arc<[u64]>,
    cpu: Box<Cpu>,
    references: Vec<u32>,
    clock: u64,
    random: u64,
    budget: u64,
    meter: Meter,
    /// The map whose writes are remembered.
    watched: Option<usize>,
    /// What the last run executed, when asked for.
    record: Option<Record>,
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
            task_cgroup: Arc::new([ROOT_CGROUP]),
            cpu: Box::new(Cpu::new()),
            references: Vec::new(),
            clock: 0,
            random: 0,
            budget: DEFAULT_BUDGET,
            meter: Meter::default(),
            watched: None,
            record: None,
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

    /// What the last run of any program cost, also of one that faulted.
    #[must_use]
    pub fn meter(&self) -> Meter {
        self.meter
    }

    /// Runs a TC program over a frame and leaves the frame as the program left it.
    ///
    /// # Errors
    /// When the program faults; the frame is then as it stood at the fault.
    pub fn run_tc(&mut self, program: &str, skb: &mut Skb) -> Result<TcRun, Fault> {
        self.tc(program, skb, u64::MAX, &mut |_| {})
    }

    /// The frame that [`Machine::run_tc_here`] runs over. Other runs leave it as it is.
    #[must_use]
    pub fn skb(&self) -> &Skb {
        &self.memory.skb
    }

    /// The same, to be changed.
    pub fn skb_mut(&mut self) -> &mut Skb {
        &mut self.memory.skb
    }

    /// As [`Machine::run_tc`], over the frame that the machine keeps: for whoever runs many, one
    /// after the other.
    ///
    /// # Errors
    /// As [`Machine::run_tc`].
    pub fn run_tc_here(&mut self, program: &str) -> Result<TcRun, Fault> {
        let index = self.program_index(program)?;
        self.tc_here(index, u64::MAX, &mut |_| {})
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
        let result = self.tc_here(index, every, interfere);
        std::mem::swap(&mut self.memory.skb, skb);
        result
    }

    fn tc_here(
        &mut self,
        index: usize,
        every: u64,
        interfere: &mut dyn FnMut(&mut Storages<'_>),
    ) -> Result<TcRun, Fault> {
        begin_sk_buff(&mut self.memory, &self.sockets);
        let result = self.run(index, (Hook::Tc, None), every, interfere);
        end_sk_buff(&mut self.memory);
        result.map(|run| TcRun {
            action: run.value as i32,
            meter: run.meter,
            redirect: run
                .redirect
                .filter(|_| u64::from(run.value as u32) == TC_ACT_REDIRECT),
        })
    }

    pub(crate) fn program_index(&self, name: &str) -> Result<usize, Fault> {
        self.programs
            .iter()
            .position(|program| program.name == name)
            .ok_or_else(|| fault(name, FaultKind::NoProgram))
    }

    /// Runs a program on the context that stands in memory. Some hooks are about one socket:
    /// its slot stands beside the hook.
    pub(crate) fn run(
        &mut self,
        index: usize,
        (hook, subject): (Hook, Option<u32>),
        every: u64,
        interfere: &mut dyn FnMut(&mut Storages<'_>),
    ) -> Result<Run, Fault> {
        let program = &self.programs[index];
        let cpu = &mut *self.cpu;
        cpu.reset();
        let (mut redirect, mut retval) = (None, 0);
        self.references.clear();
        if let Some(record) = &mut self.record {
            record.begin(index);
        }
        loop {
            let mut host = Host {
                hook,
                maps: &mut self.maps,
                sockets: &mut self.sockets,
                clock: self.clock,
                random: &mut self.random,
                redirect,
                references: &mut self.references,
                task_cgroup: &self.task_cgroup,
                subject,
                retval,
            };
            let limit = cpu
                .meter
                .instructions
                .saturating_add(every)
                .min(self.budget);
            let memory = &mut self.memory;
            let stop = match &mut self.record {
                None => cpu.run(program, memory, &mut host, limit),
                Some(Record { slots, .. }) => {
                    cpu.run_noting(program, memory, &mut host, limit, slots)
                }
            };
            (redirect, retval) = (host.redirect, host.retval);
            self.meter = cpu.meter;
            let kind = match stop {
                Ok(Stop::Exited(value)) if self.references.is_empty() => {
                    return Ok(Run {
                        value,
                        meter: cpu.meter,
                        redirect,
                        retval,
                    });
                }
                Ok(Stop::Exited(_)) => FaultKind::References {
                    count: self.references.len(),
                },
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
    pub(crate) redirect: Option<Redirect>,
    pub(crate) retval: i32,
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

//! The BPF object in the kernel: loaded, verified, configured. Attaching it is [`crate::attach`]'s
//! business, what its programs do is theirs; names and layouts come from `dynencap_abi`.

use crate::{DeviceProgram, Error, policy::absent_is_fine};
use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray},
    programs::{
        CgroupSkb, CgroupSock, CgroupSockopt, Program, ProgramError, SchedClassifier, SockOps,
    },
};
use dynencap_abi::{
    Config, Event, Reason, TunnelKey, TunnelSpec,
    object::{self, MAX_REFLECTED},
};
use std::io::ErrorKind;

/// Times that a program is handed to the verifier.
const ATTEMPTS: u32 = 5;

/// The programs in the kernel, accepted by the verifier, attached to nothing.
#[derive(Debug)]
pub struct Loaded {
    pub(crate) ebpf: Ebpf,
}

impl Loaded {
    /// Creates the maps and has every program verified.
    pub fn load(object: &[u8]) -> Result<Self, Error> {
        let programs = [
            DeviceProgram::Egress,
            DeviceProgram::Segmented,
            DeviceProgram::Ingress,
            DeviceProgram::LabDeliver,
        ];
        Self::load_with(object, &programs)
    }

    /// The same with the control path and these device programs alone: each takes its time.
    pub fn load_with(object: &[u8], programs: &[DeviceProgram]) -> Result<Self, Error> {
        Self::load_sized(object, programs, MAX_REFLECTED)
    }

    /// The same with place for so many captured exits.
    pub fn load_sized(
        object: &[u8],
        programs: &[DeviceProgram],
        reflected: u32,
    ) -> Result<Self, Error> {
        let mut loaded = Self::open(object, reflected)?;
        let ebpf = &mut loaded.ebpf;
        for name in [object::SET_OPTION, object::GET_OPTION] {
            let program = sockopt(ebpf, name)?;
            patiently(name, || program.load())?;
        }
        let program = socket_create(ebpf)?;
        patiently(object::SOCKET_CREATE, || program.load())?;
        let program = track(ebpf)?;
        patiently(object::TRACK, || program.load())?;
        let program = reflect(ebpf)?;
        patiently(object::REFLECT, || program.load())?;
        for program in programs {
            verify(ebpf, program.name())?;
        }
        Ok(loaded)
    }

    /// The same for a host that only decapsulates.
    pub fn load_ingress(object: &[u8]) -> Result<Self, Error> {
        let mut loaded = Self::open(object, MAX_REFLECTED)?;
        verify(&mut loaded.ebpf, object::INGRESS)?;
        Ok(loaded)
    }

    fn open(object: &[u8], reflected: u32) -> Result<Self, Error> {
        let ebpf = EbpfLoader::new()
            .map_max_entries(object::REFLECTED, reflected)
            .verifier_log_level(VerifierLogLevel::DEBUG | VerifierLogLevel::STATS)
            .load(object)
            .map_err(not_loaded)?;
        Ok(Self { ebpf })
    }

    /// Writes the host's configuration.
    pub fn set_config(&mut self, config: &Config) -> Result<(), Error> {
        let mut map: Array<&mut MapData, [u8; size_of::<Config>()]> = self.map(object::CONFIG)?;
        map.set(0, config.to_bytes(), 0)
            .map_err(map_error(object::CONFIG))
    }

    /// Lets this host decapsulate what matches `key`, in place of what was said of it before.
    pub fn add_tunnel(&mut self, key: &TunnelKey, spec: &TunnelSpec) -> Result<(), Error> {
        type Tunnels<'a> =
            HashMap<&'a mut MapData, [u8; size_of::<TunnelKey>()], [u8; size_of::<TunnelSpec>()]>;
        let mut map: Tunnels<'_> = self.map(object::TUNNELS)?;
        map.insert(key.to_bytes(), spec.to_bytes(), 0)
            .map_err(map_error(object::TUNNELS))
    }

    /// From now on `key` is no tunnel of this host, if it was one.
    pub fn remove_tunnel(&mut self, key: &TunnelKey) -> Result<(), Error> {
        type Tunnels<'a> =
            HashMap<&'a mut MapData, [u8; size_of::<TunnelKey>()], [u8; size_of::<TunnelSpec>()]>;
        let mut map: Tunnels<'_> = self.map(object::TUNNELS)?;
        absent_is_fine(map.remove(&key.to_bytes())).map_err(map_error(object::TUNNELS))
    }

    /// Every counter, summed over the CPUs.
    pub fn counters(&self) -> Result<[u64; Reason::COUNT], Error> {
        self.sums(object::COUNTERS)
    }

    /// How often each event happened, summed over the CPUs.
    pub fn events(&self) -> Result<[u64; Event::COUNT], Error> {
        self.sums(object::EVENTS)
    }

    fn sums<const N: usize>(&self, name: &'static str) -> Result<[u64; N], Error> {
        let missing = Error::Missing { kind: "map", name };
        let map = self.ebpf.map(name).ok_or(missing)?;
        let map: PerCpuArray<&MapData, u64> = map.try_into().map_err(map_error(name))?;
        let mut sums = [0; N];
        for (index, sum) in (0..).zip(&mut sums) {
            let each = map.get(&index, 0).map_err(map_error(name))?;
            *sum = each.iter().sum();
        }
        Ok(sums)
    }

    pub(crate) fn map<'a, T>(&'a mut self, name: &'static str) -> Result<T, Error>
    where
        T: TryFrom<&'a mut aya::maps::Map, Error = MapError>,
    {
        let map = self.ebpf.map_mut(name);
        let map = map.ok_or(Error::Missing { kind: "map", name })?;
        T::try_from(map).map_err(map_error(name))
    }
}

pub(crate) fn sockopt<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut CgroupSockopt, Error> {
    match ebpf.program_mut(name) {
        Some(Program::CgroupSockopt(program)) => Ok(program),
        _ => Err(Error::Missing {
            kind: "program",
            name,
        }),
    }
}

pub(crate) fn socket_create(ebpf: &mut Ebpf) -> Result<&mut CgroupSock, Error> {
    match ebpf.program_mut(object::SOCKET_CREATE) {
        Some(Program::CgroupSock(program)) => Ok(program),
        _ => Err(Error::Missing {
            kind: "program",
            name: object::SOCKET_CREATE,
        }),
    }
}

pub(crate) fn track(ebpf: &mut Ebpf) -> Result<&mut SockOps, Error> {
    match ebpf.program_mut(object::TRACK) {
        Some(Program::SockOps(program)) => Ok(program),
        _ => Err(Error::Missing {
            kind: "program",
            name: object::TRACK,
        }),
    }
}

pub(crate) fn reflect(ebpf: &mut Ebpf) -> Result<&mut CgroupSkb, Error> {
    match ebpf.program_mut(object::REFLECT) {
        Some(Program::CgroupSkb(program)) => Ok(program),
        _ => Err(Error::Missing {
            kind: "program",
            name: object::REFLECT,
        }),
    }
}

pub(crate) fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, Error> {
    match ebpf.program_mut(name) {
        Some(Program::SchedClassifier(program)) => Ok(program),
        _ => Err(Error::Missing {
            kind: "program",
            name,
        }),
    }
}

/// Has a TC program verified.
pub(crate) fn verify(ebpf: &mut Ebpf, name: &'static str) -> Result<(), Error> {
    let program = classifier(ebpf, name)?;
    patiently(name, || program.load())
}

/// Has a program verified, and again where a signal interrupted that (`EAGAIN` of the kernel's
/// `do_check`): as often as libbpf would.
pub(crate) fn patiently(
    name: &'static str,
    load: impl FnMut() -> Result<(), ProgramError>,
) -> Result<(), Error> {
    again_while(was_interrupted, load).map_err(|error| refused(name, error))
}

fn was_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.kind() == ErrorKind::WouldBlock)
}

fn again_while<E>(
    is_passing: impl Fn(&E) -> bool,
    mut load: impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    for _ in 1..ATTEMPTS {
        match load() {
            Err(error) if is_passing(&error) => {}
            result => return result,
        }
    }
    load()
}

/// An object that was not loaded: the lack of a capability is by far the likeliest cause.
pub(crate) fn not_loaded(error: EbpfError) -> Error {
    match &error {
        EbpfError::MapError(MapError::CreateError { io_error, .. })
            if io_error.raw_os_error() == Some(libc::EPERM) =>
        {
            Error::NotPermitted {
                action: "creating a BPF map",
                needs: "CAP_BPF",
            }
        }
        _ => Error::Object {
            source: Box::new(error),
        },
    }
}

pub(crate) fn refused(program: &'static str, error: ProgramError) -> Error {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            if io_error.raw_os_error() == Some(libc::EPERM) && log.trim().is_empty() {
                return Error::NotPermitted {
                    action: "loading a BPF program",
                    needs: "CAP_BPF and CAP_NET_ADMIN",
                };
            }
            Error::Verifier {
                program,
                log,
                source: io_error,
            }
        }
        error => attach_error(program)(error),
    }
}

pub(crate) fn attach_error(program: &'static str) -> impl Fn(ProgramError) -> Error {
    move |source| Error::Attach {
        program,
        source: Box::new(source),
    }
}

pub(crate) fn map_error(map: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map {
        map,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_interrupted_is_tried_again_but_not_for_ever() {
        let calls_until = |successful: u32, passing: bool| {
            let mut calls = 0;
            let result = again_while(
                |&passing: &bool| passing,
                || {
                    calls += 1;
                    if calls < successful {
                        Err(passing)
                    } else {
                        Ok(())
                    }
                },
            );
            (result, calls)
        };
        assert_eq!(calls_until(3, true), (Ok(()), 3));
        assert_eq!(calls_until(3, false), (Err(false), 1));
        assert_eq!(calls_until(u32::MAX, true), (Err(true), ATTEMPTS));
    }
}

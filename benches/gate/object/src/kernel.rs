//! What the running kernel makes of an object: instructions that its verifier processed, and
//! bytes of machine code. Everything is loaded, nothing attached.

use anyhow::Context;
use aya::programs::{Program, ProgramError, ProgramInfo};
use aya::{EbpfError, EbpfLoader, maps::MapError};
use std::collections::BTreeMap;
use std::io;

const FORBIDDEN: &str = "this process may not load BPF programs";

/// Of one program.
pub(crate) struct Cost {
    pub(crate) verified: u32,
    /// 0: the kernel interprets.
    pub(crate) jited: u32,
}

/// Each program's, by name; or why this machine does not tell.
pub(crate) fn costs(bytes: &[u8]) -> anyhow::Result<Result<BTreeMap<String, Cost>, &'static str>> {
    let mut ebpf = match EbpfLoader::new().load(bytes) {
        Ok(ebpf) => ebpf,
        Err(EbpfError::MapError(MapError::CreateError { io_error, .. }))
            if is_forbidden(&io_error) =>
        {
            return Ok(Err(FORBIDDEN));
        }
        Err(error) => return Err(error).context("the object does not load"),
    };
    let mut costs = BTreeMap::new();
    for (name, program) in ebpf.programs_mut() {
        let info = match load(program) {
            Ok(info) => info,
            Err(ProgramError::LoadError { io_error, .. }) if is_forbidden(&io_error) => {
                return Ok(Err(FORBIDDEN));
            }
            Err(error) => return Err(error).with_context(|| name.to_owned()),
        };
        let Some(verified) = info.verified_instruction_count() else {
            return Ok(Err("this kernel does not tell what its verifier did"));
        };
        let cost = Cost {
            verified,
            jited: info.size_jitted(),
        };
        costs.insert(name.to_owned(), cost);
    }
    Ok(Ok(costs))
}

fn is_forbidden(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn load(program: &mut Program) -> Result<ProgramInfo, ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load().and_then(|()| program.info()),
        Program::CgroupSockopt(program) => program.load().and_then(|()| program.info()),
        Program::CgroupSock(program) => program.load().and_then(|()| program.info()),
        Program::CgroupSkb(program) => program.load().and_then(|()| program.info()),
        Program::CgroupSockAddr(program) => program.load().and_then(|()| program.info()),
        Program::SockOps(program) => program.load().and_then(|()| program.info()),
        // One line for each type that the object has.
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

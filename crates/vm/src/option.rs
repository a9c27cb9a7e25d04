//! The cgroup hooks of `setsockopt(2)` and `getsockopt(2)`, with the kernel's rules for buffers
//! and return values (`__cgroup_bpf_run_filter_setsockopt` and its sibling, Linux 6.18).

use crate::context::{begin_sockopt, field, sockopt};
use crate::fault::{Fault, FaultKind};
use crate::helper::Hook;
use crate::machine::{Machine, fault};
use crate::socket::SocketId;

const PAGE_SIZE: usize = 4096;
/// The buffer of `setsockopt` has at least this many bytes, whatever the caller gave.
const MIN_BUFFER: usize = 16;
const EPERM: i32 = 1;
const EFAULT: i32 = 14;
const EINVAL: i32 = 22;

/// What became of a `setsockopt` call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetOption {
    /// The call returns 0; the kernel's own handler does not run.
    Consumed,
    /// The kernel's own handler runs.
    PassedOn {
        /// Level, as the program left it.
        level: i32,
        /// Option name, as the program left it.
        name: i32,
        /// The value that the handler gets; `None`: the caller's own buffer.
        value: Option<Vec<u8>>,
    },
    /// The call fails with this errno.
    Refused(i32),
}

/// What became of a `getsockopt` call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetOption {
    /// It returns 0, with this many bytes in the caller's buffer.
    Ok(usize),
    /// It fails with this errno.
    Refused(i32),
}

impl Machine {
    /// Runs a `cgroup/setsockopt` program.
    ///
    /// # Errors
    /// When the program faults, or there is no such socket.
    pub fn set_option(
        &mut self,
        program: &str,
        socket: SocketId,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<SetOption, Fault> {
        let Ok(len) = i32::try_from(value.len()) else {
            return Ok(SetOption::Refused(EINVAL));
        };
        let capacity = value.len().clamp(MIN_BUFFER, PAGE_SIZE);
        let run = HookRun {
            hook: Hook::SetOption,
            call: (level, name, len, 0),
            capacity,
        };
        let Some((retval, optlen)) = self.run_option(program, socket, run, value)? else {
            return Ok(SetOption::Refused(EPERM));
        };
        if retval < 0 {
            return Ok(SetOption::Refused(-retval));
        }
        let passed_on = |machine: &Self, value| SetOption::PassedOn {
            level: field(&machine.memory, sockopt::LEVEL).cast_signed(),
            name: field(&machine.memory, sockopt::OPTNAME).cast_signed(),
            value,
        };
        Ok(match usize::try_from(optlen) {
            Err(_) if optlen == -1 => SetOption::Consumed,
            Ok(0) => passed_on(self, None),
            Ok(len) if len <= capacity => {
                let changed = self.memory.option_value()[..len].to_vec();
                passed_on(self, Some(changed))
            }
            // A program that ignores calls need not know of buffers that it sees cut: the
            // original goes on, with the level and name of the call.
            Ok(_) if value.len() > PAGE_SIZE => SetOption::PassedOn {
                level,
                name,
                value: None,
            },
            _ => SetOption::Refused(EFAULT),
        })
    }

    /// Runs a `cgroup/getsockopt` program. `kernel_result` is what the kernel's own handler
    /// gave (0, or a negative errno); `buffer` is the caller's, filled by that handler where it
    /// gave 0.
    ///
    /// # Errors
    /// When the program faults, or there is no such socket.
    pub fn get_option(
        &mut self,
        program: &str,
        socket: SocketId,
        level: i32,
        name: i32,
        kernel_result: i32,
        buffer: &mut [u8],
    ) -> Result<GetOption, Fault> {
        let Ok(len) = i32::try_from(buffer.len()) else {
            return Ok(GetOption::Refused(EINVAL));
        };
        let capacity = buffer.len().min(PAGE_SIZE);
        let run = HookRun {
            hook: Hook::GetOption,
            call: (level, name, len, kernel_result),
            capacity,
        };
        let filled: &[u8] = if kernel_result == 0 { buffer } else { &[] };
        let Some((retval, optlen)) = self.run_option(program, socket, run, filled)? else {
            return Ok(GetOption::Refused(EPERM));
        };
        if retval < 0 {
            return Ok(GetOption::Refused(-retval));
        }
        Ok(match usize::try_from(optlen) {
            Ok(0) => GetOption::Ok(buffer.len()),
            Ok(len) if len <= capacity => {
                buffer[..len].copy_from_slice(&self.memory.option_value()[..len]);
                GetOption::Ok(len)
            }
            // As above: a buffer of more than a page goes by untouched.
            Ok(_) if buffer.len() > PAGE_SIZE => GetOption::Ok(buffer.len()),
            _ => GetOption::Refused(EFAULT),
        })
    }

    /// The hook's return value and the length that the program left; nothing if the program
    /// refused without saying why.
    fn run_option(
        &mut self,
        program: &str,
        socket: SocketId,
        run: HookRun,
        value: &[u8],
    ) -> Result<Option<(i32, i32)>, Fault> {
        let index = self.program_index(program)?;
        let slot = self
            .sockets
            .slot(socket)
            .ok_or_else(|| fault(program, FaultKind::NoSocket))?;
        let optval = self.memory.set_option_value(run.capacity);
        let copied = value.len().min(run.capacity);
        self.memory.option_value_mut()[..copied].copy_from_slice(&value[..copied]);
        begin_sockopt(&mut self.memory, slot, (optval, run.capacity), run.call);
        let verdict = self.run(index, (run.hook, None), u64::MAX, &mut |_| {})?;
        let retval = field(&self.memory, sockopt::RETVAL).cast_signed();
        let optlen = field(&self.memory, sockopt::OPTLEN).cast_signed();
        // bpf_prog_run_array_cg: 0 is a refusal, EPERM unless an errno was set.
        let refused = verdict.value as u32 == 0 && retval >= 0;
        Ok((!refused).then_some((retval, optlen)))
    }
}

/// One call of a hook.
#[derive(Clone, Copy)]
struct HookRun {
    hook: Hook,
    /// Level, name, length, return value so far.
    call: (i32, i32, i32, i32),
    capacity: usize,
}

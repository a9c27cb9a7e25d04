//! The cgroup hooks of sockets' lives: `cgroup/sock_create` (`__cgroup_bpf_run_filter_sk`),
//! `sock_ops` (`tcp_call_bpf`, `tcp_set_state`), and `cgroup_skb/ingress`
//! (`__cgroup_bpf_run_filter_skb`).

use crate::context::{
    begin_arrived, begin_sock, begin_sock_ops, end_sk_buff, end_sock, field, sock_ops,
};
use crate::fault::{Fault, FaultKind};
use crate::helper::Hook;
use crate::interpreter::Meter;
use crate::machine::{Machine, fault};
use crate::skb::Skb;
use crate::socket::{Socket, SocketId, SocketKind, TcpState};
use std::sync::Arc;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const EPERM: i32 = 1;
/// `BPF_SOCK_OPS_STATE_CB`.
const STATE_CB: u32 = 10;
/// `BPF_SOCK_OPS_STATE_CB_FLAG`.
const STATE_CB_FLAG: u32 = 1 << 2;

/// What became of a `socket` call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateSocket {
    /// There it is.
    Created(SocketId),
    /// The call fails with this errno.
    Refused(i32),
}

/// What a `sock_ops` program made of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockOpsRun {
    /// What the kernel takes for the answer: the reply (the first argument, where the program
    /// wrote none), or -1 where it returned 0.
    pub reply: i32,
    /// What it cost.
    pub meter: Meter,
}

/// What a `cgroup_skb` program made of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrivalRun {
    /// The socket gets it.
    pub passes: bool,
    /// What it cost.
    pub meter: Meter,
}

impl Machine {
    /// Runs a `cgroup_skb/ingress` program over a packet that has reached its socket
    /// ([`Skb::arrive`]), [`Skb::socket`]. The hook is for full sockets of IPv4 and IPv6: for
    /// others nothing runs.
    ///
    /// # Errors
    /// When the program faults.
    pub fn run_arrival(&mut self, program: &str, skb: &mut Skb) -> Result<ArrivalRun, Fault> {
        let index = self.program_index(program)?;
        let slot = skb.socket.and_then(|socket| self.sockets.slot(socket));
        let socket = slot.and_then(|slot| self.sockets.get(slot));
        let is_asked = socket.is_some_and(|socket| {
            socket.is_full() && matches!(socket.kind.family, AF_INET | AF_INET6)
        });
        if !is_asked {
            return Ok(ArrivalRun {
                passes: true,
                meter: Meter::default(),
            });
        }
        std::mem::swap(&mut self.memory.skb, skb);
        begin_arrived(&mut self.memory, &self.sockets);
        let result = self.run(index, (Hook::Arrived, None), u64::MAX, &mut |_| {});
        end_sk_buff(&mut self.memory);
        std::mem::swap(&mut self.memory.skb, skb);
        result.map(|run| ArrivalRun {
            passes: run.value as u32 == 1,
            meter: run.meter,
        })
    }

    /// Opens a socket in the task's cgroup and runs a `cgroup/sock_create` program over it. The
    /// hook is for IPv4 and IPv6 alone: other sockets are just opened.
    ///
    /// # Errors
    /// When the program faults.
    pub fn create_socket(
        &mut self,
        program: &str,
        kind: SocketKind,
    ) -> Result<CreateSocket, Fault> {
        let index = self.program_index(program)?;
        let id = self.open_socket(kind);
        if !matches!(kind.family, AF_INET | AF_INET6) {
            return Ok(CreateSocket::Created(id));
        }
        let socket = Socket::new(kind, Arc::clone(&self.task_cgroup));
        begin_sock(&mut self.memory, &socket);
        let subject = self.sockets.slot(id);
        let run = self.run(index, (Hook::SocketCreate, subject), u64::MAX, &mut |_| {});
        let run = match run {
            Ok(run) => run,
            Err(fault) => {
                self.close_socket(id);
                return Err(fault);
            }
        };
        // bpf_prog_run_array_cg: 0 is a refusal, EPERM unless an errno was set.
        let errno = match run.retval {
            0.. if run.value as u32 == 0 => EPERM,
            0.. => 0,
            errno => errno.saturating_neg(),
        };
        if errno != 0 {
            self.close_socket(id);
            return Ok(CreateSocket::Refused(errno));
        }
        let (device, mark, priority) = end_sock(&self.memory);
        if let Some(slot) = subject {
            self.sockets.change(slot, &mut self.memory, |socket| {
                (socket.device, socket.mark, socket.priority) = (device, mark, priority);
            });
        }
        Ok(CreateSocket::Created(id))
    }

    /// Runs a `sock_ops` program over an event (`BPF_SOCK_OPS_*`) of a socket.
    ///
    /// # Errors
    /// When the program faults, or there is no such socket.
    pub fn run_sock_ops(
        &mut self,
        program: &str,
        op: u32,
        args: [u32; 4],
        socket: SocketId,
    ) -> Result<SockOpsRun, Fault> {
        let index = self.program_index(program)?;
        let no_socket = || fault(program, FaultKind::NoSocket);
        let slot = self.sockets.slot(socket).ok_or_else(no_socket)?;
        let subject = self.sockets.get(slot).ok_or_else(no_socket)?;
        begin_sock_ops(&mut self.memory, slot, subject, op, args);
        let run = self.run(index, (Hook::SocketOps, Some(slot)), u64::MAX, &mut |_| {})?;
        let reply = field(&self.memory, sock_ops::ARGS).cast_signed();
        Ok(SockOpsRun {
            reply: if run.value as u32 == 0 { -1 } else { reply },
            meter: run.meter,
        })
    }

    /// Moves a socket to another state, as `tcp_set_state` does: where the socket asked for it,
    /// the `sock_ops` program is told of both states before the new one is entered.
    ///
    /// # Errors
    /// When the program faults, or there is no such socket.
    pub fn change_state(
        &mut self,
        program: &str,
        socket: SocketId,
        state: TcpState,
    ) -> Result<Option<SockOpsRun>, Fault> {
        let slot = self
            .sockets
            .slot(socket)
            .ok_or_else(|| fault(program, FaultKind::NoSocket))?;
        let told = match self.sockets.get(slot) {
            Some(socket) if socket.callbacks & STATE_CB_FLAG != 0 => Some(socket.state),
            _ => None,
        };
        let run = match told {
            Some(old) => {
                let args = [old as u32, state as u32, 0, 0];
                Some(self.run_sock_ops(program, STATE_CB, args, socket)?)
            }
            None => None,
        };
        self.set_state(socket, state);
        Ok(run)
    }
}

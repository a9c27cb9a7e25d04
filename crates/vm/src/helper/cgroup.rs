//! Helpers that say to which cgroup a task or a socket belongs.

use super::{Answer, Host};
use crate::memory::Memory;

/// The id at a level of a path, the root's being 0; 0 where the path does not reach it, as for
/// the kernel's `cgroup_ancestor`.
fn ancestor(path: &[u64], level: u64) -> u64 {
    usize::try_from(level as i32)
        .ok()
        .and_then(|level| path.get(level))
        .copied()
        .unwrap_or(0)
}

/// The cgroup itself.
fn own(path: &[u64]) -> u64 {
    path.last().copied().unwrap_or(0)
}

pub(super) fn current(host: &Host<'_>) -> Answer {
    Ok(own(host.task_cgroup))
}

pub(super) fn current_ancestor(host: &Host<'_>, level: u64) -> Answer {
    Ok(ancestor(host.task_cgroup, level))
}

/// The frame's full socket (`__bpf_sk_cgroup_id`): a request socket counts as its listener,
/// TIME_WAIT has none.
fn of_frame<'h>(host: &'h Host<'_>, memory: &Memory) -> &'h [u64] {
    let socket = memory.skb.socket.and_then(|id| host.sockets.slot(id));
    let full = socket.and_then(|slot| host.sockets.full(slot));
    full.and_then(|slot| host.sockets.get(slot))
        .map_or(&[], |socket| &socket.cgroup)
}

pub(super) fn frame(host: &Host<'_>, a: &[u64; 5], memory: &Memory) -> Answer {
    super::context(a[0])?;
    Ok(own(of_frame(host, memory)))
}

pub(super) fn frame_ancestor(host: &Host<'_>, a: &[u64; 5], memory: &Memory) -> Answer {
    super::context(a[0])?;
    Ok(ancestor(of_frame(host, memory), a[1]))
}

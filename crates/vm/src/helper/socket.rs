//! Helpers that work on sockets: storage, mark and traffic class, callbacks, and a hook's return value.

use super::{Answer, Hook, Host, Refusal, readable, writable};
use crate::context::{field, is_context, set_callbacks, set_field, sockopt};
use crate::memory::Memory;
use crate::socket::Socket;

const STORAGE_GET_CREATE: u64 = 1;
const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;
const SOL_IP: i32 = 0;
const IP_TOS: i32 = 1;
const SOL_IPV6: i32 = 41;
const IPV6_TCLASS: i32 = 67;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOCK_STREAM: u32 = 1;
const ECN_MASK: u8 = 3;
const EINVAL: i32 = 22;
const ENOENT: i32 = 2;
/// `BPF_SOCK_OPS_ALL_CB_FLAGS`.
const ALL_CB_FLAGS: u32 = 0x7f;

/// Whether a socket can have storage: request sockets and TIME_WAIT cannot.
fn is_full(host: &Host<'_>, slot: u32) -> bool {
    host.sockets.get(slot).is_some_and(Socket::is_full)
}

/// Other programs than TC's may pass the context in place of a socket only where it is one.
fn holder(host: &Host<'_>, address: u64) -> Result<u32, Refusal> {
    match host.hook {
        Hook::SocketCreate => host.socket_or_context(address),
        _ => host.socket(address),
    }
}

pub(super) fn sk_storage_get(host: &mut Host<'_>, a: &[u64; 5], memory: &mut Memory) -> Answer {
    let socket = holder(host, a[1])?;
    let is_full = is_full(host, socket);
    let map = host.map(a[0])?;
    if !map.is_socket_storage() {
        return Err(Refusal::Argument("not a socket storage"));
    }
    let slot = match a[3] {
        _ if !is_full => None,
        0 => map.storage(socket),
        STORAGE_GET_CREATE => match (map.storage(socket), a[2]) {
            (Some(slot), _) => Some(slot),
            (None, 0) => map.make_storage(socket, None, memory),
            (None, initial) => {
                let initial = readable(memory, initial, map.value_len as u64)?.to_vec();
                map.make_storage(socket, Some(&initial), memory)
            }
        },
        _ => None,
    };
    Ok(slot.map_or(0, |slot| map.address(slot)))
}

pub(super) fn sk_storage_delete(host: &mut Host<'_>, a: &[u64; 5]) -> Answer {
    let socket = holder(host, a[1])?;
    let is_full = is_full(host, socket);
    let map = host.map(a[0])?;
    if !map.is_socket_storage() {
        return Err(Refusal::Argument("not a socket storage"));
    }
    if !is_full {
        return Err(Refusal::Errno(EINVAL));
    }
    map.drop_storage(socket)
        .map(|()| 0)
        .map_err(|_| Refusal::Errno(ENOENT))
}

/// The socket whose options a program may read and write: `sock_ops` names it by its context.
fn option_holder(host: &Host<'_>, address: u64) -> Result<u32, Refusal> {
    match host.subject {
        Some(slot) if is_context(address) => Ok(slot),
        Some(_) => Err(Refusal::Argument("not the context")),
        None => host.socket(address),
    }
}

/// Which option a program names, as far as they are known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Mark,
    /// `IP_TOS` or `IPV6_TCLASS`, each for sockets of its own family alone.
    TrafficClass,
}

impl Known {
    fn of(level: u64, name: u64, family: u32) -> Option<Self> {
        match (level as i32, name as i32, family) {
            (SOL_SOCKET, SO_MARK, _) => Some(Self::Mark),
            (SOL_IP, IP_TOS, AF_INET) | (SOL_IPV6, IPV6_TCLASS, AF_INET6) => {
                Some(Self::TrafficClass)
            }
            _ => None,
        }
    }
}

/// Only the options of [`Known`].
pub(super) fn setsockopt(host: &mut Host<'_>, a: &[u64; 5], memory: &mut Memory) -> Answer {
    let socket = option_holder(host, a[0])?;
    let value = readable(memory, a[3], a[4])?;
    if !is_full(host, socket) {
        return Err(Refusal::Errno(EINVAL));
    }
    let Ok(value) = value.try_into().map(u32::from_le_bytes) else {
        return Err(Refusal::Errno(EINVAL));
    };
    let Some(held) = host.sockets.get(socket) else {
        return Err(Refusal::Errno(EINVAL));
    };
    match Known::of(a[1], a[2], held.kind.family) {
        Some(Known::Mark) => host.sockets.set_mark(socket, value, memory),
        Some(Known::TrafficClass) if value > 0xff => return Err(Refusal::Errno(EINVAL)),
        Some(Known::TrafficClass) => {
            // ECN belongs to TCP.
            let kept = if held.kind.ty == SOCK_STREAM {
                ECN_MASK
            } else {
                0
            };
            host.sockets.change(socket, memory, |socket| {
                let class = value as u8 & !kept | socket.traffic_class & kept;
                socket.traffic_class = class;
            });
        }
        None => return Err(Refusal::Errno(EINVAL)),
    }
    Ok(0)
}

/// Only the options of [`Known`].
pub(super) fn getsockopt(host: &mut Host<'_>, a: &[u64; 5], memory: &mut Memory) -> Answer {
    let socket = option_holder(host, a[0])?;
    let held = host.sockets.get(socket).filter(|held| held.is_full());
    let value = held.and_then(|held| match Known::of(a[1], a[2], held.kind.family)? {
        Known::Mark => Some(held.mark),
        Known::TrafficClass => Some(u32::from(held.traffic_class)),
    });
    let target = writable(memory, a[3], a[4])?;
    match (target.try_into(), value) {
        (Ok(target), Some(value)) => {
            let target: &mut [u8; 4] = target;
            *target = value.to_le_bytes();
            Ok(0)
        }
        _ => {
            writable(memory, a[3], a[4])?.fill(0);
            Err(Refusal::Errno(EINVAL))
        }
    }
}

/// Which callbacks the socket is to have; flags that are not known come back.
pub(super) fn cb_flags_set(host: &mut Host<'_>, a: &[u64; 5], memory: &mut Memory) -> Answer {
    super::context(a[0])?;
    let socket = host.subject.ok_or(Refusal::Argument("no socket"))?;
    if !is_full(host, socket) {
        return Err(Refusal::Errno(EINVAL));
    }
    let (flags, rest) = (a[1] as u32 & ALL_CB_FLAGS, a[1] as u32 & !ALL_CB_FLAGS);
    host.sockets
        .change(socket, memory, |socket| socket.callbacks = flags);
    set_callbacks(memory, flags);
    Ok(i64::from(rest.cast_signed()).cast_unsigned())
}

pub(super) fn retval(memory: &Memory) -> u64 {
    i64::from(field(memory, sockopt::RETVAL).cast_signed()).cast_unsigned()
}

pub(super) fn set_retval(value: u64, memory: &mut Memory) -> u64 {
    set_field(memory, sockopt::RETVAL, value as u32);
    0
}

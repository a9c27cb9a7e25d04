//! Helpers that work on sockets: storage, `SO_MARK`, and a hook's return value.

use super::{Answer, Host, Refusal, readable, writable};
use crate::context::{field, set_field, sockopt};
use crate::memory::Memory;

const STORAGE_GET_CREATE: u64 = 1;
const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;
const EINVAL: i32 = 22;
const ENOENT: i32 = 2;

/// The slot of the open socket that an argument points at.
fn socket(host: &Host<'_>, address: u64) -> Result<u32, Refusal> {
    Memory::socket_slot(address)
        .filter(|slot| host.sockets.is_open(*slot))
        .ok_or(Refusal::Argument("not a socket"))
}

pub(super) fn sk_fullsock(host: &Host<'_>, address: u64) -> Answer {
    socket(host, address).map(|_| address)
}

pub(super) fn sk_storage_get(host: &mut Host<'_>, a: [u64; 5], memory: &mut Memory) -> Answer {
    let socket = socket(host, a[1])?;
    let map = host.map(a[0])?;
    if !map.is_socket_storage() {
        return Err(Refusal::Argument("not a socket storage"));
    }
    let slot = match a[3] {
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

pub(super) fn sk_storage_delete(host: &mut Host<'_>, a: [u64; 5]) -> Answer {
    let socket = socket(host, a[1])?;
    let map = host.map(a[0])?;
    if !map.is_socket_storage() {
        return Err(Refusal::Argument("not a socket storage"));
    }
    map.drop_storage(socket)
        .map(|()| 0)
        .map_err(|_| Refusal::Errno(ENOENT))
}

/// Only `SO_MARK` is known.
pub(super) fn setsockopt(host: &mut Host<'_>, a: [u64; 5], memory: &mut Memory) -> Answer {
    let socket = socket(host, a[0])?;
    let value = readable(memory, a[3], a[4])?;
    let Ok(mark) = value.try_into().map(u32::from_le_bytes) else {
        return Err(Refusal::Errno(EINVAL));
    };
    if (a[1] as i32, a[2] as i32) != (SOL_SOCKET, SO_MARK) {
        return Err(Refusal::Errno(EINVAL));
    }
    host.sockets.set_mark(socket, mark, memory);
    Ok(0)
}

/// Only `SO_MARK` is known.
pub(super) fn getsockopt(host: &mut Host<'_>, a: [u64; 5], memory: &mut Memory) -> Answer {
    let socket = socket(host, a[0])?;
    let mark = host.sockets.mark(socket);
    let target = writable(memory, a[3], a[4])?;
    let is_mark = (a[1] as i32, a[2] as i32) == (SOL_SOCKET, SO_MARK);
    match target.try_into() {
        Ok(target) if is_mark => {
            let target: &mut [u8; 4] = target;
            *target = mark.to_le_bytes();
            Ok(0)
        }
        _ => {
            writable(memory, a[3], a[4])?.fill(0);
            Err(Refusal::Errno(EINVAL))
        }
    }
}

pub(super) fn retval(memory: &Memory) -> u64 {
    i64::from(field(memory, sockopt::RETVAL).cast_signed()).cast_unsigned()
}

pub(super) fn set_retval(value: u64, memory: &mut Memory) -> u64 {
    set_field(memory, sockopt::RETVAL, value as u32);
    0
}

//! `cgroup/getsockopt`: reads back what was set, and what became of the socket's packets
//! (docs/datapath.md §1).

use crate::{
    call::{Call, Name, Refusal},
    exit::Exit,
    map, path,
    policy::{InForce, REFLECT_ALL},
    storage::Storage,
};
use core::mem::{offset_of, size_of};
use dynencap_abi::{
    Info, SocketState,
    option::{EINVAL, ENOMEM, GATEWAY_LEN, GATEWAY4_LEN, PORTS_LEN, REFLECT_LEN},
};

#[inline(always)]
pub(crate) fn run(call: &Call) -> i32 {
    if !call.is_ours() {
        return call.pass();
    }
    match read(call) {
        Ok(length) => call.answer(length),
        Err(refusal) => call.refuse(refusal),
    }
}

/// The answer's length.
#[inline(always)]
fn read(call: &Call) -> Result<u32, Refusal> {
    let name = call.name()?;
    let storage = call.socket()?.storage();
    let exit = match storage {
        Some(storage) => storage.read().ok_or(Refusal::Errno(ENOMEM))?.0,
        None => Exit::NONE,
    };
    let length = match name {
        Name::Gateway if exit.is_ipv4() => GATEWAY4_LEN as u32,
        Name::Gateway => GATEWAY_LEN as u32,
        Name::Udp => PORTS_LEN as u32 + exit.header_len(),
        Name::Reflect => REFLECT_LEN as u32,
        Name::Info => size_of::<Info>() as u32,
    };
    if call.length() < length as i32 {
        return Err(Refusal::Errno(EINVAL));
    }
    let written = match name {
        Name::Gateway => write_gateway(call, &exit),
        Name::Udp => write_udp(call, &exit),
        Name::Reflect => write_reflect(call, storage),
        Name::Info => write_info(call, storage, &exit),
    };
    written.map(|()| length).ok_or(Refusal::Errno(EINVAL))
}

#[inline(always)]
fn write_gateway(call: &Call, exit: &Exit) -> Option<()> {
    let [high, low] = exit.gateway;
    if exit.is_ipv4() {
        return call.set_value(0, ((u64::from_le(low) >> 32) as u32).to_le());
    }
    call.set_value(0, high)?;
    call.set_value(8, low)
}

#[inline(always)]
fn write_udp(call: &Call, exit: &Exit) -> Option<()> {
    call.set_value(0, exit.source_port())?;
    call.set_value(2, exit.destination_port())?;
    for (index, word) in exit.header.iter().enumerate() {
        for byte in 0..8 {
            let at = 8 * index + byte;
            if at < exit.header_len() as usize {
                call.set_value(PORTS_LEN + at, (word >> (8 * byte)) as u8)?;
            }
        }
    }
    Some(())
}

/// What is in force: the socket's own, or its task's policy's.
#[inline(always)]
fn write_reflect(call: &Call, storage: Option<Storage>) -> Option<()> {
    let own = match storage {
        Some(storage) => storage.reflect(),
        None => 0,
    };
    let bits = if own & SocketState::REFLECT_SET != 0 {
        own & REFLECT_ALL
    } else {
        InForce::of_task().reflect()
    };
    call.set_value(0, bits)
}

#[inline(always)]
fn write_info(call: &Call, storage: Option<Storage>, exit: &Exit) -> Option<()> {
    let (encapsulated, dropped, last_drop) = match storage {
        Some(storage) => (
            storage.encapsulated(),
            storage.dropped(),
            storage.last_drop(),
        ),
        None => (0, 0, 0),
    };
    let (overhead, mtu) = if exit.has_gateway() {
        let uplink = map::config()?.uplink_mtu;
        let path = path::fresh_mtu(exit).unwrap_or(uplink);
        let overhead = exit.overhead();
        (overhead, uplink.min(path).saturating_sub(overhead))
    } else {
        (0, 0)
    };
    call.set_value(offset_of!(Info, encapsulated), encapsulated)?;
    call.set_value(offset_of!(Info, dropped), dropped)?;
    call.set_value(offset_of!(Info, last_drop), last_drop)?;
    call.set_value(offset_of!(Info, overhead), overhead)?;
    call.set_value(offset_of!(Info, mtu), mtu)?;
    call.set_value(offset_of!(Info, reserved), 0_u32)
}

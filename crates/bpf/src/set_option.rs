//! `cgroup/setsockopt`: an application sets or clears its socket's exit (docs/datapath.md §1).

use crate::{
    call::{Call, Name, Refusal},
    storage::{Exit, Socket},
};
use dynencap_abi::{
    MAX_HEADER_LEN,
    option::{EAFNOSUPPORT, EINVAL, ENOMEM, GATEWAY_LEN, PORTS_LEN},
};

const IPV4_LEN: i32 = 4;

#[inline(always)]
pub(crate) fn run(call: &Call) -> i32 {
    if !call.is_ours() {
        return call.pass();
    }
    match set(call) {
        Ok(()) => call.consume(),
        Err(refusal) => call.refuse(refusal),
    }
}

#[inline(always)]
fn set(call: &Call) -> Result<(), Refusal> {
    let (name, socket) = call.admit()?;
    match name {
        Name::Gateway => {
            let gateway = gateway(call)?;
            store(socket, gateway.is_none(), |exit| {
                exit.set_gateway(gateway);
                Ok(())
            })
        }
        Name::Udp if call.length() == 0 => store(socket, true, |exit| {
            exit.clear_udp();
            Ok(())
        }),
        Name::Udp => {
            let (ports, header_len) = udp(call)?;
            store(socket, false, |exit| {
                exit.set_udp(ports[0], ports[1], header_len);
                exit.header = header(call, header_len)?;
                Ok(())
            })
        }
    }
}

/// Check 4 for `ENCAP_GW`: `None` clears.
#[inline(always)]
fn gateway(call: &Call) -> Result<Option<[u64; 2]>, Refusal> {
    const GATEWAY: i32 = GATEWAY_LEN as i32;
    match call.length() {
        0 => return Ok(None),
        IPV4_LEN => return Err(Refusal(EAFNOSUPPORT)),
        GATEWAY => {}
        _ => return Err(Refusal(EINVAL)),
    }
    let first: u64 = call.value(0).ok_or(Refusal(EINVAL))?;
    let second: u64 = call.value(8).ok_or(Refusal(EINVAL))?;
    let address = [first, second];
    let [high, low] = address.map(u64::from_le);
    let unspecified = high == 0 && low == 0;
    let multicast = high & 0xff == 0xff;
    let mapped = high == 0 && low as u32 == 0xffff_0000;
    if unspecified || multicast || mapped {
        return Err(Refusal(EINVAL));
    }
    Ok(Some(address))
}

/// Check 4 for `ENCAP_UDP` with a value: the ports as on the wire, and the length of the custom
/// header.
#[inline(always)]
fn udp(call: &Call) -> Result<([u16; 2], u32), Refusal> {
    let length = call.length();
    if !(PORTS_LEN as i32..=(PORTS_LEN + MAX_HEADER_LEN) as i32).contains(&length) {
        return Err(Refusal(EINVAL));
    }
    let source: u16 = call.value(0).ok_or(Refusal(EINVAL))?;
    let destination: u16 = call.value(2).ok_or(Refusal(EINVAL))?;
    if destination == 0 {
        return Err(Refusal(EINVAL));
    }
    Ok(([source, destination], length as u32 - PORTS_LEN as u32))
}

/// The custom header, zero-padded.
#[inline(always)]
fn header(call: &Call, header_len: u32) -> Result<[u64; 4], Refusal> {
    let mut words = [0; 4];
    for (index, word) in words.iter_mut().enumerate() {
        for byte in 0..8 {
            let at = 8 * index + byte;
            if at < header_len as usize {
                let value: u8 = call.value(PORTS_LEN + at).ok_or(Refusal(EINVAL))?;
                *word |= u64::from(value) << (8 * byte);
            }
        }
    }
    Ok(words)
}

/// Checks 5 and 6, and the write. The mark comes first, since only it can still fail.
#[inline(always)]
fn store(
    socket: Socket,
    clears: bool,
    change: impl FnOnce(&mut Exit) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let before = socket.storage();
    let mut exit = Exit::of(before);
    change(&mut exit)?;
    let storage = match before {
        Some(storage) => Some(storage),
        None if clears => None,
        None => Some(socket.storage_or_new().ok_or(Refusal(ENOMEM))?),
    };
    if let Err(errno) = socket.set_mark_for(&exit) {
        if before.is_none() && storage.is_some() {
            socket.remove_storage();
        }
        return Err(Refusal(-errno));
    }
    if let Some(storage) = storage {
        storage.write(&exit);
    }
    Ok(())
}

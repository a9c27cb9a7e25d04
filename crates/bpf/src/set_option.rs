//! `cgroup/setsockopt`: an application sets or clears its socket's exit (docs/datapath.md §1).

use crate::{
    call::{Call, Name, Refusal},
    exit::{Exit, Gateway},
    map, path,
    policy::{InForce, REFLECT_ALL},
    socket::Socket,
};
use dynencap_abi::{
    Event, MAX_HEADER_LEN, SocketState,
    option::{EINVAL, ENOMEM, ENOPROTOOPT, GATEWAY_LEN, GATEWAY4_LEN, PORTS_LEN, REFLECT_LEN},
};

const MALFORMED: Refusal = Refusal::Errno(EINVAL);
const NO_MEMORY: Refusal = Refusal::Errno(ENOMEM);

#[inline(always)]
pub(crate) fn run(call: &Call) -> i32 {
    if !call.is_ours() {
        return call.pass();
    }
    match set(call) {
        Ok(()) => {
            map::count_event(Event::OptionSet);
            call.consume()
        }
        Err(refusal) => {
            map::count_event(match refusal {
                Refusal::Denied => Event::OptionDenied,
                Refusal::Errno(_) => Event::OptionRefused,
            });
            call.refuse(refusal)
        }
    }
}

/// Checks 1 to 5, in this order.
#[inline(always)]
fn set(call: &Call) -> Result<(), Refusal> {
    match call.name()? {
        Name::Gateway => set_gateway(call, call.socket()?),
        Name::Udp => set_udp(call, call.socket()?),
        Name::Reflect => set_reflect(call, call.socket()?),
        Name::Info => Err(Refusal::Errno(ENOPROTOOPT)),
    }
}

#[inline(always)]
fn set_gateway(call: &Call, socket: Socket) -> Result<(), Refusal> {
    let gateway = gateway(call)?;
    let policy = InForce::of_task();
    let allowed = if gateway.is_none() {
        policy.allows_clearing()
    } else {
        policy.allows_gateway(gateway.address)
    };
    if !allowed {
        return Err(Refusal::Denied);
    }
    store(socket, gateway.is_none(), |exit| {
        exit.set_gateway(gateway);
        exit.clear_reflected();
        exit.source = if gateway.is_none() {
            [0; 2]
        } else {
            policy.source(exit)
        };
    })
}

#[inline(always)]
fn set_udp(call: &Call, socket: Socket) -> Result<(), Refusal> {
    if call.length() == 0 {
        return store(socket, true, |exit| {
            exit.clear_udp();
            exit.clear_reflected();
        });
    }
    let (ports, header_len) = udp(call)?;
    let header = header(call, header_len)?;
    if !InForce::of_task().allows_udp(ports[1], header_len) {
        return Err(Refusal::Denied);
    }
    store(socket, false, |exit| {
        exit.set_udp(ports[0], ports[1], header_len);
        exit.header = header;
        exit.clear_reflected();
    })
}

#[inline(always)]
fn set_reflect(call: &Call, socket: Socket) -> Result<(), Refusal> {
    let asked = reflect(call)?;
    if asked & REFLECT_ALL != 0 && !InForce::of_task().allows_reflect_option() {
        return Err(Refusal::Denied);
    }
    let storage = match socket.storage() {
        Some(storage) => storage,
        None if asked == 0 => return Ok(()),
        None => socket.storage_or_new().ok_or(NO_MEMORY)?,
    };
    storage.set_reflect(storage.reflect() & SocketState::REFLECT_PASSIVE | asked);
    Ok(())
}

/// Check 4 for `ENCAP_REFLECT`: what the socket's state holds of it, 0 clears.
#[inline(always)]
fn reflect(call: &Call) -> Result<u32, Refusal> {
    const LENGTH: i32 = REFLECT_LEN as i32;
    match call.length() {
        0 => Ok(0),
        LENGTH => {
            let bits: u32 = call.value(0).ok_or(MALFORMED)?;
            if bits & !REFLECT_ALL != 0 {
                return Err(MALFORMED);
            }
            Ok(SocketState::REFLECT_SET | bits)
        }
        _ => Err(MALFORMED),
    }
}

/// Check 4 for `ENCAP_GW`: none clears.
#[inline(always)]
fn gateway(call: &Call) -> Result<Gateway, Refusal> {
    const IPV6: i32 = GATEWAY_LEN as i32;
    const IPV4: i32 = GATEWAY4_LEN as i32;
    match call.length() {
        0 => Ok(Gateway::NONE),
        IPV4 => ipv4_gateway(call),
        IPV6 => ipv6_gateway(call),
        _ => Err(MALFORMED),
    }
}

#[inline(always)]
fn ipv4_gateway(call: &Call) -> Result<Gateway, Refusal> {
    let gateway = Gateway::ipv4(call.value(0).ok_or(MALFORMED)?);
    if gateway.is_none() {
        return Err(MALFORMED);
    }
    Ok(gateway)
}

#[inline(always)]
fn ipv6_gateway(call: &Call) -> Result<Gateway, Refusal> {
    let first: u64 = call.value(0).ok_or(MALFORMED)?;
    let second: u64 = call.value(8).ok_or(MALFORMED)?;
    let gateway = Gateway::ipv6([first, second]);
    if gateway.is_none() {
        return Err(MALFORMED);
    }
    Ok(gateway)
}

/// Check 4 for `ENCAP_UDP` with a value: the ports as on the wire, and the length of the custom
/// header.
#[inline(always)]
fn udp(call: &Call) -> Result<([u16; 2], u32), Refusal> {
    let length = call.length();
    if !(PORTS_LEN as i32..=(PORTS_LEN + MAX_HEADER_LEN) as i32).contains(&length) {
        return Err(MALFORMED);
    }
    let source: u16 = call.value(0).ok_or(MALFORMED)?;
    let destination: u16 = call.value(2).ok_or(MALFORMED)?;
    if destination == 0 {
        return Err(MALFORMED);
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
                let value: u8 = call.value(PORTS_LEN + at).ok_or(MALFORMED)?;
                *word |= u64::from(value) << (8 * byte);
            }
        }
    }
    Ok(words)
}

/// Checks 6 and 7, and the write. The mark comes first, since only it can still fail.
#[inline(always)]
fn store(socket: Socket, clears: bool, change: impl FnOnce(&mut Exit)) -> Result<(), Refusal> {
    let before = socket.storage();
    let storage = match before {
        Some(storage) => storage,
        None if clears => return set_mark(socket, &Exit::NONE),
        None => socket.storage_or_new().ok_or(NO_MEMORY)?,
    };
    if !storage.claim() {
        return Err(NO_MEMORY);
    }
    let mut exit = storage.current();
    change(&mut exit);
    let marked = set_mark(socket, &exit);
    if marked.is_ok() {
        storage.write(&exit);
    }
    storage.release();
    if marked.is_err() && before.is_none() {
        socket.remove_storage();
    }
    marked?;
    path::remember(&exit);
    Ok(())
}

#[inline(always)]
fn set_mark(socket: Socket, exit: &Exit) -> Result<(), Refusal> {
    socket
        .set_mark_for(exit)
        .map_err(|errno| Refusal::Errno(-errno))
}

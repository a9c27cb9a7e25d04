//! `cgroup/getsockopt`: reads back what was set (docs/datapath.md §1).

use crate::{
    call::{Call, Name, Refusal},
    storage::Exit,
};
use dynencap_abi::option::{EINVAL, GATEWAY_LEN, PORTS_LEN};

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
    let (name, socket) = call.admit()?;
    let exit = Exit::of(socket.storage());
    let length = match name {
        Name::Gateway => GATEWAY_LEN as u32,
        Name::Udp => PORTS_LEN as u32 + exit.header_len(),
    };
    if call.length() < length as i32 {
        return Err(Refusal(EINVAL));
    }
    let written = match name {
        Name::Gateway => call
            .set_value(0, exit.gateway[0])
            .and_then(|()| call.set_value(8, exit.gateway[1])),
        Name::Udp => write_udp(call, &exit),
    };
    written.map(|()| length).ok_or(Refusal(EINVAL))
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

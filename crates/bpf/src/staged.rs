//! The map `STAGED`: what TC ingress took off a packet waits there for the socket's own program,
//! which finds it by a ticket in the packet's `tc_index` (docs/datapath.md §5.2).

use crate::{
    closing::FlowKey,
    exit::Exit,
    map::{STAGED, STAGED_COUNT},
};
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use core::mem::{MaybeUninit, offset_of, size_of};
use dynencap_abi::{STAGED_TICKET, STAGED_TICKET_MASK};

/// Places of a CPU.
const PLACES: u32 = 256;
const CPUS: u32 = 16;
const _: () = assert!(PLACES * CPUS == dynencap_abi::object::MAX_STAGED);

/// `abi::Staged` in words.
#[repr(C)]
pub(crate) struct Staged {
    serial: u32,
    reserved: u32,
    print: u64,
    flow: FlowKey,
    exit: Exit,
}

const _: () = {
    use dynencap_abi::Staged as Abi;
    assert!(size_of::<Staged>() == size_of::<Abi>());
    assert!(offset_of!(Staged, print) == offset_of!(Abi, print));
    assert!(offset_of!(Staged, flow) == offset_of!(Abi, flow));
    assert!(offset_of!(Staged, exit) == offset_of!(Abi, exit));
};

/// Puts it into the CPU's next place; the ticket, 0 where there is none.
#[inline(always)]
pub(crate) fn put(flow: &FlowKey, print: u64, exit: &Exit) -> u16 {
    let Some(count) = STAGED_COUNT.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a value of this CPU, on which TC programs do not interrupt each other.
    let used = unsafe { *count };
    // SAFETY: as above.
    unsafe { *count = used.wrapping_add(1) };
    // SAFETY: takes nothing.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let place = (cpu & (CPUS - 1)) * PLACES | used & (PLACES - 1);
    let Some(staged) = STAGED.get_ptr_mut(place) else {
        return 0;
    };
    let serial = match used.wrapping_add(1) {
        0 => 1,
        serial => serial,
    };
    // SAFETY: a map value of this type. Another CPU may read it, or write it where there are more
    // CPUs than their share of places: flow and print then tell, and the loads and stores, volatile
    // here and kept in order by x86-64, that it was whole.
    unsafe {
        (&raw mut (*staged).serial).write_volatile(0);
        (&raw mut (*staged).print).write_volatile(print);
        let words = (&raw mut (*staged).flow).cast::<u64>();
        for (index, word) in flow.words().into_iter().enumerate() {
            words.add(index).write_volatile(word);
        }
        let words = (&raw mut (*staged).exit).cast::<u64>();
        for (index, word) in exit.words().into_iter().enumerate() {
            words.add(index).write_volatile(word);
        }
        (&raw mut (*staged).serial).write_volatile(serial);
    }
    STAGED_TICKET | place as u16
}

/// What the ticket's place holds, if it is of this packet. Else `exit` may hold anything.
#[inline(always)]
pub(crate) fn take(ticket: u32, flow: &FlowKey, print: u64, exit: &mut MaybeUninit<Exit>) -> bool {
    let Some(staged) = STAGED.get_ptr(ticket & u32::from(STAGED_TICKET_MASK)) else {
        return false;
    };
    // SAFETY: a map value of this type, aligned; any bytes are good.
    unsafe {
        let before = (&raw const (*staged).serial).read_volatile();
        let of = FlowKey::read_volatile(&raw const (*staged).flow);
        let of_print = (&raw const (*staged).print).read_volatile();
        exit.write(Exit::read_volatile(&raw const (*staged).exit));
        let after = (&raw const (*staged).serial).read_volatile();
        before != 0 && before == after && of_print == print && of.is(flow)
    }
}

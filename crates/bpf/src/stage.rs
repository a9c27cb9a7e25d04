//! TC ingress: leaves the exit of replies for the socket's own program,
//! and for the kernel's own replies (docs/datapath.md §5.2). Behind our decapsulation the
//! packet is the frame; what a device of the kernel will take out still stands inside.

use crate::{
    exit::Exit,
    frame::Frame,
    inside::{AtDevice, Inside},
    lookup::{Flow, Table},
    map,
    packet::{ACK, Packet, SYN},
    policy::InForce,
    reflected::{self, Reflected},
    staged,
    transport::TCP,
};
use dynencap_abi::{Config, Event, option::REFLECT_PATH};

/// Step 1; whether step 2 may apply.
#[inline(never)]
pub(crate) fn stage(frame: &mut Frame, exit: &Exit) -> bool {
    put(frame, exit)
}

/// The same for a packet inside.
#[inline(never)]
pub(crate) fn stage_inside(frame: &mut Frame, inside: Inside, exit: &Exit) -> bool {
    put(&mut inside.of(frame), exit)
}

#[inline(always)]
fn put(bytes: &mut impl AtDevice, exit: &Exit) -> bool {
    let packet = Packet::parse(bytes);
    if !packet.has_transport() {
        return false;
    }
    let ticket = staged::put(&packet.flow(bytes).key(), packet.print(bytes), exit);
    bytes.frame().set_tc_index(ticket);
    let flags = packet.tcp_flags(bytes);
    let is_first = flags & SYN != 0 && flags & ACK == 0;
    is_first || map::config().is_some_and(|config| config.has(Config::ALLOW_PACKET_SOCKETS))
}

/// Step 2.
#[inline(never)]
pub(crate) fn reflect_for_host(frame: &mut Frame, exit: &Exit) {
    answer(frame, exit);
}

/// The same for a packet inside.
#[inline(never)]
pub(crate) fn reflect_inside_for_host(frame: &mut Frame, inside: Inside, exit: &Exit) {
    answer(&mut inside.of(frame), exit);
}

#[inline(always)]
fn answer(bytes: &mut impl AtDevice, exit: &Exit) {
    let flow = Packet::parse(bytes).flow(bytes).reversed();
    if is_served(bytes.frame(), &flow) {
        return;
    }
    if !InForce::of_root().allows_reflection(exit.gateway) {
        map::count_event(Event::ReflectRefused);
        return;
    }
    let entry = Reflected::new(*exit, reflected::KERNEL, 0, REFLECT_PATH, 0);
    // Where there is no place for it the answer leaves as without reflection.
    let _ = reflected::put(&flow.key(), &entry);
}

/// Whether a socket sends this flow's packets.
#[inline(always)]
fn is_served(frame: &Frame, flow: &Flow) -> bool {
    let table = if flow.protocol == TCP {
        Table::Tcp
    } else {
        Table::Udp
    };
    flow.with_socket(frame, table, |_| ()).is_some()
}

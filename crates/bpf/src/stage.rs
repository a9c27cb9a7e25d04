//! TC ingress, behind its decapsulation: leaves the exit of replies for the socket's own program,
//! and for the kernel's own replies (docs/datapath.md §5.2).

use crate::{
    exit::Exit,
    frame::Frame,
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
    let packet = Packet::parse(frame);
    if !packet.has_transport() {
        return false;
    }
    let ticket = staged::put(&packet.flow(frame).key(), packet.print(frame), exit);
    frame.set_tc_index(ticket);
    let flags = packet.tcp_flags(frame);
    let is_first = flags & SYN != 0 && flags & ACK == 0;
    is_first || map::config().is_some_and(|config| config.has(Config::ALLOW_PACKET_SOCKETS))
}

/// Step 2.
#[inline(never)]
pub(crate) fn reflect_for_host(frame: &mut Frame, exit: &Exit) {
    let flow = Packet::parse(frame).flow(frame).reversed();
    if is_served(frame, &flow) {
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

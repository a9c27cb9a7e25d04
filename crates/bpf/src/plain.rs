//! What most packets of most sockets with an exit are, in as few steps as that allows: IPv6 with
//! TCP or UDP directly behind, no super-packet, with an exit of an IPv6 header and at most one word
//! of custom header, that is allowed already and needs nothing looked up.
//!
//! It is the same docs/datapath.md §2. Any packet that is otherwise, or has any fault, is left as
//! it came to `egress`, which finds the reason in that section's order: so the order of the
//! questions here is free, and no feature costs anything where it is not used.

use crate::{
    egress::{IPV6_IN, Inner, is_set},
    exit::Exit,
    frame::{self, Frame},
    map::{self, Counter},
    outer::Outer,
    path,
    storage::Storage,
    transport::{IPV6_LEN, TCP, UDP},
};
use dynencap_abi::{Config, MAX_PAYLOAD_LEN, MIN_UPLINK_MTU, Reason};

/// What became of a packet.
pub(crate) enum Outcome {
    /// And counted.
    Encapsulated,
    /// Nothing was done, nothing counted.
    Left,
    /// The room that was made cannot be filled.
    NoRoom,
}

/// For a packet of IP whose own socket has that storage. Out of line: what it needs of the stack is
/// then not taken where it leaves the packet, and a call costs a nanosecond.
#[inline(never)]
pub(crate) fn encapsulate(frame: &mut Frame, storage: Storage) -> Outcome {
    let Some((outer, exit)) = parse(frame, storage) else {
        return Outcome::Left;
    };
    // Looked for before it is needed: behind the helper all would wait for it.
    let Some(counter) = Counter::of(Reason::Encapsulated) else {
        return Outcome::Left;
    };
    // Where there is no room for this, `egress` will not find any either, and says so.
    if outer.make_room_for_ipv6(frame, &exit).is_none() {
        return Outcome::Left;
    }
    if outer.fill_ipv6(frame, &exit).is_none() {
        return Outcome::NoRoom;
    }
    storage.count_encapsulated();
    counter.add_one();
    Outcome::Encapsulated
}

/// The outer headers, where the packet is a plain one.
#[inline(always)]
fn parse(frame: &Frame, storage: Storage) -> Option<(Outer, Exit)> {
    let (exit, generation) = storage.read_plain()?;
    let config = map::config()?;
    if !exit.is_plain() || storage.checked() != config.wanted(generation) {
        return None;
    }
    let is_ipv6 = frame.protocol() == frame::IPV6;
    if exit.has_udp() && config.has(Config::UDP_CHECKSUM) || frame.gso_size() > 0 || !is_ipv6 {
        return None;
    }
    let header = frame.linear::<44>(0)?;
    let version_class_label = u32::from_be(header.read::<u32, 0>());
    let len = IPV6_LEN + u32::from(u16::from_be(header.read::<u16, 4>()));
    if version_class_label >> 28 != 6 || len != frame.len_behind_ethernet() {
        return None;
    }
    let protocol = header.read::<u8, 6>();
    if protocol != TCP && protocol != UDP {
        return None;
    }
    let need = len + exit.overhead();
    if need > config.uplink_mtu || need > MAX_PAYLOAD_LEN as u32 {
        return None;
    }
    // No path over IPv6 has less.
    if need > MIN_UPLINK_MTU && path::is_any_learned() {
        return None;
    }
    let ports = u32::from_be(header.read::<u32, 40>());
    let inner = Inner {
        protocol: IPV6_IN,
        traffic_class: (version_class_label >> 20) as u8,
        hop_limit: header.read::<u8, 7>(),
        identification: 0,
        source: header.address::<8, 16>(),
        destination: header.address::<24, 32>(),
    };
    let source = if is_set(exit.source) {
        exit.source
    } else {
        inner.source
    };
    let ports = [(ports >> 16) as u16, ports as u16];
    let outer = inner.outer(source, protocol, ports, &exit, config, need - IPV6_LEN);
    Some((outer, exit))
}

//! `cgroup_skb/ingress`: which captured exit is whose (docs/datapath.md §5.4; the numbers are that
//! section's). It runs before the transport's own checks and without the socket's lock. Every
//! packet passes.
//!
//! It sees each packet of every socket of the cgroup: what brings no ticket and is for no listener
//! leaves it within a few instructions.

use crate::{
    capture,
    closing::FlowKey,
    exit::Exit,
    frame::Arrived,
    lookup::{self, Flow},
    map, mark,
    packet::{ACK, FIN, Packet, RST, SYN},
    path,
    policy::{InForce, REFLECT_ALL},
    reflected::{self, Reflected, There},
    socket::Socket,
    staged,
    storage::Storage,
    transport::{TCP, Transport},
};
use aya_ebpf::helpers::generated::bpf_skb_cgroup_id;
use core::mem::MaybeUninit;
use dynencap_abi::{
    Config, Event, MARK_MASK, MARK_SENTINEL, REFLECT_WINDOW, STAGED_TICKET, SocketState,
    option::{REFLECT_DSCP, REFLECT_MARK, REFLECT_PATH},
};

const PASS: i32 = 1;
const TCP_LISTEN: u32 = 10;
/// ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING.
const LIVE: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
const TCP_DATA_OFFSET: u32 = 12;
const HALF: u32 = 1 << 31;

#[inline(always)]
pub(crate) fn run(packet: &mut Arrived) -> i32 {
    if let Some(config) = map::config()
        && config.has(Config::REFLECT)
        && let Some(socket) = packet.socket()
    {
        let has_ticket = packet.tc_index() & u32::from(STAGED_TICKET) != 0;
        if has_ticket || config.has(Config::CAPTURE_OUTER) || socket.state() == TCP_LISTEN {
            judge(packet);
        }
    }
    PASS
}

/// A packet that is TCP or UDP, and what was captured of it. It stays in memory, as
/// `whose::Found` does.
struct Arrival {
    /// As the packet shows it.
    flow: Flow,
    transport: Transport,
    traffic_class: u8,
    is_captured: bool,
    /// Nothing where nothing was captured.
    exit: Exit,
}

#[inline(never)]
fn judge(packet: &mut Arrived) {
    let mut arrival = MaybeUninit::<Arrival>::uninit();
    if !arrive(packet, &mut arrival) {
        return;
    }
    // SAFETY: `arrive` wrote it.
    let arrival = unsafe { arrival.assume_init_mut() };
    // Not by `arrive`: together they need too much stack.
    if !arrival.is_captured {
        let is_asked = map::config().is_some_and(|config| config.has(Config::CAPTURE_OUTER));
        // SAFETY: the same bytes; whatever is written to them is an exit.
        let exit = unsafe { &mut *(&raw mut arrival.exit).cast::<MaybeUninit<Exit>>() };
        arrival.is_captured = is_asked && capture::in_front(packet, exit);
        if !arrival.is_captured {
            arrival.exit = Exit::NONE;
        }
    }
    let arrival = &*arrival;
    let is_tcp = arrival.flow.protocol == TCP;
    let Some(socket) = packet.socket() else {
        return;
    };
    let state = socket.state();
    if is_tcp && state == TCP_LISTEN {
        listener(packet, arrival);
    } else if arrival.is_captured {
        // 4
        if !is_tcp {
            peer(packet, arrival);
        } else if LIVE >> (state & 31) & 1 != 0 {
            connection(packet, arrival);
        }
    }
}

/// Line 1, and of line 2 the ticket.
#[inline(never)]
fn arrive(packet: &mut Arrived, arrival: &mut MaybeUninit<Arrival>) -> bool {
    let parsed = Packet::parse(packet);
    let Some(socket) = packet.socket().and_then(lookup::full) else {
        return false;
    };
    if !parsed.has_transport() || socket.protocol() != u32::from(parsed.transport.protocol()) {
        return false;
    }
    let flow = parsed.flow(packet);
    let print = parsed.print(packet);
    let traffic_class = parsed.traffic_class(packet);
    let transport = parsed.transport;
    let arrival = arrival.write(Arrival {
        flow,
        transport,
        traffic_class,
        is_captured: false,
        exit: Exit::NONE,
    });
    // SAFETY: the same bytes; whatever is written to them is an exit.
    let exit = unsafe { &mut *(&raw mut arrival.exit).cast::<MaybeUninit<Exit>>() };
    let ticket = packet.tc_index();
    arrival.is_captured =
        ticket & u32::from(STAGED_TICKET) != 0 && staged::take(ticket, &flow.key(), print, exit);
    true
}

/// Id of the socket's cgroup.
#[inline(always)]
fn cgroup(packet: &Arrived) -> u64 {
    // SAFETY: takes the hook's context.
    unsafe { bpf_skb_cgroup_id(packet.context()) }
}

/// What is to be reflected for a socket.
#[inline(always)]
fn bits(storage: Option<Storage>, policy: InForce) -> u32 {
    let own = match storage {
        Some(storage) => storage.reflect(),
        None => 0,
    };
    if own & SocketState::REFLECT_SET != 0 {
        own & REFLECT_ALL
    } else {
        policy.reflect()
    }
}

/// Line 3.
#[inline(never)]
fn listener(packet: &mut Arrived, arrival: &Arrival) {
    let Some(socket) = packet.socket() else {
        return;
    };
    let policy = InForce::of_packet(packet.context());
    let bits = bits(socket.storage(), policy);
    let mut reflects = arrival.is_captured && bits & REFLECT_PATH != 0;
    if reflects && !policy.allows_reflection(arrival.exit.gateway) {
        map::count_event(Event::ReflectRefused);
        reflects = false;
    }
    let cgroup = cgroup(packet);
    let key = arrival.flow.reversed().key();
    if !reflects && bits & (REFLECT_DSCP | REFLECT_MARK) == 0 {
        if reflected::whose(&key, cgroup) == There::Own {
            reflected::remove(&key);
        }
        return;
    }
    let Some(storage) = socket.storage_or_new() else {
        return;
    };
    storage.set_cgroup(cgroup);
    let entry = Entry {
        cgroup,
        mark: packet.mark() & !MARK_MASK,
        flags: bits,
    };
    store(&key, arrival, reflects, &entry);
    if reflects {
        let ours = MARK_SENTINEL | mark::overhead(&arrival.exit);
        packet.set_mark(packet.mark() & !MARK_MASK | ours);
    }
}

/// What stands in an entry beside the exit and the traffic class.
struct Entry {
    cgroup: u64,
    mark: u32,
    flags: u32,
}

/// Puts an entry, and counts the event.
#[inline(never)]
fn store(key: &FlowKey, arrival: &Arrival, with_exit: bool, entry: &Entry) {
    const NOT_ECN: u8 = !3;
    let class = arrival.traffic_class & NOT_ECN;
    let &Entry {
        cgroup,
        mark,
        flags,
    } = entry;
    let there = reflected::whose(key, cgroup);
    let exit = arrival.exit.if_asked(with_exit);
    let value = Reflected::new(exit, cgroup, mark, flags, class);
    match (reflected::put(key, &value), there) {
        (Err(_), _) => map::count_event(Event::ReflectFull),
        (Ok(()), There::Nothing) => map::count_event(Event::ReflectCaptured),
        // Of a listener it is one more packet of the handshake.
        (Ok(()), There::Own) if arrival.flow.protocol != TCP => {
            map::count_event(Event::ReflectMoved);
        }
        (Ok(()), _) => {}
    }
}

/// Lines 5 to 8.
#[inline(never)]
fn connection(packet: &mut Arrived, arrival: &Arrival) {
    // 5
    const ASKED: u32 = SocketState::REFLECT_SET | REFLECT_PATH;
    let Some(socket) = packet.socket().and_then(lookup::full) else {
        return;
    };
    let Some(storage) = socket.storage() else {
        return;
    };
    let reflect = storage.reflect();
    if reflect & SocketState::REFLECT_PASSIVE == 0 && reflect & ASKED != ASKED {
        return;
    }
    let Some((present, _)) = storage.read() else {
        return;
    };
    if present.has_gateway() && !present.is_reflected() {
        return;
    }
    // 6
    let is_same = present.is(&arrival.exit);
    let segment = Segment::of(packet, arrival.transport);
    if !segment.counts(socket, storage) {
        if !is_same {
            map::count_event(Event::ReflectIgnored);
        }
        return;
    }
    // 7
    if is_same {
        storage.set_newest(segment.newest());
        return;
    }
    // 8
    let lost = !present.has_gateway() && socket.mark() & MARK_SENTINEL != 0;
    let policy = InForce::of_packet(packet.context());
    if bits(Some(storage), policy) & REFLECT_PATH == 0 {
        return;
    }
    let gateway = arrival.exit.gateway;
    if !policy.allows_reflection(gateway) || !lost && !policy.allows_following(gateway) {
        map::count_event(Event::ReflectRefused);
        return;
    }
    if !storage.try_claim() {
        return;
    }
    storage.write(&arrival.exit);
    storage.set_newest(segment.newest());
    storage.set_cgroup(cgroup(packet));
    storage.release();
    path::remember(&arrival.exit);
    map::count_event(Event::ReflectMoved);
}

/// A TCP segment, as far as it tells whether it is newer than others.
struct Segment {
    sequence: u32,
    acknowledgement: u32,
    /// Behind the payload, and FIN.
    end: u32,
    flags: u8,
}

impl Segment {
    #[inline(always)]
    fn of(packet: &Arrived, transport: Transport) -> Self {
        let at = transport.offset().unwrap_or(0);
        let numbers = u64::from_be(packet.read(at + 4).unwrap_or(0));
        let offset_flags = u16::from_be(packet.read(at + TCP_DATA_OFFSET).unwrap_or(0));
        let flags = offset_flags as u8;
        let header_len = u32::from(offset_flags >> 12) * 4;
        let sequence = (numbers >> 32) as u32;
        let payload_len = packet.len().saturating_sub(at + header_len);
        Self {
            sequence,
            acknowledgement: numbers as u32,
            end: sequence
                .wrapping_add(payload_len)
                .wrapping_add(u32::from(flags & FIN)),
            flags,
        }
    }

    #[inline(always)]
    fn counts(&self, socket: Socket, storage: Storage) -> bool {
        let Some([expected, first, next]) = lookup::sequence(socket) else {
            return false;
        };
        self.flags & (ACK | RST | SYN) == ACK
            && self.sequence.wrapping_sub(expected) < REFLECT_WINDOW
            && self.acknowledgement.wrapping_sub(first) <= next.wrapping_sub(first)
            && self.is_newer(storage.newest())
    }

    #[inline(always)]
    fn is_newer(&self, newest: u64) -> bool {
        let ahead = |of: u32, other: u32| (1..HALF).contains(&of.wrapping_sub(other));
        let (end, acknowledgement) = ((newest >> 32) as u32, newest as u32);
        newest == 0
            || ahead(self.end, end)
            || self.end == end && ahead(self.acknowledgement, acknowledgement)
    }

    /// For the socket's storage.
    #[inline(always)]
    fn newest(&self) -> u64 {
        match u64::from(self.end) << 32 | u64::from(self.acknowledgement) {
            0 => 1,
            newest => newest,
        }
    }
}

/// Lines 9 and 10.
#[inline(never)]
fn peer(packet: &mut Arrived, arrival: &Arrival) {
    let Some(socket) = packet.socket().and_then(lookup::full) else {
        return;
    };
    let policy = InForce::of_packet(packet.context());
    let bits = bits(socket.storage(), policy);
    if bits & REFLECT_PATH == 0 {
        return;
    }
    let gateway = arrival.exit.gateway;
    if !policy.allows_reflection(gateway) {
        map::count_event(Event::ReflectRefused);
        return;
    }
    let follows = policy.allows_following(gateway);
    let Some(storage) = socket.storage_or_new() else {
        return;
    };
    let cgroup = cgroup(packet);
    if socket.is_connected() {
        // 9
        if storage.try_claim() {
            connected(storage, arrival, follows, cgroup);
            storage.release();
        }
    } else {
        // 10
        let flags = bits & !(REFLECT_DSCP | REFLECT_MARK);
        let entry = Entry {
            cgroup,
            mark: packet.mark() & !MARK_MASK,
            flags,
        };
        if per_peer(arrival, follows, &entry) {
            storage.set_cgroup(cgroup);
        }
    }
}

/// With the claim.
#[inline(always)]
fn connected(storage: Storage, arrival: &Arrival, follows: bool, cgroup: u64) {
    let present = storage.current();
    let had_gateway = present.has_gateway();
    if had_gateway && !present.is_reflected() || present.is(&arrival.exit) {
        return;
    }
    if had_gateway && !follows {
        map::count_event(Event::ReflectRefused);
        return;
    }
    storage.write(&arrival.exit);
    storage.set_cgroup(cgroup);
    path::remember(&arrival.exit);
    map::count_event(if had_gateway {
        Event::ReflectMoved
    } else {
        Event::ReflectCaptured
    });
}

/// Whether an entry was asked for.
#[inline(always)]
fn per_peer(arrival: &Arrival, follows: bool, entry: &Entry) -> bool {
    let key = arrival.flow.reversed().key();
    match is_there(&key, arrival, entry.cgroup) {
        Same::No if !follows => {
            map::count_event(Event::ReflectRefused);
            return false;
        }
        Same::Yes => return false,
        Same::No | Same::Nothing => {}
    }
    store(&key, arrival, true, entry);
    true
}

/// Whether an entry of a cgroup has the captured exit.
enum Same {
    Yes,
    No,
    /// There is no such entry.
    Nothing,
}

#[inline(never)]
fn is_there(key: &FlowKey, arrival: &Arrival, cgroup: u64) -> Same {
    let mut entry = MaybeUninit::uninit();
    if reflected::find(key, cgroup, &mut entry) != There::Own {
        return Same::Nothing;
    }
    // SAFETY: `find` wrote it.
    let entry = unsafe { entry.assume_init_ref() };
    if entry.exit.is(&arrival.exit) {
        Same::Yes
    } else {
        Same::No
    }
}

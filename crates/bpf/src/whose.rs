//! Whose packet it is (docs/datapath.md §2.1), and whether its exit may be used: steps 2 to 5 of
//! §2. A packet whose own socket has storage is the common case and goes straight through; all
//! others are looked after out of line.

use crate::{
    closing,
    exit::Exit,
    frame::{self, Frame},
    lookup::{self, Table},
    map::{self, Config},
    packet::{ACK, Packet, RST, SYN},
    policy::InForce,
    reflected::{self, Line},
    socket::Socket,
    storage::Storage,
    transport::{TCP, UDP},
};
use core::mem::MaybeUninit;
use dynencap_abi::{MARK_SENTINEL, Reason, option::AF_PACKET};

const TCP_CLOSE: u32 = 7;
/// The state of a request socket.
const TCP_NEW_SYN_RECV: u32 = 12;

/// An exit that may be used. It stays in memory: functions out of line take its address, BPF
/// functions return one register, and there is not enough stack for a second one.
pub(crate) struct Found {
    pub(crate) exit: Exit,
    /// From which the exit was read, if from one.
    pub(crate) storage: Option<Storage>,
}

/// Nothing stands in it at first: LLVM would fill it with zeros by a loop over bytes.
pub(crate) type Place = MaybeUninit<Found>;

/// The reason of a packet whose socket has no storage, where it is seen at a glance that there is no
/// more to look for: line 2 for most of what goes by without an exit.
#[inline(always)]
pub(crate) fn passing(frame: &Frame, socket: Option<Socket>) -> Option<Reason> {
    if is_marked(frame) {
        return None;
    }
    let state = match socket {
        Some(socket) => socket.state(),
        None => TCP_CLOSE,
    };
    let is_passing = match state {
        TCP_NEW_SYN_RECV => false,
        TCP_CLOSE => is_no_answer(frame),
        _ => true,
    };
    let reason = match socket {
        Some(_) => Reason::NoExit,
        None => Reason::NoSocket,
    };
    is_passing.then_some(reason)
}

/// UDP, or TCP with flags that make no late answer, where its header is that: what is a fragment or
/// malformed is none either.
#[inline(always)]
fn is_no_answer(frame: &Frame) -> bool {
    let (protocol, flags) = if frame.protocol() == frame::IPV6 {
        match frame.linear::<54>(0) {
            Some(header) => (header.read::<u8, 6>(), header.read::<u8, 53>()),
            None => return false,
        }
    } else {
        match frame.linear::<34>(0) {
            Some(header) if header.read::<u8, 0>() == 0x45 => {
                (header.read::<u8, 9>(), header.read::<u8, 33>())
            }
            _ => return false,
        }
    };
    protocol == UDP || protocol == TCP && flags & RST == 0 && flags & (SYN | ACK) != SYN | ACK
}

/// Steps 2 to 5, for a packet whose socket has that storage.
#[inline(always)]
pub(crate) fn find<'p>(
    frame: &mut Frame,
    storage: Option<Storage>,
    place: &'p mut Place,
) -> Result<(&'p Found, &'static Config), Reason> {
    if let Some(storage) = storage {
        // 1
        match admit(frame, storage, Sender::Packets, place) {
            // SAFETY: `admit` wrote it, since it succeeded.
            Ok(config) => return Ok((unsafe { place.assume_init_ref() }, config)),
            Err(Reason::NoGateway) if map::reflects() => {}
            Err(reason) => return Err(reason),
        }
        if let Search::Not(reason) = peers(frame, storage, place) {
            return Err(reason);
        }
    } else if !is_marked(frame)
        && frame
            .socket()
            .is_some_and(|socket| !is_searched(socket.state()))
    {
        return Err(Reason::NoExit);
    } else if let Search::Not(reason) = search(frame, place) {
        return Err(reason);
    }
    // SAFETY: whichever function succeeded wrote it.
    let found = unsafe { place.assume_init_ref() };
    Ok((found, map::config().ok_or(Reason::NoRoom)?))
}

/// Whether a packet without mark may have an exit all the same, its socket being in this state.
#[inline(always)]
fn is_searched(state: u32) -> bool {
    state == TCP_CLOSE || state == TCP_NEW_SYN_RECV && map::reflects()
}

#[inline(always)]
fn is_marked(frame: &Frame) -> bool {
    frame.mark() & MARK_SENTINEL != 0
}

/// Of which socket a storage is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// The packet's own, or the listener of its own.
    Packets,
    /// One that was looked up: its cgroup cannot be asked for.
    LookedUp,
}

/// Steps 3 to 5 of §2; where it succeeds `place` is written.
#[inline(always)]
fn admit(
    frame: &Frame,
    storage: Storage,
    sender: Sender,
    place: &mut Place,
) -> Result<&'static Config, Reason> {
    let (exit, generation) = storage.read().ok_or(Reason::ExitBusy)?;
    let found = place.write(Found {
        exit,
        storage: Some(storage),
    });
    if !exit.has_gateway() {
        return Err(Reason::NoGateway);
    }
    let config = map::config().ok_or(Reason::NoRoom)?;
    let wanted = config.wanted(generation);
    if storage.checked() != wanted {
        let can_ask = sender == Sender::Packets || config.policy_generation == 0;
        if !can_ask || !is_allowed(frame, &found.exit) {
            storage.count_drop(Reason::PolicyDenied);
            return Err(Reason::PolicyDenied);
        }
        storage.set_checked(wanted);
    }
    Ok(config)
}

#[inline(never)]
fn is_allowed(frame: &Frame, exit: &Exit) -> bool {
    InForce::of_packet(frame.context()).allows(exit)
}

/// What comes of a line of §2.1: one register.
#[derive(Clone, Copy)]
enum Search {
    /// `place` is written.
    Found,
    /// The packet of a request socket: line 3.
    Request,
    /// The next line is to be tried.
    Next,
    /// Line 6 found a storage without a gateway, which stands in `place`.
    Listener,
    Not(Reason),
}

/// Line 1 of §2.1 where the storage's exit has no gateway, with reflection on.
#[inline(never)]
fn peers(frame: &mut Frame, storage: Storage, place: &mut Place) -> Search {
    let socket = frame.socket().and_then(lookup::full);
    let (kind, family) = match socket {
        Some(socket) => (socket.protocol(), socket.family()),
        None => (0, 0),
    };
    let cgroup = if family == AF_PACKET {
        reflected::KERNEL
    } else {
        storage.cgroup()
    };
    let is_asked = family == AF_PACKET || kind == u32::from(UDP) && cgroup != 0;
    if is_asked && reflected::exit(frame, cgroup, Line::Any, place) {
        // SAFETY: the exit was written, and a place may hold anything until then.
        unsafe { (&raw mut (*place.as_mut_ptr()).storage).write(Some(storage)) };
        return Search::Found;
    }
    if storage.cgroup() != 0 && is_marked(frame) {
        Search::Not(Reason::MarkedWithoutExit)
    } else {
        Search::Not(Reason::NoGateway)
    }
}

/// Lines 2 to 7 of §2.1, with steps 3 to 5 of §2. Each line is a function of its own, and none
/// calls another: together they need too much stack.
#[inline(always)]
fn search(frame: &mut Frame, place: &mut Place) -> Search {
    let mut step = is_late(frame);
    if let Search::Request = step {
        step = request(frame, place);
    }
    if let Search::Next = step {
        step = kept(frame, place);
    }
    if let Search::Next = step {
        step = refused(frame, place);
    }
    if let Search::Next = step {
        step = look_up(frame, place);
    }
    if let Search::Listener = step {
        step = listener(frame, place);
    }
    step
}

/// Line 2.
#[inline(never)]
fn is_late(frame: &mut Frame) -> Search {
    let is_reflecting = map::reflects();
    let marked = is_marked(frame);
    let state = match frame.socket() {
        Some(socket) => socket.state(),
        None => TCP_CLOSE,
    };
    if state == TCP_NEW_SYN_RECV && (marked || is_reflecting) {
        return Search::Request;
    }
    if marked {
        return Search::Next;
    }
    let flags = Packet::parse(frame).tcp_flags(frame);
    let is_answer = flags & RST != 0 || is_reflecting && flags & (SYN | ACK) == SYN | ACK;
    if state == TCP_CLOSE && is_answer {
        Search::Next
    } else {
        Search::Not(nobodys(frame))
    }
}

/// Line 3.
#[inline(never)]
fn request(frame: &mut Frame, place: &mut Place) -> Search {
    let marked = is_marked(frame);
    let storage = frame
        .socket()
        .and_then(lookup::listener)
        .and_then(|listener| listener.storage());
    let Some(storage) = storage else {
        return if marked {
            Search::Next
        } else {
            Search::Not(nobodys(frame))
        };
    };
    let cgroup = storage.cgroup();
    if cgroup != 0 && map::reflects() && reflected::exit(frame, cgroup, Line::Request, place) {
        return Search::Found;
    }
    match admit(frame, storage, Sender::Packets, place) {
        Ok(_) => Search::Found,
        Err(Reason::NoGateway) if marked => Search::Next,
        Err(reason) => Search::Not(reason),
    }
}

/// Line 4.
#[inline(never)]
fn kept(frame: &mut Frame, place: &mut Place) -> Search {
    let packet = Packet::parse(frame);
    if packet.version == 0 {
        return Search::Not(nobodys(frame));
    }
    // A SYN-ACK begins a new connection.
    if let Some(exit) = closing::exit(&packet.flow(frame).key())
        && packet.tcp_flags(frame) & (SYN | ACK) != SYN | ACK
    {
        let storage = None;
        place.write(Found { exit, storage });
        return if exit.has_gateway() {
            Search::Found
        } else {
            Search::Not(Reason::NoGateway)
        };
    }
    if packet.has_tcp_header() {
        Search::Next
    } else {
        Search::Not(nobodys(frame))
    }
}

/// Line 5.
#[inline(never)]
fn refused(frame: &mut Frame, place: &mut Place) -> Search {
    if map::reflects()
        && is_reset(frame)
        && reflected::exit(frame, reflected::KERNEL, Line::Any, place)
    {
        Search::Found
    } else {
        Search::Next
    }
}

#[inline(never)]
fn is_reset(frame: &mut Frame) -> bool {
    Packet::parse(frame).tcp_flags(frame) & RST != 0
}

/// Line 6, for a packet that has a TCP header.
#[inline(never)]
fn look_up(frame: &mut Frame, place: &mut Place) -> Search {
    let none = nobodys(frame);
    let flow = Packet::parse(frame).flow(frame);
    let found = flow.with_socket(frame, Table::Tcp, |socket| match socket.storage() {
        Some(storage) => match admit(frame, storage, Sender::LookedUp, place) {
            Ok(_) => Search::Found,
            Err(Reason::NoGateway) => Search::Listener,
            Err(reason) => Search::Not(reason),
        },
        None => Search::Not(none),
    });
    match found {
        Some(found) => found,
        None => Search::Not(none),
    }
}

/// Line 6, where the storage in `place` has no gateway.
#[inline(never)]
fn listener(frame: &mut Frame, place: &mut Place) -> Search {
    // SAFETY: `look_up` wrote it.
    let cgroup = match unsafe { place.assume_init_ref() }.storage {
        Some(storage) => storage.cgroup(),
        None => reflected::KERNEL,
    };
    if cgroup != reflected::KERNEL
        && map::reflects()
        && reflected::exit(frame, cgroup, Line::Any, place)
    {
        return Search::Found;
    }
    Search::Not(if is_marked(frame) {
        nobodys(frame)
    } else {
        Reason::NoGateway
    })
}

/// The reason where no exit is found.
#[inline(always)]
fn nobodys(frame: &Frame) -> Reason {
    if is_marked(frame) {
        Reason::MarkedWithoutExit
    } else if frame.socket().is_some() {
        Reason::NoExit
    } else {
        Reason::NoSocket
    }
}

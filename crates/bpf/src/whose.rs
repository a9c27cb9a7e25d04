//! Whose packet it is (docs/datapath.md §2.1), and whether its exit may be used: steps 2 to 5 of
//! §2. A packet whose own socket has storage is the common case and goes straight through; all
//! others are looked after out of line.

use crate::{
    closing,
    exit::Exit,
    flow::mapped,
    frame::{self, Frame},
    lookup::{self, Flow, Table},
    map::{self, Config},
    policy::InForce,
    socket::Socket,
    storage::Storage,
    transport::{FRAGMENT_BITS, IPV4_LEN, IPV6_LEN, TCP, Transport},
};
use core::mem::MaybeUninit;
use dynencap_abi::{MARK_SENTINEL, Reason};

const TCP_CLOSE: u32 = 7;
const TCP_FLAGS: u32 = 13;
const RST: u8 = 4;

/// An exit that may be used. It stays in memory: functions out of line take its address, BPF
/// functions return one register, and there is not enough stack for a second one.
pub(crate) struct Found {
    pub(crate) exit: Exit,
    /// From which the exit was read, if from one.
    pub(crate) storage: Option<Storage>,
}

/// Nothing stands in it at first: LLVM would fill it with zeros by a loop over bytes.
pub(crate) type Place = MaybeUninit<Found>;

/// Steps 2 to 5, for a packet of this socket, which has that storage.
#[inline(always)]
pub(crate) fn find<'p>(
    frame: &mut Frame,
    socket: Option<Socket>,
    storage: Option<Storage>,
    place: &'p mut Place,
) -> Result<(&'p Found, &'static Config), Reason> {
    if let Some(storage) = storage {
        return admit(frame, storage, Sender::Packets, place);
    }
    if !is_marked(frame) && socket.is_some_and(|socket| socket.state() != TCP_CLOSE) {
        return Err(Reason::NoExit);
    }
    match search(frame, place) {
        Search::Found => {}
        Search::LookUp => look_up(frame, place)?,
        Search::Not(reason) => return Err(reason),
    }
    // SAFETY: `search` or `look_up` wrote it, since it succeeded.
    let found = unsafe { place.assume_init_ref() };
    Ok((found, map::config().ok_or(Reason::NoRoom)?))
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

/// Steps 3 to 5 of §2.
#[inline(always)]
fn admit<'p>(
    frame: &Frame,
    storage: Storage,
    sender: Sender,
    place: &'p mut Place,
) -> Result<(&'p Found, &'static Config), Reason> {
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
    Ok((found, config))
}

#[inline(never)]
fn is_allowed(frame: &Frame, exit: &Exit) -> bool {
    InForce::of_packet(frame.context()).allows(exit)
}

/// What comes of a search: one register.
enum Search {
    Found,
    /// Line 5 of §2.1 is to be tried.
    LookUp,
    Not(Reason),
}

/// Lines 2 to 4 of §2.1, with steps 3 to 5 of §2. Where it succeeds `place` is written.
#[inline(never)]
fn search(frame: &mut Frame, place: &mut Place) -> Search {
    let marked = is_marked(frame);
    let none = nobodys(frame);
    let packet = Packet::parse(frame);
    // 2
    if !marked && !packet.is_reset(frame) {
        return Search::Not(none);
    }
    // 3
    if let Some(listener) = frame.socket().and_then(lookup::full)
        && let Some(storage) = listener.storage()
    {
        return match admit(frame, storage, Sender::Packets, place) {
            Ok(_) => Search::Found,
            Err(reason) => Search::Not(reason),
        };
    }
    // 4
    if packet.version == 0 {
        return Search::Not(none);
    }
    if let Some(exit) = closing::exit(&packet.flow(frame).key()) {
        let storage = None;
        place.write(Found { exit, storage });
        return if exit.has_gateway() {
            Search::Found
        } else {
            Search::Not(Reason::NoGateway)
        };
    }
    if packet.has_tcp_header() {
        Search::LookUp
    } else {
        Search::Not(none)
    }
}

/// Line 5 of §2.1, for a packet that has a TCP header. A function of its own, and not called by
/// [`search`]: together they need too much stack.
#[inline(never)]
fn look_up(frame: &mut Frame, place: &mut Place) -> Result<(), Reason> {
    let none = nobodys(frame);
    let flow = Packet::parse(frame).flow(frame);
    let taken = flow.with_socket(frame, Table::Tcp, |socket| match socket.storage() {
        Some(storage) => admit(frame, storage, Sender::LookedUp, place).map(|_| ()),
        None => Err(none),
    });
    taken.unwrap_or(Err(none))
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

/// A packet as far as its flow depends on it.
struct Packet {
    /// 0: what step 8 of §2 calls malformed.
    version: u8,
    source: [u64; 2],
    destination: [u64; 2],
    transport: Transport,
    len: u32,
}

impl Packet {
    /// Of no flow. Not `None`: LLVM would carry on what is then undefined, and the verifier sees
    /// that it is.
    #[inline(always)]
    fn malformed() -> Self {
        Self {
            version: 0,
            source: [0; 2],
            destination: [0; 2],
            transport: Transport::NONE,
            len: 0,
        }
    }

    #[inline(always)]
    fn parse(frame: &mut Frame) -> Self {
        let packet = if frame.protocol() == frame::IPV6 {
            Self::ipv6(frame)
        } else {
            Self::ipv4(frame)
        };
        match packet {
            Some(packet) => packet,
            None => Self::malformed(),
        }
    }

    #[inline(always)]
    fn ipv6(frame: &mut Frame) -> Option<Self> {
        let len = frame.len();
        if len < IPV6_LEN {
            return None;
        }
        let header = frame.pulled::<40>(0)?;
        if header.read::<u8, 0>() >> 4 != 6 {
            return None;
        }
        let next_header = header.read::<u8, 6>();
        let source = header.address::<8, 16>();
        let destination = header.address::<24, 32>();
        Some(Self {
            version: 6,
            source,
            destination,
            transport: Transport::behind_ipv6(frame, next_header, len),
            len,
        })
    }

    #[inline(always)]
    fn ipv4(frame: &mut Frame) -> Option<Self> {
        let len = frame.len();
        if len < IPV4_LEN {
            return None;
        }
        let header = frame.pulled::<20>(0)?;
        let version_ihl = header.read::<u8, 0>();
        let header_len = u32::from(version_ihl & 0xf) * 4;
        let total_len = u32::from(u16::from_be(header.read::<u16, 2>()));
        if version_ihl >> 4 != 4 || header_len < IPV4_LEN || total_len < header_len {
            return None;
        }
        let is_fragment = u16::from_be(header.read::<u16, 6>()) & FRAGMENT_BITS != 0;
        Some(Self {
            version: 4,
            source: mapped(header.read::<u32, 12>()),
            destination: mapped(header.read::<u32, 16>()),
            transport: Transport::behind_ipv4(header.read::<u8, 9>(), header_len, is_fragment),
            len,
        })
    }

    #[inline(always)]
    fn has_tcp_header(&self) -> bool {
        self.transport.protocol() == TCP && self.transport.is_there(self.len)
    }

    #[inline(always)]
    fn is_reset(&self, frame: &Frame) -> bool {
        match self.transport.offset() {
            Some(offset) if self.has_tcp_header() => {
                frame.read::<u8>(offset + TCP_FLAGS).unwrap_or(0) & RST != 0
            }
            _ => false,
        }
    }

    #[inline(always)]
    fn flow(&self, frame: &Frame) -> Flow {
        let [source_port, destination_port] = self.transport.ports(frame);
        Flow {
            version: self.version,
            protocol: self.transport.protocol(),
            source: self.source,
            destination: self.destination,
            source_port: source_port.to_be(),
            destination_port: destination_port.to_be(),
        }
    }
}

//! TC egress: puts the packets of a socket with an exit into the exit's headers
//! (docs/datapath.md §2; the numbers are that section's).

use crate::{
    checksum::InnerSum,
    exit::Exit,
    flow::{Endpoint, FlowHash, mapped},
    frame::{self, Frame},
    map::{self, Config},
    outer::{self, Outer},
    path,
    plain::{self, Outcome},
    socket::Socket,
    storage::Storage,
    tell,
    transport::{FRAGMENT_BITS, Fault, IPV4_LEN, IPV6_LEN, Transport},
    whose::{self, Found},
};
use dynencap_abi::{Config as Flags, MARK_DONE, MARK_MASK, MARK_SENTINEL, MAX_PAYLOAD_LEN, Reason};

const IPIP: u8 = 4;
pub(crate) const IPV6_IN: u8 = 41;

/// Where the program runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Uplink,
    /// Behind the segmenter, to which nothing goes twice.
    Segmenter,
}

#[inline(always)]
pub(crate) fn run(frame: &mut Frame) -> i32 {
    // 0
    if frame.mark() & MARK_MASK == MARK_DONE {
        map::count(Reason::AlreadyEncapsulated);
        return frame::verdict(Reason::AlreadyEncapsulated);
    }
    match encapsulate(frame, Hook::Uplink) {
        Reason::Segmenting => match map::config() {
            Some(config) => frame::send_from(config.segmenter),
            None => frame::SHOT,
        },
        Reason::TooBigTold => frame::deliver_at(frame.device()),
        reason => frame::verdict(reason),
    }
}

/// Steps 1 to 15, and all counting.
#[inline(always)]
pub(crate) fn encapsulate(frame: &mut Frame, hook: Hook) -> Reason {
    let reason = match frame.protocol() {
        frame::IPV6 | frame::IPV4 => {
            let socket = frame.socket();
            let storage = socket.and_then(Socket::storage);
            // No closure: LLVM would make a function of it.
            let outcome = match storage {
                Some(storage) => plain::encapsulate(frame, storage),
                None => Outcome::Left,
            };
            match (outcome, storage) {
                (Outcome::Encapsulated, _) => return Reason::Encapsulated,
                (Outcome::NoRoom, Some(storage)) => {
                    storage.count_drop(Reason::NoRoom);
                    Reason::NoRoom
                }
                (_, Some(_)) => return any(frame.handed_on(), storage, hook),
                (_, None) => match whose::passing(frame, socket) {
                    Some(reason) => reason,
                    None => return any(frame.handed_on(), storage, hook),
                },
            }
        }
        // 1
        _ if frame.mark() & MARK_SENTINEL != 0 => Reason::MarkedNotIp,
        _ => Reason::NotIp,
    };
    map::count(reason);
    reason
}

/// Steps 2 to 15 for any packet of IP, and all counting. Out of line: the registers and the stack of
/// the program itself are then those of `plain`.
#[inline(never)]
fn any(mut frame: Frame, storage: Option<Storage>, hook: Hook) -> Reason {
    let reason = ip(&mut frame, storage, hook);
    map::count(reason);
    reason
}

/// The same but for the counting by reason.
#[inline(always)]
fn ip(frame: &mut Frame, storage: Option<Storage>, hook: Hook) -> Reason {
    // 2 to 5
    let mut place = whose::Place::uninit();
    let (found, config) = match whose::find(frame, storage, &mut place) {
        Ok(found) => found,
        Err(reason) => return reason,
    };
    match wrap(frame, found, config, hook) {
        Ok(()) => {
            if let Some(storage) = found.storage {
                storage.count_encapsulated();
            }
            Reason::Encapsulated
        }
        Err(Reason::Segmenting) => Reason::Segmenting,
        Err(reason) => {
            if let Some(storage) = found.storage {
                storage.count_drop(reason);
            }
            reason
        }
    }
}

/// The packet as far as the outer headers depend on it.
pub(crate) struct Inner {
    pub(crate) protocol: u8,
    pub(crate) traffic_class: u8,
    pub(crate) hop_limit: u8,
    /// Of IPv4, as it stands in memory; 0 for IPv6.
    pub(crate) identification: u16,
    pub(crate) source: [u64; 2],
    pub(crate) destination: [u64; 2],
}

impl Inner {
    /// The outer headers from `source`, which announce `length`. Of the flow key the packet's
    /// addresses are known; the rest of it is its protocol and the ports.
    #[inline(always)]
    pub(crate) fn outer(
        &self,
        source: [u64; 2],
        protocol: u8,
        [source_port, destination_port]: [u16; 2],
        exit: &Exit,
        config: &Config,
        length: u32,
    ) -> Outer {
        let hash = FlowHash::new(
            Endpoint {
                address: self.source,
                port: source_port,
            },
            Endpoint {
                address: self.destination,
                port: destination_port,
            },
            protocol,
        );
        Outer {
            source,
            protocol: self.protocol,
            traffic_class: self.traffic_class,
            hop_limit: match config.hop_limit as u8 {
                0 => self.hop_limit,
                hop_limit => hop_limit,
            },
            flow_label: hash.label(),
            identification: self.identification,
            source_port: match exit.source_port() {
                0 => hash.port().to_be(),
                port => port,
            },
            length: length as u16,
        }
    }
}

/// Steps 6 to 15. Out of line: what it needs of the stack is then not taken when the packet's exit
/// is looked for.
#[inline(never)]
fn wrap(frame: &mut Frame, found: &Found, config: &Config, hook: Hook) -> Result<(), Reason> {
    let Found { exit, storage } = found;
    let is_super_packet = frame.gso_size() > 0;
    let is_checksummed = config.has(Flags::UDP_CHECKSUM) && exit.has_udp();
    // 6
    let may_segment = hook == Hook::Uplink && config.segmenter != 0;
    if is_super_packet && may_segment && (config.has(Flags::SEGMENT_FIRST) || is_checksummed) {
        return Err(Reason::Segmenting);
    }
    // 7
    let len = frame.len();
    let overhead = exit.overhead();
    let length = len + overhead - exit.uncounted();
    if length > MAX_PAYLOAD_LEN as u32 {
        return Err(Reason::TooLong);
    }
    // 8, 9
    let is_ipv6 = frame.protocol() == frame::IPV6;
    let (inner, transport) = if is_ipv6 {
        ipv6(frame, len)?
    } else {
        ipv4(frame, len)?
    };
    // 10
    let outer_source = if is_set(exit.source) {
        exit.source
    } else if is_ipv6 != exit.is_ipv4() {
        inner.source
    } else {
        let source = if is_ipv6 {
            [0, u64::from(config.source4) << 32]
        } else {
            config.source()
        };
        if !is_set(source) {
            return Err(Reason::NoSource);
        }
        source
    };
    // 11, 12
    let mut limit = config.uplink_mtu;
    if path::is_any_learned() {
        limit = path::limit(exit, limit);
    }
    let mut need = len + overhead;
    if is_super_packet {
        // GSO runs behind this program, and there nobody counts what it drops.
        let headers_len = transport
            .headers_len(frame, len)
            .map_err(|fault| match fault {
                Fault::Shape if may_segment => Reason::Segmenting,
                Fault::Shape => Reason::GsoShape,
                Fault::Malformed => Reason::Malformed,
            })?;
        if need > limit {
            need = headers_len + frame.gso_size() + overhead;
        }
    }
    if need > limit {
        if storage.is_none() || !config.has(Flags::TELL_TOO_BIG) {
            return Err(Reason::TooBig);
        }
        let told = limit.saturating_sub(overhead);
        return Err(tell::too_big(frame, transport, told, need - overhead));
    }
    // 13
    let inner_sum = if is_checksummed {
        InnerSum::of(frame, transport, len).ok_or(Reason::NoChecksum)?
    } else {
        InnerSum::NOT_ASKED
    };
    // 14, 15
    let ports = transport.ports(frame);
    let outer = inner.outer(
        outer_source,
        transport.protocol(),
        ports,
        exit,
        config,
        length,
    );
    if is_checksummed || !Outer::is_plain(exit) {
        // A copy: an address that is handed on would keep the original in memory.
        let outer = outer;
        return outer::push_any(frame, &outer, exit, inner_sum).ok_or(Reason::NoRoom);
    }
    outer.push_ipv6(frame, exit).ok_or(Reason::NoRoom)
}

#[inline(always)]
fn ipv6(frame: &mut Frame, len: u32) -> Result<(Inner, Transport), Reason> {
    if len < IPV6_LEN {
        return Err(Reason::Malformed);
    }
    let header = frame.pulled::<40>(0).ok_or(Reason::Malformed)?;
    let version_class_label = u32::from_be(header.read::<u32, 0>());
    if version_class_label >> 28 != 6 {
        return Err(Reason::Malformed);
    }
    if IPV6_LEN + u32::from(u16::from_be(header.read::<u16, 4>())) != len {
        return Err(Reason::BadLength);
    }
    let next_header = header.read::<u8, 6>();
    let hop_limit = header.read::<u8, 7>();
    let source = header.address::<8, 16>();
    let destination = header.address::<24, 32>();
    let inner = Inner {
        protocol: IPV6_IN,
        traffic_class: (version_class_label >> 20) as u8,
        hop_limit,
        identification: 0,
        source,
        destination,
    };
    Ok((inner, Transport::behind_ipv6(frame, next_header, len)))
}

#[inline(always)]
fn ipv4(frame: &mut Frame, len: u32) -> Result<(Inner, Transport), Reason> {
    if len < IPV4_LEN {
        return Err(Reason::Malformed);
    }
    let header = frame.pulled::<20>(0).ok_or(Reason::Malformed)?;
    let version_ihl = header.read::<u8, 0>();
    let header_len = u32::from(version_ihl & 0xf) * 4;
    let total_len = u32::from(u16::from_be(header.read::<u16, 2>()));
    if version_ihl >> 4 != 4 || header_len < IPV4_LEN || total_len < header_len {
        return Err(Reason::Malformed);
    }
    if total_len != len {
        return Err(Reason::BadLength);
    }
    let is_fragment = u16::from_be(header.read::<u16, 6>()) & FRAGMENT_BITS != 0;
    let inner = Inner {
        protocol: IPIP,
        traffic_class: header.read::<u8, 1>(),
        hop_limit: header.read::<u8, 8>(),
        identification: header.read::<u16, 4>(),
        source: mapped(header.read::<u32, 12>()),
        destination: mapped(header.read::<u32, 16>()),
    };
    let protocol = header.read::<u8, 9>();
    Ok((
        inner,
        Transport::behind_ipv4(protocol, header_len, is_fragment),
    ))
}

#[inline(always)]
pub(crate) fn is_set(address: [u64; 2]) -> bool {
    address[0] | address[1] != 0
}

//! TC egress: puts the packets of a socket with an exit into the exit's headers
//! (docs/datapath.md §2; the numbers are that section's).

use crate::{
    flow::{Endpoint, FlowHash, mapped},
    frame::{self, Frame},
    map::{self, Config},
    outer::Outer,
    storage::Exit,
    transport::{Fault, Transport},
};
use dynencap_abi::{MARK_SENTINEL, MAX_PAYLOAD_LEN, Reason};

const IPV4_LEN: u32 = 20;
const IPV6_LEN: u32 = 40;
const IPIP: u8 = 4;
const IPV6_IN: u8 = 41;
/// More fragments, and the fragment offset.
const FRAGMENT_BITS: u16 = 0x3fff;

#[inline(always)]
pub(crate) fn run(frame: &mut Frame) -> i32 {
    let reason = match encapsulate(frame) {
        Ok(()) => Reason::Encapsulated,
        Err(reason) => reason,
    };
    map::count(reason);
    frame::verdict(reason)
}

/// The packet as far as the outer headers depend on it.
struct Inner {
    protocol: u8,
    traffic_class: u8,
    hop_limit: u8,
    source: [u64; 2],
    destination: [u64; 2],
    outer_source: [u64; 2],
    transport: Transport,
}

#[inline(always)]
fn encapsulate(frame: &mut Frame) -> Result<(), Reason> {
    let marked = frame.mark() & MARK_SENTINEL != 0;
    let or_marked = |passed, dropped| Err(if marked { dropped } else { passed });

    // 1
    let protocol = frame.protocol();
    if protocol != frame::IPV6 && protocol != frame::IPV4 {
        return or_marked(Reason::NotIp, Reason::MarkedNotIp);
    }
    // 2
    let Some(socket) = frame.socket() else {
        return or_marked(Reason::NoSocket, Reason::MarkedWithoutExit);
    };
    let Some(storage) = socket.storage() else {
        return or_marked(Reason::NoExit, Reason::MarkedWithoutExit);
    };
    // 3, 4
    let (exit, _) = storage.read().ok_or(Reason::ExitBusy)?;
    if !exit.has_gateway() {
        return Err(Reason::NoGateway);
    }
    // 5
    let len = frame.len();
    let overhead = exit.overhead();
    let payload_len = len + overhead - IPV6_LEN;
    if payload_len > MAX_PAYLOAD_LEN as u32 {
        return Err(Reason::TooLong);
    }
    let config = map::config().ok_or(Reason::NoRoom)?;
    // 6 to 8
    let inner = if protocol == frame::IPV6 {
        ipv6(frame, &exit, len)?
    } else {
        ipv4(frame, &exit, config, len)?
    };
    // 9
    let too_big = len + overhead > config.uplink_mtu;
    if frame.gso_size() > 0 {
        // GSO runs behind this program, and there nobody counts what it drops.
        let headers_len = inner
            .transport
            .headers_len(frame, len)
            .map_err(|fault| match fault {
                Fault::Shape => Reason::GsoShape,
                Fault::Malformed => Reason::Malformed,
            })?;
        if too_big && headers_len + frame.gso_size() + overhead > config.uplink_mtu {
            return Err(Reason::TooBig);
        }
    } else if too_big {
        return Err(Reason::TooBig);
    }
    // 10, 11
    let [source_port, destination_port] = inner.transport.ports(frame);
    let hash = FlowHash::new(
        Endpoint {
            address: inner.source,
            port: source_port,
        },
        Endpoint {
            address: inner.destination,
            port: destination_port,
        },
        inner.transport.protocol(),
    );
    let outer = Outer {
        source: inner.outer_source,
        protocol: inner.protocol,
        traffic_class: inner.traffic_class,
        hop_limit: inner.hop_limit,
        flow_label: hash.label(),
        flow_port: hash.port(),
        payload_len: payload_len as u16,
    };
    outer.push(frame, &exit).ok_or(Reason::NoRoom)
}

#[inline(always)]
fn ipv6(frame: &mut Frame, exit: &Exit, len: u32) -> Result<Inner, Reason> {
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
    Ok(Inner {
        protocol: IPV6_IN,
        traffic_class: (version_class_label >> 20) as u8,
        hop_limit,
        source,
        destination,
        outer_source: if is_set(exit.source) {
            exit.source
        } else {
            source
        },
        transport: Transport::behind_ipv6(frame, next_header, len),
    })
}

#[inline(always)]
fn ipv4(frame: &mut Frame, exit: &Exit, config: &Config, len: u32) -> Result<Inner, Reason> {
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
    let outer_source = if is_set(exit.source) {
        exit.source
    } else {
        config.source()
    };
    if !is_set(outer_source) {
        return Err(Reason::NoSource);
    }
    let is_fragment = u16::from_be(header.read::<u16, 6>()) & FRAGMENT_BITS != 0;
    Ok(Inner {
        protocol: IPIP,
        traffic_class: header.read::<u8, 1>(),
        hop_limit: header.read::<u8, 8>(),
        source: mapped(header.read::<u32, 12>()),
        destination: mapped(header.read::<u32, 16>()),
        outer_source,
        transport: Transport::behind_ipv4(header.read::<u8, 9>(), header_len, is_fragment),
    })
}

#[inline(always)]
fn is_set(address: [u64; 2]) -> bool {
    address[0] | address[1] != 0
}

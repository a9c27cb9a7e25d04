//! Learns path MTUs from ICMP errors about tunnel packets (docs/datapath.md §8). An error is
//! believed where it quotes a packet that a socket with this exit really has under way.

use crate::{
    flow::mapped,
    frame::Frame,
    lookup::{Flow, Table, is_in_flight},
    map,
    path::{Path, Wanted},
    socket::Socket,
    storage::Storage,
    transport::{FRAGMENT_BITS, IPV4_LEN, IPV6_LEN, TCP, UDP, UDP_LEN},
};
use dynencap_abi::{Event, MIN_IPV4_MTU, MIN_UPLINK_MTU, Reason};

const ICMP_LEN: u32 = 8;
/// IPv4's "destination unreachable" quotes that many bytes behind the IP header (RFC 792).
const LEAST_QUOTE: u32 = 8;
/// Type 2, code 0.
const PACKET_TOO_BIG: u16 = 0x0200u16.to_be();
/// Type 3, code 4.
const FRAGMENTATION_NEEDED: u16 = 0x0304u16.to_be();
const IPIP: u8 = 4;
const IPV6_IN: u8 = 41;

/// An ICMP error about a tunnel packet.
struct TooBig {
    mtu: u32,
    least_mtu: u32,
    /// Whether an error that quotes too little to be checked is believed.
    is_trusted: bool,
    gateway: [u64; 2],
    protocol: u8,
    /// Where the quoted outer IP header ends.
    end: u32,
}

/// What the quoted packet says about the error.
enum Evidence {
    /// It is under way.
    Confirmed,
    /// No socket with this exit sent it.
    Refuted,
    /// Too little of it is quoted, or it is of another protocol.
    Missing,
}

/// The reason, where the frame is an ICMP error about a tunnel packet. It is one of ICMPv6.
#[inline(never)]
pub(crate) fn from_icmpv6(frame: &Frame) -> Option<Reason> {
    const QUOTED: u32 = IPV6_LEN + ICMP_LEN;
    if frame.len() < QUOTED + IPV6_LEN
        || frame.read::<u16>(IPV6_LEN)? != PACKET_TOO_BIG
        || frame.read::<u8>(QUOTED)? >> 4 != 6
    {
        return None;
    }
    let error = TooBig {
        mtu: u32::from_be(frame.read(IPV6_LEN + 4)?),
        least_mtu: MIN_UPLINK_MTU,
        is_trusted: false,
        gateway: [frame.read(QUOTED + 24)?, frame.read(QUOTED + 32)?],
        protocol: frame.read(QUOTED + 6)?,
        end: QUOTED + IPV6_LEN,
    };
    error.judge(frame)
}

/// The reason, where the frame is an ICMP error about a tunnel packet. It is one of ICMPv4, no
/// fragment, without IP options.
#[inline(never)]
pub(crate) fn from_icmpv4(frame: &Frame) -> Option<Reason> {
    const QUOTED: u32 = IPV4_LEN + ICMP_LEN;
    if frame.len() < QUOTED + IPV4_LEN + LEAST_QUOTE
        || frame.read::<u16>(IPV4_LEN)? != FRAGMENTATION_NEEDED
        || frame.read::<u8>(QUOTED)? != 0x45
    {
        return None;
    }
    let error = TooBig {
        mtu: u32::from(u16::from_be(frame.read(IPV4_LEN + 6)?)),
        least_mtu: MIN_IPV4_MTU,
        is_trusted: true,
        gateway: mapped(frame.read(QUOTED + 16)?),
        protocol: frame.read(QUOTED + 9)?,
        end: QUOTED + IPV4_LEN,
    };
    error.judge(frame)
}

impl TooBig {
    #[inline(always)]
    fn judge(&self, frame: &Frame) -> Option<Reason> {
        // A number that is always there: what is undefined in an `Option` would be spilled.
        let port = match self.protocol {
            IPIP | IPV6_IN => 0,
            UDP if self.end + UDP_LEN <= frame.len() => frame.read::<u16>(self.end + 2)?,
            _ => return None,
        };
        let is_udp = self.protocol == UDP;
        let wanted = Wanted::new(self.gateway, is_udp.then_some(port));
        let reason = match Path::find(&wanted) {
            Some(path) => self.learn(frame, port, path),
            // Nobody here chose that exit: UDP to there is none of ours.
            None if is_udp => return None,
            None => Reason::PathMtuRefused,
        };
        map::count_event(match reason {
            Reason::PathMtuLearned => Event::PathMtuLearned,
            _ => Event::PathMtuRefused,
        });
        Some(reason)
    }

    #[inline(always)]
    fn learn(&self, frame: &Frame, port: u16, path: Path) -> Reason {
        let inner = if self.protocol == UDP {
            self.end + UDP_LEN + (path.header_len() & 0xff)
        } else {
            self.end
        };
        match self.evidence(frame, inner, port) {
            Some(Evidence::Confirmed) => {}
            Some(Evidence::Refuted) => return Reason::PathMtuRefused,
            Some(Evidence::Missing) | None if self.is_trusted => {}
            _ => return Reason::PathMtuRefused,
        }
        let mtu = self.mtu.max(self.least_mtu);
        let limit = match (map::config(), path.fresh_mtu()) {
            (Some(config), Some(known)) => known.min(config.uplink_mtu),
            (Some(config), None) => config.uplink_mtu,
            (None, _) => 0,
        };
        if mtu >= limit {
            return Reason::PathMtuRefused;
        }
        path.learn(mtu);
        Reason::PathMtuLearned
    }

    /// What the packet at `inner` says; `None` where it cannot be read.
    #[inline(always)]
    fn evidence(&self, frame: &Frame, inner: u32, port: u16) -> Option<Evidence> {
        let len = frame.len();
        let first: u8 = frame.read(inner)?;
        let (version, header_len) = match (first, self.protocol) {
            (_, IPIP | UDP) if first == 0x45 => (4, IPV4_LEN),
            (_, IPV6_IN | UDP) if first >> 4 == 6 => (6, IPV6_LEN),
            _ => return Some(Evidence::Missing),
        };
        let transport = inner + header_len;
        if transport + LEAST_QUOTE > len {
            return Some(Evidence::Missing);
        }
        let (protocol, source, destination) = if version == 4 {
            if u16::from_be(frame.read(inner + 6)?) & FRAGMENT_BITS != 0 {
                return Some(Evidence::Missing);
            }
            (
                frame.read::<u8>(inner + 9)?,
                mapped(frame.read(inner + 12)?),
                mapped(frame.read(inner + 16)?),
            )
        } else {
            (
                frame.read::<u8>(inner + 6)?,
                [frame.read(inner + 8)?, frame.read(inner + 16)?],
                [frame.read(inner + 24)?, frame.read(inner + 32)?],
            )
        };
        let flow = Flow {
            version,
            protocol,
            source,
            destination,
            source_port: frame.read(transport)?,
            destination_port: frame.read(transport + 2)?,
        };
        let table = match protocol {
            TCP => Table::Tcp,
            UDP => Table::Udp,
            _ => return Some(Evidence::Missing),
        };
        let sequence = u32::from_be(frame.read(transport + 4)?);
        let gateway = self.gateway;
        let has_udp = self.protocol == UDP;
        let sent = flow.with_socket(frame, table, |socket| {
            is_exit_of(socket, gateway, has_udp, port)
                && (protocol != TCP || is_in_flight(socket, sequence))
        });
        Some(match sent {
            Some(true) => Evidence::Confirmed,
            _ => Evidence::Refuted,
        })
    }
}

/// Whether the socket's exit is the one that the error names.
#[inline(always)]
fn is_exit_of(socket: Socket, gateway: [u64; 2], has_udp: bool, port: u16) -> bool {
    let Some((exit, _)) = socket.storage().and_then(Storage::read) else {
        return false;
    };
    let difference = (exit.gateway[0] ^ gateway[0]) | (exit.gateway[1] ^ gateway[1]);
    exit.has_gateway()
        && exit.has_udp() == has_udp
        && (!has_udp || exit.destination_port() == port)
        && difference == 0
}

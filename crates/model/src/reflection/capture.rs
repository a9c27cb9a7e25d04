//! Captures: at our own decapsulation (5.2), and of what a device of the kernel left in front of
//! a packet (5.3).

use super::exit_of;
use crate::custom::{Announced, Custom};
use crate::extension::{self, Upper};
use crate::flow;
use crate::host::Host;
use crate::owner::{Sockets, tcp_header};
use crate::socket::ROOT_CGROUP;
use crate::tunnel::{Tunnelled, Tunnels, is_plain};
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ip, TCP, UDP};
use dynencap_abi::option::REFLECT_PATH;
use dynencap_abi::{Config, Event, Exit, FlowKey, Reflected, TunnelSpec, UDP_HEADER_LEN};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Bytes of an Ethernet header.
const ETHERNET_LEN: usize = 14;

/// What was captured of a packet that a socket may get.
pub(crate) struct Capture {
    /// The exit of replies.
    pub(crate) exit: Exit,
    flow: FlowKey,
    /// It is TCP with SYN and without ACK.
    opens: bool,
}

impl Capture {
    /// What TC ingress captures of a packet that it decapsulated.
    pub(crate) fn of(tunnelled: &Tunnelled<'_>) -> Option<Self> {
        if !tunnelled.reflects {
            return None;
        }
        let exit = exit_of(&tunnelled.outer, tunnelled.udp)?;
        let bytes = tunnelled.inner_bytes;
        let upper = extension::upper(&tunnelled.inner, bytes);
        if !has_transport(&upper, bytes) {
            return None;
        }
        let opens = |tcp: &[u8; 20]| tcp[13] & (SYN | ACK) == SYN;
        Some(Self {
            exit,
            flow: flow::key_of(&tunnelled.inner, bytes),
            opens: tcp_header(&upper, bytes).is_some_and(opens),
        })
    }
}

/// TCP or UDP, its header wholly there.
pub(super) fn has_transport(upper: &Upper, bytes: &[u8]) -> bool {
    match (upper.protocol, upper.offset) {
        (TCP, _) => tcp_header(upper, bytes).is_some(),
        (UDP, Some(offset)) => bytes.get(offset..offset + UDP_HEADER_LEN).is_some(),
        _ => false,
    }
}

impl Host {
    /// 5.2, step 2: where no socket will answer, the kernel itself may.
    pub(crate) fn capture_for_kernel(&mut self, capture: &Capture, sockets: &impl Sockets) {
        let lab = self.config.flags & Config::ALLOW_PACKET_SOCKETS != 0;
        if !capture.opens && !lab {
            return;
        }
        let replies = capture.flow.reversed();
        let found = match replies.protocol {
            TCP => sockets.tcp(&replies),
            _ => sockets.udp(&replies),
        };
        if found.is_some() {
            return;
        }
        let judge = self.judge(&[ROOT_CGROUP]);
        if !judge.allows_reflection(capture.exit.gateway) {
            self.happened(Event::ReflectRefused);
            return;
        }
        let entry = Reflected {
            exit: capture.exit,
            cgroup: 0,
            mark: 0,
            flags: REFLECT_PATH,
            class: 0,
            reserved: [0; 7],
        };
        self.reflected.insert(replies, entry);
    }
}

/// 5.3: the exit by the headers that stand in front of the packet whose IP header is `ip`.
/// `front` begins at the MAC header.
pub(super) fn in_front(front: &[u8], ip: &Ip<'_>, tunnels: &Tunnels) -> Option<Exit> {
    [ETHERNET_LEN, 0]
        .into_iter()
        .find_map(|offset| outer_at(front.get(offset..)?, ip, tunnels))
}

fn outer_at(bytes: &[u8], ip: &Ip<'_>, tunnels: &Tunnels) -> Option<Exit> {
    let ethertype = match bytes.first()? >> 4 {
        4 => ETHERTYPE_IPV4,
        6 => ETHERTYPE_IPV6,
        _ => return None,
    };
    let outer = Ip::view(ethertype, bytes)?;
    if let Ip::V4(v4) = outer {
        // FOU and GUE state a shorter length once their headers are off, and leave the checksum.
        let sound = is_plain(&outer) || v4.protocol() == UDP && v4.header_len() == 20;
        if !sound || v4.is_fragment() {
            return None;
        }
    }
    let payload = bytes.get(outer.header_len()..)?;
    let spec = tunnels.of(&outer, payload)?;
    let wanted = TunnelSpec::KERNEL | TunnelSpec::REFLECT;
    if spec.flags & wanted != wanted {
        return None;
    }
    let (udp, inner, announced) = match outer.protocol() {
        UDP => {
            let (header, rest) = payload.split_first_chunk::<UDP_HEADER_LEN>()?;
            let custom = Custom::parse(spec, rest)?;
            let udp = ([header[2], header[3]], custom.header);
            (Some(udp), custom.inner, custom.announced)
        }
        protocol => (None, payload, Announced::Only(protocol)),
    };
    let inner = Ip::view(ip.ethertype(), inner)?;
    let same = inner.source() == ip.source()
        && inner.destination() == ip.destination()
        && inner.protocol() == ip.protocol()
        && inner.stated_len() == ip.stated_len();
    let carried = outer.stated_len().checked_sub(outer.header_len())?;
    if !same || !announced.allows(ip.as_payload()) || carried < ip.stated_len() {
        return None;
    }
    exit_of(&outer, udp)
}

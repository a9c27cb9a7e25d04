//! Helpers that look a socket up and hold a reference to it, which must be given back before
//! the program ends, and those that lead from one socket to another.

use super::{Answer, Host, Refusal, readable};
use crate::memory::Memory;
use crate::socket::{TcpState, Tuple};

/// Which table is searched, and what may come out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// `bpf_sk_lookup_tcp`.
    Tcp,
    /// `bpf_sk_lookup_udp`.
    Udp,
    /// `bpf_skc_lookup_tcp`: request and TIME_WAIT sockets too.
    TcpCommon,
}

/// One network namespace is emulated: another's id finds nothing.
pub(super) fn lookup(host: &mut Host<'_>, search: Search, a: &[u64; 5], memory: &Memory) -> Answer {
    super::context(a[0])?;
    if a[2] == 0 {
        return Err(Refusal::Argument("size out of bounds"));
    }
    let tuple = Tuple::from_bytes(readable(memory, a[1], a[2] & 0xffff_ffff)?);
    // BPF_F_CURRENT_NETNS is any negative 32-bit number.
    let is_here = (a[3] as u32).cast_signed() < 0;
    let Some(tuple) = tuple.filter(|_| a[4] == 0 && is_here) else {
        return Ok(0);
    };
    let device = memory.skb.ifindex;
    let found = match search {
        Search::Tcp => host
            .sockets
            .find_tcp(tuple, device)
            .and_then(|slot| host.sockets.full(slot)),
        Search::Udp => host.sockets.find_udp(tuple, device),
        Search::TcpCommon => host.sockets.find_tcp(tuple, device),
    };
    Ok(found.map_or(0, |slot| {
        host.references.push(slot);
        Memory::socket_address(slot)
    }))
}

pub(super) fn release(host: &mut Host<'_>, address: u64) -> Answer {
    let slot = Memory::socket_slot(address);
    let held = host
        .references
        .iter()
        .position(|held| Some(*held) == slot)
        .ok_or(Refusal::Argument("not a reference"))?;
    host.references.swap_remove(held);
    Ok(0)
}

pub(super) fn sk_fullsock(host: &Host<'_>, address: u64) -> Answer {
    let slot = host.socket(address)?;
    let is_full = host
        .sockets
        .get(slot)
        .is_some_and(|socket| socket.is_full());
    Ok(if is_full {
        Memory::socket_address(slot)
    } else {
        0
    })
}

pub(super) fn tcp_sock(host: &Host<'_>, address: u64) -> Answer {
    let slot = host.socket(address)?;
    let is_tcp = host.sockets.get(slot).is_some_and(|socket| socket.is_tcp());
    Ok(if is_tcp {
        Memory::tcp_socket_address(slot)
    } else {
        0
    })
}

pub(super) fn listener(host: &Host<'_>, address: u64) -> Answer {
    let slot = host.socket(address)?;
    let full = host.sockets.full(slot);
    let listens = full.filter(|slot| {
        host.sockets
            .get(*slot)
            .is_some_and(|socket| socket.state == TcpState::Listen)
    });
    Ok(listens.map_or(0, Memory::socket_address))
}

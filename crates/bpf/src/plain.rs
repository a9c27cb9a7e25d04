//! What most packets of most sockets with an exit are, in as few steps as that allows: IPv6 with
//! TCP or UDP directly behind, no super-packet, with an exit of an IPv6 header and at most one word
//! of custom header, that is allowed already and needs nothing looked up.
//!
//! It is the same docs/datapath.md §2. Any packet that is otherwise, or has any fault, is left as
//! it came to `egress`, which finds the reason in that section's order: so the order of the
//! questions here is free, and no feature costs anything where it is not used.
//!
//! Each kind of exit has its own copy of what follows, with lengths that are constants. It is
//! inlined in the program itself, whose stack all other functions need as well: little is kept from
//! before the helper that makes room, and that as whole words, as they are written behind it.

use crate::{
    allowed::Allowed,
    egress::IPV6_IN,
    exit::Kind,
    flow::{Endpoint, FlowHash},
    frame::{self, Frame},
    map::{self, Config, Counter},
    outer, path,
    storage::Storage,
    transport::{IPV6_LEN, TCP, UDP, UDP_LEN},
};
use dynencap_abi::{Config as Flags, MAX_PAYLOAD_LEN, MIN_UPLINK_MTU, Reason};

// Bytes of outer headers.
const IP: u32 = IPV6_LEN;
const IP_UDP: u32 = IPV6_LEN + UDP_LEN;
const IP_UDP_8: u32 = IP_UDP + 8;

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// And counted.
    Encapsulated,
    /// Nothing was done, nothing counted.
    Left,
    /// The room that was made cannot be filled.
    NoRoom,
}

/// For a packet of IP whose own socket has that storage.
#[inline(always)]
pub(crate) fn encapsulate(frame: &mut Frame, storage: Storage) -> Outcome {
    if frame.protocol() != frame::IPV6 || frame.gso_size() > 0 {
        return Outcome::Left;
    }
    let Some(config) = map::config() else {
        return Outcome::Left;
    };
    let Some(exit) = storage.allowed(config.policy_generation) else {
        return Outcome::Left;
    };
    let is_checksummed = config.has(Flags::UDP_CHECKSUM);
    match exit.kind() {
        Kind::Ip => wrap::<IP>(frame, storage, exit, config),
        Kind::Udp if !is_checksummed => wrap::<IP_UDP>(frame, storage, exit, config),
        Kind::Udp8 if !is_checksummed => wrap::<IP_UDP_8>(frame, storage, exit, config),
        _ => Outcome::Left,
    }
}

/// Into outer headers of `LEN` bytes.
#[inline(always)]
fn wrap<const LEN: u32>(
    frame: &mut Frame,
    storage: Storage,
    exit: Allowed,
    config: &Config,
) -> Outcome {
    let Some(headers) = Headers::<LEN>::of(frame, exit, config) else {
        return Outcome::Left;
    };
    // Looked for before it is needed: behind the helper all would wait for it.
    let Some(counter) = Counter::of(Reason::Encapsulated) else {
        return Outcome::Left;
    };
    // Where there is no room for this, `egress` will not find any either, and says so.
    let flags = outer::room_for_ipv6((LEN != IP).then_some(LEN.wrapping_sub(IP_UDP)));
    if frame.adjust_room(LEN as i32, flags).is_none() {
        return Outcome::Left;
    }
    if headers.write(frame).is_none() {
        return Outcome::NoRoom;
    }
    // At the end, with all else done: it waits until everything written so far has left the CPU.
    storage.count_encapsulated();
    counter.add_one();
    Outcome::Encapsulated
}

/// Outer headers of `LEN` bytes, in words as they stand in memory.
struct Headers<const LEN: u32> {
    /// The first word of the IPv6 header: all but the addresses.
    first: u64,
    source: [u64; 2],
    gateway: [u64; 2],
    /// The UDP header.
    udp: u64,
    /// The custom header.
    word: u64,
}

impl<const LEN: u32> Headers<LEN> {
    const HAS_UDP: bool = LEN != IP;
    const HAS_WORD: bool = LEN == IP_UDP_8;

    /// Those of this packet, where it is a plain one.
    #[inline(always)]
    fn of(frame: &Frame, exit: Allowed, config: &Config) -> Option<Self> {
        let inner = frame.linear::<44>(0)?;
        // Version 4 bits, traffic class 8, flow label 20, payload length 16, next header 8, hop
        // limit 8.
        let inner_first = u64::from_be(inner.read::<u64, 0>());
        let length = u32::from((inner_first >> 16) as u16);
        if inner_first >> 60 != 6 || length + IPV6_LEN != frame.len_behind_ethernet() {
            return None;
        }
        let protocol = (inner_first >> 8) as u8;
        if protocol != TCP && protocol != UDP {
            return None;
        }
        let need = length + IPV6_LEN + LEN;
        if need > config.uplink_mtu {
            return None;
        }
        // No path over IPv6 has less.
        if need > MIN_UPLINK_MTU && (need > MAX_PAYLOAD_LEN as u32 || path::is_any_learned()) {
            return None;
        }
        // It fits: `need` is more than the new length.
        let longer = inner_first + (u64::from(LEN) << 16);
        let protocol_behind = if Self::HAS_UDP { UDP } else { IPV6_IN };
        let mut first = longer & 0xfff0_0000_ffff_00ff | u64::from(protocol_behind) << 8;
        let hop_limit = config.hop_limit as u8;
        if hop_limit != 0 {
            first = first & !0xff | u64::from(hop_limit);
        }
        let source = inner.address::<8, 16>();
        let ports = u32::from_be(inner.read::<u32, 40>());
        let hash = FlowHash::new(
            Endpoint {
                address: source,
                port: (ports >> 16) as u16,
            },
            Endpoint {
                address: inner.address::<24, 32>(),
                port: ports as u16,
            },
            protocol,
        );
        let first = kept((first | u64::from(hash.label()) << 32).to_be());
        let udp = if Self::HAS_UDP {
            let mut ports = exit.ports();
            if u16::from_le(ports as u16) == 0 {
                ports |= u32::from(hash.port().to_be());
            }
            // The same length as in the IPv6 header, at the same place; checksum 0.
            kept(first & 0xffff << 32 | u64::from(ports))
        } else {
            0
        };
        let headers = Self {
            first,
            source: exit.source().unwrap_or(source),
            gateway: exit.gateway(),
            udp,
            word: if Self::HAS_WORD { exit.word() } else { 0 },
        };
        exit.is_still().then_some(headers)
    }

    #[inline(always)]
    fn write(&self, frame: &mut Frame) -> Option<()> {
        // Ethernet type and all headers as one, for a single comparison with `data_end`. Shorter
        // ones too: the packet itself is longer than what they lack.
        let mut space = frame.space::<58>(-2)?;
        space.write::<u16, 0>(frame::IPV6);
        space.write::<u64, 2>(self.first);
        space.write::<u64, 10>(self.source[0]);
        space.write::<u64, 18>(self.source[1]);
        space.write::<u64, 26>(self.gateway[0]);
        space.write::<u64, 34>(self.gateway[1]);
        if Self::HAS_UDP {
            space.write::<u64, 42>(self.udp);
        }
        if Self::HAS_WORD {
            space.write::<u64, 50>(self.word);
        }
        Some(())
    }
}

/// The value, computed where this stands. LLVM would compute it where it is written, and until then
/// keep all that it is made of on the stack.
#[inline(always)]
fn kept(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let moved;
        // SAFETY: a register's move to itself. Not none at all: two line numbers for the same
        // instruction are refused by the verifier.
        unsafe {
            core::arch::asm!("{0} = {0}", inlateout(reg) value => moved, options(nomem, nostack, preserves_flags));
        }
        moved
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}

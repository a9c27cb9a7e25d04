//! Helpers that work on the frame of a TC program. Each that can change the frame moves it in
//! guest memory, as the verifier forgets packet pointers after it.

use super::{Answer, Refusal, context, readable, writable};
use crate::checksum;
use crate::context::refresh_sk_buff;
use crate::memory::Memory;
use crate::room::{self, EFAULT, EINVAL, ENOMEM, ENOTSUPP};
use crate::skb::Skb;

const RECOMPUTE_CSUM: u64 = 1;
const INVALIDATE_HASH: u64 = 2;
const FIELD_MASK: u64 = 0xf;
const PSEUDO_HDR: u64 = 1 << 4;
const MARK_MANGLED_0: u64 = 1 << 5;
const MARK_ENFORCE: u64 = 1 << 6;
const START_MAC: u64 = 0;
const START_NET: u64 = 1;
/// `KMALLOC_MAX_SIZE`.
const MAX_ALLOCATION: usize = 1 << 22;
/// What the verifier admits as a size of memory.
const MAX_SIZE: u64 = 1 << 29;

fn size(len: u64) -> Result<usize, Refusal> {
    match usize::try_from(len) {
        Ok(bytes) if (1..=MAX_SIZE).contains(&len) => Ok(bytes),
        _ => Err(Refusal::Argument("size out of bounds")),
    }
}

/// What every helper does that may change the frame, whatever it answers.
fn changed(memory: &mut Memory, answer: Result<(), i32>) -> Answer {
    memory.move_packet();
    refresh_sk_buff(memory);
    answer.map(|()| 0).map_err(Refusal::Errno)
}

pub(super) fn store_bytes(a: &[u64; 5], memory: &mut Memory) -> Answer {
    context(a[0])?;
    let len = size(a[3])?;
    let from = readable(memory, a[2], a[3])?;
    let mut short = [0; 128];
    let long;
    let bytes = match short.get_mut(..len) {
        Some(buffer) => {
            buffer.copy_from_slice(from);
            &*buffer
        }
        None => {
            long = from.to_vec();
            &long
        }
    };
    let offset = a[1] as u32;
    if a[4] & !(RECOMPUTE_CSUM | INVALIDATE_HASH) != 0 {
        return changed(memory, Err(EINVAL));
    }
    let answer = i32::try_from(offset)
        .ok()
        .and_then(|_| {
            let at = offset as usize;
            memory.skb.pull(at + len)?;
            memory.skb.linear_at_mut(at, len)
        })
        .map(|target| target.copy_from_slice(bytes))
        .ok_or(EFAULT);
    changed(memory, answer)
}

pub(super) fn load_bytes(a: &[u64; 5], memory: &mut Memory) -> Answer {
    context(a[0])?;
    load(a, memory, |skb| Some(skb.data()))
}

/// Reads only the linear part, as the kernel does.
pub(super) fn load_bytes_relative(a: &[u64; 5], memory: &mut Memory) -> Answer {
    context(a[0])?;
    let is_near = a[1] as u32 <= 0xffff;
    load(a, memory, |skb| match a[4] & 0xffff_ffff {
        START_MAC if is_near => Some(skb.link_header_on()),
        START_NET if is_near => skb
            .data()
            .get(..skb.linear_len())?
            .get(skb.network_offset()..),
        _ => None,
    })
}

/// Copies from part of the frame; what cannot be read becomes zeros.
fn load(a: &[u64; 5], memory: &mut Memory, part: impl Fn(&Skb) -> Option<&[u8]>) -> Answer {
    let len = size(a[3])?;
    // The packet itself is no target (the verifier wants memory that is not moved by this).
    if a[2] >> 32 == 0 {
        return Err(Refusal::Argument("target is in the packet"));
    }
    writable(memory, a[2], a[3])?;
    let skb = std::mem::take(&mut memory.skb);
    let at = a[1] as u32 as usize;
    let source = part(&skb).and_then(|bytes| bytes.get(at..at.checked_add(len)?));
    let target = writable(memory, a[2], a[3])?;
    let answer = match source {
        Some(source) => {
            target.copy_from_slice(source);
            Ok(0)
        }
        None => {
            target.fill(0);
            Err(Refusal::Errno(EFAULT))
        }
    };
    memory.skb = skb;
    answer
}

pub(super) fn pull_data(a: &[u64; 5], memory: &mut Memory) -> Answer {
    context(a[0])?;
    let len = match a[1] as u32 {
        0 => memory.skb.linear_len(),
        len => len as usize,
    };
    let answer = memory.skb.pull(len).ok_or(ENOMEM);
    changed(memory, answer)
}

pub(super) fn adjust_room(a: &[u64; 5], memory: &mut Memory) -> Answer {
    context(a[0])?;
    let answer = room::adjust(&mut memory.skb, a[1] as i32, a[2] as u32, a[3]);
    changed(memory, answer)
}

pub(super) fn set_hash_invalid(a: &[u64; 5]) -> Answer {
    context(a[0]).map(|()| 0)
}

/// `__bpf_skb_min_len`: what stands in front of the transport header stays, and a checksum
/// field that the device is to fill.
fn min_len(skb: &Skb) -> usize {
    skb.partial_checksum
        .or(skb.transport)
        .unwrap_or(skb.network_offset())
}

pub(super) fn change_tail(a: &[u64; 5], memory: &mut Memory) -> Answer {
    context(a[0])?;
    let len = a[1] as u32 as usize;
    let skb = &mut memory.skb;
    let answer = if a[2] != 0 || len > room::MAX_LEN || len < min_len(skb) {
        Err(EINVAL)
    } else if skb.encapsulation.is_some() {
        Err(ENOTSUPP)
    } else {
        skb.set_len(len);
        skb.gso = None;
        Ok(())
    };
    changed(memory, answer)
}

pub(super) fn change_head(a: &[u64; 5], memory: &mut Memory) -> Answer {
    context(a[0])?;
    let amount = a[1] as u32;
    let skb = &mut memory.skb;
    let len = u32::try_from(skb.len())
        .ok()
        .and_then(|len| len.checked_add(amount))
        .map(|len| len as usize);
    let answer = match len {
        _ if a[2] != 0 => Err(EINVAL),
        None => Err(EINVAL),
        Some(len) if len > room::MAX_LEN && !skb.is_gso() => Err(EINVAL),
        // A super-packet may grow further, up to what one allocation gives.
        Some(len) if len > MAX_ALLOCATION => Err(ENOMEM),
        Some(_) => {
            skb.push_head(amount as usize);
            Ok(())
        }
    };
    changed(memory, answer)
}

pub(super) fn l3_csum_replace(a: &[u64; 5], memory: &mut Memory) -> Answer {
    context(a[0])?;
    let answer = if a[4] & !FIELD_MASK != 0 {
        Err(EINVAL)
    } else {
        difference(a).and_then(|difference| {
            let field = checksum_field(a[1], memory)?;
            let old = u16::from_be_bytes(*field);
            *field = checksum::replace(old, difference).to_be_bytes();
            Ok(())
        })
    };
    changed(memory, answer)
}

/// The frame's checksum state (partial, complete) is not modelled: the field is updated as
/// for a frame with a final checksum.
pub(super) fn l4_csum_replace(a: &[u64; 5], memory: &mut Memory) -> Answer {
    context(a[0])?;
    let flags = a[4];
    let known = FIELD_MASK | PSEUDO_HDR | MARK_MANGLED_0 | MARK_ENFORCE;
    let answer = if flags & !known != 0 {
        Err(EINVAL)
    } else {
        checksum_field(a[1], memory)
            .map(|field| *field)
            .and_then(|old| {
                let keeps_zero = flags & MARK_MANGLED_0 != 0;
                if keeps_zero && flags & MARK_ENFORCE == 0 && old == [0; 2] {
                    return Ok(());
                }
                let difference = difference(a)?;
                let new = checksum::replace(u16::from_be_bytes(old), difference);
                let new = if keeps_zero && new == 0 { 0xffff } else { new };
                *checksum_field(a[1], memory)? = new.to_be_bytes();
                Ok(())
            })
    };
    changed(memory, answer)
}

/// The change of the sum, from the field size in the flags. Values stand as they lie in
/// memory, in network order.
fn difference(a: &[u64; 5]) -> Result<u64, i32> {
    let network = |value: u64| (value as u32).to_be();
    let halves = |value: u32| u64::from(value >> 16) + u64::from(value & 0xffff);
    match a[4] & FIELD_MASK {
        0 if a[2] == 0 => Ok(halves(network(a[3]))),
        2 => {
            let (from, to) = ((a[2] as u16).to_be(), (a[3] as u16).to_be());
            Ok(u64::from(!from) + u64::from(to))
        }
        4 => Ok(halves(!network(a[2])) + halves(network(a[3]))),
        _ => Err(EINVAL),
    }
}

fn checksum_field(offset: u64, memory: &mut Memory) -> Result<&mut [u8; 2], i32> {
    let at = (offset as u32) as usize;
    if at > 0xffff || at & 1 == 1 {
        return Err(EFAULT);
    }
    memory.skb.pull(at + 2).ok_or(EFAULT)?;
    memory
        .skb
        .linear_at_mut(at, 2)
        .and_then(|bytes| bytes.first_chunk_mut())
        .ok_or(EFAULT)
}

//! The contexts that programs get: `struct __sk_buff` and `struct bpf_sockopt`, field by field
//! at the offsets of the kernel's UAPI.

use crate::memory::{Memory, context_address};
use crate::socket::Sockets;

/// Offsets in `struct __sk_buff`.
mod sk_buff {
    pub(super) const LEN: usize = 0;
    pub(super) const MARK: usize = 8;
    pub(super) const PROTOCOL: usize = 16;
    pub(super) const INGRESS_IFINDEX: usize = 36;
    pub(super) const IFINDEX: usize = 40;
    pub(super) const DATA: usize = 76;
    pub(super) const DATA_END: usize = 80;
    pub(super) const DATA_META: usize = 140;
    pub(super) const WIRE_LEN: usize = 160;
    pub(super) const GSO_SEGS: usize = 164;
    pub(super) const SK: usize = 168;
    pub(super) const GSO_SIZE: usize = 176;
}

/// Offsets in `struct bpf_sockopt`.
pub(crate) mod sockopt {
    pub(crate) const SK: usize = 0;
    pub(crate) const OPTVAL: usize = 8;
    pub(crate) const OPTVAL_END: usize = 16;
    pub(crate) const LEVEL: usize = 24;
    pub(crate) const OPTNAME: usize = 28;
    pub(crate) const OPTLEN: usize = 32;
    pub(crate) const RETVAL: usize = 36;
}

/// One bit for each 4 bytes that a TC program may write: mark, queue_mapping, priority,
/// tc_index, cb, tc_classid, tstamp.
pub(crate) const SK_BUFF_WRITABLE: u64 =
    words(8, 8) | words(32, 4) | words(44, 4) | words(48, 20) | words(72, 4) | words(152, 8);
/// Level, name, length and return value.
pub(crate) const SOCKOPT_WRITABLE: u64 = words(24, 16);

const fn words(offset: usize, len: usize) -> u64 {
    ((1 << (len / 4)) - 1) << (offset / 4)
}

fn put32(context: &mut [u8], at: usize, value: u32) {
    context[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put64(context: &mut [u8], at: usize, value: u64) {
    context[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// A 32-bit field of the context.
pub(crate) fn field(memory: &Memory, at: usize) -> u32 {
    memory
        .context()
        .get(at..)
        .and_then(|bytes| bytes.first_chunk().copied())
        .map_or(0, u32::from_le_bytes)
}

/// Writes a 32-bit field of the context.
pub(crate) fn set_field(memory: &mut Memory, at: usize, value: u32) {
    put32(memory.context_mut(), at, value);
}

/// Prepares a run of a TC program over the frame in `memory`.
pub(crate) fn begin_sk_buff(memory: &mut Memory, sockets: &Sockets) {
    memory.begin(SK_BUFF_WRITABLE);
    let (mark, ifindex) = (memory.skb.mark, memory.skb.ifindex);
    let sk = memory
        .skb
        .socket
        .and_then(|id| sockets.slot(id))
        .map_or(0, Memory::socket_address);
    let context = memory.context_mut();
    put32(context, sk_buff::MARK, mark);
    put32(context, sk_buff::IFINDEX, ifindex);
    put32(context, sk_buff::INGRESS_IFINDEX, ifindex);
    put64(context, sk_buff::SK, sk);
    refresh_sk_buff(memory);
}

/// Writes what a helper may have changed.
pub(crate) fn refresh_sk_buff(memory: &mut Memory) {
    let skb = &memory.skb;
    let len = u32::try_from(skb.len()).unwrap_or(u32::MAX);
    let linear_len = u32::try_from(skb.linear_len()).unwrap_or(u32::MAX);
    let protocol = u32::from(skb.protocol.to_be());
    let gso_size = skb.gso.map_or(0, |gso| u32::from(gso.size));
    let data = memory.packet_base();
    let context = memory.context_mut();
    put32(context, sk_buff::LEN, len);
    put32(context, sk_buff::WIRE_LEN, len);
    put32(context, sk_buff::PROTOCOL, protocol);
    put32(context, sk_buff::DATA, data);
    put32(context, sk_buff::DATA_META, data);
    put32(context, sk_buff::DATA_END, data.wrapping_add(linear_len));
    put32(context, sk_buff::GSO_SEGS, 0);
    put32(context, sk_buff::GSO_SIZE, gso_size);
}

/// Takes over what the program wrote.
pub(crate) fn end_sk_buff(memory: &mut Memory) {
    memory.skb.mark = field(memory, sk_buff::MARK);
}

/// Prepares a run of a socket-option program; the option buffer stands in `memory`.
pub(crate) fn begin_sockopt(
    memory: &mut Memory,
    socket: u32,
    (optval, capacity): (u64, usize),
    (level, name, len, retval): (i32, i32, i32, i32),
) {
    memory.begin(SOCKOPT_WRITABLE);
    let context = memory.context_mut();
    put64(context, sockopt::SK, Memory::socket_address(socket));
    put64(context, sockopt::OPTVAL, optval);
    put64(context, sockopt::OPTVAL_END, optval + capacity as u64);
    put32(context, sockopt::LEVEL, level.cast_unsigned());
    put32(context, sockopt::OPTNAME, name.cast_unsigned());
    put32(context, sockopt::OPTLEN, len.cast_unsigned());
    put32(context, sockopt::RETVAL, retval.cast_unsigned());
}

/// Whether an argument is the context itself.
pub(crate) fn is_context(address: u64) -> bool {
    address == context_address()
}

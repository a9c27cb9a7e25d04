//! The contexts that programs get: `struct __sk_buff`, `bpf_sockopt`, `bpf_sock` and
//! `bpf_sock_ops`, field by field at the offsets of the kernel's UAPI.

use crate::memory::{Memory, context_address};
use crate::socket::{Socket, Sockets, bpf_sock};

/// Offsets in `struct __sk_buff`.
mod sk_buff {
    pub(super) const STRUCT_LEN: usize = 192;
    pub(super) const LEN: usize = 0;
    pub(super) const MARK: usize = 8;
    pub(super) const PROTOCOL: usize = 16;
    pub(super) const INGRESS_IFINDEX: usize = 36;
    pub(super) const IFINDEX: usize = 40;
    pub(super) const TC_INDEX: usize = 44;
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
    pub(super) const STRUCT_LEN: usize = 40;
    pub(crate) const SK: usize = 0;
    pub(crate) const OPTVAL: usize = 8;
    pub(crate) const OPTVAL_END: usize = 16;
    pub(crate) const LEVEL: usize = 24;
    pub(crate) const OPTNAME: usize = 28;
    pub(crate) const OPTLEN: usize = 32;
    pub(crate) const RETVAL: usize = 36;
}

/// Offsets in `struct bpf_sock_ops`; what is not here reads as 0.
pub(crate) mod sock_ops {
    pub(super) const STRUCT_LEN: usize = 224;
    pub(super) const OP: usize = 0;
    /// Of the four arguments, and of the reply.
    pub(crate) const ARGS: usize = 4;
    pub(super) const FAMILY: usize = 20;
    pub(super) const REMOTE_IP4: usize = 24;
    pub(super) const LOCAL_IP4: usize = 28;
    pub(super) const REMOTE_IP6: usize = 32;
    pub(super) const LOCAL_IP6: usize = 48;
    pub(super) const REMOTE_PORT: usize = 64;
    pub(super) const LOCAL_PORT: usize = 68;
    pub(super) const IS_FULLSOCK: usize = 72;
    pub(super) const CB_FLAGS: usize = 84;
    pub(super) const STATE: usize = 88;
    pub(super) const SND_NXT: usize = 104;
    pub(super) const SND_UNA: usize = 108;
    pub(super) const SK: usize = 184;
}

/// One bit for each 4 bytes that a TC program may write: mark, queue_mapping, priority,
/// tc_index, cb, tc_classid, tstamp.
pub(crate) const SK_BUFF_WRITABLE: u64 =
    words(8, 8) | words(32, 4) | words(44, 4) | words(48, 20) | words(72, 4) | words(152, 8);
/// The same for a `cgroup_skb` program: mark, priority, cb, tstamp.
const ARRIVED_WRITABLE: u64 = words(8, 4) | words(32, 4) | words(48, 20) | words(152, 8);
/// Level, name, length and return value.
pub(crate) const SOCKOPT_WRITABLE: u64 = words(24, 16);
/// Device, mark and priority.
const SOCK_WRITABLE: u64 = words(0, 4) | words(16, 8);
/// Reply and hash.
const SOCK_OPS_WRITABLE: u64 = words(4, 4) | words(164, 4);

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

/// Writes the callbacks that a `sock_ops` program asked for.
pub(crate) fn set_callbacks(memory: &mut Memory, flags: u32) {
    set_field(memory, sock_ops::CB_FLAGS, flags);
}

/// Prepares a run of a TC program over the frame in `memory`.
pub(crate) fn begin_sk_buff(memory: &mut Memory, sockets: &Sockets) {
    begin_skb(memory, sockets, SK_BUFF_WRITABLE);
}

/// Prepares a run of a `cgroup_skb` program over the packet in `memory`.
pub(crate) fn begin_arrived(memory: &mut Memory, sockets: &Sockets) {
    begin_skb(memory, sockets, ARRIVED_WRITABLE);
}

fn begin_skb(memory: &mut Memory, sockets: &Sockets, writable: u64) {
    memory.begin(sk_buff::STRUCT_LEN, writable);
    let (mark, ifindex) = (memory.skb.mark, memory.skb.ifindex);
    let tc_index = u32::from(memory.skb.tc_index);
    let ingress_ifindex = memory.skb.ingress_ifindex;
    let sk = memory
        .skb
        .socket
        .and_then(|id| sockets.slot(id))
        .map_or(0, Memory::socket_address);
    let context = memory.context_mut();
    put32(context, sk_buff::MARK, mark);
    put32(context, sk_buff::TC_INDEX, tc_index);
    put32(context, sk_buff::IFINDEX, ifindex);
    put32(context, sk_buff::INGRESS_IFINDEX, ingress_ifindex);
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
    // The kernel's field has 16 bits.
    memory.skb.tc_index = field(memory, sk_buff::TC_INDEX) as u16;
}

/// Prepares a run of a socket-option program; the option buffer stands in `memory`.
pub(crate) fn begin_sockopt(
    memory: &mut Memory,
    socket: u32,
    (optval, capacity): (u64, usize),
    (level, name, len, retval): (i32, i32, i32, i32),
) {
    memory.begin(sockopt::STRUCT_LEN, SOCKOPT_WRITABLE);
    let context = memory.context_mut();
    put64(context, sockopt::SK, Memory::socket_address(socket));
    put64(context, sockopt::OPTVAL, optval);
    put64(context, sockopt::OPTVAL_END, optval + capacity as u64);
    put32(context, sockopt::LEVEL, level.cast_unsigned());
    put32(context, sockopt::OPTNAME, name.cast_unsigned());
    put32(context, sockopt::OPTLEN, len.cast_unsigned());
    put32(context, sockopt::RETVAL, retval.cast_unsigned());
}

/// Prepares a run of a `cgroup/sock_create` program.
pub(crate) fn begin_sock(memory: &mut Memory, socket: &Socket) {
    memory.begin(bpf_sock::LEN, SOCK_WRITABLE);
    socket.write(&mut memory.context_mut()[..bpf_sock::LEN]);
}

/// Device, mark and priority, as a `cgroup/sock_create` program left them.
pub(crate) fn end_sock(memory: &Memory) -> (u32, u32, u32) {
    (
        field(memory, bpf_sock::BOUND_DEV_IF),
        field(memory, bpf_sock::MARK),
        field(memory, bpf_sock::PRIORITY),
    )
}

/// Prepares a run of a `sock_ops` program for the socket in this slot.
pub(crate) fn begin_sock_ops(
    memory: &mut Memory,
    slot: u32,
    socket: &Socket,
    op: u32,
    args: [u32; 4],
) {
    use sock_ops as at;
    memory.begin(at::STRUCT_LEN, SOCK_OPS_WRITABLE);
    let context = memory.context_mut();
    put32(context, at::OP, op);
    for (index, argument) in args.into_iter().enumerate() {
        put32(context, at::ARGS + 4 * index, argument);
    }
    put32(context, at::FAMILY, socket.kind.family);
    if let Some(endpoints) = socket.endpoints {
        // The remote port stands in the upper half, in network order.
        put32(context, at::LOCAL_PORT, u32::from(endpoints.local.port()));
        let local = endpoints.local.ip();
        socket.write_address(local, context, at::LOCAL_IP4, at::LOCAL_IP6);
        if let Some(remote) = endpoints.remote {
            let port = u32::from(remote.port().to_be()) << 16;
            put32(context, at::REMOTE_PORT, port);
            socket.write_address(remote.ip(), context, at::REMOTE_IP4, at::REMOTE_IP6);
        }
    }
    put32(context, at::STATE, socket.state as u32);
    if socket.is_full() {
        put32(context, at::IS_FULLSOCK, 1);
        put32(context, at::CB_FLAGS, socket.callbacks);
        put32(context, at::SND_NXT, socket.snd_nxt);
        put32(context, at::SND_UNA, socket.snd_una);
        put64(context, at::SK, Memory::socket_address(slot));
    }
}

/// Whether an argument is the context itself.
pub(crate) fn is_context(address: u64) -> bool {
    address == context_address()
}

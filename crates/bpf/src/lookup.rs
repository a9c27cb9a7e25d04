//! The kernel's sockets by 5-tuple (`bpf_sk_lookup_tcp`, `bpf_sk_lookup_udp`), in the namespace
//! of the frame's device. A socket that is found is held while it is used, and let go on every
//! path: the verifier insists.

use crate::{closing::FlowKey, frame::Frame, socket::Socket};
use aya_ebpf::{
    bindings::bpf_sock,
    helpers::generated::{
        bpf_get_listener_sock, bpf_sk_fullsock, bpf_sk_lookup_tcp, bpf_sk_lookup_udp,
        bpf_sk_release, bpf_tcp_sock,
    },
};
use core::mem::size_of;

/// `BPF_F_CURRENT_NETNS`.
const THIS_NAMESPACE: u64 = -1i64 as u64;

/// One direction of a flow: addresses as they stand in memory, IPv4 mapped; ports as on the wire.
#[derive(Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) version: u8,
    pub(crate) protocol: u8,
    pub(crate) source: [u64; 2],
    pub(crate) destination: [u64; 2],
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
}

#[derive(Clone, Copy)]
pub(crate) enum Table {
    Tcp,
    Udp,
}

impl Flow {
    #[inline(always)]
    pub(crate) fn key(&self) -> FlowKey {
        FlowKey::new(
            self.version,
            self.protocol,
            (self.source, self.source_port),
            (self.destination, self.destination_port),
        )
    }

    /// As the other side's packets show it.
    #[inline(always)]
    pub(crate) fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..*self
        }
    }

    /// Lends the socket that sends this flow's packets; `None` where there is none. A request
    /// counts as its listener; TIME_WAIT as none.
    #[inline(always)]
    pub(crate) fn with_socket<R>(
        &self,
        frame: &Frame,
        table: Table,
        use_it: impl FnOnce(Socket) -> R,
    ) -> Option<R> {
        // `struct bpf_sock_tuple` of a packet that comes in: from the other side to this one.
        let [a, b] = self.destination;
        let [c, d] = self.source;
        let ports = u32::from(self.destination_port) | u32::from(self.source_port) << 16;
        let socket = if self.version == 4 {
            find(frame, table, [(b >> 32) as u32, (d >> 32) as u32, ports])
        } else {
            let [a, b, c, d] = [a, b, c, d].map(|word| [word as u32, (word >> 32) as u32]);
            find(
                frame,
                table,
                [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1], ports],
            )
        };
        let socket = Socket::new(socket)?;
        let result = use_it(socket);
        // SAFETY: the socket was acquired above and is not used from here on.
        unsafe { bpf_sk_release(socket.as_ptr().cast()) };
        Some(result)
    }
}

/// LLVM writes words in pairs, and the verifier wants them aligned on the stack.
#[repr(align(8))]
struct Tuple<const N: usize>([u32; N]);

/// Acquires the socket.
#[inline(always)]
fn find<const N: usize>(frame: &Frame, table: Table, tuple: [u32; N]) -> *mut bpf_sock {
    let mut tuple = Tuple(tuple);
    let context = frame.context().cast();
    let tuple = (&raw mut tuple).cast();
    let length = size_of::<[u32; N]>() as u32;
    // Two calls: a call by a pointer is none that BPF knows.
    match table {
        // SAFETY: the hook's context, and a tuple of the length that it is said to have.
        Table::Tcp => unsafe { bpf_sk_lookup_tcp(context, tuple, length, THIS_NAMESPACE, 0) },
        // SAFETY: as above.
        Table::Udp => unsafe { bpf_sk_lookup_udp(context, tuple, length, THIS_NAMESPACE, 0) },
    }
}

/// The listener of a request socket; one that listens is its own.
#[inline(always)]
pub(crate) fn listener(socket: Socket) -> Option<Socket> {
    // SAFETY: takes any socket that is not null.
    Socket::new(unsafe { bpf_get_listener_sock(socket.as_ptr()) })
}

/// The socket as one that shows all its fields; `None` for a request and for TIME_WAIT.
#[inline(always)]
pub(crate) fn full(socket: Socket) -> Option<Socket> {
    // SAFETY: takes any socket that is not null.
    Socket::new(unsafe { bpf_sk_fullsock(socket.as_ptr()) })
}

/// Of a TCP socket: the sequence number that it expects next, the first that it sent and waits for
/// the acknowledgement of, and the one that it will send next.
#[inline(always)]
pub(crate) fn sequence(socket: Socket) -> Option<[u32; 3]> {
    // SAFETY: takes any socket that is not null.
    let tcp = unsafe { bpf_tcp_sock(socket.as_ptr()) };
    if tcp.is_null() {
        return None;
    }
    // SAFETY: as in `is_in_flight`.
    unsafe {
        Some([
            (&raw const (*tcp).rcv_nxt).read_volatile(),
            (&raw const (*tcp).snd_una).read_volatile(),
            (&raw const (*tcp).snd_nxt).read_volatile(),
        ])
    }
}

/// Whether a TCP socket has sent this sequence number, or would send it next, and waits for its
/// acknowledgement.
#[inline(always)]
pub(crate) fn is_in_flight(socket: Socket, sequence: u32) -> bool {
    // SAFETY: takes any socket that is not null.
    let tcp = unsafe { bpf_tcp_sock(socket.as_ptr()) };
    if tcp.is_null() {
        return false;
    }
    // SAFETY: not null; the verifier checks each access. Volatile: the kernel's socket may move
    // between the two, and LLVM may not merge them.
    let (first, next) = unsafe {
        (
            (&raw const (*tcp).snd_una).read_volatile(),
            (&raw const (*tcp).snd_nxt).read_volatile(),
        )
    };
    sequence.wrapping_sub(first) <= next.wrapping_sub(first)
}

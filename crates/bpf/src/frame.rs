//! A frame at a TC hook, or a packet at a hook of sockets: reads, writes, room for headers. All
//! access to packet bytes is here; offsets count from the IP header, which at TC stands behind the
//! 14 bytes of Ethernet.
//!
//! Bytes are read and written in place: each `bpf_skb_load_bytes`/`store_bytes` costs some 35 ns
//! more. Every helper that may move the packet invalidates the pointers: a view borrows the
//! frame, and what may move the packet takes it mutably.
//!
//! Numbers only, one by one: arrays and packed structures in an `Option` go through the stack
//! byte by byte, or by misaligned words, which the verifier refuses on the stack (it allows
//! them in packets).

use crate::{checksum::Sum, socket::Socket};
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{
        bpf_csum_diff, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_change_tail,
        bpf_skb_load_bytes, bpf_skb_load_bytes_relative, bpf_skb_pull_data, bpf_skb_store_bytes,
    },
    programs::{SkBuffContext, TcContext},
};
use core::{
    marker::PhantomData,
    mem::{MaybeUninit, size_of},
    ptr::null_mut,
};
use dynencap_abi::{Reason, Verdict};

/// Other programs on the device go on (`TCX_NEXT`; `TC_ACT_UNSPEC` means the same to a
/// classifier).
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
pub(crate) const SHOT: i32 = 2;
/// `BPF_F_INGRESS`.
const AS_INCOMING: u64 = 1;
/// `BPF_ADJ_ROOM_MAC`: behind the Ethernet header.
const BEHIND_ETHERNET: u32 = 1;
/// `BPF_F_RECOMPUTE_CSUM`.
const RECOMPUTE_CSUM: u64 = 1;

const ETHERNET_LEN: u32 = 14;
const ETHERTYPE_OFFSET: u32 = 12;
/// `BPF_HDR_START_MAC`.
const FROM_LINK_HEADER: u32 = 0;
/// Up to here numbers are read in place.
const NEAR: u32 = 128;

/// Ethernet types as `__sk_buff::protocol` holds them.
pub(crate) const IPV4: u16 = 0x0800u16.to_be();
pub(crate) const IPV6: u16 = 0x86DDu16.to_be();

/// The reasons whose verdict is a drop, as a set of bits: a `match` would become a call.
const DROPPED: u32 = {
    let mut bits = 0;
    let mut index = 0;
    while index < Reason::COUNT {
        if matches!(Reason::ALL[index].verdict(), Verdict::Dropped) {
            bits |= 1 << Reason::ALL[index] as u32;
        }
        index += 1;
    }
    bits
};

#[inline(always)]
pub(crate) fn is_dropped(reason: Reason) -> bool {
    DROPPED >> reason as u32 & 1 != 0
}

/// What the hook returns for a frame that met this fate.
#[inline(always)]
pub(crate) fn verdict(reason: Reason) -> i32 {
    if is_dropped(reason) { SHOT } else { NEXT }
}

/// The verdict by which the frame leaves from another device.
#[inline(always)]
pub(crate) fn send_from(device: u32) -> i32 {
    // SAFETY: takes any device index.
    unsafe { bpf_redirect(device, 0) as i32 }
}

/// The verdict by which the frame comes in at a device.
#[inline(always)]
pub(crate) fn deliver_at(device: u32) -> i32 {
    // SAFETY: as in `send_from`.
    unsafe { bpf_redirect(device, AS_INCOMING) as i32 }
}

/// `LINK` bytes stand in front of the IP header.
pub(crate) struct Frame<const LINK: u32 = ETHERNET_LEN> {
    skb: *mut __sk_buff,
}

/// A packet at a hook of sockets: it begins with its IP header.
pub(crate) type Arrived = Frame<0>;

impl Arrived {
    #[inline(always)]
    pub(crate) fn arrived(context: &SkBuffContext) -> Self {
        Self {
            skb: context.skb.skb,
        }
    }

    /// `len` bytes from anywhere in front of the packet, counted from where its link-layer header
    /// was when it came in.
    #[inline(always)]
    fn load_in_front(&self, offset: u32, to: *mut u8, len: u32) -> Option<()> {
        // SAFETY: callers pass memory of `len` bytes.
        let result = unsafe {
            bpf_skb_load_bytes_relative(
                self.skb.cast_const().cast(),
                offset,
                to.cast(),
                len,
                FROM_LINK_HEADER,
            )
        };
        if result == 0 { Some(()) } else { None }
    }

    /// A number from there, as it stands in memory.
    #[inline(always)]
    pub(crate) fn read_in_front<T: Number>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        self.load_in_front(offset, value.as_mut_ptr().cast(), size_of::<T>() as u32)?;
        // SAFETY: the helper wrote all of it.
        Some(unsafe { value.assume_init() })
    }

    /// As [`Frame::load_header`], from there.
    #[inline(always)]
    pub(crate) fn load_header_in_front(
        &self,
        offset: u32,
        header: &mut [u64; 4],
        len: u32,
    ) -> Option<()> {
        *header = [0; 4];
        if len == 0 {
            return Some(());
        }
        let len = self.header_len(len)?;
        self.load_in_front(offset, header.as_mut_ptr().cast(), len)
    }
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self {
            skb: context.skb.skb,
        }
    }

    /// The same frame, for a function out of line: that takes no address, which would keep the
    /// original in memory.
    #[inline(always)]
    pub(crate) fn handed_on(&mut self) -> Self {
        Self { skb: self.skb }
    }

    /// The ticket by which a socket's program finds what was captured.
    #[inline(always)]
    pub(crate) fn set_tc_index(&mut self, ticket: u16) {
        // SAFETY: as in `mark`; volatile as in `set_mark`.
        unsafe { (&raw mut (*self.skb).tc_index).write_volatile(u32::from(ticket)) };
    }
}

impl<const LINK: u32> Frame<LINK> {
    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        // SAFETY: a field of the hook's context; the verifier checks each access.
        unsafe { (&raw const (*self.skb).mark).read_volatile() }
    }

    #[inline(always)]
    pub(crate) fn set_mark(&mut self, mark: u32) {
        // SAFETY: as in `mark`. Volatile: the verifier refuses the store of a single byte that
        // LLVM would make of a change to some bits.
        unsafe { (&raw mut (*self.skb).mark).write_volatile(mark) };
    }

    /// Index of the device at which the program runs.
    #[inline(always)]
    pub(crate) fn device(&self) -> u32 {
        // SAFETY: as in `mark`.
        unsafe { (*self.skb).ifindex }
    }

    /// For helpers that look from the hook into the kernel, not into the packet.
    #[inline(always)]
    pub(crate) fn context(&self) -> *mut __sk_buff {
        self.skb
    }

    /// Ethernet type in network order; a VLAN's where the tag stands in the frame.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u16 {
        // SAFETY: as in `mark`.
        unsafe { (*self.skb).protocol as u16 }
    }

    /// Bytes from the IP header on.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        // SAFETY: as in `mark`.
        unsafe { (*self.skb).len }.saturating_sub(LINK)
    }

    /// As [`Frame::len`] where it is known that the Ethernet header is there; else too great.
    #[inline(always)]
    pub(crate) fn len_behind_ethernet(&self) -> u32 {
        // SAFETY: as in `mark`.
        unsafe { (*self.skb).len }.wrapping_sub(ETHERNET_LEN)
    }

    /// The value itself, of which the verifier then knows nothing: what it learned by the branches
    /// so far would make it follow all that comes behind for each of them. The frame's length is
    /// added and taken away again (by exclusive or, LLVM would mask first what is masked after).
    #[inline(always)]
    pub(crate) fn veiled(&self, value: u64) -> u64 {
        // SAFETY: as in `mark`.
        let len = || unsafe { (&raw const (*self.skb).len).read_volatile() };
        value
            .wrapping_add(u64::from(len()))
            .wrapping_sub(u64::from(len()))
    }

    /// More than 0: a super-packet. (`gso_segs` would read 0 for those of packet sockets.)
    #[inline(always)]
    pub(crate) fn gso_size(&self) -> u32 {
        // SAFETY: as in `mark`.
        unsafe { (*self.skb).gso_size }
    }

    /// What TC ingress left there.
    #[inline(always)]
    pub(crate) fn tc_index(&self) -> u32 {
        // SAFETY: as in `mark`.
        unsafe { (*self.skb).tc_index }
    }

    #[inline(always)]
    pub(crate) fn socket(&self) -> Option<Socket> {
        // SAFETY: as in `mark`.
        Socket::new(unsafe { (*self.skb).__bindgen_anon_2.sk })
    }

    /// The N bytes from `offset` on, pulled into the linear part where they are not in it.
    #[inline(always)]
    pub(crate) fn pulled<const N: usize>(&mut self, offset: u32) -> Option<View<'_, N>> {
        let at = i64::from(LINK + offset);
        let start = match self.checked(at, N) {
            Some(start) => start,
            // The kernel has pulled what it looked at before it asks a socket.
            None if LINK == 0 => return None,
            None => {
                // SAFETY: takes any length.
                unsafe { bpf_skb_pull_data(self.skb, LINK + offset + N as u32) };
                self.checked(at, N)?
            }
        };
        Some(View {
            start,
            frame: PhantomData,
        })
    }

    /// The N bytes from `offset` on, if they lie in the linear part.
    #[inline(always)]
    pub(crate) fn linear<const N: usize>(&self, offset: u32) -> Option<View<'_, N>> {
        let start = self.checked(i64::from(ETHERNET_LEN + offset), N)?;
        Some(View {
            start,
            frame: PhantomData,
        })
    }

    /// One number from anywhere in the packet, as it stands in memory.
    #[inline(always)]
    pub(crate) fn read<T: Number>(&self, offset: u32) -> Option<T> {
        // A bound that the verifier can follow for offsets that come from the packet.
        if offset <= NEAR
            && let Some(start) = self.checked(i64::from(LINK + offset), size_of::<T>())
        {
            // SAFETY: `checked` for the number's size.
            return Some(unsafe { start.cast::<T>().read_unaligned() });
        }
        self.load(offset)
    }

    /// The N bytes from `offset` on, to be written; offset −2 is the Ethernet type.
    ///
    /// Mind that a single write of this kind makes the verifier put an unshare of cloned
    /// packets in front of the whole program; the ingress program does without.
    #[inline(always)]
    pub(crate) fn space<const N: usize>(&mut self, offset: i32) -> Option<Space<'_, N>> {
        let start = self.checked(i64::from(LINK) + i64::from(offset), N)?;
        Some(Space {
            start,
            frame: PhantomData,
        })
    }

    /// Writes the first `len` bytes of a custom header by helper: in place, a copy of any length
    /// would be a path for the verifier for each.
    #[inline(always)]
    pub(crate) fn store_header(&mut self, offset: i32, header: &[u64; 4], len: u32) -> Option<()> {
        if len == 0 {
            return Some(());
        }
        let len = self.header_len(len)?;
        // SAFETY: the helper reads `len` bytes, which the header has.
        let result = unsafe {
            bpf_skb_store_bytes(
                self.skb,
                LINK + offset as u32,
                header.as_ptr().cast_mut().cast(),
                len,
                0,
            )
        };
        if result == 0 { Some(()) } else { None }
    }

    /// The `len` bytes of a custom header, zeros behind them.
    #[inline(always)]
    pub(crate) fn load_header(&self, offset: u32, header: &mut [u64; 4], len: u32) -> Option<()> {
        *header = [0; 4];
        if len == 0 {
            return Some(());
        }
        let len = self.header_len(len)?;
        // SAFETY: the helper writes `len` bytes, which the header has.
        let result = unsafe {
            bpf_skb_load_bytes(
                self.skb.cast_const().cast(),
                LINK + offset,
                header.as_mut_ptr().cast(),
                len,
            )
        };
        if result == 0 { Some(()) } else { None }
    }

    /// The length of a custom header that is there, with bounds that the verifier sees.
    #[inline(always)]
    fn header_len(&self, len: u32) -> Option<u32> {
        const LONGEST: u64 = size_of::<[u64; 4]>() as u64;
        if u64::from(len) > LONGEST {
            return None;
        }
        // It lost these bounds on the way.
        Some((self.veiled(u64::from(len.wrapping_sub(1))) & (LONGEST - 1)) as u32 + 1)
    }

    /// Pointer to bytes that lie in the linear part.
    #[inline(always)]
    fn checked(&self, at: i64, len: usize) -> Option<*mut u8> {
        // SAFETY: the pointers are compared, not followed; the context's 32-bit fields become
        // pointers by the verifier's grace. Volatile, so that each check loads them anew: kept
        // in a register across blocks, LLVM would widen them by `w3 = w3`, which makes a
        // scalar of the pointer.
        unsafe {
            let data = (&raw const (*self.skb).data).read_volatile();
            let data_end = (&raw const (*self.skb).data_end).read_volatile();
            let start = (data as usize as *mut u8).offset(at as isize);
            let end = data_end as usize as *mut u8;
            if start.add(len) > end {
                None
            } else {
                Some(start)
            }
        }
    }

    #[inline(always)]
    fn load<T: Number>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes all of the number or fails.
        unsafe {
            let result = bpf_skb_load_bytes(
                self.skb.cast_const().cast(),
                LINK + offset,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            );
            if result == 0 {
                Some(value.assume_init())
            } else {
                None
            }
        }
    }

    /// Replaces bytes of a frame that comes in. Here the helper is needed: a device may have
    /// summed the packet (`CHECKSUM_COMPLETE`), and that sum must follow the change.
    #[inline(always)]
    pub(crate) fn replace<T: Number>(&mut self, offset: u32, value: T) -> Option<()> {
        self.store(LINK + offset, value, RECOMPUTE_CSUM)
    }

    /// Sets the Ethernet type of a frame that comes in: adjust_room changes the kernel's idea
    /// of the protocol, not the bytes. (No sum covers the Ethernet header.)
    #[inline(always)]
    pub(crate) fn replace_ethertype(&mut self, protocol: u16) -> Option<()> {
        self.store(ETHERTYPE_OFFSET, protocol, 0)
    }

    #[inline(always)]
    fn store<T: Number>(&mut self, at: u32, value: T, flags: u64) -> Option<()> {
        // SAFETY: the helper reads the value's bytes, all of which are initialised.
        let result = unsafe {
            bpf_skb_store_bytes(
                self.skb,
                at,
                (&raw const value).cast(),
                size_of::<T>() as u32,
                flags,
            )
        };
        if result == 0 { Some(()) } else { None }
    }

    /// Makes room behind the Ethernet header, or takes bytes away there.
    #[inline(always)]
    pub(crate) fn adjust_room(&mut self, difference: i32, flags: u64) -> Option<()> {
        // SAFETY: takes any arguments.
        let result = unsafe { bpf_skb_adjust_room(self.skb, difference, BEHIND_ETHERNET, flags) };
        if result == 0 { Some(()) } else { None }
    }

    /// Cuts the frame off behind its first `len` bytes, those of Ethernet included. A super-packet
    /// becomes an ordinary one.
    #[inline(always)]
    pub(crate) fn cut(&mut self, len: u32) -> Option<()> {
        // SAFETY: takes any length.
        let result = unsafe { bpf_skb_change_tail(self.skb, len, 0) };
        if result == 0 { Some(()) } else { None }
    }

    /// Puts zeros in front of the Ethernet header, and lets the frame begin there.
    #[inline(always)]
    pub(crate) fn prepend(&mut self, len: u32) -> Option<()> {
        // SAFETY: takes any length.
        let result = unsafe { bpf_skb_change_head(self.skb, len, 0) };
        if result == 0 { Some(()) } else { None }
    }
}

mod number {
    pub(crate) trait Number: Copy {}
    impl Number for u8 {}
    impl Number for u16 {}
    impl Number for u32 {}
    impl Number for u64 {}
}
pub(crate) use number::Number;

/// N readable bytes of a packet.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, const N: usize> {
    start: *const u8,
    frame: PhantomData<&'a [u8]>,
}

impl<const N: usize> View<'_, N> {
    /// As it stands in memory.
    #[inline(always)]
    pub(crate) fn read<T: Number, const AT: usize>(self) -> T {
        const { assert!(AT + size_of::<T>() <= N) };
        // SAFETY: inside the N bytes; any bytes make a number, and no alignment is asked for.
        unsafe { self.start.add(AT).cast::<T>().read_unaligned() }
    }

    #[inline(always)]
    pub(crate) fn address<const LOW: usize, const HIGH: usize>(self) -> [u64; 2] {
        const { assert!(LOW + 8 == HIGH) };
        [self.read::<u64, LOW>(), self.read::<u64, HIGH>()]
    }
}

/// N writable bytes of a packet.
pub(crate) struct Space<'a, const N: usize> {
    start: *mut u8,
    frame: PhantomData<&'a mut [u8]>,
}

impl<const N: usize> Space<'_, N> {
    #[inline(always)]
    pub(crate) fn write<T: Number, const AT: usize>(&mut self, value: T) {
        const { assert!(AT + size_of::<T>() <= N) };
        // SAFETY: inside the N bytes, and no alignment is asked for.
        unsafe { self.start.add(AT).cast::<T>().write_unaligned(value) };
    }

    /// As it stands in memory.
    #[inline(always)]
    pub(crate) fn read<T: Number, const AT: usize>(&self) -> T {
        const { assert!(AT + size_of::<T>() <= N) };
        // SAFETY: as in `write`, and any bytes make a number.
        unsafe { self.start.add(AT).cast::<T>().read_unaligned() }
    }

    /// The sum of `LEN` bytes and a seed, a word as it stands in memory.
    #[inline(always)]
    pub(crate) fn sum<const AT: usize, const LEN: usize>(&self, seed: u32) -> Option<Sum> {
        const { assert!(AT + LEN <= N && LEN.is_multiple_of(4)) };
        // SAFETY: the bytes lie inside the N; the helper takes no bytes to be taken away.
        let sum =
            unsafe { bpf_csum_diff(null_mut(), 0, self.start.add(AT).cast(), LEN as u32, seed) };
        if sum < 0 {
            None
        } else {
            Some(Sum::ZERO.word(sum as u32))
        }
    }
}

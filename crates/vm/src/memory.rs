//! The guest's address space: which bytes a program may touch.
//!
//! An address is `region << 32 | offset`. The packet is region 0, because `__sk_buff` gives
//! `data` and `data_end` in 32 bits. Inside a region, objects (map values, stack frames,
//! sockets) stand `stride` bytes apart with a red zone behind each, so that running over one's
//! end faults instead of reaching the next.

use crate::skb::Skb;
use crate::socket::{bpf_sock, bpf_tcp_sock};

const PACKET: usize = 0;
const STACK: usize = 1;
const CONTEXT: usize = 2;
const OPTION_VALUE: usize = 3;
const SOCKETS: usize = 4;
const TCP_SOCKETS: usize = 5;
const FIRST_MAP: usize = 8;

/// How deep calls may nest (`MAX_CALL_FRAMES`).
pub(crate) const STACK_FRAMES: usize = 8;
pub(crate) const FRAME_LEN: usize = 512;
const FRAME_STRIDE: usize = 1024;
const STACK_LEN: usize = STACK_FRAMES * FRAME_STRIDE;
/// What a fresh frame holds: a program that reads what it never wrote shows it.
const UNWRITTEN: u8 = 0xa5;
/// The longest context: `struct bpf_sock_ops`.
const CONTEXT_LEN: usize = 224;
/// Where flat regions begin: small numbers are no addresses.
const FLAT_BASE: u32 = 0x1000;
/// The packet's first address, and how far it moves when a helper invalidates pointers: more
/// than any packet is long.
const PACKET_FIRST: u32 = 0x0100_0000;
const PACKET_STEP: u32 = 0x0010_0000;
/// Marks a map handle: no region has such a number.
const HANDLE_TAG: u64 = 0x4d41_5000 << 32;

/// What `r1` holds at the start.
pub(crate) const fn context_address() -> u64 {
    (CONTEXT as u64) << 32 | FLAT_BASE as u64
}

/// `r10` of the frame at this depth.
pub(crate) const fn frame_pointer(depth: usize) -> u64 {
    (STACK as u64) << 32 | (depth * FRAME_STRIDE + FRAME_LEN) as u64
}

/// What a 64-bit immediate load of a map's pretended descriptor gives.
pub(crate) const fn map_handle(descriptor: u32) -> u64 {
    HANDLE_TAG | descriptor as u64
}

/// The index of the map that a handle stands for. Descriptors count from 1.
pub(crate) fn map_of_handle(handle: u64) -> Option<usize> {
    let descriptor = usize::try_from(handle.wrapping_sub(HANDLE_TAG)).ok()?;
    (handle & !0xffff_ffff == HANDLE_TAG).then(|| descriptor.checked_sub(1))?
}

/// The address of the first value of the map with this pretended descriptor.
pub(crate) fn map_region_address(descriptor: u32) -> u64 {
    (u64::from(descriptor).wrapping_add(FIRST_MAP as u64 - 1)) << 32
}

/// Whether a program may write a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    ReadOnly,
    ReadWrite,
}

/// Objects of one size, each followed by a red zone.
#[derive(Clone, Debug)]
struct Region {
    bytes: Vec<u8>,
    base: u32,
    /// Distance of two objects, less one.
    stride_mask: u32,
    /// Length of an object.
    object_len: u32,
    protection: Protection,
}

impl Region {
    fn flat(len: usize, protection: Protection) -> Self {
        Self {
            bytes: vec![0; len],
            base: FLAT_BASE,
            stride_mask: u32::MAX,
            object_len: u32::try_from(len).unwrap_or(u32::MAX),
            protection,
        }
    }

    fn objects(len: usize, count: usize, protection: Protection) -> Self {
        let stride = stride(len);
        Self {
            bytes: vec![0; stride * count],
            base: 0,
            stride_mask: u32::try_from(stride - 1).unwrap_or(u32::MAX),
            object_len: u32::try_from(len).unwrap_or(u32::MAX),
            protection,
        }
    }

    #[inline(always)]
    fn locate(&self, address: u64, len: usize) -> Option<usize> {
        let offset = (address as u32).wrapping_sub(self.base);
        let within = u64::from(offset & self.stride_mask) + len as u64;
        (within <= u64::from(self.object_len)).then_some(offset as usize)
    }
}

/// Bytes from one object to the next: a power of two with room for a red zone.
fn stride(len: usize) -> usize {
    (len + 8).next_power_of_two()
}

/// All that a program can reach.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    regions: Vec<Region>,
    /// Behind the frames, room for an access at the last byte of them that an index can name.
    stack: Box<[u8; STACK_LEN + 8]>,
    /// The frame at hand; its bytes are the packet region.
    pub(crate) skb: Skb,
    packet_base: u32,
    /// One bit for each 4 bytes of the context that may be written.
    context_writable: u64,
    /// How many frames hold what a run left behind.
    used_frames: usize,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let nothing = || Region::flat(0, Protection::ReadOnly);
        let mut regions: Vec<_> = (0..FIRST_MAP).map(|_| nothing()).collect();
        regions[CONTEXT] = Region::flat(CONTEXT_LEN, Protection::ReadWrite);
        regions[OPTION_VALUE] = Region::flat(0, Protection::ReadWrite);
        regions[SOCKETS] = Region::objects(bpf_sock::LEN, 0, Protection::ReadOnly);
        regions[TCP_SOCKETS] = Region::objects(bpf_tcp_sock::LEN, 0, Protection::ReadOnly);
        Self {
            regions,
            stack: Box::new([UNWRITTEN; STACK_LEN + 8]),
            skb: Skb::default(),
            packet_base: PACKET_FIRST,
            context_writable: 0,
            used_frames: 0,
        }
    }

    /// Prepares stack and context for a run. The context has `len` bytes; `writable` names its
    /// fields, one bit for each 4 bytes.
    pub(crate) fn begin(&mut self, len: usize, writable: u64) {
        let end = (self.used_frames + 1) * FRAME_STRIDE;
        if let Some(used) = self.stack.get_mut(..end) {
            for frame in used.chunks_exact_mut(FRAME_STRIDE) {
                frame[..FRAME_LEN].fill(UNWRITTEN);
            }
        }
        self.used_frames = 0;
        self.packet_base = PACKET_FIRST;
        self.context_writable = writable;
        let context = &mut self.regions[CONTEXT];
        context.bytes.fill(0);
        context.object_len = len as u32;
    }

    #[inline(always)]
    pub(crate) fn open_frame(&mut self, depth: usize) {
        self.used_frames = self.used_frames.max(depth);
    }

    /// Reads `N` bytes, or nothing if the program may not.
    #[inline(always)]
    pub(crate) fn load<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        self.read(address, N)?.first_chunk().copied()
    }

    /// Writes `N` bytes, or nothing if the program may not.
    #[inline(always)]
    pub(crate) fn store<const N: usize>(&mut self, address: u64, value: [u8; N]) -> Option<()> {
        *self.write(address, N)?.first_chunk_mut()? = value;
        Some(())
    }

    /// Reads at an offset from a frame's end that was checked to lie in the frame.
    #[inline(always)]
    pub(crate) fn load_frame<const N: usize>(&self, depth: usize, offset: u32) -> [u8; N] {
        let at = frame_index(depth, offset);
        let bytes = self.stack.get(at..at + N);
        bytes
            .and_then(|bytes| bytes.first_chunk().copied())
            .unwrap_or([0; N])
    }

    /// Writes at an offset from a frame's end that was checked to lie in the frame.
    #[inline(always)]
    pub(crate) fn store_frame<const N: usize>(
        &mut self,
        depth: usize,
        offset: u32,
        value: [u8; N],
    ) {
        let at = frame_index(depth, offset);
        let bytes = self.stack.get_mut(at..at + N);
        if let Some(place) = bytes.and_then(|bytes| bytes.first_chunk_mut()) {
            *place = value;
        }
    }

    /// The bytes at an address, to read.
    #[inline(always)]
    pub(crate) fn read(&self, address: u64, len: usize) -> Option<&[u8]> {
        let id = (address >> 32) as usize;
        match id {
            PACKET => {
                let offset = (address as u32).wrapping_sub(self.packet_base) as usize;
                self.skb.linear_at(offset, len)
            }
            STACK => {
                let at = in_stack(address, len)?;
                self.stack.get(at..at + len)
            }
            _ => {
                let region = self.regions.get(id)?;
                let at = region.locate(address, len)?;
                region.bytes.get(at..at + len)
            }
        }
    }

    /// The bytes at an address, to write.
    #[inline(always)]
    pub(crate) fn write(&mut self, address: u64, len: usize) -> Option<&mut [u8]> {
        let id = (address >> 32) as usize;
        match id {
            PACKET => {
                let offset = (address as u32).wrapping_sub(self.packet_base) as usize;
                self.skb.linear_at_mut(offset, len)
            }
            STACK => {
                let at = in_stack(address, len)?;
                self.stack.get_mut(at..at + len)
            }
            _ => {
                let region = self.regions.get_mut(id)?;
                let at = region.locate(address, len)?;
                if region.protection == Protection::ReadOnly {
                    return None;
                }
                if id == CONTEXT && !context_allows(self.context_writable, at, len) {
                    return None;
                }
                region.bytes.get_mut(at..at + len)
            }
        }
    }

    /// Gives the packet new addresses: pointers into it from before now fault.
    pub(crate) fn move_packet(&mut self) {
        self.packet_base = match self.packet_base.checked_add(2 * PACKET_STEP) {
            Some(_) => self.packet_base + PACKET_STEP,
            None => PACKET_FIRST,
        };
    }

    pub(crate) fn packet_base(&self) -> u32 {
        self.packet_base
    }

    pub(crate) fn context(&self) -> &[u8] {
        &self.regions[CONTEXT].bytes
    }

    pub(crate) fn context_mut(&mut self) -> &mut [u8] {
        &mut self.regions[CONTEXT].bytes
    }

    /// Makes the option buffer `len` bytes of zero and gives its address.
    pub(crate) fn set_option_value(&mut self, len: usize) -> u64 {
        let region = &mut self.regions[OPTION_VALUE];
        region.bytes.clear();
        region.bytes.resize(len, 0);
        region.object_len = u32::try_from(len).unwrap_or(u32::MAX);
        (OPTION_VALUE as u64) << 32 | u64::from(FLAT_BASE)
    }

    pub(crate) fn option_value(&self) -> &[u8] {
        &self.regions[OPTION_VALUE].bytes
    }

    pub(crate) fn option_value_mut(&mut self) -> &mut [u8] {
        &mut self.regions[OPTION_VALUE].bytes
    }

    /// The address of a socket's `bpf_sock`.
    pub(crate) fn socket_address(slot: u32) -> u64 {
        ((SOCKETS as u64) << 32) | (u64::from(slot) * stride(bpf_sock::LEN) as u64)
    }

    /// The address of a socket's `bpf_tcp_sock`.
    pub(crate) fn tcp_socket_address(slot: u32) -> u64 {
        ((TCP_SOCKETS as u64) << 32) | (u64::from(slot) * stride(bpf_tcp_sock::LEN) as u64)
    }

    /// The slot of the socket whose `bpf_sock` (or `bpf_tcp_sock`, which is the same socket to
    /// every helper) stands exactly here.
    pub(crate) fn socket_slot(address: u64) -> Option<u32> {
        let stride = match usize::try_from(address >> 32).ok()? {
            SOCKETS => stride(bpf_sock::LEN),
            TCP_SOCKETS => stride(bpf_tcp_sock::LEN),
            _ => return None,
        } as u64;
        let offset = address & 0xffff_ffff;
        let is_first = offset.is_multiple_of(stride);
        is_first.then(|| u32::try_from(offset / stride).ok())?
    }

    /// The bytes of a socket's `bpf_sock`, made where they do not exist.
    pub(crate) fn socket_mut(&mut self, slot: u32) -> &mut [u8] {
        object_mut(&mut self.regions[SOCKETS], bpf_sock::LEN, slot)
    }

    /// The bytes of a socket's `bpf_tcp_sock`, made where they do not exist.
    pub(crate) fn tcp_socket_mut(&mut self, slot: u32) -> &mut [u8] {
        object_mut(&mut self.regions[TCP_SOCKETS], bpf_tcp_sock::LEN, slot)
    }

    /// Adds a map's region of `count` values; it belongs to the next map index.
    pub(crate) fn add_map(&mut self, value_len: usize, count: usize, protection: Protection) {
        self.regions
            .push(Region::objects(value_len, count, protection));
    }

    /// The address of a map's value.
    #[inline]
    pub(crate) fn map_value_address(map: usize, value_len: usize, slot: u32) -> u64 {
        let offset = u64::from(slot) * stride(value_len) as u64;
        ((FIRST_MAP + map) as u64) << 32 | offset
    }

    /// A map's value, to read from outside.
    pub(crate) fn map_value(&self, map: usize, value_len: usize, slot: u32) -> &[u8] {
        let at = slot as usize * stride(value_len);
        self.regions
            .get(FIRST_MAP + map)
            .and_then(|region| region.bytes.get(at..at + value_len))
            .unwrap_or_default()
    }

    /// A map's value, to write from outside; made where it does not exist.
    pub(crate) fn map_value_mut(&mut self, map: usize, value_len: usize, slot: u32) -> &mut [u8] {
        match self.regions.get_mut(FIRST_MAP + map) {
            Some(region) => object_mut(region, value_len, slot),
            None => &mut [],
        }
    }
}

/// Where in the stack an address lies, if all of it lies in one frame.
#[inline(always)]
fn in_stack(address: u64, len: usize) -> Option<usize> {
    let at = address as u32 as usize;
    (at % FRAME_STRIDE + len <= FRAME_LEN).then_some(at)
}

/// Where in the stack an offset from a frame's end lies.
#[inline(always)]
fn frame_index(depth: usize, offset: u32) -> usize {
    let end = depth * FRAME_STRIDE + FRAME_LEN;
    end.wrapping_add_signed(offset.cast_signed() as isize) % STACK_LEN
}

fn object_mut(region: &mut Region, len: usize, slot: u32) -> &mut [u8] {
    let at = slot as usize * stride(len);
    if region.bytes.len() < at + stride(len) {
        region.bytes.resize(at + stride(len), 0);
    }
    &mut region.bytes[at..at + len]
}

fn context_allows(writable: u64, at: usize, len: usize) -> bool {
    let last = at + len.saturating_sub(1);
    (at / 4..=last / 4).all(|word| word < 64 && writable >> word & 1 == 1)
}

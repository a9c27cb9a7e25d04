//! The guest's address space: which bytes a program may touch.
//!
//! An address is `region << 32 | offset`. The packet is region 0, because `__sk_buff` gives
//! `data` and `data_end` in 32 bits. Inside a region, objects (map values, stack frames,
//! sockets) stand `stride` bytes apart with a red zone behind each, so that running over one's
//! end faults instead of reaching the next.
//!
//! What programs touch most, the context and the packet, is looked for first and in place; the
//! other regions are found by their number.

mod region;

use crate::skb::Skb;
use crate::socket::{bpf_sock, bpf_tcp_sock};
pub(crate) use region::Protection;
use region::{Region, stride};

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
/// Room for the longest context (`struct bpf_sock_ops`, 224 bytes), and behind it for an access
/// at its last byte.
const CONTEXT_ROOM: usize = 256;
/// Accesses by instruction are no longer.
const WORD: usize = 8;
/// Where flat regions begin: small numbers are no addresses.
const FLAT_BASE: u64 = 0x1000;
/// The packet's first address, and how far it moves when a helper invalidates pointers: more
/// than any packet is long.
const PACKET_FIRST: u32 = 0x0100_0000;
const PACKET_STEP: u32 = 0x0010_0000;
/// Marks a map handle: no region has such a number.
const HANDLE_TAG: u64 = 0x4d41_5000 << 32;

/// What `r1` holds at the start.
pub(crate) const fn context_address() -> u64 {
    flat(CONTEXT)
}

/// The first address of a region that is one object.
const fn flat(region: usize) -> u64 {
    (region as u64) << 32 | FLAT_BASE
}

/// `r10` of the frame at this depth.
pub(crate) const fn frame_pointer(depth: usize) -> u64 {
    (STACK as u64) << 32 | (depth * FRAME_STRIDE + FRAME_LEN) as u64
}

/// Where in the stack the frame at this depth ends.
pub(crate) const fn frame_place(depth: usize) -> u32 {
    (depth * FRAME_STRIDE + FRAME_LEN) as u32
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

/// All that a program can reach.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    regions: Vec<Region>,
    /// Behind the frames, room for an access at the last byte of them that an index can name.
    stack: [u8; STACK_LEN + WORD],
    /// The frame at hand; its bytes are the packet region.
    pub(crate) skb: Skb,
    packet_base: u32,
    context: [u8; CONTEXT_ROOM],
    context_len: usize,
    /// One bit for each 4 bytes of the context that may be written.
    context_writable: u64,
    option_value: Vec<u8>,
    /// How many frames hold what a run left behind.
    used_frames: usize,
    /// A region of which it is remembered what is written.
    watched: Option<usize>,
    /// The watched region's objects that were written, each once.
    written: Vec<u32>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let nothing = || Region::objects(0, 0, Protection::ReadOnly);
        let mut regions: Vec<_> = (0..FIRST_MAP).map(|_| nothing()).collect();
        regions[SOCKETS] = Region::objects(bpf_sock::LEN, 0, Protection::ReadOnly);
        regions[TCP_SOCKETS] = Region::objects(bpf_tcp_sock::LEN, 0, Protection::ReadOnly);
        Self {
            regions,
            stack: [UNWRITTEN; STACK_LEN + WORD],
            skb: Skb::default(),
            packet_base: PACKET_FIRST,
            context: [0; CONTEXT_ROOM],
            context_len: 0,
            context_writable: 0,
            option_value: Vec::new(),
            used_frames: 0,
            watched: None,
            written: Vec::new(),
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
        self.context.fill(0);
        self.context_len = len.min(CONTEXT_ROOM - WORD);
    }

    #[inline(always)]
    pub(crate) fn open_frame(&mut self, depth: usize) {
        self.used_frames = self.used_frames.max(depth);
    }

    /// Reads `N` bytes, at most a word, or nothing if the program may not.
    #[inline(always)]
    pub(crate) fn load<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let at = address.wrapping_sub(context_address());
        if at < (CONTEXT_ROOM - WORD) as u64 {
            // Without the cast the compiler does not see that the place is within the array.
            let at = usize::from(at as u8);
            let bytes = self.context.get(at..at + N)?.first_chunk().copied();
            return bytes.filter(|_| at + N <= self.context_len);
        }
        if address >> 32 == PACKET as u64 {
            return self.skb.load(self.packet_offset(address));
        }
        match self.in_region(address, N) {
            Some(bytes) => bytes.first_chunk().copied(),
            None => self.load_elsewhere(address),
        }
    }

    #[cold]
    fn load_elsewhere<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        self.read(address, N)?.first_chunk().copied()
    }

    #[inline(always)]
    fn in_region(&self, address: u64, len: usize) -> Option<&[u8]> {
        let region = self.regions.get((address >> 32) as usize)?;
        region.read(address, len)
    }

    /// Writes `N` bytes, or nothing if the program may not.
    #[inline(always)]
    pub(crate) fn store<const N: usize>(&mut self, address: u64, value: [u8; N]) -> Option<()> {
        if address >> 32 == PACKET as u64 {
            return self.skb.store(self.packet_offset(address), value);
        }
        self.store_elsewhere(address, value)
    }

    #[inline(never)]
    fn store_elsewhere<const N: usize>(&mut self, address: u64, value: [u8; N]) -> Option<()> {
        *self.write(address, N)?.first_chunk_mut()? = value;
        Some(())
    }

    #[inline(always)]
    fn packet_offset(&self, address: u64) -> u32 {
        (address as u32).wrapping_sub(self.packet_base)
    }

    /// Reads at an offset from a frame's end that was checked to lie in the frame.
    #[inline(always)]
    pub(crate) fn load_frame<const N: usize>(&self, frame: u32, offset: u32) -> [u8; N] {
        let at = frame_index(frame, offset);
        let bytes = self.stack.get(at..at + N);
        bytes
            .and_then(|bytes| bytes.first_chunk().copied())
            .unwrap_or([0; N])
    }

    /// Writes at an offset from a frame's end that was checked to lie in the frame.
    #[inline(always)]
    pub(crate) fn store_frame<const N: usize>(&mut self, frame: u32, offset: u32, value: [u8; N]) {
        let at = frame_index(frame, offset);
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
            PACKET => self
                .skb
                .linear_at(self.packet_offset(address) as usize, len),
            STACK => {
                let at = in_stack(address, len)?;
                self.stack.get(at..at + len)
            }
            CONTEXT => {
                let at = self.in_context(address, len)?;
                self.context.get(at..at + len)
            }
            OPTION_VALUE => {
                let at = in_option_value(address)?;
                self.option_value.get(at..at.checked_add(len)?)
            }
            _ => self.in_region(address, len),
        }
    }

    /// The bytes at an address, to write.
    #[inline(always)]
    pub(crate) fn write(&mut self, address: u64, len: usize) -> Option<&mut [u8]> {
        let id = (address >> 32) as usize;
        match id {
            PACKET => {
                let offset = self.packet_offset(address) as usize;
                self.skb.linear_at_mut(offset, len)
            }
            STACK => {
                let at = in_stack(address, len)?;
                self.stack.get_mut(at..at + len)
            }
            CONTEXT => {
                let at = self.in_context(address, len)?;
                if !context_allows(self.context_writable, at, len) {
                    return None;
                }
                self.context.get_mut(at..at + len)
            }
            OPTION_VALUE => {
                let at = in_option_value(address)?;
                self.option_value.get_mut(at..at.checked_add(len)?)
            }
            _ => {
                let region = self.regions.get_mut(id)?;
                let object = region.object(address);
                let bytes = region.write(address, len)?;
                if self.watched == Some(id) {
                    note(&mut self.written, object);
                }
                Some(bytes)
            }
        }
    }

    /// Where in the context an address lies, if all of it lies there.
    fn in_context(&self, address: u64, len: usize) -> Option<usize> {
        let at = usize::try_from(address.checked_sub(context_address())?).ok()?;
        (at.checked_add(len)? <= self.context_len).then_some(at)
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
        &self.context
    }

    pub(crate) fn context_mut(&mut self) -> &mut [u8] {
        &mut self.context
    }

    /// Makes the option buffer `len` bytes of zero and gives its address.
    pub(crate) fn set_option_value(&mut self, len: usize) -> u64 {
        self.option_value.clear();
        self.option_value.resize(len, 0);
        flat(OPTION_VALUE)
    }

    pub(crate) fn option_value(&self) -> &[u8] {
        &self.option_value
    }

    pub(crate) fn option_value_mut(&mut self) -> &mut [u8] {
        &mut self.option_value
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
        self.regions[SOCKETS].value_mut(bpf_sock::LEN, slot)
    }

    /// The bytes of a socket's `bpf_tcp_sock`, made where they do not exist.
    pub(crate) fn tcp_socket_mut(&mut self, slot: u32) -> &mut [u8] {
        self.regions[TCP_SOCKETS].value_mut(bpf_tcp_sock::LEN, slot)
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

    /// From now on, remembers which values of this map are written, and of no other.
    pub(crate) fn watch(&mut self, map: usize) {
        self.watched = Some(FIRST_MAP + map);
        self.written.clear();
    }

    /// Takes one of the values of the map under watch that were written.
    pub(crate) fn take_written(&mut self) -> Option<u32> {
        self.written.pop()
    }

    /// A map's value, to read from outside.
    pub(crate) fn map_value(&self, map: usize, value_len: usize, slot: u32) -> &[u8] {
        self.regions
            .get(FIRST_MAP + map)
            .and_then(|region| region.value(value_len, slot))
            .unwrap_or_default()
    }

    /// A map's value, to write from outside; made where it does not exist.
    pub(crate) fn map_value_mut(&mut self, map: usize, value_len: usize, slot: u32) -> &mut [u8] {
        if self.watched == Some(FIRST_MAP + map) {
            note(&mut self.written, slot);
        }
        match self.regions.get_mut(FIRST_MAP + map) {
            Some(region) => region.value_mut(value_len, slot),
            None => &mut [],
        }
    }
}

fn in_option_value(address: u64) -> Option<usize> {
    usize::try_from(address.checked_sub(flat(OPTION_VALUE))?).ok()
}

fn note(written: &mut Vec<u32>, slot: u32) {
    if !written.contains(&slot) {
        written.push(slot);
    }
}

/// Where in the stack an address lies, if all of it lies in one frame.
#[inline(always)]
fn in_stack(address: u64, len: usize) -> Option<usize> {
    let at = address as u32 as usize;
    (at % FRAME_STRIDE + len <= FRAME_LEN).then_some(at)
}

/// Where in the stack an offset from a frame's end ([`frame_place`]) lies.
#[inline(always)]
fn frame_index(frame: u32, offset: u32) -> usize {
    frame.wrapping_add(offset) as usize % STACK_LEN
}

fn context_allows(writable: u64, at: usize, len: usize) -> bool {
    let last = at + len.saturating_sub(1);
    (at / 4..=last / 4).all(|word| word < 64 && writable >> word & 1 == 1)
}

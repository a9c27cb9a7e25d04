//! The socket buffer: a frame with what the kernel knows of it, and the ways in which its
//! ends, its head room and its linear part change. Owns no rule of any helper.

use crate::socket::SocketId;

const HEADROOM: usize = 512;
/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_LEN: usize = 14;

/// Which offload a super-packet asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// `SKB_GSO_TCPV4`.
    Tcp4,
    /// `SKB_GSO_TCPV6`.
    Tcp6,
    /// `SKB_GSO_UDP_L4`: `UDP_SEGMENT`.
    Udp,
}

/// Makes an [`Skb`] a super-packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Payload bytes of a segment; 0: none, not a super-packet.
    pub size: u16,
    /// The offload.
    pub kind: GsoKind,
}

/// The outer header's kind, as `bpf_skb_adjust_room`'s flags announced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// An IPv4 outer header alone.
    Ipip4,
    /// An IPv6 outer header alone.
    Ipip6,
    /// UDP and whatever follows it.
    Udp,
    /// GRE and whatever follows it.
    Gre,
}

/// `skb->encapsulation` and the inner headers' places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encapsulation {
    /// The outer header's kind.
    pub tunnel: Tunnel,
    /// Where the inner IP header begins, from the frame's first byte.
    pub inner_network: usize,
    /// The inner packet's Ethernet type.
    pub inner_protocol: u16,
}

/// A frame on its way through the TC hooks.
#[derive(Clone, Debug, Default)]
pub struct Skb {
    buffer: Vec<u8>,
    start: usize,
    linear_len: usize,
    network_offset: usize,
    /// Bytes between the link-layer header's place and the first byte of data: 0 at TC.
    in_front: usize,
    /// The Ethernet type, as `skb->protocol` says it (host order).
    pub protocol: u16,
    /// `skb->mark`.
    pub mark: u32,
    /// `skb->tc_index`.
    pub tc_index: u16,
    /// The socket that sent it.
    pub socket: Option<SocketId>,
    /// What makes it a super-packet.
    pub gso: Option<Gso>,
    /// The device.
    pub ifindex: u32,
    /// The device at which the frame came into the host (`skb->skb_iif`); 0: sent from here.
    pub ingress_ifindex: u32,
    /// Where the transport header begins, from the frame's first byte, if the stack set it.
    pub transport: Option<usize>,
    /// Where the checksum field ends that the device is to fill (`CHECKSUM_PARTIAL`), if it is.
    pub partial_checksum: Option<usize>,
    /// Set by a program that asked `bpf_skb_adjust_room` for it.
    pub encapsulation: Option<Encapsulation>,
}

impl Skb {
    /// A frame with its Ethernet header, all of it linear, with no socket and no mark.
    #[must_use]
    pub fn new(frame: &[u8], protocol: u16) -> Self {
        let mut skb = Self::default();
        skb.reset(frame, protocol);
        skb
    }

    /// Becomes another frame; allocates only where the frame is longer than any before.
    pub fn reset(&mut self, frame: &[u8], protocol: u16) {
        self.reset_parts(&[frame], protocol);
    }

    /// As [`Skb::reset`], of a frame in parts.
    pub fn reset_parts(&mut self, frame: &[&[u8]], protocol: u16) {
        let len = frame.iter().map(|part| part.len()).sum();
        let buffer = std::mem::take(&mut self.buffer);
        *self = Self {
            buffer,
            start: HEADROOM,
            linear_len: len,
            network_offset: ETHERNET_LEN.min(len),
            protocol,
            ..Self::default()
        };
        self.buffer.truncate(HEADROOM);
        self.buffer.resize(HEADROOM, 0);
        for part in frame {
            self.buffer.extend_from_slice(part);
        }
    }

    /// A packet as it reaches a socket, behind what stood in front of it when it came in: its
    /// link-layer header, and outer headers that a device of the kernel took off.
    #[must_use]
    pub fn arrived(in_front: &[u8], packet: &[u8], protocol: u16) -> Self {
        let mut skb = Self::new(&[in_front, packet].concat(), protocol);
        skb.network_offset = in_front.len();
        skb.arrive();
        skb
    }

    /// Reaches a socket: from now on the data begin with the IP header, and what stands before it
    /// stays in front.
    pub fn arrive(&mut self) {
        let header = std::mem::take(&mut self.network_offset);
        self.start += header;
        self.in_front += header;
        self.linear_len = self.linear_len.saturating_sub(header);
        self.move_marks(|at| at.saturating_sub(header));
    }

    /// The linear part from the place of the link-layer header on, itself included.
    pub(crate) fn link_header_on(&self) -> &[u8] {
        let from = self.start - self.in_front;
        self.buffer
            .get(from..self.start + self.linear_len)
            .unwrap_or_default()
    }

    /// The frame.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Bytes of the frame.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Whether the frame has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the IP header begins.
    #[must_use]
    pub fn network_offset(&self) -> usize {
        self.network_offset
    }

    /// Whether it is a super-packet.
    #[must_use]
    pub fn is_gso(&self) -> bool {
        self.gso.is_some_and(|gso| gso.size > 0)
    }

    /// How many bytes a program can point at before it pulls more.
    #[must_use]
    pub fn linear_len(&self) -> usize {
        self.linear_len
    }

    /// Leaves only this many bytes in the linear part: a sender's payload stands in fragments.
    pub fn set_linear_len(&mut self, len: usize) {
        self.linear_len = len.min(self.len());
    }

    /// Bytes of the linear part.
    #[inline(always)]
    pub(crate) fn linear_at(&self, offset: usize, len: usize) -> Option<&[u8]> {
        let at = self.linear_index(offset, len)?;
        self.buffer.get(at..at + len)
    }

    #[inline(always)]
    pub(crate) fn linear_at_mut(&mut self, offset: usize, len: usize) -> Option<&mut [u8]> {
        let at = self.linear_index(offset, len)?;
        self.buffer.get_mut(at..at + len)
    }

    /// Reads `N` bytes of the linear part.
    #[inline(always)]
    pub(crate) fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let at = self.linear_place(offset, N)?;
        self.buffer.get(at..at + N)?.first_chunk().copied()
    }

    /// Writes `N` bytes of the linear part.
    #[inline(always)]
    pub(crate) fn store<const N: usize>(&mut self, offset: u32, value: [u8; N]) -> Option<()> {
        let at = self.linear_place(offset, N)?;
        *self.buffer.get_mut(at..at + N)?.first_chunk_mut()? = value;
        Some(())
    }

    /// As [`Skb::linear_index`], where no sum overflows: `start` is no more than a buffer's length.
    #[inline(always)]
    fn linear_place(&self, offset: u32, len: usize) -> Option<usize> {
        let offset = offset as usize;
        (offset + len <= self.linear_len).then(|| (self.start as u32 as usize) + offset)
    }

    #[inline(always)]
    fn linear_index(&self, offset: usize, len: usize) -> Option<usize> {
        let end = offset.checked_add(len)?;
        (end <= self.linear_len).then(|| self.start + offset)
    }

    /// Makes the first `len` bytes linear, if there are that many.
    pub(crate) fn pull(&mut self, len: usize) -> Option<()> {
        if len > self.len() {
            return None;
        }
        self.linear_len = self.linear_len.max(len);
        Some(())
    }

    /// Puts `len` zero bytes behind the first `offset` bytes.
    pub(crate) fn grow(&mut self, offset: usize, len: usize) {
        if self.start < len {
            let missing = len - self.start;
            self.buffer.splice(0..0, std::iter::repeat_n(0, missing));
            self.start += missing;
        }
        let old = self.start;
        self.start -= len;
        self.buffer.copy_within(old..old + offset, self.start);
        self.buffer[self.start + offset..old + offset].fill(0);
        self.linear_len += len;
        self.move_marks(|at| at + len);
    }

    fn move_marks(&mut self, place: impl Fn(usize) -> usize) {
        self.transport = self.transport.map(&place);
        self.partial_checksum = self.partial_checksum.map(place);
    }

    /// Takes `len` bytes out behind the first `offset` bytes. The caller has pulled them.
    pub(crate) fn shrink(&mut self, offset: usize, len: usize) {
        self.buffer
            .copy_within(self.start..self.start + offset, self.start + len);
        self.start += len;
        self.linear_len -= len;
        self.move_marks(|at| at.saturating_sub(len));
    }

    /// Puts `len` zero bytes in front, as a link-layer header.
    pub(crate) fn push_head(&mut self, len: usize) {
        self.grow(0, len);
        self.network_offset += len;
    }

    /// Cuts or lengthens with zeros.
    pub(crate) fn set_len(&mut self, len: usize) {
        self.buffer.resize(self.start + len, 0);
        self.linear_len = len;
    }
}

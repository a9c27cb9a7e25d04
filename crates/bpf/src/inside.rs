//! Where the bytes of a packet are read: at a hook, where the frame is the packet, or inside of
//! outer headers that stay where they are.

use crate::frame::{self, Frame, Number, View};

/// A packet; offsets count from its IP header.
pub(crate) trait Bytes {
    /// Its version, as an Ethernet type in network order.
    fn protocol(&self) -> u16;
    fn len(&self) -> u32;
    /// As [`Frame::read`].
    fn read<T: Number>(&self, offset: u32) -> Option<T>;
    /// As [`Frame::pulled`].
    fn pulled<const N: usize>(&mut self, offset: u32) -> Option<View<'_, N>>;
    /// As [`Frame::veiled`].
    fn veiled(&self, value: u64) -> u64;
}

impl<const LINK: u32> Bytes for Frame<LINK> {
    #[inline(always)]
    fn protocol(&self) -> u16 {
        Frame::protocol(self)
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        Frame::len(self)
    }

    #[inline(always)]
    fn read<T: Number>(&self, offset: u32) -> Option<T> {
        Frame::read(self, offset)
    }

    #[inline(always)]
    fn pulled<const N: usize>(&mut self, offset: u32) -> Option<View<'_, N>> {
        Frame::pulled(self, offset)
    }

    #[inline(always)]
    fn veiled(&self, value: u64) -> u64 {
        Frame::veiled(self, value)
    }
}

/// A packet of a frame at a device.
pub(crate) trait AtDevice: Bytes {
    fn frame(&mut self) -> &mut Frame;
}

impl AtDevice for Frame {
    #[inline(always)]
    fn frame(&mut self) -> &mut Frame {
        self
    }
}

/// Where a packet begins inside of a frame, and its version: one word, for functions out of line.
#[derive(Clone, Copy)]
pub(crate) struct Inside(u32);

impl Inside {
    const IPV4: u32 = 1 << 8;
    /// Bounds the offset for the verifier: no outer headers are longer.
    const OFFSET: u32 = 0x7f;

    pub(crate) const NONE: Self = Self(0);

    #[inline(always)]
    pub(crate) fn is_none(self) -> bool {
        self.0 == Self::NONE.0
    }

    #[inline(always)]
    pub(crate) fn new(at: u32, is_ipv4: bool) -> Self {
        Self(at & Self::OFFSET | if is_ipv4 { Self::IPV4 } else { 0 })
    }

    #[inline(always)]
    pub(crate) fn of(self, frame: &mut Frame) -> Inner<'_> {
        Inner {
            frame,
            inside: self,
        }
    }
}

/// The packet that stands there.
pub(crate) struct Inner<'a> {
    frame: &'a mut Frame,
    inside: Inside,
}

impl Inner<'_> {
    #[inline(always)]
    fn at(&self) -> u32 {
        self.inside.0 & Inside::OFFSET
    }
}

impl Bytes for Inner<'_> {
    #[inline(always)]
    fn protocol(&self) -> u16 {
        if self.inside.0 & Inside::IPV4 != 0 {
            frame::IPV4
        } else {
            frame::IPV6
        }
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        self.frame.len().saturating_sub(self.at())
    }

    #[inline(always)]
    fn read<T: Number>(&self, offset: u32) -> Option<T> {
        self.frame.read(self.at() + offset)
    }

    #[inline(always)]
    fn pulled<const N: usize>(&mut self, offset: u32) -> Option<View<'_, N>> {
        self.frame.pulled(self.at() + offset)
    }

    #[inline(always)]
    fn veiled(&self, value: u64) -> u64 {
        self.frame.veiled(value)
    }
}

impl AtDevice for Inner<'_> {
    #[inline(always)]
    fn frame(&mut self) -> &mut Frame {
        self.frame
    }
}

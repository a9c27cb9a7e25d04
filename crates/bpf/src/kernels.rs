//! TC ingress, of tunnels whose headers a device of the kernel takes off: the headers stay, and the
//! exit of replies goes with the packet inside (docs/datapath.md §5.2). Out of line, so that hardly
//! anybody else pays for it.

use crate::{
    capture::{self, Shape},
    custom::Tunnel,
    exit::Exit,
    frame::Frame,
    ingress::{self, Version},
    inside::Inside,
    stage,
    transport::UDP,
};
use core::mem::MaybeUninit;

/// What is known of the outer headers by step 5 of §4, in one word.
#[derive(Clone, Copy)]
pub(crate) struct Headers(u32);

impl Headers {
    const PROTOCOL_SHIFT: u32 = 8;
    const IPV4: u32 = 1 << 16;
    const AGREE: u32 = 1 << 17;

    /// `agree`: their lengths do, and an IPv4 header is sound.
    #[inline(always)]
    pub(crate) fn new(is_ipv4: bool, protocol: u8, ip_len: u32, agree: bool) -> Self {
        let protocol = u32::from(protocol) << Self::PROTOCOL_SHIFT;
        let ipv4 = if is_ipv4 { Self::IPV4 } else { 0 };
        let agree = if agree { Self::AGREE } else { 0 };
        Self(ip_len & 0xff | protocol | ipv4 | agree)
    }

    #[inline(always)]
    fn ip_len(self) -> u32 {
        self.0 & 0xff
    }

    #[inline(always)]
    fn protocol(self) -> u8 {
        (self.0 >> Self::PROTOCOL_SHIFT) as u8
    }

    #[inline(always)]
    fn are_ipv4(self) -> bool {
        self.0 & Self::IPV4 != 0
    }

    #[inline(always)]
    fn agree(self) -> bool {
        self.0 & Self::AGREE != 0
    }
}

/// `exit` is the caller's: there is not enough stack for one more.
#[inline(always)]
pub(crate) fn capture(
    frame: &mut Frame,
    tunnel: Tunnel,
    headers: Headers,
    exit: &mut MaybeUninit<Exit>,
) {
    let inside = find(frame, tunnel, headers, exit);
    if inside.is_none() {
        return;
    }
    // SAFETY: `find` wrote it.
    let exit = unsafe { exit.assume_init_ref() };
    if stage::stage_inside(frame, inside, exit) {
        stage::reflect_inside_for_host(frame, inside, exit);
    }
}

/// Where the packet inside begins, and the exit of replies.
#[inline(never)]
fn find(frame: &Frame, tunnel: Tunnel, headers: Headers, exit: &mut MaybeUninit<Exit>) -> Inside {
    match judged(frame, tunnel, headers) {
        Some((inside, shape)) if capture::before_removal(frame, shape, exit) => inside,
        _ => Inside::NONE,
    }
}

/// Steps 6 and 7 of §4.
#[inline(always)]
fn judged(frame: &Frame, tunnel: Tunnel, headers: Headers) -> Option<(Inside, Shape)> {
    // A length of 0 that was told apart confuses the verifier of 6.1.
    let len = frame.veiled(u64::from(frame.len())) as u32;
    let (ip_len, protocol) = (headers.ip_len(), headers.protocol());
    let (custom, outer_len) = ingress::custom(frame, tunnel, protocol, ip_len, len);
    if !headers.agree() || custom.is_unknown() || len < outer_len {
        return None;
    }
    let inner_len = len - outer_len;
    let version = ingress::inner_version(frame, outer_len, inner_len, protocol, custom).ok()?;
    let inside = Inside::new(outer_len, version == Version::V4);
    let shape = Shape::new(headers.are_ipv4(), protocol == UDP, custom.len());
    Some((inside, shape))
}

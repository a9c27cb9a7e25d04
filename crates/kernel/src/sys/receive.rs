//! `recvmmsg(2)` on a capturing packet socket: many whole frames a call, each with the VLAN
//! tag that the kernel took out of it.

use super::zero;
use std::{
    io, iter,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

/// Bytes for one frame: a 65,535-byte packet with Ethernet header and a tag or two.
pub const SLOT: usize = 66 * 1024;
/// Frames a call.
const BATCH: usize = 32;
/// Bytes for control messages: one `tpacket_auxdata` with its header takes 40.
const CONTROL: usize = 64;

/// A frame as it arrived.
#[derive(Debug)]
pub struct Received<'a> {
    /// From the Ethernet header on, without the tag.
    pub bytes: &'a mut [u8],
    /// Its real length, where it did not fit.
    pub cut: Option<usize>,
    /// Tag control information of an outermost VLAN tag.
    pub vlan: Option<Vlan>,
}

/// The VLAN tag that the kernel moved from the frame to the packet's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Its Ethernet type: 0x8100, 0x88A8.
    pub ethertype: u16,
    /// Priority and VLAN id.
    pub control: u16,
}

/// Buffers for a batch of frames.
pub struct Receiver {
    frames: Vec<u8>,
    controls: Vec<u8>,
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
}

// SAFETY: the raw pointers in `headers` and `vectors` are set anew by every `receive` and
// used by it alone; between calls nothing follows them.
unsafe impl Send for Receiver {}

impl Receiver {
    /// Buffers for a batch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            frames: vec![0; BATCH * SLOT],
            controls: vec![0; BATCH * CONTROL],
            headers: Vec::with_capacity(BATCH),
            vectors: Vec::with_capacity(BATCH),
        }
    }

    /// Receives what is there, without waiting; how many frames.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.headers.clear();
        self.vectors.clear();
        // Neither vector grows past its capacity, so that the pointers taken stay valid.
        self.vectors
            .extend(self.frames.chunks_exact_mut(SLOT).map(|slot| libc::iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: SLOT,
            }));
        let controls = self.controls.chunks_exact_mut(CONTROL);
        self.headers.extend(
            iter::zip(&mut self.vectors, controls).map(|(vector, control)| {
                // SAFETY: mmsghdr is made of integers and pointers; null means "none".
                let mut header: libc::mmsghdr = unsafe { zero() };
                header.msg_hdr.msg_iov = vector;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = control.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = CONTROL as _;
                header
            }),
        );
        // SAFETY: every header points to one iovec of SLOT bytes and CONTROL bytes of control,
        // all within this value's own vectors; the count is the number of headers.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_TRUNC) as _,
                ptr::null_mut(),
            )
        };
        match usize::try_from(count) {
            Ok(count) => Ok(count),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                error => Err(error),
            },
        }
    }

    /// The first `count` frames of the last batch.
    pub fn frames(&mut self, count: usize) -> impl Iterator<Item = Received<'_>> {
        let slots = self.frames.chunks_exact_mut(SLOT);
        let controls = self.controls.chunks_exact(CONTROL);
        iter::zip(iter::zip(slots, controls), &self.headers)
            .take(count)
            .map(|((slot, control), header)| {
                // With MSG_TRUNC the kernel reports a frame's real length.
                let length = header.msg_len as usize;
                let filled = header.msg_hdr.msg_controllen.min(control.len());
                Received {
                    cut: (length > SLOT).then_some(length),
                    vlan: vlan(&control[..filled]),
                    bytes: &mut slot[..length.min(SLOT)],
                }
            })
    }
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

/// Finds the tag in a control message of type `PACKET_AUXDATA`:
///
/// ```text
///  0        8      12      16       20     24        28     30     32    34     36
///  | length | level | type | status | len | snaplen | mac | net | tci | tpid |
/// ```
fn vlan(control: &[u8]) -> Option<Vlan> {
    let word = |at: usize| {
        Some(u32::from_ne_bytes(
            control.get(at..at + 4)?.try_into().ok()?,
        ))
    };
    let half = |at: usize| {
        Some(u16::from_ne_bytes(
            control.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    const HEADER: usize = size_of::<libc::cmsghdr>();
    if word(HEADER - 8)? != libc::SOL_PACKET as u32
        || word(HEADER - 4)? != libc::PACKET_AUXDATA as u32
    {
        return None;
    }
    let status = word(HEADER)?;
    (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(())?;
    Some(Vlan {
        ethertype: if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
            half(HEADER + 18)?
        } else {
            0x8100
        },
        control: half(HEADER + 16)?,
    })
}

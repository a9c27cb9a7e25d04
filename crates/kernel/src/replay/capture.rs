//! One end of the lab where every frame is captured, whole and in order, or an error says
//! that it was not.

use super::packet::ETHERNET_LEN;
use crate::{
    Error, Interrupt,
    namespace::Namespace,
    sys::{self, Link, Received, Receiver},
};
use std::{
    ops::ControlFlow,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

/// Receives a frame: Ethernet type, and what stands behind the Ethernet header.
pub(super) type Sink<'a> = dyn FnMut(u16, &[u8]) + 'a;

/// Far more than replay lets be in flight; a limit, nothing is reserved.
const RECEIVE_BUFFER: i32 = 256 << 20;
/// How long the kernel may take for what is in flight. The frames are delivered by the
/// sending call itself, so this is for a machine that is badly overloaded.
const PATIENCE: Duration = Duration::from_secs(10);

/// A packet socket that takes everything that arrives on a device.
pub(super) struct Capture {
    socket: OwnedFd,
    receiver: Receiver,
    place: &'static str,
}

impl Capture {
    pub(super) fn open(
        namespace: &Namespace,
        link: Link,
        place: &'static str,
    ) -> Result<Self, Error> {
        let socket = namespace.in_namespace(|| {
            let socket = sys::packet_socket().map_err(Error::syscall("socket(AF_PACKET)"))?;
            for (level, name, value) in [
                (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER),
                (libc::SOL_PACKET, libc::PACKET_AUXDATA, 1),
                (libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1),
            ] {
                sys::set_option(socket.as_fd(), level, name, &value.to_ne_bytes())
                    .map_err(Error::syscall("setsockopt of a capture"))?;
            }
            sys::bind_packet(socket.as_fd(), link, libc::ETH_P_ALL as u16)
                .map_err(Error::syscall("bind(AF_PACKET)"))?;
            Ok(socket)
        })?;
        Ok(Self {
            socket,
            receiver: Receiver::new(),
            place,
        })
    }

    /// Hands over what arrives until `last` does (which it keeps to itself), then makes sure
    /// that nothing was dropped on the way.
    pub(super) fn read_until(
        &mut self,
        last: &Sentinel,
        interrupt: &Interrupt,
        sink: &mut Sink<'_>,
    ) -> Result<(), Error> {
        let mut deadline = None;
        while self.read_batch(last, sink)?.is_continue() {
            interrupt.check()?;
            let waited = sys::wait_readable(self.socket.as_fd(), Duration::from_millis(100))
                .map_err(Error::syscall("poll"))?;
            let now = Instant::now();
            if waited {
                deadline = None;
            } else if *deadline.get_or_insert(now + PATIENCE) < now {
                return Err(Error::Barrier { place: self.place });
            }
        }
        match self.drops()? {
            0 => Ok(()),
            frames => Err(Error::Lost {
                frames,
                place: self.place,
            }),
        }
    }

    /// Reads until there is nothing, or `last` was seen.
    fn read_batch(
        &mut self,
        last: &Sentinel,
        sink: &mut Sink<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        loop {
            let count = self
                .receiver
                .receive(self.socket.as_fd())
                .map_err(Error::syscall("recvmmsg"))?;
            if count == 0 {
                return Ok(ControlFlow::Continue(()));
            }
            let mut seen = false;
            for mut received in self.receiver.frames(count) {
                if let Some(length) = received.cut {
                    return Err(Error::Cut { length });
                }
                match strip(&mut received) {
                    Some((Sentinel::ETHERTYPE, bytes)) if *bytes == last.bytes => seen = true,
                    Some((ethertype, bytes)) => sink(ethertype, bytes),
                    None => {
                        return Err(Error::Cut {
                            length: received.bytes.len(),
                        });
                    }
                }
            }
            if seen {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    /// Frames that the socket dropped since the last question.
    fn drops(&self) -> Result<u64, Error> {
        // struct tpacket_stats { u32 tp_packets, tp_drops; }
        let statistics = sys::option(
            self.socket.as_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            8,
        )
        .map_err(Error::syscall("getsockopt(PACKET_STATISTICS)"))?;
        match statistics[..] {
            [_, _, _, _, a, b, c, d] => Ok(u32::from_ne_bytes([a, b, c, d]).into()),
            _ => Err(Error::Unsupported {
                feature: "PACKET_STATISTICS",
                since: "2.4",
            }),
        }
    }
}

/// Takes the Ethernet header off and puts a VLAN tag that the kernel took out back in:
/// then the Ethernet type is the tag's, and the bytes start with tag control and inner type.
fn strip<'a>(received: &'a mut Received<'_>) -> Option<(u16, &'a [u8])> {
    let bytes = &mut *received.bytes;
    if bytes.len() < ETHERNET_LEN {
        return None;
    }
    match received.vlan {
        None => {
            let ethertype = u16::from_be_bytes([bytes[12], bytes[13]]);
            Some((ethertype, &bytes[ETHERNET_LEN..]))
        }
        Some(vlan) => {
            bytes[10..12].copy_from_slice(&vlan.control.to_be_bytes());
            Some((vlan.ethertype, &bytes[10..]))
        }
    }
}

/// A frame that nothing else sends: behind it, everything sent before it has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sentinel {
    bytes: [u8; 16],
}

impl Sentinel {
    /// IEEE 802 local experimental Ethernet type 1.
    pub(super) const ETHERTYPE: u16 = 0x88b5;

    /// Number `sequence` of the replay `nonce`: a trace may hold another replay's.
    pub(super) fn new(nonce: u64, sequence: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&nonce.to_be_bytes());
        bytes[8..].copy_from_slice(&sequence.to_be_bytes());
        Self { bytes }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Vlan;

    #[test]
    fn a_tag_taken_out_by_the_kernel_is_put_back() {
        let mut frame = [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0x86, 0xdd, 0x60, 7];
        let mut received = Received {
            bytes: &mut frame,
            cut: None,
            vlan: None,
        };
        assert_eq!(strip(&mut received), Some((0x86dd, &[0x60, 7][..])));
        received.vlan = Some(Vlan {
            ethertype: 0x88a8,
            control: 0x2005,
        });
        let expected: &[u8] = &[0x20, 5, 0x86, 0xdd, 0x60, 7];
        assert_eq!(strip(&mut received), Some((0x88a8, expected)));
    }
}

//! Egress, section 2 steps 6 to 15: one packet or super-packet and its exit become frames.
//! Which exit that is, and whether it is allowed, the host decides.

use crate::extension::{self, Upper};
use crate::outer::{self, Outer};
use crate::packet::{Packet, Port, Sink};
use crate::segment::{self, Layout};
use crate::too_big::TooBig;
use crate::wire::{IPV6_LEN, Ip, TCP, UDP, be16};
use crate::{flow, mtu, too_big};
use dynencap_abi::{Config, Exit, MAX_PAYLOAD_LEN, Reason, UDP_HEADER_LEN};

/// The program that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// TC egress of the uplink.
    Egress,
    /// Behind the segmenter.
    Segmented,
}

/// One run beside its packet.
pub(crate) struct Run<'a> {
    pub(crate) config: &'a Config,
    pub(crate) program: Program,
    pub(crate) exit: &'a Exit,
    /// The exit came from a socket's storage.
    pub(crate) stored: bool,
    /// What was learned of the exit's path and holds.
    pub(crate) path_mtu: Option<u32>,
}

impl Run<'_> {
    fn asks(&self, flag: u32) -> bool {
        self.config.flags & flag != 0
    }

    /// Outer UDP checksums must be valid.
    fn sums(&self) -> bool {
        self.asks(Config::UDP_CHECKSUM) && self.exit.flags & Exit::UDP != 0
    }

    /// Step 6 but for its two flags.
    fn may_segment(&self) -> bool {
        self.config.segmenter != 0 && self.program == Program::Egress
    }

    fn limit(&self) -> u32 {
        let uplink = self.config.uplink_mtu;
        self.path_mtu.map_or(uplink, |path| path.min(uplink))
    }

    /// Emits the frames and returns the number of segments (0: not a super-packet that could
    /// be cut), or says why it emitted nothing on the wire.
    pub(crate) fn encapsulate(
        &self,
        packet: &Packet<'_>,
        sink: &mut impl Sink,
    ) -> Result<u32, Reason> {
        let is_super = packet.gso_size > 0;
        if is_super && self.may_segment() && (self.asks(Config::SEGMENT_FIRST) || self.sums()) {
            return Err(Reason::Segmenting);
        }
        let len = packet.bytes.len();
        let overhead = mtu::overhead(self.exit);
        // IPv6 does not count its own header.
        let uncounted = match self.exit.flags & Exit::IPV4 {
            0 => IPV6_LEN,
            _ => 0,
        };
        if len + overhead - uncounted > MAX_PAYLOAD_LEN {
            return Err(Reason::TooLong);
        }
        let ip = Ip::parse(packet.ethertype, packet.bytes).ok_or(Reason::Malformed)?;
        if ip.stated_len() != len {
            return Err(Reason::BadLength);
        }
        let source = outer::source(self.config, self.exit, &ip).ok_or(Reason::NoSource)?;
        let upper = extension::upper(&ip, packet.bytes);
        let layout = match packet.gso_size {
            0 => None,
            _ => Some(self.layout(&upper, packet.bytes)?),
        };
        let limit = usize::try_from(self.limit()).unwrap_or(usize::MAX);
        let need = match layout {
            Some(layout) if len + overhead > limit => {
                layout.payload_offset + usize::from(packet.gso_size) + overhead
            }
            _ => len + overhead,
        };
        if need > limit {
            let too_big = TooBig {
                limit,
                need,
                overhead,
            };
            let told = self.asks(Config::TELL_TOO_BIG) && self.stored;
            return Err(if told {
                too_big::tell(&too_big, &ip, &upper, packet.bytes, sink)
            } else {
                Reason::TooBig
            });
        }
        if self.sums() && !(layout.is_none() && summable(&ip, &upper, packet.bytes)) {
            return Err(Reason::NoChecksum);
        }

        let hash = flow::hash(&flow::key_at(&ip, &upper, packet.bytes));
        let mut outer = Outer::new(self.config, self.exit, source, &ip, hash);
        if let Some(layout) = layout {
            return cut(packet, &ip, &layout, &mut outer, sink).ok_or(Reason::Malformed);
        }
        if self.sums() {
            outer.sum_inner(&ip);
        }
        outer.carry(len, 0);
        let ethertype = outer.ethertype();
        sink.frame(Port::Wire, ethertype, &[outer.bytes(), packet.bytes]);
        Ok(0)
    }

    /// Step 11.
    fn layout(&self, upper: &Upper, bytes: &[u8]) -> Result<Layout, Reason> {
        Layout::of(upper, bytes).map_err(|reason| match reason {
            Reason::GsoShape if self.may_segment() => Reason::Segmenting,
            reason => reason,
        })
    }
}

/// The kernel's GSO repeats the outer headers in front of each segment.
fn cut(
    packet: &Packet<'_>,
    ip: &Ip<'_>,
    layout: &Layout,
    outer: &mut Outer,
    sink: &mut impl Sink,
) -> Option<u32> {
    let mut index = 0;
    segment::cut(
        packet,
        ip,
        layout,
        |[fixed, extensions, transport, payload]| {
            let len = fixed.len() + extensions.len() + transport.len() + payload.len();
            outer.carry(len, index);
            index += 1;
            sink.frame(
                Port::Wire,
                outer.ethertype(),
                &[outer.bytes(), fixed, extensions, transport, payload],
            );
        },
    )
}

/// Step 13: the packet's own checksum says what it sums to.
fn summable(ip: &Ip<'_>, upper: &Upper, bytes: &[u8]) -> bool {
    let Some(offset) = upper.offset.filter(|offset| *offset == ip.header_len()) else {
        return false;
    };
    match upper.protocol {
        TCP => true,
        UDP => bytes
            .get(offset..)
            .and_then(<[u8]>::first_chunk::<UDP_HEADER_LEN>)
            .is_some_and(|udp| be16(udp, 6) != 0),
        _ => false,
    }
}

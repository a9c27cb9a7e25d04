//! Which captured packets were super-packets: a capture carries no `gso_size`.

use crate::event::{Gso, Transport};
use dynencap_model::segment;

/// How a captured packet was cut on its way, if it was: a capture carries no `gso_size`.
///
/// TCP that does not fit the uplink with its outer headers was a super-packet: its segments
/// carry min(the peer's MSS less the packet's own TCP options (RFC 6691), what fits). UDP was
/// one only where the scenario says so, by a `gso_size` smaller than the payload.
pub(super) fn super_packet(
    bytes: &[u8],
    layout: &segment::Layout,
    mtu: usize,
    overhead: usize,
    peer_mss: Option<u16>,
    gso_size: Option<u16>,
) -> Option<Gso> {
    let payload = bytes.len().checked_sub(layout.payload_offset)?;
    let (transport, size) = match layout.transport {
        segment::Transport::Tcp => {
            if bytes.len() + overhead <= mtu || payload == 0 {
                return None;
            }
            let fits = mtu.checked_sub(overhead + layout.payload_offset)?;
            let options = layout
                .payload_offset
                .checked_sub(layout.transport_offset + 20)?;
            let agreed = peer_mss.map_or(fits, |mss| usize::from(mss).saturating_sub(options));
            let derived = u16::try_from(agreed.min(fits)).unwrap_or(u16::MAX);
            (Transport::Tcp, gso_size.unwrap_or(derived))
        }
        segment::Transport::Udp => {
            let size = gso_size.filter(|size| payload > usize::from(*size))?;
            (Transport::Udp, size)
        }
    };
    let transport_offset = u16::try_from(layout.transport_offset).ok()?;
    // One segment is no super-packet: no stack sends that, and the kernel's GSO refuses it.
    (size > 0 && payload > usize::from(size)).then_some(Gso {
        size,
        transport_offset,
        transport,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_one_segment_is_no_super_packet() {
        let layout = segment::Layout {
            transport: segment::Transport::Tcp,
            transport_offset: 40,
            payload_offset: 72,
        };
        let size = |payload: usize| {
            let bytes = vec![0; 72 + payload];
            super_packet(&bytes, &layout, 1500, 40, None, Some(2000)).map(|gso| gso.size)
        };
        assert_eq!(size(1999), None);
        assert_eq!(size(2000), None);
        assert_eq!(size(2001), Some(2000));
    }
}

//! What the director needs of a TCP header: SYN, ACK, and the MSS option (RFC 9293 §3.2).

use dynencap_model::segment::{Layout, Transport};

const TCP: u8 = 6;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FLAGS_AT: usize = 13;
const OPTIONS_AT: usize = 20;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

/// A segment with SYN set.
pub(super) struct Syn {
    /// ACK is set as well: it comes from the responder.
    pub(super) ack: bool,
    /// The announced MSS.
    pub(super) mss: Option<u16>,
}

/// Whether a packet may have SYN set: a quick look that errs on the safe side.
pub(super) fn may_be_syn(packet: &[u8], protocol: u8, version: u8) -> bool {
    let transport = match (packet.first(), version) {
        (Some(0x45), 4) => 20,
        // Behind the fixed header at once.
        (_, 6) if packet.get(6) == Some(&protocol) => 40,
        _ => return true,
    };
    protocol == TCP
        && packet
            .get(transport + FLAGS_AT)
            .is_some_and(|flags| flags & SYN != 0)
}

/// Reads a packet's TCP header; `None` where there is none or SYN is not set.
pub(super) fn syn(packet: &[u8], layout: &Layout) -> Option<Syn> {
    if layout.transport != Transport::Tcp {
        return None;
    }
    let header = packet.get(layout.transport_offset..layout.payload_offset)?;
    let flags = *header.get(FLAGS_AT)?;
    if flags & SYN == 0 {
        return None;
    }
    Some(Syn {
        ack: flags & ACK != 0,
        mss: mss(header.get(OPTIONS_AT..)?),
    })
}

fn mss(mut options: &[u8]) -> Option<u16> {
    loop {
        match options {
            [] | [OPTION_END, ..] => return None,
            [OPTION_NOP, rest @ ..] => options = rest,
            [OPTION_MSS, 4, high, low, ..] => return Some(u16::from_be_bytes([*high, *low])),
            [_, length, ..] => options = options.get(usize::from(*length).max(2)..)?,
            [_] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mss_is_found_among_other_options() {
        let cases: &[(&[u8], Option<u16>)] = &[
            (&[2, 4, 5, 0xb4], Some(1460)),
            (
                &[1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 5, 0xa0],
                Some(1440),
            ),
            (&[0, 2, 4, 5, 0xb4], None),
            (&[2, 4, 5], None),
            (&[3, 0, 2, 4, 1, 1], Some(257)),
            (&[4], None),
            (&[], None),
        ];
        for (options, expected) in cases {
            assert_eq!(mss(options), *expected, "{options:?}");
        }
    }
}

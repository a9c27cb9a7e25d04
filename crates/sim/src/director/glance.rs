//! What a frame's own bytes tell of it, whatever came before: where its link layer ends, and which
//! flow it names. It can be looked up ahead of the director, on the core that read the frame.

use super::key::TableKey;
use crate::trace::{self, Direction, Link};
use dynencap_model::Packet;
use dynencap_model::flow::key as flow_key;

/// What was seen of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glance {
    /// `None` for one that cannot be taken apart.
    parts: Option<Parts>,
    flow: Option<Seen>,
}

/// How long the parts of a frame are, in bytes, of which the trailer is the rest.
#[derive(Clone, Copy, Debug)]
struct Parts {
    header: u32,
    payload: u32,
    ethertype: u16,
    vlan_tags: u8,
    direction: Option<Direction>,
}

/// The flow that a packet names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) key: TableKey,
    /// Whether its source is the lesser end.
    pub(super) from_lesser: bool,
}

impl Glance {
    /// Looks at a frame.
    #[inline]
    pub(crate) fn at(frame: &trace::Frame<'_>) -> Self {
        let link = trace::link(frame.link_type, frame.bytes);
        Self {
            parts: link.defect.is_none().then_some(Parts {
                // Of a frame, whose length is a 32-bit number.
                header: link.header.len() as u32,
                payload: link.payload.len() as u32,
                ethertype: link.ethertype,
                vlan_tags: link.vlan_tags,
                direction: link.direction,
            }),
            flow: Seen::of(&packet(&link)),
        }
    }

    /// The frame in parts, and the flow that it names.
    #[inline]
    pub(super) fn again<'f>(&self, frame: &trace::Frame<'f>) -> (Link<'f>, Option<Seen>) {
        let again = || trace::link(frame.link_type, frame.bytes);
        let link = match self.parts {
            Some(parts) => parts.link(frame.bytes).unwrap_or_else(again),
            None => again(),
        };
        (link, self.flow)
    }
}

impl Parts {
    fn link<'f>(&self, bytes: &'f [u8]) -> Option<Link<'f>> {
        let (header, rest) = bytes.split_at_checked(self.header as usize)?;
        let (payload, trailer) = rest.split_at_checked(self.payload as usize)?;
        Some(Link {
            header,
            ethertype: self.ethertype,
            payload,
            trailer,
            vlan_tags: self.vlan_tags,
            direction: self.direction,
            defect: None,
        })
    }
}

impl Seen {
    #[inline]
    pub(super) fn of(packet: &Packet<'_>) -> Option<Self> {
        let (key, from_lesser) = TableKey::of(&flow_key(packet)?);
        Some(Self { key, from_lesser })
    }
}

/// What is in a frame.
#[inline]
pub(super) fn packet<'f>(link: &Link<'f>) -> Packet<'f> {
    Packet {
        ethertype: link.ethertype,
        bytes: link.payload,
        gso_size: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{LinkType, Timestamp};

    const TAG: [u8; 4] = [0x81, 0, 0, 7];

    /// An IPv4 packet of 20 bytes by its own account, to be put behind a link header.
    fn frame(link_type: LinkType, header: &[u8], behind: &[u8]) -> (LinkType, Vec<u8>) {
        let mut packet = [0; 20];
        (packet[0], packet[3]) = (0x45, 20);
        packet[12..].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1]);
        (link_type, [header, &packet, behind].concat())
    }

    #[test]
    fn what_was_seen_is_what_is_there() {
        let ethernet = [&[0; 12][..], &[8, 0]].concat();
        let tagged = [&[0; 12][..], &TAG, &[8, 0]].concat();
        let frames = [
            (frame(LinkType::Ethernet, &ethernet, &[]), true),
            (frame(LinkType::Ethernet, &tagged, b"padding"), true),
            (frame(LinkType::Raw, &[], b"x"), true),
            ((LinkType::Raw, vec![0x10; 20]), false),
            ((LinkType::Ethernet, vec![0; 13]), false),
            (
                (LinkType::Ethernet, [&ethernet[..], &[0x45]].concat()),
                false,
            ),
            ((LinkType::Ethernet, Vec::new()), false),
        ];
        for ((link_type, bytes), names_flow) in frames {
            let frame = trace::Frame {
                number: 1,
                time: Timestamp(0),
                interface: 0,
                link_type,
                bytes: &bytes,
                original_len: bytes.len() as u32,
            };
            let (link, seen) = Glance::at(&frame).again(&frame);
            let expected = trace::link(link_type, &bytes);
            assert_eq!(link, expected, "{link_type:?} {bytes:?}");
            assert_eq!(seen.is_some(), names_flow, "{link_type:?} {bytes:?}");
            if let Some(seen) = seen {
                let (key, from_lesser) = TableKey::of(&flow_key(&packet(&expected)).unwrap());
                assert!(seen.key == key && seen.from_lesser == from_lesser && !from_lesser);
            }
        }
    }
}

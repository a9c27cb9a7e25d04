//! What a tunnel of the kernel's own makes of the packets that the model makes, field by field.

use crate::{
    capture::Observer,
    exit::Shape,
    reference::{Reference, config},
    topology::CLIENT,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

const ROUTING: u8 = 43;

/// Fields of the outer IPv6 header: name, bytes, and the bits of these that are the field's.
const FIELDS: &[(&str, usize, &[u8])] = &[
    ("version", 0, &[0xf0]),
    ("traffic class", 0, &[0x0f, 0xf0]),
    ("flow label", 1, &[0x0f, 0xff, 0xff]),
    ("payload length", 4, &[0xff; 2]),
    ("next header", 6, &[0xff]),
    ("hop limit", 7, &[0xff]),
    ("source", 8, &[0xff; 16]),
    ("destination", 24, &[0xff; 16]),
];

/// Compares every packet to one gateway.
#[derive(Debug)]
pub struct Twin {
    gateway: Ipv6Addr,
    reference: Reference,
    /// Packets compared.
    pub packets: u64,
    /// Fields that differed, and in how many packets.
    pub differing: BTreeMap<&'static str, u64>,
    /// Lengths of routing headers, 0 for none.
    pub routing: BTreeSet<usize>,
}

impl Twin {
    /// Nothing compared yet.
    #[must_use]
    pub fn new(gateway: Ipv6Addr, mtu: usize) -> Self {
        Self {
            gateway,
            reference: Reference::new(config(CLIENT, mtu)),
            packets: 0,
            differing: BTreeMap::new(),
            routing: BTreeSet::new(),
        }
    }

    fn compare(&mut self, packet: &[u8]) {
        let (outer, mut inner) = packet.split_at(40);
        let mut next = outer[6];
        let mut routing = 0;
        if next == ROUTING {
            next = inner[0];
            routing = (usize::from(inner[1]) + 1) * 8;
            inner = &inner[routing..];
        }
        self.routing.insert(routing);
        let ethertype = if next == 4 { 0x0800 } else { 0x86dd };
        let gateway = IpAddr::from(self.gateway);
        let made = self
            .reference
            .encapsulated(gateway, &Shape::Ip, ethertype, inner)
            .expect("the model encapsulates it");
        let (ours, behind) = made.split_at(40);
        assert_eq!(behind, inner);
        for (name, at, mask) in FIELDS {
            let differs = (*at..)
                .zip(*mask)
                .any(|(at, mask)| (ours[at] ^ outer[at]) & mask != 0);
            if differs {
                *self.differing.entry(name).or_default() += 1;
            }
        }
        self.packets += 1;
    }
}

impl Observer for Twin {
    fn frame(&mut self, bytes: &[u8]) {
        let Some((ethernet, packet)) = bytes.split_at_checked(14) else {
            return;
        };
        let is_ours = ethernet[12..] == [0x86, 0xdd]
            && packet.len() > 40
            && packet[24..40] == self.gateway.octets();
        if is_ours {
            self.compare(packet);
        }
    }
}

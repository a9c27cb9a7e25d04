//! Random chains of IPv6 extension headers (RFC 8200 §4), sound and broken ones.

use proptest::prelude::*;

/// One extension header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extension {
    protocol: u8,
    /// The length field; the header really is so long, where it has the field.
    units: u8,
    fill: u8,
}

pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const AUTHENTICATION: u8 = 51;

impl Extension {
    fn len(self) -> usize {
        match self.protocol {
            FRAGMENT => 8,
            AUTHENTICATION => 4 * (usize::from(self.units) + 2),
            _ => 8 * (usize::from(self.units) + 1),
        }
    }
}

fn extension(protocols: &'static [u8]) -> impl Strategy<Value = Extension> {
    let units = prop_oneof![8 => 0u8..4, 1 => any::<u8>()];
    (prop::sample::select(protocols), units, any::<u8>()).prop_map(|(protocol, units, fill)| {
        Extension {
            protocol,
            units,
            fill,
        }
    })
}

/// Any kind, up to more than are walked.
pub(crate) fn any_chain() -> impl Strategy<Value = Vec<Extension>> {
    let any = || extension(&[0, 43, 60, AUTHENTICATION, 60, 0, FRAGMENT]);
    let walked = || extension(&[0, 43, 60, AUTHENTICATION]);
    prop_oneof![
        4 => Just(Vec::new()),
        3 => prop::collection::vec(any(), 1..4),
        2 => prop::collection::vec(walked(), 7..11),
    ]
}

/// What the kernel's segmentation steps over, no more of it than is walked.
pub(crate) fn segmentable_chain() -> impl Strategy<Value = Vec<Extension>> {
    let header = extension(&[0, 43, 60]).prop_map(|header| Extension {
        units: header.units % 4,
        ..header
    });
    prop_oneof![
        4 => Just(Vec::new()),
        2 => prop::collection::vec(header, 1..9),
    ]
}

/// At least one header of which the kernel's segmentation knows nothing.
pub(crate) fn unsegmentable_chain() -> impl Strategy<Value = Vec<Extension>> {
    let short = |protocols| {
        extension(protocols).prop_map(|header| Extension {
            units: header.units % 4,
            ..header
        })
    };
    let before = prop::collection::vec(short(&[0, 43, 60]), 0..3);
    let odd = short(&[AUTHENTICATION, FRAGMENT]);
    let after = prop::collection::vec(short(&[60, AUTHENTICATION]), 0..2);
    let odd = (before, odd, after).prop_map(|(mut chain, odd, after)| {
        chain.push(odd);
        chain.extend(after);
        chain
    });
    let long = prop::collection::vec(short(&[0, 43, 60]), 9..12);
    prop_oneof![3 => odd, 1 => long]
}

/// The first next header, and the headers' bytes, the last naming `upper`.
pub(crate) fn write(chain: &[Extension], upper: u8) -> (u8, Vec<u8>) {
    let mut bytes = Vec::new();
    for (at, header) in chain.iter().enumerate() {
        let next = chain.get(at + 1).map_or(upper, |next| next.protocol);
        let start = bytes.len();
        bytes.resize(start + header.len(), header.fill);
        bytes[start] = next;
        bytes[start + 1] = header.units;
    }
    (chain.first().map_or(upper, |first| first.protocol), bytes)
}

//! Random ICMP errors that say "too big" about tunnel packets: whole, cut short at any length,
//! and spoilt.

use crate::host;
use crate::packet::{self, Defect, Spec, folded};
use crate::tunnel::encapsulated;
use proptest::prelude::*;

/// An error before it is written.
#[derive(Clone, Debug)]
pub(crate) struct TooBig {
    inner: Spec,
    exit: host::Options,
    /// Bytes of the tunnel packet that are quoted.
    quoted: usize,
    mtu: u32,
    /// Type and code, where they are not those of "too big".
    kind: Option<[u8; 2]>,
    defects: Vec<Defect>,
}

/// Any such error.
pub(crate) fn too_big() -> impl Strategy<Value = TooBig> {
    let quoted = prop_oneof![
        2 => prop::sample::select(&[20usize, 28, 40, 48, 60, 88, 96, 128, 136][..]),
        2 => 0usize..200,
        2 => Just(500),
    ];
    let mtu = prop_oneof![
        4 => prop::sample::select(&[0u32, 68, 575, 576, 1279, 1280, 1400, 1499, 1500, 8999, 9000][..]),
        1 => any::<u32>(),
    ];
    let kind = prop_oneof![8 => Just(None), 1 => any::<[u8; 2]>().prop_map(Some)];
    let defects = prop_oneof![
        6 => Just(Vec::new()),
        1 => prop::collection::vec(packet::defect(), 1..2),
    ];
    (packet::sound(), host::exit(), quoted, mtu, kind, defects).prop_map(
        |(inner, exit, quoted, mtu, kind, defects)| TooBig {
            inner,
            exit,
            quoted,
            mtu,
            kind,
            defects,
        },
    )
}

impl TooBig {
    /// Ethernet type and bytes.
    pub(crate) fn write(&self) -> (u16, Vec<u8>) {
        let (gateway, udp) = &self.exit;
        let tunnelled = encapsulated(&self.inner.write(400), gateway, udp);
        let mut quote = tunnelled.bytes;
        quote.truncate(self.quoted);
        let (kind, mtu) = (self.kind, self.mtu.to_be_bytes());
        let mut bytes = match tunnelled.ethertype {
            0x86dd => {
                let [kind, code] = kind.unwrap_or([2, 0]);
                let mut bytes = vec![0x60, 0, 0, 0];
                bytes.extend_from_slice(&(8 + quote.len() as u16).to_be_bytes());
                bytes.extend_from_slice(&[58, 64]);
                bytes.extend_from_slice(&host::address(0xee));
                bytes.extend_from_slice(&host::address(0xaa));
                bytes.extend_from_slice(&[kind, code, 0, 0]);
                bytes.extend_from_slice(&mtu);
                bytes
            }
            _ => {
                let [kind, code] = kind.unwrap_or([3, 4]);
                let mut bytes = vec![0x45, 0];
                bytes.extend_from_slice(&(28 + quote.len() as u16).to_be_bytes());
                bytes.extend_from_slice(&[0, 0, 0x40, 0, 64, 1, 0, 0]);
                bytes.extend_from_slice(&[198, 51, 100, 0xee, 198, 51, 100, 0xaa]);
                let sum = folded(&bytes);
                bytes[10..12].copy_from_slice(&(!sum).to_be_bytes());
                bytes.extend_from_slice(&[kind, code, 0, 0, 0, 0, mtu[2], mtu[3]]);
                bytes
            }
        };
        bytes.extend_from_slice(&quote);
        for defect in &self.defects {
            defect.spoil(&mut bytes, 0);
        }
        (tunnelled.ethertype, bytes)
    }
}

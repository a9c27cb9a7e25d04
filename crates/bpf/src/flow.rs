//! The flow hash, from the formula of `abi::flow`. Pure, so that the host can test it.

use dynencap_abi::hash::{K1, K2, K3, K4};

/// One side of a flow: the address as it stands in memory, in two words, and the port as a
/// plain number.
#[derive(Clone, Copy)]
pub(crate) struct Endpoint {
    pub(crate) address: [u64; 2],
    pub(crate) port: u16,
}

impl Endpoint {
    #[inline(always)]
    fn mixed(self) -> u64 {
        let [high, low] = self.address.map(u64::from_le);
        let mut e = high.wrapping_mul(K1) ^ (low ^ u64::from(self.port)).wrapping_mul(K2);
        e ^= e >> 32;
        e = e.wrapping_mul(K3);
        e ^ e >> 29
    }
}

#[derive(Clone, Copy)]
pub(crate) struct FlowHash(u64);

impl FlowHash {
    #[inline(always)]
    pub(crate) fn new(source: Endpoint, destination: Endpoint, protocol: u8) -> Self {
        let mut h = source
            .mixed()
            .wrapping_add(destination.mixed())
            .wrapping_add(u64::from(protocol).wrapping_mul(K4));
        h ^= h >> 32;
        h = h.wrapping_mul(K1);
        Self(h ^ h >> 29)
    }

    #[inline(always)]
    pub(crate) fn label(self) -> u32 {
        match (self.0 >> 44) as u32 {
            0 => 1,
            label => label,
        }
    }

    #[inline(always)]
    pub(crate) fn port(self) -> u16 {
        0xC000 | self.0 as u16 & 0x3FFF
    }
}

/// An IPv4 address, as it stands in memory, as IPv4-mapped IPv6 address.
#[inline(always)]
pub(crate) fn mapped(address: u32) -> [u64; 2] {
    [
        0,
        (0xffff_0000 | u64::from(u32::from_le(address)) << 32).to_le(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use dynencap_abi::FLOW_HASH_VECTORS;

    fn endpoint(address: [u8; 16], port: [u8; 2]) -> Endpoint {
        let [high, low] =
            [0, 8].map(|at| u64::from_ne_bytes(address[at..at + 8].try_into().unwrap()));
        Endpoint {
            address: [high, low],
            port: u16::from_be_bytes(port),
        }
    }

    #[test]
    fn hash_label_and_port_are_those_of_the_vectors() {
        assert!(!FLOW_HASH_VECTORS.is_empty());
        for vector in FLOW_HASH_VECTORS {
            let key = vector.key;
            let hash = FlowHash::new(
                endpoint(key.source, key.source_port),
                endpoint(key.destination, key.destination_port),
                key.protocol,
            );
            assert_eq!(hash.0, vector.hash, "{key:?}");
            assert_eq!(hash.label(), vector.flow_label, "{key:?}");
            assert_eq!(hash.port(), vector.udp_source_port, "{key:?}");
        }
    }

    #[test]
    fn an_ipv4_address_is_mapped() {
        let expected = std::net::Ipv4Addr::new(192, 0, 2, 1)
            .to_ipv6_mapped()
            .octets();
        let address = u32::from_ne_bytes([192, 0, 2, 1]);
        assert_eq!(mapped(address), endpoint(expected, [0; 2]).address);
    }
}

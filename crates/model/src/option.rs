//! The values of our options (section 1, step 4): read from a call, and written for one.

use crate::wire::mapped;
use dynencap_abi::option::{
    EINVAL, GATEWAY_LEN, GATEWAY4_LEN, PORTS_LEN, REFLECT_DSCP, REFLECT_LEN, REFLECT_MARK,
    REFLECT_PATH,
};
use dynencap_abi::{Exit, Info, MAX_HEADER_LEN};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

/// All bits that `ENCAP_REFLECT` knows.
pub(crate) const REFLECT_BITS: u32 = REFLECT_PATH | REFLECT_DSCP | REFLECT_MARK;

/// With what a call was refused: one of the errnos of `abi::option`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("errno {0}")]
pub struct Errno(pub i32);

/// What `getsockopt` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionValue {
    octets: [u8; PORTS_LEN + MAX_HEADER_LEN],
    len: usize,
}

impl Deref for OptionValue {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

impl OptionValue {
    fn of<const N: usize>(value: [u8; N]) -> Self {
        let mut octets = [0; PORTS_LEN + MAX_HEADER_LEN];
        octets[..N].copy_from_slice(&value);
        Self { octets, len: N }
    }

    pub(crate) fn gateway(exit: &Exit) -> Self {
        if exit.flags & Exit::IPV4 == 0 {
            return Self::of(exit.gateway);
        }
        let [.., a, b, c, d] = exit.gateway;
        Self::of([a, b, c, d])
    }

    pub(crate) fn udp(exit: &Exit) -> Self {
        let mut octets = [0; PORTS_LEN + MAX_HEADER_LEN];
        octets[..2].copy_from_slice(&exit.source_port);
        octets[2..PORTS_LEN].copy_from_slice(&exit.destination_port);
        octets[PORTS_LEN..].copy_from_slice(&exit.header);
        let len = PORTS_LEN + usize::from(exit.header_len).min(MAX_HEADER_LEN);
        Self { octets, len }
    }

    pub(crate) fn reflection(bits: u32) -> Self {
        Self::of(bits.to_ne_bytes())
    }

    pub(crate) fn info(info: &Info) -> Self {
        let mut octets = [0; size_of::<Info>()];
        octets[..8].copy_from_slice(&info.encapsulated.to_ne_bytes());
        octets[8..16].copy_from_slice(&info.dropped.to_ne_bytes());
        octets[16..20].copy_from_slice(&info.last_drop.to_ne_bytes());
        octets[20..24].copy_from_slice(&info.overhead.to_ne_bytes());
        octets[24..28].copy_from_slice(&info.mtu.to_ne_bytes());
        Self::of(octets)
    }
}

/// `ENCAP_REFLECT`; none goes back to the default.
pub(crate) fn reflection(value: &[u8]) -> Result<Option<u32>, Errno> {
    if value.is_empty() {
        return Ok(None);
    }
    let octets = <[u8; REFLECT_LEN]>::try_from(value).map_err(|_| Errno(EINVAL))?;
    let bits = u32::from_ne_bytes(octets);
    if bits & !REFLECT_BITS != 0 {
        return Err(Errno(EINVAL));
    }
    Ok(Some(bits))
}

/// A value of `ENCAP_GW` or `ENCAP_UDP` that has passed step 4.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Accepted {
    ClearGateway,
    Gateway {
        /// IPv4 as IPv4-mapped.
        gateway: [u8; GATEWAY_LEN],
        /// [`Exit::IPV4`] or 0.
        family: u8,
    },
    ClearUdp,
    Udp {
        source_port: [u8; 2],
        destination_port: [u8; 2],
        header: [u8; MAX_HEADER_LEN],
        header_len: u8,
    },
}

impl Accepted {
    /// `ENCAP_GW`.
    pub(crate) fn gateway(value: &[u8]) -> Result<Self, Errno> {
        if value.is_empty() {
            return Ok(Self::ClearGateway);
        }
        if let Ok(octets) = <[u8; GATEWAY4_LEN]>::try_from(value) {
            let address = Ipv4Addr::from(octets);
            if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
                return Err(Errno(EINVAL));
            }
            return Ok(Self::Gateway {
                gateway: mapped(octets),
                family: Exit::IPV4,
            });
        }
        let octets = <[u8; GATEWAY_LEN]>::try_from(value).map_err(|_| Errno(EINVAL))?;
        let address = Ipv6Addr::from(octets);
        if address.is_unspecified() || address.is_multicast() || address.to_ipv4_mapped().is_some()
        {
            return Err(Errno(EINVAL));
        }
        Ok(Self::Gateway {
            gateway: octets,
            family: 0,
        })
    }

    /// `ENCAP_UDP`.
    pub(crate) fn udp(value: &[u8]) -> Result<Self, Errno> {
        if value.is_empty() {
            return Ok(Self::ClearUdp);
        }
        let Some((&[s0, s1, d0, d1], custom)) = value.split_first_chunk::<PORTS_LEN>() else {
            return Err(Errno(EINVAL));
        };
        let mut header = [0; MAX_HEADER_LEN];
        header
            .get_mut(..custom.len())
            .ok_or(Errno(EINVAL))?
            .copy_from_slice(custom);
        if [d0, d1] == [0, 0] {
            return Err(Errno(EINVAL));
        }
        Ok(Self::Udp {
            source_port: [s0, s1],
            destination_port: [d0, d1],
            header,
            header_len: u8::try_from(custom.len()).map_err(|_| Errno(EINVAL))?,
        })
    }

    /// Writes the fields of its own option and no other's, `Exit::REFLECTED` apart; `source` is the policy's.
    pub(crate) fn apply(self, exit: &mut Exit, policy_source: [u8; 16]) {
        // From here on it is the application's own.
        exit.flags &= !Exit::REFLECTED;
        match self {
            Self::ClearGateway => {
                exit.gateway = [0; GATEWAY_LEN];
                exit.source = [0; GATEWAY_LEN];
                exit.flags &= !(Exit::GATEWAY | Exit::IPV4);
            }
            Self::Gateway { gateway, family } => {
                exit.gateway = gateway;
                exit.source = policy_source;
                exit.flags = exit.flags & !Exit::IPV4 | Exit::GATEWAY | family;
            }
            Self::ClearUdp => {
                exit.source_port = [0; 2];
                exit.destination_port = [0; 2];
                exit.header = [0; MAX_HEADER_LEN];
                exit.header_len = 0;
                exit.flags &= !Exit::UDP;
            }
            Self::Udp {
                source_port,
                destination_port,
                header,
                header_len,
            } => {
                exit.source_port = source_port;
                exit.destination_port = destination_port;
                exit.header = header;
                exit.header_len = header_len;
                exit.flags |= Exit::UDP;
            }
        }
    }
}

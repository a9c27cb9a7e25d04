//! A socket as the option hooks see it (section 1): kind, mark, and the storage that holds
//! its exit.

use crate::mtu;
use dynencap_abi::option::{
    AF_INET, AF_INET6, AF_PACKET, EAFNOSUPPORT, EINVAL, ENCAP_GW, ENCAP_UDP, ENOPROTOOPT,
    EOPNOTSUPP, GATEWAY_LEN, IPPROTO_MPTCP, PORTS_LEN, SOCK_RAW,
};
use dynencap_abi::{Config, Exit, MARK_MASK, MARK_OVERHEAD_SHIFT, MARK_SENTINEL, MAX_HEADER_LEN};
use std::net::Ipv6Addr;
use std::ops::Deref;

/// With what a call was refused: one of the errnos of `abi::option`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("errno {0}")]
pub struct Errno(pub i32);

/// What `socket(2)` was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketKind {
    /// Address family.
    pub family: u32,
    /// Type, without flags.
    pub ty: u32,
    /// Protocol.
    pub protocol: u32,
}

/// One socket.
#[derive(Clone, Debug)]
pub struct Socket {
    kind: SocketKind,
    mark: u32,
    /// The socket's storage, once there is one.
    exit: Option<Exit>,
}

/// What `getsockopt` reads.
#[derive(Clone, Copy, Debug)]
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

/// A value that has passed the checks.
enum Accepted {
    ClearGateway,
    Gateway([u8; GATEWAY_LEN]),
    ClearUdp,
    Udp {
        source_port: [u8; 2],
        destination_port: [u8; 2],
        header: [u8; MAX_HEADER_LEN],
        header_len: u8,
    },
}

impl Socket {
    /// A socket without storage, its mark 0.
    #[must_use]
    pub fn new(kind: SocketKind) -> Self {
        Self {
            kind,
            mark: 0,
            exit: None,
        }
    }

    /// What it was opened as.
    #[must_use]
    pub fn kind(&self) -> SocketKind {
        self.kind
    }

    /// `SO_MARK`.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// The application's own `SO_MARK`: the kernel lets it overwrite our bits too.
    pub fn set_mark(&mut self, mark: u32) {
        self.mark = mark;
    }

    /// The exit in the socket's storage; none without storage.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        self.exit.as_ref()
    }

    /// Puts an exit into the storage, as reflection does for an accepted connection, and
    /// marks the socket accordingly.
    pub fn set_exit(&mut self, exit: Exit) {
        self.exit = Some(exit);
        self.remark(&exit);
    }

    /// What `accept(2)` returns from this listener: storage and mark are cloned.
    #[must_use]
    pub fn accept(&self) -> Self {
        self.clone()
    }

    /// `setsockopt` at our level. A refused call changes nothing.
    pub fn set_option(&mut self, config: &Config, name: i32, value: &[u8]) -> Result<(), Errno> {
        self.permit(config, name)?;
        let accepted = if name == ENCAP_GW {
            gateway(value)?
        } else {
            udp(value)?
        };
        let mut exit = match (self.exit, &accepted) {
            (None, Accepted::ClearGateway | Accepted::ClearUdp) => {
                self.remark(&Exit::NONE);
                return Ok(());
            }
            (stored, _) => stored.unwrap_or(Exit::NONE),
        };
        accepted.apply(&mut exit);
        self.set_exit(exit);
        Ok(())
    }

    /// `getsockopt` at our level, into a buffer of `capacity` bytes.
    pub fn option(
        &self,
        config: &Config,
        name: i32,
        capacity: usize,
    ) -> Result<OptionValue, Errno> {
        self.permit(config, name)?;
        let exit = self.exit.as_ref().unwrap_or(&Exit::NONE);
        let mut octets = [0; PORTS_LEN + MAX_HEADER_LEN];
        let len = if name == ENCAP_GW {
            octets[..GATEWAY_LEN].copy_from_slice(&exit.gateway);
            GATEWAY_LEN
        } else {
            octets[..2].copy_from_slice(&exit.source_port);
            octets[2..PORTS_LEN].copy_from_slice(&exit.destination_port);
            octets[PORTS_LEN..].copy_from_slice(&exit.header);
            PORTS_LEN + usize::from(exit.header_len).min(MAX_HEADER_LEN)
        };
        if len > capacity {
            return Err(Errno(EINVAL));
        }
        Ok(OptionValue { octets, len })
    }

    /// Checks 1 to 3: may this socket have this option?
    fn permit(&self, config: &Config, name: i32) -> Result<(), Errno> {
        let packet_sockets = config.flags & Config::ALLOW_PACKET_SOCKETS != 0;
        if name != ENCAP_GW && name != ENCAP_UDP {
            return Err(Errno(ENOPROTOOPT));
        }
        let SocketKind {
            family,
            ty,
            protocol,
        } = self.kind;
        match family {
            AF_INET | AF_INET6 => {
                let refused = ty == SOCK_RAW && !packet_sockets || protocol == IPPROTO_MPTCP;
                if refused {
                    return Err(Errno(EOPNOTSUPP));
                }
                Ok(())
            }
            AF_PACKET if packet_sockets => Ok(()),
            _ => Err(Errno(EAFNOSUPPORT)),
        }
    }

    /// Our part of the mark follows the exit; the application's bits stay.
    fn remark(&mut self, exit: &Exit) {
        let ours = if exit.flags & Exit::GATEWAY == 0 {
            0
        } else {
            MARK_SENTINEL | (mtu::overhead(exit) as u32) << MARK_OVERHEAD_SHIFT
        };
        self.mark = self.mark & !MARK_MASK | ours;
    }
}

impl Accepted {
    /// Writes the fields of its own option and no other's.
    fn apply(self, exit: &mut Exit) {
        match self {
            Self::ClearGateway => {
                exit.gateway = [0; GATEWAY_LEN];
                exit.flags &= !Exit::GATEWAY;
            }
            Self::Gateway(gateway) => {
                exit.gateway = gateway;
                exit.flags |= Exit::GATEWAY;
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

fn gateway(value: &[u8]) -> Result<Accepted, Errno> {
    match value.len() {
        0 => return Ok(Accepted::ClearGateway),
        4 => return Err(Errno(EAFNOSUPPORT)),
        _ => {}
    }
    let octets = <[u8; GATEWAY_LEN]>::try_from(value).map_err(|_| Errno(EINVAL))?;
    let address = Ipv6Addr::from(octets);
    if address.is_unspecified() || address.is_multicast() || address.to_ipv4_mapped().is_some() {
        return Err(Errno(EINVAL));
    }
    Ok(Accepted::Gateway(octets))
}

fn udp(value: &[u8]) -> Result<Accepted, Errno> {
    if value.is_empty() {
        return Ok(Accepted::ClearUdp);
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
    Ok(Accepted::Udp {
        source_port: [s0, s1],
        destination_port: [d0, d1],
        header,
        header_len: u8::try_from(custom.len()).map_err(|_| Errno(EINVAL))?,
    })
}

//! Exits of sockets, and what they reflect: set, cleared, read.

use crate::{Error, Exit, Reason, Reflect, Udp, sys};
use dynencap_abi::{
    Info as Layout, MAX_HEADER_LEN,
    option::{ENCAP_GW, ENCAP_INFO, ENCAP_REFLECT, ENCAP_UDP, GATEWAY_LEN, PORTS_LEN, REFLECT_LEN},
};
use std::{
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

/// What became of a socket's packets, and what its exit costs: the option `ENCAP_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Frames encapsulated; a super-packet counts once.
    pub encapsulated: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// Why the last one was dropped; `None`: none yet.
    pub last_drop: Option<Reason>,
    /// Bytes of outer headers; 0 without an exit.
    pub overhead: u32,
    /// The longest inner packet in bytes that fits now; 0 without an exit.
    pub mtu: u32,
}

/// Any socket, for any owner of a descriptor: `TcpStream`, `UdpSocket`, `socket2::Socket`,
/// tokio's.
pub trait ExitSocket: AsFd {
    /// Sends the next packet, and all that follow, through `exit`.
    ///
    /// Where gateway and UDP part both differ from the present exit's, the UDP part is set first:
    /// packets in between go to the *old* gateway with the *new* UDP part, never in the clear.
    /// From no exit to one, nothing is in between.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`]. The present exit stays.
    fn set_exit(&self, exit: &Exit) -> Result<(), Error> {
        set(self.as_fd(), exit)
    }

    /// Sends the next packet, and all that follow, without an exit.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] where the policy requires an exit; the others of [`Error`]. The
    /// present exit stays.
    fn clear_exit(&self) -> Result<(), Error> {
        sys::set(self.as_fd(), ENCAP_GW, &[])?;
        // Without a gateway it does nothing; left there it would join the next one.
        Ok(sys::set(self.as_fd(), ENCAP_UDP, &[])?)
    }

    /// The present exit.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`], [`Error::NotIp`], [`Error::Unsupported`].
    fn exit(&self) -> Result<Option<Exit>, Error> {
        let socket = self.as_fd();
        let (Some(gateway), udp) = (gateway(socket)?, udp(socket)?) else {
            return Ok(None);
        };
        let exit = Exit::new(gateway).ok_or(Error::Answer {
            length: GATEWAY_LEN,
        })?;
        Ok(Some(udp.map_or(exit, |udp| exit.with_udp(udp))))
    }

    /// Says what replies take over from the packets that come in: on a listener for the
    /// connections that it accepts, on a UDP socket, on a connection; `None`: what the cgroup's
    /// policy has by default. It works where the operator has turned reflection on, and only
    /// towards peers to which the cgroup's policy lets replies go.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`]. What was set before stays.
    fn set_reflect(&self, reflect: Option<Reflect>) -> Result<(), Error> {
        let value = reflect.map(Reflect::to_value);
        let value = value.as_ref().map_or(&[][..], |value| value);
        Ok(sys::set(self.as_fd(), ENCAP_REFLECT, value)?)
    }

    /// What is reflected: what was set on this socket, else the default of the policy that is
    /// in force for this process.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`], [`Error::NotIp`], [`Error::Unsupported`].
    fn reflect(&self) -> Result<Reflect, Error> {
        let mut buffer = [0; REFLECT_LEN];
        let value = get(self.as_fd(), ENCAP_REFLECT, &mut buffer)?;
        let length = value.len();
        Reflect::from_value(value).ok_or(Error::Answer { length })
    }

    /// Counters, and what the exit costs.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`], [`Error::NotIp`], [`Error::Unsupported`].
    fn exit_info(&self) -> Result<Info, Error> {
        let mut buffer = [0; size_of::<Layout>()];
        let value = get(self.as_fd(), ENCAP_INFO, &mut buffer)?;
        let length = value.len();
        let info = Layout::from_bytes(value).ok_or(Error::Answer { length })?;
        Ok(Info {
            encapsulated: info.encapsulated,
            dropped: info.dropped,
            // 0 is the reason of no drop.
            last_drop: Reason::from_code(info.last_drop).filter(|_| info.last_drop != 0),
            overhead: info.overhead,
            mtu: info.mtu,
        })
    }
}

impl<T: AsFd + ?Sized> ExitSocket for T {}

fn set(socket: BorrowedFd<'_>, exit: &Exit) -> Result<(), Error> {
    let before = udp(socket)?;
    let change = before != exit.udp().copied();
    if change {
        set_udp(socket, exit.udp().copied())?;
    }
    if gateway(socket)? == Some(exit.gateway()) {
        return Ok(());
    }
    let result = sys::set(socket, ENCAP_GW, &Exit::gateway_value(exit.gateway()));
    if result.is_err() && change {
        // What was there is allowed to be there, or is cleared: nothing more can be done.
        let _ = set_udp(socket, before);
    }
    Ok(result?)
}

fn set_udp(socket: BorrowedFd<'_>, udp: Option<Udp>) -> Result<(), Error> {
    let value = udp.map(Udp::to_value).unwrap_or_default();
    Ok(sys::set(socket, ENCAP_UDP, &value)?)
}

fn gateway(socket: BorrowedFd<'_>) -> Result<Option<IpAddr>, Error> {
    let mut buffer = [0; GATEWAY_LEN];
    let value = get(socket, ENCAP_GW, &mut buffer)?;
    let length = value.len();
    let gateway = Exit::gateway_of(value).ok_or(Error::Answer { length })?;
    Ok(Some(gateway).filter(|gateway| !gateway.is_unspecified()))
}

fn udp(socket: BorrowedFd<'_>) -> Result<Option<Udp>, Error> {
    let mut buffer = [0; PORTS_LEN + MAX_HEADER_LEN];
    let value = get(socket, ENCAP_UDP, &mut buffer)?;
    if value == [0; PORTS_LEN] {
        return Ok(None);
    }
    let length = value.len();
    Udp::from_value(value)
        .map(Some)
        .ok_or(Error::Answer { length })
}

/// Reads an option. The kernel's own answer to `getsockopt` at an unknown level of an IPv4 socket
/// is `EOPNOTSUPP` (`do_ip_getsockopt`), which is also ours for raw and MPTCP sockets; its answer
/// to `setsockopt` is not. So a call that is refused either way tells them apart.
fn get<'a>(socket: BorrowedFd<'_>, name: i32, buffer: &'a mut [u8]) -> Result<&'a [u8], Error> {
    const TOO_SHORT: [u8; PORTS_LEN - 1] = [0; PORTS_LEN - 1];
    sys::get(socket, name, buffer).map_err(|error| {
        let error = Error::from(error);
        if !matches!(error, Error::Unsupported) {
            return error;
        }
        match sys::set(socket, ENCAP_UDP, &TOO_SHORT) {
            Err(told) => told.into(),
            Ok(()) => error,
        }
    })
}

//! Our own programs in a bed: loaded, configured, attached, and sockets with exits.

use crate::{
    Error,
    bed::{Bed, GATEWAY, GATEWAY4, HOST, HOST4, MTU, UPLINK},
    home::Home,
    reference::{CUSTOM, Expected, PORTS},
};
use dynencap_abi::{
    Config, Reason,
    option::{ENCAP_GW, ENCAP_UDP, SOL_DYNENCAP},
};
use dynencap_kernel::{Chain, DeviceProgram, Loaded, host::SegmentPair, sys};
use std::{
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

/// What stands in front of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// IPv6 alone.
    Ip6,
    /// IPv6, UDP and 8 bytes.
    Udp8,
    /// IPv4 alone.
    Ip4,
    /// IPv6, UDP and 32 bytes.
    Udp32,
    /// As [`Shape::Udp8`], with a valid checksum: needs [`Config::UDP_CHECKSUM`].
    Checksum,
}

impl Shape {
    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip6 => "IPv6",
            Self::Udp8 => "IPv6, UDP + 8",
            Self::Ip4 => "IPv4",
            Self::Udp32 => "IPv6, UDP + 32",
            Self::Checksum => "IPv6, UDP + 8, checksum",
        }
    }

    /// What arrives.
    #[must_use]
    pub const fn expected(self) -> Expected {
        match self {
            Self::Ip6 => Expected::IP6,
            Self::Udp8 => Expected::UDP8,
            Self::Ip4 => Expected {
                ethertype: 0x0800,
                protocol: 41,
                inner_at: 20,
                ..Expected::IP6
            },
            Self::Udp32 => Expected::ipv6(17, 80),
            Self::Checksum => Expected {
                checksum_at: Some(46),
                ..Expected::UDP8
            },
        }
    }

    /// Bytes of headers.
    #[must_use]
    pub const fn overhead(self) -> u8 {
        self.expected().inner_at as u8
    }

    /// Sets it on a socket, through the hooks.
    pub fn set(self, socket: impl AsFd) -> Result<(), Error> {
        let gateway = match self {
            Self::Ip4 => &GATEWAY4[..],
            _ => &GATEWAY.octets(),
        };
        let set = |name, value: &[u8]| {
            sys::set_option(socket.as_fd(), SOL_DYNENCAP, name, value)
                .map_err(Error::io("setsockopt of an exit"))
        };
        let header = match self {
            Self::Ip6 | Self::Ip4 => None,
            Self::Udp8 | Self::Checksum => Some(CUSTOM.to_vec()),
            Self::Udp32 => Some(CUSTOM.repeat(4)),
        };
        if let Some(header) = header {
            let ports = PORTS.map(u16::to_be_bytes).concat();
            set(ENCAP_UDP, &[ports, header].concat())?;
        }
        set(ENCAP_GW, gateway)
    }
}

/// The programs of one object at one bed.
#[derive(Debug)]
pub struct Ours {
    /// The programs and maps.
    pub loaded: Loaded,
    room: PathBuf,
}

impl Ours {
    /// Egress alone, at the uplink.
    pub fn egress(
        object: &[u8],
        flags: u32,
        chain: Chain,
        bed: &Bed,
        home: &Home,
    ) -> Result<Self, Error> {
        let mut loaded = Loaded::load_with(object, &[DeviceProgram::Egress])?;
        loaded.set_config(&config(flags))?;
        Self::attach(loaded, chain, bed, home)
    }

    /// Egress, and the segmenting pair with the program behind it.
    pub fn segmenting(object: &[u8], flags: u32, bed: &Bed, home: &Home) -> Result<Self, Error> {
        let [near, far] = ["seg0", "seg1"];
        let both = [DeviceProgram::Egress, DeviceProgram::Segmented];
        let mut loaded = Loaded::load_with(object, &both)?;
        let (pair, uplink) = bed.host.in_namespace(|| {
            let pair = SegmentPair::ensure(near, far).map(|(pair, _)| pair);
            Ok((pair, sys::Link::named(UPLINK)))
        })?;
        let pair = pair.map_err(Error::reference("the segmenting pair"))?;
        loaded.set_config(&Config {
            segmenter: pair.near(),
            uplink: uplink.map_err(Error::io(UPLINK))?.index(),
            ..config(flags)
        })?;
        loaded.attach_device_by(Chain::here(), &bed.host, far, &[DeviceProgram::Segmented])?;
        Self::attach(loaded, Chain::here(), bed, home)
    }

    fn attach(mut loaded: Loaded, chain: Chain, bed: &Bed, home: &Home) -> Result<Self, Error> {
        let room = home.room()?;
        loaded.attach_cgroup(File::open(&room).map_err(Error::io("a cgroup"))?)?;
        loaded.attach_device_by(chain, &bed.host, UPLINK, &[DeviceProgram::Egress])?;
        Ok(Self { loaded, room })
    }

    /// Where sockets must be made to have exits.
    #[must_use]
    pub fn room(&self) -> &Path {
        &self.room
    }

    /// How often egress has run and for how long, while the kernel kept statistics.
    pub fn run_time(&mut self) -> Result<(u64, Duration), Error> {
        Ok(self.loaded.run_time(DeviceProgram::Egress)?)
    }

    /// One of the counters.
    pub fn count(&self, reason: Reason) -> Result<u64, Error> {
        let counters = self.loaded.counters()?;
        Ok(counters.get(reason as usize).copied().unwrap_or_default())
    }
}

/// The configuration that `dynencap up` writes, and `flags`.
#[must_use]
pub fn config(flags: u32) -> Config {
    Config {
        source: HOST.octets(),
        source4: HOST4,
        uplink_mtu: MTU,
        flags: flags | Config::TELL_TOO_BIG,
        ..Config::default()
    }
}

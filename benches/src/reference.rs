//! The reference in C (`bpf/peers.bpf.c`): loading, attaching, telling it where sockets send to.

use crate::{
    Error,
    bed::{GATEWAY, MTU, UPLINK},
};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, SkStorage},
    programs::{
        CgroupAttachMode, CgroupSockopt, LinkOrder, SchedClassifier, TcAttachType,
        tc::{self, NlOptions, TcAttachOptions},
    },
};
use dynencap_kernel::{Chain, Namespace};
use std::{fs::File, os::fd::AsRawFd, path::Path, time::Duration};

/// The committed object.
pub const OBJECT: &[u8] = include_bytes!("../bpf/peers.bpf.o");
/// UDP ports of every variant that has UDP outside.
pub const PORTS: [u16; 2] = [40_000, 6080];
/// The custom header of 8 bytes.
pub const CUSTOM: [u8; 8] = [0xd1, 0xe2, 3, 4, 5, 6, 7, 8];

/// `struct exit` of the C file.
const EXIT_LEN: usize = 32;
/// `struct state` of the C file.
const STATE_LEN: usize = 2 * EXIT_LEN + 24;
/// Under which policies sockets were allowed what they do.
const POLICY_GENERATION: u32 = 3;

/// One program of the object at one device.
#[derive(Debug)]
pub struct Reference {
    ebpf: Ebpf,
    program: String,
}

impl Reference {
    /// Loads a TC program, attached to nothing.
    pub fn load(program: &str) -> Result<Self, Error> {
        let ebpf = EbpfLoader::new()
            .load(OBJECT)
            .map_err(Error::reference(program))?;
        let mut reference = Self {
            ebpf,
            program: program.to_owned(),
        };
        let loaded = reference.classifier()?.load();
        loaded.map_err(Error::reference(program))?;
        let mut fixed: Array<&mut MapData, [u8; EXIT_LEN]> = reference.map("fixed")?;
        fixed.set(0, exit(), 0).map_err(Error::reference("fixed"))?;
        let mut settings: Array<&mut MapData, [u32; 2]> = reference.map("settings")?;
        settings
            .set(0, [POLICY_GENERATION, MTU], 0)
            .map_err(Error::reference("settings"))?;
        Ok(reference)
    }

    /// Attaches it to the uplink's egress.
    pub fn attach_egress(&mut self, chain: Chain, host: &Namespace) -> Result<(), Error> {
        self.attach(chain, host, UPLINK, TcAttachType::Egress)
    }

    /// Attaches it to a device.
    pub fn attach(
        &mut self,
        chain: Chain,
        namespace: &Namespace,
        device: &str,
        direction: TcAttachType,
    ) -> Result<(), Error> {
        let program = self.classifier()?;
        let result = namespace.in_namespace(|| {
            let options = match chain {
                Chain::Tcx => TcAttachOptions::TcxOrder(LinkOrder::last()),
                Chain::Clsact => {
                    if let Err(error) = tc::qdisc_add_clsact(device) {
                        return Ok(Err(error.into()));
                    }
                    TcAttachOptions::Netlink(NlOptions::default())
                }
            };
            Ok(program.attach_with_options(device, direction, options))
        })?;
        result.map(drop).map_err(Error::reference(&self.program))
    }

    /// Gives a socket its exit.
    pub fn set_exit(&mut self, socket: &impl AsRawFd) -> Result<(), Error> {
        let mut exits: SkStorage<&mut MapData, [u8; STATE_LEN]> = self.map("exits")?;
        exits
            .insert(socket, state(), 0)
            .map_err(Error::reference("exits"))
    }

    /// How often it has run and for how long, while the kernel kept statistics.
    pub fn run_time(&mut self) -> Result<(u64, Duration), Error> {
        let info = self.classifier()?.info();
        let info = info.map_err(Error::reference(&self.program))?;
        Ok((info.run_count(), info.run_time()))
    }

    /// What the sink or the watch counted: as expected, and otherwise.
    pub fn arrived(&mut self) -> Result<[u64; 2], Error> {
        let arrived: PerCpuArray<&mut MapData, u64> = self.map("arrived")?;
        let mut sums = [0; 2];
        for (index, sum) in (0..).zip(&mut sums) {
            let each = arrived
                .get(&index, 0)
                .map_err(Error::reference("arrived"))?;
            *sum = each.iter().sum();
        }
        Ok(sums)
    }

    /// Tells the sink what to expect.
    pub fn expect(&mut self, expected: &Expected) -> Result<(), Error> {
        let mut map: Array<&mut MapData, [u8; 28]> = self.map("expectation")?;
        map.set(0, expected.to_bytes(), 0)
            .map_err(Error::reference("expectation"))
    }

    pub(crate) fn map<'a, T>(&'a mut self, name: &'static str) -> Result<T, Error>
    where
        T: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>,
    {
        let map = self.ebpf.map_mut(name).ok_or_else(|| missing(name))?;
        T::try_from(map).map_err(Error::reference(name))
    }

    fn classifier(&mut self) -> Result<&mut SchedClassifier, Error> {
        let name = self.program.as_str();
        let program = self.ebpf.program_mut(name).ok_or_else(|| missing(name))?;
        program.try_into().map_err(Error::reference(name))
    }
}

fn missing(name: &str) -> Error {
    Error::Wrong {
        variant: name.to_owned(),
        what: "not in the reference object".to_owned(),
    }
}

fn exit() -> [u8; EXIT_LEN] {
    let mut bytes = [0; EXIT_LEN];
    bytes[..16].copy_from_slice(&GATEWAY.octets());
    bytes[16..24].copy_from_slice(&CUSTOM);
    bytes[24..26].copy_from_slice(&PORTS[0].to_be_bytes());
    bytes[26..28].copy_from_slice(&PORTS[1].to_be_bytes());
    bytes
}

/// The same exit in both places, in use since generation 0 and allowed.
fn state() -> [u8; STATE_LEN] {
    let mut bytes = [0; STATE_LEN];
    bytes[..EXIT_LEN].copy_from_slice(&exit());
    bytes[EXIT_LEN..2 * EXIT_LEN].copy_from_slice(&exit());
    let checked = u64::from(POLICY_GENERATION) << 32;
    bytes[2 * EXIT_LEN + 8..][..8].copy_from_slice(&checked.to_ne_bytes());
    bytes
}

/// What a variant's packets look like on the wire, behind the Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Ethernet type.
    pub ethertype: u16,
    /// Protocol of the (outer) IP header.
    pub protocol: u8,
    /// Where the inner IPv6 header begins.
    pub inner_at: u32,
    /// Where an outer UDP checksum stands that must not be zero.
    pub checksum_at: Option<u32>,
    /// Protocol of the inner packet.
    pub next: u8,
}

impl Expected {
    /// No outer header.
    pub const PLAIN: Self = Self::ipv6(17, 0);
    /// IPv6 in IPv6.
    pub const IP6: Self = Self::ipv6(41, 40);
    /// IPv6, UDP and 8 bytes.
    pub const UDP8: Self = Self::ipv6(17, 56);

    /// Some outer IPv6 header.
    #[must_use]
    pub const fn ipv6(protocol: u8, inner_at: u32) -> Self {
        Self {
            ethertype: 0x86dd,
            protocol,
            inner_at,
            checksum_at: None,
            next: 17,
        }
    }

    /// The same with TCP inside.
    #[must_use]
    pub const fn with_tcp(self) -> Self {
        let is_plain = self.inner_at == 0;
        Self {
            protocol: if is_plain { 6 } else { self.protocol },
            next: 6,
            ..self
        }
    }

    fn to_bytes(self) -> [u8; 28] {
        let port = crate::bed::PORT.to_be_bytes();
        let protocol_at = if self.ethertype == 0x0800 { 9 } else { 6 };
        let words = [
            u32::from(u16::from_ne_bytes(self.ethertype.to_be_bytes())),
            u32::from(self.protocol),
            protocol_at,
            self.inner_at,
            u32::from(self.next),
            u32::from(u16::from_ne_bytes(port)),
            self.checksum_at.unwrap_or(0),
        ];
        let mut bytes = [0; 28];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// The empty program for options, at a cgroup.
#[derive(Debug)]
pub struct Hook {
    _ebpf: Ebpf,
}

impl Hook {
    /// Attaches it.
    pub fn attach(room: &Path) -> Result<Self, Error> {
        let name = "option";
        let mut ebpf = EbpfLoader::new()
            .load(OBJECT)
            .map_err(Error::reference(name))?;
        let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
        let program: &mut CgroupSockopt = program.try_into().map_err(Error::reference(name))?;
        program.load().map_err(Error::reference(name))?;
        let cgroup = File::open(room).map_err(Error::io("a cgroup"))?;
        program
            .attach(cgroup, CgroupAttachMode::Single)
            .map_err(Error::reference(name))?;
        Ok(Self { _ebpf: ebpf })
    }
}

//! What the kernel engine needs, and whether this process on this kernel has it, in words.

use crate::{Error, cgroup};
use aya::{maps::MapType, programs::ProgramType, util::KernelVersion};
use std::{fmt, fs, sync::OnceLock};

/// Something that the kernel engine, or one of its parts, needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// The capabilities to make namespaces, send raw frames and load programs.
    Privilege,
    /// A cgroup2 hierarchy with this process in it.
    Cgroup2,
    /// Programs at TC and at `setsockopt`, and socket storage.
    Bpf,
    /// Programs attached to a device by a link. Without it they hang on a clsact qdisc.
    Tcx,
    /// UDP super-packets through a packet socket (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    UdpSegmentation,
    /// `UDP_SEGMENT` by way of a device without checksum offload, as the segmenting one is.
    UdpSegmentationSummed,
    /// Decapsulating a packet of the other IP version: IPv4 from IPv6, IPv6 from IPv4
    /// (`BPF_F_ADJ_ROOM_DECAP_L3_IPV4`, `…_IPV6`).
    DecapsulateIpv4,
    /// TCP super-packets of more than 65,535 bytes through a packet socket.
    BigTcp,
}

/// A feature that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{feature}: {reason}")]
pub struct Unavailable {
    /// Which one.
    pub feature: Feature,
    /// Why, in words for the operator.
    pub reason: String,
}

/// Capability numbers of `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

impl Feature {
    /// All that replay in the kernel cannot do without, in the order of likely causes.
    pub const REQUIRED: [Self; 3] = [Self::Privilege, Self::Cgroup2, Self::Bpf];

    /// The first kernel release that has it, where a release decides.
    #[must_use]
    pub const fn since(self) -> Option<(u8, u8)> {
        match self {
            Self::Privilege => None,
            // Mounting the hierarchy is the distribution's decision, not the release's.
            Self::Cgroup2 => None,
            // Socket storage in TC programs: 5.2; setsockopt hooks: 5.3; bpf_set_retval: 5.18.
            Self::Bpf => Some((5, 18)),
            Self::Tcx => Some((6, 6)),
            Self::UdpSegmentation => Some((6, 2)),
            // 6.1 answers EIO, 6.12 sends them; what lies between was not tried.
            Self::UdpSegmentationSummed => Some((6, 12)),
            Self::DecapsulateIpv4 => Some((6, 3)),
            // 6.1 answers EMSGSIZE, 6.12 sends them; what lies between was not tried.
            Self::BigTcp => Some((6, 12)),
        }
    }

    /// Whether the running kernel's release should have it, where a release decides.
    #[must_use]
    pub fn is_due(self) -> Option<bool> {
        self.since()
            .map(|(major, minor)| running() >= KernelVersion::new(major, minor, 0).code())
    }

    /// Whether it is there.
    pub fn probe(self) -> Result<(), Unavailable> {
        let result = match self {
            Self::Privilege => privilege(),
            Self::Cgroup2 => cgroup::available().map_err(|error: Error| error.to_string()),
            Self::Bpf => self.release().and_then(|()| bpf()),
            Self::Tcx
            | Self::UdpSegmentation
            | Self::UdpSegmentationSummed
            | Self::DecapsulateIpv4
            | Self::BigTcp => self.release(),
        };
        result.map_err(|reason| Unavailable {
            feature: self,
            reason,
        })
    }

    fn release(self) -> Result<(), String> {
        match (self.since(), self.is_due()) {
            (Some((major, minor)), Some(false)) => {
                Err(format!("needs Linux {major}.{minor} or newer"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privilege => "privilege",
            Self::Cgroup2 => "cgroup2",
            Self::Bpf => "BPF",
            Self::Tcx => "TCX",
            Self::UdpSegmentation => "UDP segmentation",
            Self::UdpSegmentationSummed => "UDP segmentation without checksum offload",
            Self::DecapsulateIpv4 => "decapsulation of IPv4 from IPv6",
            Self::BigTcp => "BIG TCP through packet sockets",
        })
    }
}

/// The running kernel's release, as a number that grows with it; 0 where it is not known.
fn running() -> u32 {
    static RELEASE: OnceLock<u32> = OnceLock::new();
    *RELEASE.get_or_init(|| KernelVersion::current().map_or(0, KernelVersion::code))
}

/// Whether the kernel engine can run here: the first required feature that is missing.
pub fn probe() -> Result<(), Unavailable> {
    Feature::REQUIRED.into_iter().try_for_each(Feature::probe)
}

fn privilege() -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(|error| format!("cannot read /proc/self/status: {error}"))?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .ok_or("no CapEff in /proc/self/status")?;
    let lacking = lacking(effective);
    if lacking.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "this process lacks {} (run as root)",
            lacking.join(", ")
        ))
    }
}

/// Names of the needed capabilities that are not in the mask.
fn lacking(effective: u64) -> Vec<&'static str> {
    let has = |capability: u32| effective & (1 << capability) != 0;
    [
        ("CAP_SYS_ADMIN", has(CAP_SYS_ADMIN)),
        ("CAP_NET_ADMIN", has(CAP_NET_ADMIN)),
        ("CAP_NET_RAW", has(CAP_NET_RAW)),
        ("CAP_BPF", has(CAP_BPF) || has(CAP_SYS_ADMIN)),
    ]
    .into_iter()
    .filter_map(|(name, there)| (!there).then_some(name))
    .collect()
}

fn bpf() -> Result<(), String> {
    for program in [ProgramType::SchedClassifier, ProgramType::CgroupSockopt] {
        match aya::sys::is_program_supported(program) {
            Ok(true) => {}
            Ok(false) => return Err(format!("no BPF programs of type {program:?}")),
            Err(error) => return Err(format!("BPF_PROG_LOAD: {error}")),
        }
    }
    match aya::sys::is_map_supported(MapType::SkStorage) {
        Ok(true) => Ok(()),
        Ok(false) => Err("no BPF socket storage".to_owned()),
        Err(error) => Err(format!("BPF_MAP_CREATE: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_is_due_from_its_release_on() {
        for feature in [Feature::Bpf, Feature::Tcx, Feature::DecapsulateIpv4] {
            let (major, minor) = feature.since().unwrap();
            let due = running() >= KernelVersion::new(major, minor, 0).code();
            assert_eq!(feature.is_due(), Some(due));
        }
        assert_eq!(Feature::Privilege.is_due(), None);
        assert_eq!(Feature::Tcx.probe().is_ok(), Feature::Tcx.is_due().unwrap());
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(lacking(u64::MAX), [""; 0]);
        assert_eq!(lacking(!(1 << CAP_NET_RAW)), ["CAP_NET_RAW"]);
        assert_eq!(
            lacking(!(1 << CAP_BPF)),
            [""; 0],
            "CAP_SYS_ADMIN implies it"
        );
        assert_eq!(lacking(0).len(), 4);
    }
}

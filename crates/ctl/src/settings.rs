//! What the operator chose with `up`: flags once, then noted beside the installation, from where
//! every later command has it.

use anyhow::Context;
use clap::{Args, ValueEnum};
use dynencap_abi::Config;
use dynencap_kernel::{
    host::{Mss, Plan},
    install::Installation,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

/// Names of the segmenting pair.
pub(crate) const PAIR: [&str; 2] = ["dynencap0", "dynencap1"];

/// Overheads that are planned for where none is named: IP-in-IP and plain UDP of both
/// versions, and IPv6 with UDP and 8 bytes (VXLAN-GPE, Geneve).
const OVERHEADS: [u8; 5] = [20, 28, 40, 48, 56];

/// The most that `--reflect-entries` takes: some 200 MB of kernel memory.
const MOST_REFLECTED: i64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct Up {
    /// Device on which packets leave
    #[arg(long, value_name = "DEVICE")]
    pub(crate) uplink: String,
    /// cgroup2 directory whose processes, and those below it, may have exits
    #[arg(long, value_name = "DIR")]
    pub(crate) cgroup: PathBuf,
    /// Outer source address for IPv4 packets that leave in IPv6
    #[arg(long, value_name = "IPV6")]
    source: Option<Ipv6Addr>,
    /// Outer source address for IPv6 packets that leave in IPv4
    #[arg(long, value_name = "IPV4")]
    source4: Option<Ipv4Addr>,
    /// Bytes of outer headers for which MTU and routes are planned; may be repeated
    /// [default: 20 28 40 48 56]
    #[arg(long = "overhead", value_name = "BYTES", num_args = 1.., value_parser = clap::value_parser!(u8).range(20..=80))]
    overheads: Vec<u8>,
    /// How super-packets are cut
    #[arg(long, value_enum, default_value_t)]
    pub(crate) segmentation: Segmentation,
    /// Fill in the outer UDP checksum (default: 0, RFC 6935)
    #[arg(long)]
    udp_checksum: bool,
    /// Hop limit of outer headers [default: the inner packet's]
    #[arg(long, value_name = "HOPS", value_parser = clap::value_parser!(u8).range(1..))]
    hop_limit: Option<u8>,
    /// What cgroups without a policy may do
    #[arg(long, value_enum, default_value_t)]
    default: Default_,
    /// How the advertised MSS follows from the MTU
    #[arg(long, value_enum, default_value_t)]
    mss: MssRule,
    /// Lock the routes' MTU, as the talk does: path MTU is not learned then
    #[arg(long)]
    lock_mtu: bool,
    /// Preference of the rules
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    rule_priority: u32,
    /// Number before that of the first table: each overhead's is this plus the overhead
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    table_base: u32,
    /// Replies may take the path by which the packets came: listeners and policies say which
    #[arg(long)]
    #[serde(default)]
    pub(crate) reflect: bool,
    /// Connections and UDP peers whose captured path is kept until they are established
    /// [default: 1000]
    #[arg(long, value_name = "NUMBER", requires = "reflect", value_parser = clap::value_parser!(u32).range(1..=MOST_REFLECTED))]
    #[serde(default)]
    pub(crate) reflect_entries: Option<u32>,
    /// Attach by a clsact qdisc, as on kernels before TCX
    #[arg(long, hide = true)]
    pub(crate) clsact: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Segmentation {
    /// By the kernel behind the programs where that can be, else before them
    #[default]
    Auto,
    /// By the kernel behind the programs; what it cannot cut there is dropped
    GsoAware,
    /// Always before them, in a veth pair
    SegmentFirst,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Default_ {
    /// Any exit
    #[default]
    Allow,
    /// No exit
    Deny,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum MssRule {
    /// MTU without IP and TCP headers (RFC 6691)
    #[default]
    Rfc6691,
    /// 12 bytes less, for TCP options
    Talk,
}

/// The settings of an installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    #[serde(flatten)]
    pub(crate) up: Up,
    /// With `reflect`: what `net.ipv4.tcp_fwmark_accept` was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fwmark_accept_was: Option<String>,
}

impl Settings {
    /// Those that are noted beside the installation; an installation that was cut short has none.
    pub(crate) fn of(installation: &Installation) -> anyhow::Result<Self> {
        let note = installation.note();
        if note.is_empty() {
            return Ok(Self {
                up: Up::bare(
                    installation.uplink().name.clone(),
                    installation.cgroup().to_owned(),
                ),
                fwmark_accept_was: None,
            });
        }
        serde_json::from_str(note).context(
            "the settings of the installation were noted by another version: use that version",
        )
    }

    pub(crate) fn to_note(&self) -> anyhow::Result<String> {
        serde_json::to_string(self).context("noting the settings")
    }

    pub(crate) fn plan(&self) -> Plan {
        let up = &self.up;
        let overheads: BTreeSet<u8> = if up.overheads.is_empty() {
            OVERHEADS.into()
        } else {
            up.overheads.iter().copied().collect()
        };
        Plan {
            rule_priority: up.rule_priority,
            table_base: up.table_base,
            lock_mtu: up.lock_mtu,
            mss: match up.mss {
                MssRule::Rfc6691 => Mss::Rfc6691,
                MssRule::Talk => Mss::TalkOptions,
            },
            ..Plan::new(up.uplink.clone(), overheads)
        }
    }

    /// The programs' configuration, policy generation apart. `segmenter` and `uplink` are
    /// interface indexes; `checksums`: whether the uplink offers them.
    pub(crate) fn config(
        &self,
        uplink_mtu: u32,
        uplink: u32,
        segmenter: Option<u32>,
        checksums: bool,
    ) -> Config {
        let up = &self.up;
        let first = match up.segmentation {
            Segmentation::SegmentFirst => true,
            // See `host::offers_checksums`.
            Segmentation::Auto => !checksums,
            Segmentation::GsoAware => false,
        };
        let flags = [
            (up.default == Default_::Deny, Config::DENY_BY_DEFAULT),
            (up.udp_checksum, Config::UDP_CHECKSUM),
            (first, Config::SEGMENT_FIRST),
            (!up.lock_mtu, Config::TELL_TOO_BIG),
            (up.reflect, Config::REFLECT),
        ];
        Config {
            source: up.source.map_or([0; 16], |address| address.octets()),
            source4: up.source4.map_or([0; 4], |address| address.octets()),
            uplink_mtu,
            flags: flags
                .into_iter()
                .filter_map(|(on, flag)| on.then_some(flag))
                .sum(),
            hop_limit: up.hop_limit.map_or(0, u32::from),
            segmenter: segmenter.unwrap_or(0),
            uplink,
            ..Config::default()
        }
    }

    /// Whether there is a segmenting pair.
    pub(crate) fn pair(&self) -> bool {
        self.up.segmentation != Segmentation::GsoAware
    }
}

impl Up {
    fn bare(uplink: String, cgroup: PathBuf) -> Self {
        Self {
            uplink,
            cgroup,
            source: None,
            source4: None,
            overheads: Vec::new(),
            segmentation: Segmentation::default(),
            udp_checksum: false,
            hop_limit: None,
            default: Default_::default(),
            mss: MssRule::default(),
            lock_mtu: false,
            rule_priority: 1000,
            table_base: 1000,
            reflect: false,
            reflect_entries: None,
            clsact: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_configuration_and_plan() {
        let mut up = Up::bare("eth0".to_owned(), "/sys/fs/cgroup".into());
        let settings = |up: Up| Settings {
            up,
            fwmark_accept_was: None,
        };
        let quiet = settings(up.clone());
        let tell = Config::TELL_TOO_BIG;
        assert_eq!(quiet.config(1500, 2, None, true).flags, tell);
        let first = Config::SEGMENT_FIRST;
        assert_eq!(quiet.config(1500, 2, Some(7), false).flags, tell | first);
        up.segmentation = Segmentation::GsoAware;
        let aware = settings(up.clone());
        assert_eq!(aware.config(1500, 2, None, false).flags, tell);
        assert_eq!(quiet.plan().overheads, OVERHEADS.into());
        up.default = Default_::Deny;
        up.udp_checksum = true;
        up.lock_mtu = true;
        up.segmentation = Segmentation::SegmentFirst;
        up.overheads = vec![56, 40];
        up.reflect = true;
        let mut settings = settings(up);
        settings.fwmark_accept_was = Some("0".to_owned());
        let config = settings.config(9000, 2, Some(7), true);
        assert_eq!(
            config.flags,
            Config::DENY_BY_DEFAULT
                | Config::UDP_CHECKSUM
                | Config::SEGMENT_FIRST
                | Config::REFLECT
        );
        assert_eq!(
            (config.uplink_mtu, config.uplink, config.segmenter),
            (9000, 2, 7)
        );
        assert_eq!(settings.plan().overheads, [40, 56].into());
        let note = settings.to_note().unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&note).unwrap(), settings);
    }
}

//! What an operator decides, and the arithmetic of MTU and MSS (docs/datapath.md §6). Pure.

use super::Error;
use dynencap_abi::{MARK_OVERHEAD_MASK, MARK_OVERHEAD_SHIFT, MAX_OVERHEAD};
use rtnetlink::packet_route::AddressFamily;
use std::{
    collections::BTreeSet,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

/// The overheads that exits have, in bytes: from an IPv4 header alone to IPv6, UDP and the
/// longest custom header.
pub const OVERHEADS: RangeInclusive<u8> = 20..=MAX_OVERHEAD as u8;

/// The smallest MTU of IPv6 (RFC 8200 §5), in bytes.
const IPV6_MIN_MTU: u32 = 1280;
/// What the talk takes off the MSS for TCP options: a timestamp, aligned (RFC 7323).
const TCP_OPTIONS: u32 = 12;
const TCP_HEADER: u32 = 20;

/// The IP version of the inner packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// As in messages: `IPv4` or `IPv6`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub(super) fn address_family(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }

    /// Of a netlink header; `None` for any other.
    pub(super) fn of(family: AddressFamily) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|known| known.address_family() == family)
    }

    const fn ip_header(self) -> u32 {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which families get rules and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4 inside.
    pub v4: bool,
    /// IPv6 inside.
    pub v6: bool,
}

impl Families {
    /// Whether `family` is among them.
    #[must_use]
    pub const fn contains(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// How the advertised MSS comes from the inner MTU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mss {
    /// The MTU without the IP and TCP headers (RFC 6691).
    #[default]
    Rfc6691,
    /// 12 bytes less, as in the talk: room for TCP's timestamp option.
    TalkOptions,
}

/// Source addresses that the copied routes prefer, in place of main's own choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// For IPv4; it must be an address of this host.
    pub v4: Option<Ipv4Addr>,
    /// For IPv6; it must be an address of this host. Link-local destinations keep theirs.
    pub v6: Option<Ipv6Addr>,
}

/// What to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Name of the device on which the programs encapsulate.
    pub uplink: String,
    /// Each overhead in bytes that an exit may have: outer IP, UDP and custom header.
    pub overheads: BTreeSet<u8>,
    /// The inner IP versions. Default: both.
    pub families: Families,
    /// Preference of each rule, 1 to 32765; the smaller goes first. Default: 1000.
    pub rule_priority: u32,
    /// Each overhead's table is this plus the overhead. Default: 1000.
    pub table_base: u32,
    /// Lock the routes' MTU, as the talk does: path-MTU messages are ignored then.
    /// Default: no.
    pub lock_mtu: bool,
    /// Default: RFC 6691.
    pub mss: Mss,
    /// Default: main's.
    pub source: Sources,
}

/// The sizes of inner packets, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// From the inner IP header on.
    pub mtu: u32,
    /// The advertised MSS of TCP.
    pub advmss: u32,
}

impl Plan {
    /// A plan with everything else at its default.
    pub fn new(uplink: impl Into<String>, overheads: impl IntoIterator<Item = u8>) -> Self {
        Self {
            uplink: uplink.into(),
            overheads: overheads.into_iter().collect(),
            families: Families { v4: true, v6: true },
            rule_priority: 1000,
            table_base: 1000,
            lock_mtu: false,
            mss: Mss::default(),
            source: Sources::default(),
        }
    }

    /// The table of sockets with this overhead.
    #[must_use]
    pub const fn table(&self, overhead: u8) -> u32 {
        self.table_base.saturating_add(overhead as u32)
    }

    /// The mark of packets with this overhead, under `dynencap_abi::MARK_OVERHEAD_MASK`.
    #[must_use]
    pub const fn mark(overhead: u8) -> u32 {
        ((overhead as u32) << MARK_OVERHEAD_SHIFT) & MARK_OVERHEAD_MASK
    }

    /// MTU and MSS of `family` inside an outer packet of `outer` bytes.
    #[must_use]
    pub const fn inner(&self, family: Family, overhead: u8, outer: u32) -> Inner {
        let mtu = outer.saturating_sub(overhead as u32);
        let options = match self.mss {
            Mss::Rfc6691 => 0,
            Mss::TalkOptions => TCP_OPTIONS,
        };
        Inner {
            mtu,
            advmss: mtu.saturating_sub(family.ip_header() + TCP_HEADER + options),
        }
    }

    /// As [`Self::inner`], or that it is too small. `limit`: what has the MTU `outer`.
    pub(super) fn checked_inner(
        &self,
        family: Family,
        overhead: u8,
        outer: u32,
        limit: impl FnOnce() -> String,
    ) -> Result<Inner, Error> {
        let inner = self.inner(family, overhead, outer);
        if family == Family::V6 && inner.mtu < IPV6_MIN_MTU {
            return Err(Error::InnerMtu {
                overhead,
                outer,
                inner: inner.mtu,
                limit: limit(),
            });
        }
        Ok(inner)
    }

    /// Whether the plan makes sense by itself, on whatever host.
    pub(super) fn validate(&self) -> Result<(), Error> {
        // Default, main and local; 252 is how the kernel writes a number above 255 in the
        // 8-bit field of a header (RT_TABLE_COMPAT).
        const RESERVED: RangeInclusive<u32> = 252..=255;
        if self.overheads.is_empty() {
            return Err(Error::NoOverhead);
        }
        if !(1..=32_765).contains(&self.rule_priority) {
            return Err(Error::Priority {
                priority: self.rule_priority,
            });
        }
        for &overhead in &self.overheads {
            if !OVERHEADS.contains(&overhead) {
                return Err(Error::Overhead { overhead });
            }
            let table = self.table(overhead);
            if RESERVED.contains(&table) || table == u32::MAX {
                return Err(Error::ReservedTable {
                    table,
                    base: self.table_base,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtu_and_mss_follow_from_the_uplink() {
        let plan = Plan::new("up0", [40]);
        let talk = Plan {
            mss: Mss::TalkOptions,
            ..plan.clone()
        };
        // uplink, overhead, inner MTU, MSS of IPv4, of IPv6, and the talk's of IPv6.
        let cases = [
            (1500, 40, 1460, 1420, 1400, 1388),
            (1500, 56, 1444, 1404, 1384, 1372),
            (1500, 20, 1480, 1440, 1420, 1408),
            (1500, 80, 1420, 1380, 1360, 1348),
            (9000, 56, 8944, 8904, 8884, 8872),
            (1320, 40, 1280, 1240, 1220, 1208),
        ];
        for (uplink, overhead, mtu, v4, v6, talks) in cases {
            let of = |plan: &Plan, family| plan.inner(family, overhead, uplink);
            assert_eq!(of(&plan, Family::V4), Inner { mtu, advmss: v4 });
            assert_eq!(of(&plan, Family::V6), Inner { mtu, advmss: v6 });
            assert_eq!(of(&talk, Family::V6), Inner { mtu, advmss: talks });
            assert_eq!(of(&talk, Family::V4).advmss, v4 - 12);
        }
    }

    #[test]
    fn ipv6_has_its_minimum() {
        let plan = Plan::new("up0", [40]);
        let inner = |family, outer| plan.checked_inner(family, 40, outer, || "up0".to_owned());
        assert!(inner(Family::V6, 1320).is_ok());
        assert!(inner(Family::V4, 1319).is_ok());
        let error = inner(Family::V6, 1319).unwrap_err();
        assert!(
            error.to_string().contains("1279 of 1319"),
            "{error}, without numbers"
        );
    }

    #[test]
    fn a_plan_that_makes_no_sense_is_refused() {
        let plan = Plan::new("up0", [40, 56]);
        assert!(plan.validate().is_ok());
        let refused = |plan: Plan| plan.validate().unwrap_err().to_string();
        for overhead in [0, 19, 81, 127, 255] {
            let text = refused(Plan::new("up0", [40, overhead]));
            assert!(text.contains(&format!("overhead of {overhead}")), "{text}");
        }
        assert!(refused(Plan::new("up0", [])).contains("no overhead"));
        for rule_priority in [0, 32_766] {
            let text = refused(Plan {
                rule_priority,
                ..plan.clone()
            });
            assert!(text.contains("priority"), "{text}");
        }
        for table_base in [254 - 40, 255 - 56, u32::MAX - 50] {
            let text = refused(Plan {
                table_base,
                ..plan.clone()
            });
            assert!(text.contains("another table base"), "{text}");
        }
    }

    #[test]
    fn a_mark_is_the_overhead_below_the_sentinel() {
        assert_eq!(Plan::mark(40), 0x0028_0000);
        assert_eq!(Plan::mark(80), 0x0050_0000);
    }
}

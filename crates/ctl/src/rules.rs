//! The rules of a policy as operators write them, by flags or in a file, and as maps hold them.

mod text;

use crate::Usage;
use clap::Args;
use dynencap::{Exit, Reflect};
use dynencap_abi::{
    Exit as Layout, MAX_OVERHEAD, POLICY_EXIT_CHOOSE, POLICY_EXIT_FOLLOW, POLICY_EXIT_REFLECT,
    Policy, PolicyExitKey, PortRange,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};
pub(crate) use text::{Ports, Prefix, Text};

/// What the processes of a cgroup may do. Without a cgroup: that of a cgroup that is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Rules {
    /// cgroup2 directory, absolute or below the installed one
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) cgroup: PathBuf,
    /// Gateways that are allowed: addresses or prefixes; the longest match decides
    #[arg(long, value_name = "PREFIX", num_args = 1..)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) allow: Vec<Text<Prefix>>,
    /// Gateways that are not, whatever for
    #[arg(long, value_name = "PREFIX", num_args = 1..)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) deny: Vec<Text<Prefix>>,
    /// Peers to which replies may go by the path of the packets that came in
    #[arg(long, value_name = "PREFIX", num_args = 1..)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reflect: Vec<Text<Prefix>>,
    /// The same, and live connections may move to them
    #[arg(long, value_name = "PREFIX", num_args = 1..)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) follow: Vec<Text<Prefix>>,
    /// What sockets reflect that do not say: `off`, or of path, dscp, mark
    #[arg(long, value_name = "WHAT")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reflect_default: Option<Text<Reflect>>,
    /// UDP destination ports that are allowed, such as 4789,6000-6100; none: no UDP
    #[arg(long, value_name = "PORTS", num_args = 1.., value_delimiter = ',')]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ports: Vec<Text<Ports>>,
    /// Allow custom headers behind UDP
    #[arg(long)]
    #[serde(default)]
    pub(crate) custom_headers: bool,
    /// Outer source address of IPv6 headers [default: the packet's own, or the host's]
    #[arg(long, value_name = "IPV6")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<Ipv6Addr>,
    /// Outer source address of IPv4 headers [default: the packet's own, or the host's]
    #[arg(long, value_name = "IPV4")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source4: Option<Ipv4Addr>,
    /// Exit with which every new socket begins
    #[arg(long, value_name = "EXIT")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default_exit: Option<Text<Exit>>,
    /// An exit may be changed, but not cleared
    #[arg(long)]
    #[serde(default)]
    pub(crate) required: bool,
    /// Bytes of outer headers for which routes of new sockets are planned
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u8).range(..=MAX_OVERHEAD as i64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reserve: Option<u8>,
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// The prefixes of a policy, and the bits `POLICY_EXIT_…` of each.
type Exits = BTreeMap<(u32, [u8; 16]), u32>;

impl Rules {
    /// What no policy can mean is refused, in the words of the fields.
    pub(crate) fn check(&self) -> Result<(), Usage> {
        let fail = |text: String| Err(Usage(text));
        if self.ports.len() > Policy::MAX_PORTS {
            return fail(format!(
                "ports: expected at most {} ranges, found {}",
                Policy::MAX_PORTS,
                self.ports.len()
            ));
        }
        for (name, prefixes) in self.lists() {
            if let Some(both) = prefixes.iter().find(|prefix| self.deny.contains(prefix)) {
                return fail(format!("{name} and deny: {} stands in both", both.0));
            }
        }
        if let Some(Text(reflect)) = self.reflect_default
            && reflect.contains(Reflect::PATH)
            && self.reflect.is_empty()
            && self.follow.is_empty()
        {
            return fail(format!(
                "reflect-default {reflect}: no peer is allowed: add its prefix to reflect"
            ));
        }
        if self
            .source
            .is_some_and(|a| a.is_unspecified() || a.is_multicast())
        {
            return fail("source: expected a unicast address of this host".to_owned());
        }
        if self
            .source4
            .is_some_and(|a| a.is_unspecified() || a.is_multicast())
        {
            return fail("source4: expected a unicast address of this host".to_owned());
        }
        let Some(Text(exit)) = &self.default_exit else {
            return Ok(());
        };
        let lacks = |what: String| {
            Err(Usage(format!(
                "default-exit {exit}: this policy does not allow it: {what}"
            )))
        };
        if !self.allows(exit.gateway()) {
            return lacks(format!("add {} to allow", exit.gateway()));
        }
        if let Some(udp) = exit.udp() {
            let port = udp.destination_port.get();
            if !self
                .ports
                .iter()
                .any(|Text(Ports(a, b))| (*a..=*b).contains(&port))
            {
                return lacks(format!("add {port} to ports"));
            }
            if !udp.header.as_bytes().is_empty() && !self.custom_headers {
                return lacks("set custom-headers".to_owned());
            }
        }
        Ok(())
    }

    /// Each list that allows something.
    fn lists(&self) -> [(&'static str, &[Text<Prefix>]); 3] {
        [
            ("allow", &self.allow),
            ("reflect", &self.reflect),
            ("follow", &self.follow),
        ]
    }

    fn allows(&self, gateway: IpAddr) -> bool {
        self.lets(&self.allow, IpNet::from(gateway))
    }

    /// Whether `list` allows these gateways: the longest prefix that holds them, of the list's
    /// and those of `deny`, decides.
    fn lets(&self, list: &[Text<Prefix>], gateways: IpNet) -> bool {
        let of = |prefixes: &[Text<Prefix>]| {
            prefixes
                .iter()
                .filter(|Text(Prefix(net))| net.contains(&gateways))
                .map(|Text(Prefix(net))| net.prefix_len())
                .max()
        };
        match (of(list), of(&self.deny)) {
            (Some(allowed), denied) => denied.is_none_or(|denied| denied < allowed),
            (None, _) => false,
        }
    }

    /// What may be done with these gateways.
    fn bits(&self, Prefix(gateways): Prefix) -> u32 {
        let reflects = POLICY_EXIT_REFLECT;
        [
            (&self.allow, POLICY_EXIT_CHOOSE),
            (&self.reflect, reflects),
            (&self.follow, reflects | POLICY_EXIT_FOLLOW),
        ]
        .into_iter()
        .filter_map(|(list, bits)| self.lets(list, gateways).then_some(bits))
        .fold(0, |all, bits| all | bits)
    }

    /// The policy's value, under the id `id`.
    pub(crate) fn policy(&self, id: u32) -> Policy {
        let mut ports = [PortRange::default(); Policy::MAX_PORTS];
        for (place, Text(Ports(first, last))) in ports.iter_mut().zip(&self.ports) {
            *place = PortRange {
                first: *first,
                last: *last,
            };
        }
        let flags = [
            (self.custom_headers, Policy::CUSTOM_HEADERS),
            (self.default_exit.is_some(), Policy::DEFAULT_EXIT),
            (self.required, Policy::REQUIRED),
        ];
        Policy {
            source: self.source.map_or([0; 16], |address| address.octets()),
            source4: self.source4.map_or([0; 4], |address| address.octets()),
            id,
            flags: flags
                .into_iter()
                .filter_map(|(on, flag)| on.then_some(flag))
                .sum(),
            reserve: self.reserve.map_or(0, u32::from),
            port_count: u32::try_from(self.ports.len()).unwrap_or(0),
            reflect: self.reflect_default.map_or(0, |Text(what)| what.bits()),
            ports,
            default_exit: self
                .default_exit
                .map_or(Layout::NONE, |Text(exit)| exit.to_abi()),
        }
    }

    /// Its prefixes. In the map the longest decides for all at once, so each has what every list
    /// says of it.
    pub(crate) fn exits(&self, id: u32) -> Vec<(PolicyExitKey, u32)> {
        let mut exits = Exits::new();
        for prefixes in [&self.allow, &self.reflect, &self.follow, &self.deny] {
            for Text(prefix) in prefixes {
                exits.insert(prefix.mapped(), self.bits(*prefix));
            }
        }
        // ::/0 and the like hold the IPv4-mapped addresses too, which are IPv4 gateways.
        exits.entry(Self::all_ipv4()).or_insert(0);
        exits
            .into_iter()
            .map(|((length, address), bits)| {
                let key = PolicyExitKey {
                    prefix_len: 32 + length,
                    policy: id,
                    address,
                };
                (key, bits)
            })
            .collect()
    }

    fn all_ipv4() -> (u32, [u8; 16]) {
        (96, Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets())
    }

    /// The rules of a policy that stands in the maps; `exits` may hold those of others.
    pub(crate) fn of(policy: &Policy, exits: &[(PolicyExitKey, u32)]) -> Self {
        let mut rules = Self {
            custom_headers: policy.flags & Policy::CUSTOM_HEADERS != 0,
            required: policy.flags & Policy::REQUIRED != 0,
            source: Some(Ipv6Addr::from(policy.source)).filter(|a| !a.is_unspecified()),
            source4: Some(Ipv4Addr::from(policy.source4)).filter(|a| !a.is_unspecified()),
            default_exit: (policy.flags & Policy::DEFAULT_EXIT != 0)
                .then(|| Exit::from_abi(&policy.default_exit).map(Text))
                .flatten(),
            reflect_default: Reflect::from_bits(policy.reflect)
                .filter(|what| *what != Reflect::OFF)
                .map(Text),
            reserve: u8::try_from(policy.reserve).ok().filter(|bytes| *bytes > 0),
            ..Self::default()
        };
        let count = usize::try_from(policy.port_count).unwrap_or(0);
        for range in policy.ports.iter().take(count) {
            rules.ports.push(Text(Ports(range.first, range.last)));
        }
        let own: Vec<(Prefix, u32)> = exits
            .iter()
            .filter(|(key, _)| key.policy == policy.id)
            .map(|(key, bits)| ((key.prefix_len.saturating_sub(32), key.address), *bits))
            .filter(|(prefix, bits)| *prefix != Self::all_ipv4() || *bits != 0)
            .filter_map(|((length, address), bits)| Some((Prefix::of(length, address)?, bits)))
            .collect();
        for (prefix, bits) in &own {
            rules.add(*prefix, *bits, inherited(*prefix, &own));
        }
        rules
    }

    /// Puts a prefix into the lists that its bits stand for. What it has from a shorter one is
    /// left out, unless it has nothing else.
    fn add(&mut self, prefix: Prefix, bits: u32, inherited: u32) {
        let own = match bits & !inherited {
            0 => bits,
            own => own,
        };
        let follows = own & POLICY_EXIT_FOLLOW != 0;
        for (list, is_in) in [
            (&mut self.deny, bits == 0),
            (&mut self.allow, own & POLICY_EXIT_CHOOSE != 0),
            (
                &mut self.reflect,
                own & POLICY_EXIT_REFLECT != 0 && !follows,
            ),
            (&mut self.follow, follows),
        ] {
            list.extend(is_in.then_some(Text(prefix)));
        }
    }

    /// Exactly this exit, for every socket from its creation on.
    pub(crate) fn only(exit: &Exit) -> Self {
        let gateway = IpNet::from(exit.gateway());
        let port = exit.udp().map(|udp| udp.destination_port.get());
        Self {
            allow: vec![Text(Prefix(gateway))],
            ports: port
                .map(|port| Text(Ports(port, port)))
                .into_iter()
                .collect(),
            custom_headers: exit
                .udp()
                .is_some_and(|udp| !udp.header.as_bytes().is_empty()),
            default_exit: Some(Text(*exit)),
            required: true,
            ..Self::default()
        }
    }
}

/// The bits of the next shorter prefix that holds this one.
fn inherited(Prefix(net): Prefix, all: &[(Prefix, u32)]) -> u32 {
    all.iter()
        .filter(|(Prefix(other), _)| *other != net && other.contains(&net))
        .max_by_key(|(Prefix(other), _)| other.prefix_len())
        .map_or(0, |(_, bits)| *bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> Vec<Text<Prefix>> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn rules() -> Rules {
        Rules {
            cgroup: PathBuf::new(),
            allow: prefixes(&["2001:db8::/32", "192.0.2.0/24"]),
            deny: prefixes(&["2001:db8:bad::/48"]),
            reflect: prefixes(&["2001:db8:2::/48", "198.51.100.0/24"]),
            follow: prefixes(&["2001:db8:2:3::/64"]),
            reflect_default: Some(Text(Reflect::PATH | Reflect::DSCP)),
            ports: vec!["4789".parse().unwrap(), "6000-6100".parse().unwrap()],
            custom_headers: true,
            source: Some("2001:db8::5".parse().unwrap()),
            source4: None,
            default_exit: Some("2001:db8::1/udp:6080,header=01".parse().unwrap()),
            required: true,
            reserve: Some(56),
        }
    }

    #[test]
    fn what_was_written_is_what_is_read() {
        let rules = rules();
        assert!(rules.check().is_ok());
        let policy = rules.policy(7);
        assert_eq!(policy.port_count, 2);
        let read = Rules::of(&policy, &rules.exits(7));
        let sorted = |mut rules: Rules| {
            rules.allow.sort();
            rules
        };
        assert_eq!(sorted(read), sorted(rules));
    }

    #[test]
    fn prefixes_become_keys_with_ipv4_mapped() {
        const CHOOSE: u32 = POLICY_EXIT_CHOOSE;
        let exits = rules().exits(7);
        let find = |text: &str, length| {
            let address: Ipv6Addr = text.parse().unwrap();
            exits
                .iter()
                .find(|(key, _)| key.address == address.octets() && key.prefix_len == length)
                .map(|(key, bits)| (key.policy, *bits))
        };
        assert_eq!(find("2001:db8::", 64), Some((7, CHOOSE)));
        assert_eq!(find("2001:db8:bad::", 80), Some((7, 0)));
        assert_eq!(find("::ffff:192.0.2.0", 152), Some((7, CHOOSE)));
        let reflects = CHOOSE | POLICY_EXIT_REFLECT;
        assert_eq!(find("2001:db8:2::", 80), Some((7, reflects)));
        assert_eq!(
            find("2001:db8:2:3::", 96),
            Some((7, reflects | POLICY_EXIT_FOLLOW))
        );
        assert_eq!(
            find("::ffff:198.51.100.0", 152),
            Some((7, POLICY_EXIT_REFLECT))
        );
        assert_eq!(find("::ffff:0.0.0.0", 128), Some((7, 0)), "all other IPv4");
        assert_eq!(exits.len(), 7);
        let all = Rules {
            allow: prefixes(&["::/0", "0.0.0.0/0"]),
            ..Rules::default()
        };
        assert!(all.exits(1).iter().all(|(_, bits)| *bits == CHOOSE));
    }

    #[test]
    fn errors_name_field_and_expectation() {
        for (text, words) in [
            (
                "2001:db8::1/32",
                "zero bits behind the prefix, as in 2001:db8::/32",
            ),
            ("example", "expected an address or prefix"),
            ("::ffff:192.0.2.0/120", "not IPv4-mapped"),
        ] {
            let error = text.parse::<Prefix>().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        for text in ["0", "a", "7-6", "1-65536", "-"] {
            assert!(text.parse::<Ports>().unwrap_err().contains(text));
        }
        let refused = |rules: Rules| rules.check().unwrap_err().to_string();
        let without = |change: fn(&mut Rules)| {
            let mut rules = rules();
            change(&mut rules);
            refused(rules)
        };
        assert!(without(|r| r.allow.clear()).contains("add 2001:db8::1 to allow"));
        assert!(without(|r| r.ports.clear()).contains("add 6080 to ports"));
        assert!(without(|r| r.custom_headers = false).contains("set custom-headers"));
        assert!(without(|r| r.deny = r.allow.clone()).contains("2001:db8::/32 stands in both"));
        assert!(without(|r| r.deny = r.follow.clone()).contains("follow and deny"));
        assert!(without(|r| (r.reflect.clear(), r.follow.clear()).1).contains("to reflect"));
        assert!(without(|r| r.ports = vec!["1".parse().unwrap(); 9]).contains("at most 8"));
        assert!(without(|r| r.source = Some(Ipv6Addr::UNSPECIFIED)).contains("source"));
        assert!(
            without(|r| r.deny = prefixes(&["2001:db8::/126"])).contains("to allow"),
            "the longest prefix decides"
        );
    }

    #[test]
    fn the_rules_of_exec_allow_its_exit_alone() {
        for text in ["2001:db8::1", "192.0.2.1/udp:6080,header=0102"] {
            let exit: Exit = text.parse().unwrap();
            let rules = Rules::only(&exit);
            assert!(rules.check().is_ok());
            assert!(rules.allows(exit.gateway()));
            assert!(!rules.allows("2001:db8::2".parse().unwrap()));
        }
    }
}

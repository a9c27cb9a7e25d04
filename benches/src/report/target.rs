//! The targets: what is held against what, and how far it may be. Figures are quotients or
//! differences of medians that the tables show.

use super::Report;

/// One of them.
pub(super) struct Target {
    /// Under which reasons.toml says why it is not met.
    pub(super) key: &'static str,
    /// In words.
    pub(super) what: &'static str,
    bound: Bound,
    /// What was measured.
    pub(super) figure: fn(&Report) -> Option<f64>,
}

#[derive(Clone, Copy)]
enum Bound {
    /// A ratio of at least that.
    AtLeast(f64),
    /// A ratio of at most that.
    AtMost(f64),
    /// So many nanoseconds at most.
    Within(f64),
    /// So many million packets a second at least.
    Rate(f64),
}

impl Target {
    pub(super) fn is_met(&self, figure: f64) -> bool {
        match self.bound {
            Bound::AtLeast(least) | Bound::Rate(least) => figure >= least,
            Bound::AtMost(most) | Bound::Within(most) => figure <= most,
        }
    }

    pub(super) fn limit(&self) -> String {
        match self.bound {
            Bound::AtLeast(least) => format!("at least {least:.2}"),
            Bound::AtMost(most) => format!("at most {most:.2}"),
            Bound::Within(most) => format!("at most {most:.0} ns"),
            Bound::Rate(least) => format!("at least {least:.1} M/s"),
        }
    }

    pub(super) fn shown(&self, figure: f64) -> String {
        match self.bound {
            Bound::AtLeast(_) | Bound::AtMost(_) => format!("{figure:.3}"),
            Bound::Within(_) => format!("{figure:.1} ns"),
            Bound::Rate(_) => format!("{figure:.1} M/s"),
        }
    }
}

fn ns(report: &Report, name: &str) -> Option<f64> {
    report.median("egress", name, "ns")
}

fn share(report: &Report, name: &str) -> Option<f64> {
    report.median("packets", name, "of plain")
}

fn tcp(report: &Report, name: &str) -> Option<f64> {
    report.median("tcp", name, "of plain")
}

fn call(report: &Report, name: &str) -> Option<f64> {
    report.median("control", name, "ns")
}

fn tool(report: &Report, name: &str) -> Option<f64> {
    report.median("userspace", name, "Mpps")
}

fn engine(report: &Report, name: &str) -> Option<f64> {
    report.median("engines", name, "ns")
}

fn of(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(one? / other?)
}

macro_rules! target {
    ($key:literal, $what:literal, $bound:expr, |$report:ident| $figure:expr) => {
        Target {
            key: $key,
            what: $what,
            bound: $bound,
            figure: |$report| $figure,
        }
    };
}

/// All of them, in the order of the table.
pub(super) const ALL: &[Target] = &[
    target!(
        "hit-ip6",
        "egress hit, IPv6: ns of the C program's",
        Bound::AtMost(1.03),
        |r| of(ns(r, "dynencap, IPv6"), ns(r, "C with lookup, IPv6"))
    ),
    target!(
        "hit-udp",
        "egress hit, UDP + 8: ns of the C program's",
        Bound::AtMost(1.03),
        |r| of(
            ns(r, "dynencap, IPv6, UDP + 8"),
            ns(r, "C with lookup, IPv6, UDP + 8")
        )
    ),
    target!(
        "hit-ip6-headroom",
        "the same with headroom, IPv6",
        Bound::AtMost(1.03),
        |r| of(
            ns(r, "dynencap, IPv6, headroom"),
            ns(r, "C with lookup, IPv6, headroom")
        )
    ),
    target!(
        "hit-udp-headroom",
        "the same with headroom, UDP + 8",
        Bound::AtMost(1.03),
        |r| of(
            ns(r, "dynencap, IPv6, UDP + 8, headroom"),
            ns(r, "C with lookup, IPv6, UDP + 8, headroom")
        )
    ),
    target!(
        "rate-ip6",
        "packets/s of the C program's, IPv6",
        Bound::AtLeast(0.97),
        |r| of(share(r, "dynencap, IPv6"), share(r, "C with lookup, IPv6"))
    ),
    target!(
        "rate-udp",
        "packets/s of the C program's, UDP + 8",
        Bound::AtLeast(0.97),
        |r| of(
            share(r, "dynencap, IPv6, UDP + 8"),
            share(r, "C with lookup, IPv6, UDP + 8")
        )
    ),
    target!(
        "rate-ip6-headroom",
        "the same with headroom, IPv6",
        Bound::AtLeast(0.97),
        |r| of(
            share(r, "dynencap, IPv6, headroom"),
            share(r, "C with lookup, IPv6, headroom")
        )
    ),
    target!(
        "rate-udp-headroom",
        "the same with headroom, UDP + 8",
        Bound::AtLeast(0.97),
        |r| of(
            share(r, "dynencap, IPv6, UDP + 8, headroom"),
            share(r, "C with lookup, IPv6, UDP + 8, headroom")
        )
    ),
    target!(
        "miss",
        "egress miss: ns beyond the bare lookup",
        Bound::Within(10.0),
        |r| Some(ns(r, "dynencap, miss")? - ns(r, "C lookup alone, miss")?)
    ),
    target!(
        "plain",
        "packets/s of plain, with headroom, IPv6",
        Bound::AtLeast(0.94),
        |r| { share(r, "dynencap, IPv6, headroom") }
    ),
    target!(
        "plain-udp",
        "packets/s of plain, with headroom, UDP + 8",
        Bound::AtLeast(0.94),
        |r| share(r, "dynencap, IPv6, UDP + 8, headroom")
    ),
    target!(
        "vxlan",
        "packets/s of vxlan's, UDP + 8, both with headroom",
        Bound::AtLeast(1.2),
        |r| of(
            share(r, "dynencap, IPv6, UDP + 8, headroom"),
            share(r, "vxlan, headroom")
        )
    ),
    target!(
        "lwt",
        "packets/s of LWT BPF's, IPv6, both with headroom",
        Bound::AtLeast(1.3),
        |r| of(
            share(r, "dynencap, IPv6, headroom"),
            share(r, "LWT BPF push_encap, headroom")
        )
    ),
    target!(
        "seg6",
        "packets/s of seg6's, IPv6, both with headroom",
        Bound::AtLeast(1.4),
        |r| of(
            share(r, "dynencap, IPv6, headroom"),
            share(r, "seg6 encap, headroom")
        )
    ),
    target!(
        "tcp-ip6",
        "TCP on one CPU, of plain, IPv6",
        Bound::AtLeast(0.94),
        |r| tcp(r, "dynencap, IPv6")
    ),
    target!(
        "tcp-udp",
        "TCP on one CPU, of plain, UDP + 8",
        Bound::AtLeast(0.94),
        |r| tcp(r, "dynencap, IPv6, UDP + 8")
    ),
    target!(
        "tcp-c-ip6",
        "TCP, of the C program's, IPv6",
        Bound::AtLeast(1.0),
        |r| of(tcp(r, "dynencap, IPv6"), tcp(r, "C with lookup, IPv6"))
    ),
    target!(
        "tcp-c-udp",
        "TCP, of the C program's, UDP + 8",
        Bound::AtLeast(1.0),
        |r| of(
            tcp(r, "dynencap, IPv6, UDP + 8"),
            tcp(r, "C with lookup, IPv6, UDP + 8")
        )
    ),
    target!(
        "first-ip6",
        "TCP segment-first, of plain with GSO off, IPv6",
        Bound::AtLeast(0.80),
        |r| tcp(r, "dynencap, IPv6, segment-first")
    ),
    target!(
        "first-udp",
        "TCP segment-first, of plain with GSO off, UDP + 8",
        Bound::AtLeast(0.80),
        |r| tcp(r, "dynencap, IPv6, UDP + 8, segment-first")
    ),
    target!(
        "flat",
        "packets/s of a socket among the most with exits of their own, of those of one",
        Bound::AtLeast(0.95),
        |r| {
            let end = " sockets with exits, connected";
            let mut rates = r.rows.iter().filter(|row| {
                row.group == "exits" && row.unit == "Mpps" && row.name.ends_with(end)
            });
            let (one, most) = (rates.next()?, rates.next_back()?);
            Some(most.summary.median / one.summary.median)
        }
    ),
    target!(
        "replay",
        "dynsim replay by the model to /dev/null, of tcprewrite's packets/s, one core",
        Bound::AtLeast(2.0),
        |r| of(
            tool(r, "dynsim model, 1 core, written"),
            tool(r, "tcprewrite")
        )
    ),
    target!(
        "replay-cores",
        "dynsim replay by the model to /dev/null, two cores, of one",
        Bound::AtLeast(1.7),
        |r| of(
            tool(r, "dynsim model, 2 cores, written"),
            tool(r, "dynsim model, 1 core, written")
        )
    ),
    target!(
        "replay-vm",
        "dynsim replay by the vm, on one core",
        Bound::Rate(2.0),
        |r| tool(r, "dynsim vm, 1 core")
    ),
    target!(
        "vm",
        "vm from memory, egress, IPv6",
        Bound::Rate(2.0),
        |r| Some(1e3 / engine(r, "vm, egress, IPv6, dynencap")?)
    ),
    target!(
        "set",
        "ENCAP_GW, of SO_MARK without a hook",
        Bound::AtMost(1.15),
        |r| of(
            call(r, "ENCAP_GW, another each time, dynencap"),
            call(r, "SO_MARK, no hook")
        )
    ),
    target!(
        "tax",
        "other options: ns beyond an empty program's",
        Bound::Within(10.0),
        |r| Some(call(r, "SO_MARK, dynencap")? - call(r, "SO_MARK, empty program")?)
    ),
];

//! Tables of the report, in the order in which things were measured.

use super::Report;
use crate::{Row, engines, lineup, sample::Summary};
use std::fmt::Write as _;

const NOTHING: &str = "*not measured*\n";
const HEADROOM: &str = ", headroom";

/// Nanoseconds of each program, without headroom and with.
pub(super) fn egress(report: &Report) -> String {
    let mut text = "| program | ns | with headroom |\n|---|---|---|\n".to_owned();
    let rows = report
        .group("egress")
        .filter(|row| !row.name.ends_with(HEADROOM));
    let mut any = false;
    for row in rows {
        any = true;
        let with = report.median("egress", &format!("{}{HEADROOM}", row.name), "ns");
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            row.name,
            spread(&row.summary, 0),
            with.map_or_else(String::new, |with| format!("{with:.0}"))
        );
    }
    if any { text } else { NOTHING.to_owned() }
}

/// What each feature adds to the C program with lookup, in nanoseconds, and what ours adds.
pub(super) fn features(report: &Report) -> String {
    let shapes = ["IPv6", "IPv6, UDP + 8"];
    let ns = |name: &str, shape: &str| {
        report.median("egress", &format!("{name}, {shape}{HEADROOM}"), "ns")
    };
    let more = |name: &str, shape: &str| Some(ns(name, shape)? - ns(lineup::BASIS, shape)?);
    let mut text = "| with headroom | IPv6, ns | UDP + 8, ns |\n|---|---|---|\n".to_owned();
    let mut any = false;
    let mut line = |name: &str, sign: &str, figure: &dyn Fn(&str) -> Option<f64>| {
        let figures = shapes.map(figure);
        any |= figures.iter().any(Option::is_some);
        let [one, other] = figures.map(|figure| match (figure, sign) {
            (None, _) => String::new(),
            (Some(figure), "") => format!("{:.1}", unsigned_zero(figure, 1)),
            (Some(figure), _) => format!("{:+.1}", unsigned_zero(figure, 1)),
        });
        let _ = writeln!(text, "| {name} | {one} | {other} |");
    };
    line(lineup::BASIS, "", &|shape| ns(lineup::BASIS, shape));
    for feature in &lineup::FEATURES {
        if feature.is_part {
            // It is in what all are compared with: the one without it says what it costs.
            let label = format!("of which {}", feature.what);
            line(&label, "", &|shape| Some(-more(feature.name, shape)?));
        } else {
            let label = format!("+ {}", feature.what);
            line(&label, "+", &|shape| more(feature.name, shape));
        }
    }
    line("dynencap, all it adds", "+", &|shape| {
        more("dynencap", shape)
    });
    line("dynencap", "", &|shape| ns("dynencap", shape));
    if any { text } else { NOTHING.to_owned() }
}

/// Packets a second, their ratio to plain and what a packet takes longer, without headroom and
/// with.
pub(super) fn packets(report: &Report) -> String {
    let mut text = "| variant | Mpps | of plain | + ns | with headroom: Mpps | of plain | + ns |\n\
                    |---|---|---|---|---|---|---|\n"
        .to_owned();
    let cells = |name: &str, plain: &str| {
        let rate = report.median("packets", name, "Mpps")?;
        let share = report.median("packets", name, "of plain")?;
        let plain = report.median("packets", plain, "Mpps")?;
        let more = 1e3 / (plain * share) - 1e3 / plain;
        Some(format!("{rate:.3} | {share:.3} | {more:.0}"))
    };
    let rows = report
        .group("packets")
        .filter(|row| row.unit == "Mpps" && !row.name.ends_with(HEADROOM));
    let mut any = false;
    for row in rows {
        any = true;
        let none = || " | | ".to_owned();
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            row.name,
            cells(&row.name, "plain").unwrap_or_else(none),
            cells(&format!("{}{HEADROOM}", row.name), "plain, headroom").unwrap_or_else(none)
        );
    }
    if any { text } else { NOTHING.to_owned() }
}

/// A figure and its ratio to plain.
pub(super) fn with_ratio(report: &Report, group: &str, unit: &str, digits: usize) -> String {
    let mut text = format!("| variant | {unit} | of plain |\n|---|---|---|\n");
    let mut any = false;
    for row in report.group(group).filter(|row| row.unit == unit) {
        any = true;
        let share = report.median(group, &row.name, "of plain");
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            row.name,
            spread(&row.summary, digits),
            share.map_or_else(String::new, |share| format!("{share:.2}"))
        );
    }
    if any { text } else { NOTHING.to_owned() }
}

/// One figure a row.
pub(super) fn plain(report: &Report, group: &str, unit: &str) -> String {
    let mut text = format!("| variant | {unit} |\n|---|---|\n");
    let digits = if unit == "ns" { 0 } else { 2 };
    let rows: Vec<&Row> = report.group(group).filter(|row| row.unit == unit).collect();
    for row in &rows {
        let _ = writeln!(text, "| {} | {} |", row.name, spread(&row.summary, digits));
    }
    if rows.is_empty() {
        return NOTHING.to_owned();
    }
    text
}

/// Nanoseconds, and how many a second that makes; of super-packets their segments.
pub(super) fn engines(report: &Report) -> String {
    let mut text = "| operation | ns | million a second |\n|---|---|---|\n".to_owned();
    let mut any = false;
    for row in report.group("engines") {
        any = true;
        let median = row.summary.median.max(f64::MIN_POSITIVE);
        let (many, of) = if row.name.contains("in segments") {
            (engines::SEGMENTS as f64, " segments")
        } else {
            (1.0, "")
        };
        let _ = writeln!(
            text,
            "| {} | {} | {:.1}{of} |",
            row.name,
            spread(&row.summary, 0),
            many * 1e3 / median
        );
    }
    if any { text } else { NOTHING.to_owned() }
}

/// What it takes to have many exits, and what packets pay for them.
pub(super) fn exits(report: &Report) -> String {
    let mut text =
        "| exits | up | down | memory | Mpps, connected | unconnected | unconnected, no mark |\n\
                    |---|---|---|---|---|---|---|\n"
            .to_owned();
    let value = |name: &str, unit: &str| report.median("exits", name, unit);
    let mut any = false;
    let connected = ", connected";
    for row in report.group("exits").filter(|row| row.unit == "Mpps") {
        let Some(name) = row.name.strip_suffix(connected) else {
            continue;
        };
        any = true;
        let time = |unit| value(name, unit).map_or_else(String::new, milliseconds);
        let memory = value(name, "kB").map_or_else(String::new, |kilobytes| {
            format!("{:.1} MB", kilobytes / 1024.0)
        });
        let rate = |suffix: &str| {
            let rate = value(&format!("{name}{suffix}"), "Mpps");
            rate.map_or_else(String::new, |rate| format!("{rate:.3}"))
        };
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {memory} | {} | {} | {} |",
            time("ms up"),
            time("ms down"),
            rate(connected),
            rate(", unconnected"),
            rate(", unconnected, no mark")
        );
    }
    if any { text } else { NOTHING.to_owned() }
}

fn milliseconds(time: f64) -> String {
    if time >= 1000.0 {
        format!("{:.1} s", time / 1e3)
    } else if time >= 1.0 {
        format!("{time:.0} ms")
    } else {
        format!("{:.0} µs", time * 1e3)
    }
}

/// So that nothing is not less than nothing: for figures that round to zero.
fn unsigned_zero(figure: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    // Adding 0 makes 0 of -0.
    (figure * scale).round() / scale + 0.0
}

/// The median, and the middle half where it is wider than a hundredth.
fn spread(summary: &Summary, digits: usize) -> String {
    let Summary {
        median,
        lower,
        upper,
        ..
    } = summary;
    let [median, lower, upper] =
        [median, lower, upper].map(|figure| unsigned_zero(*figure, digits as i32));
    if (upper - lower).abs() > median.abs() / 100.0 {
        format!("{median:.digits$} ({lower:.digits$}–{upper:.digits$})")
    } else {
        format!("{median:.digits$}")
    }
}

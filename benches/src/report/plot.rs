//! Bars as SVG: what the tables say, at a glance.

use super::Report;
use std::fmt::Write as _;

const ROW: usize = 20;
const LABELS: usize = 330;
const BARS: usize = 420;

/// A bar: label, value, whether it is ours.
struct Bar {
    label: String,
    value: f64,
    ours: bool,
}

/// Every plot: file name and contents.
pub(super) fn all(report: &Report) -> [(&'static str, String); 4] {
    let of = |group: &str, unit: &str, keep: fn(&str) -> bool| {
        let rows = report.rows.iter();
        let rows = rows.filter(|row| row.group == group && row.unit == unit && keep(&row.name));
        rows.map(|row| Bar {
            label: row.name.clone(),
            value: row.summary.median,
            ours: row.name.contains("dynencap") || row.name.contains("sockets"),
        })
        .collect::<Vec<_>>()
    };
    // The features have a table.
    let programs = of("egress", "ns", |name| {
        let is_feature = name.starts_with("C and ") || name.starts_with("C without ");
        !name.starts_with("empty") && !is_feature
    });
    let packets = of("packets", "of plain", |name| !name.starts_with("plain"));
    let tcp = of("tcp", "of plain", |_| true);
    let exits = of("exits", "Mpps", |name| {
        name.ends_with(", unconnected") || name == "plain, connected"
    });
    [
        (
            "performance-egress.svg",
            bars("Egress program alone, ns beyond an empty one", &programs),
        ),
        (
            "performance-packets.svg",
            bars("Packets a second, of plain", &packets),
        ),
        (
            "performance-tcp.svg",
            bars("TCP on one CPU, of plain", &tcp),
        ),
        (
            "performance-exits.svg",
            bars("Many exits: million packets a second, unconnected", &exits),
        ),
    ]
}

fn bars(title: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let width = LABELS + BARS + 70;
    let height = ROW * (bars.len() + 2);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"16\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    );
    for (row, bar) in bars.iter().enumerate() {
        let top = ROW * (row + 1) + 6;
        let text = top + 13;
        let long = (bar.value.max(0.0) / most.max(1e-9) * BARS as f64).round();
        let colour = if bar.ours { "#c2410c" } else { "#94a3b8" };
        let value = if most > 10.0 {
            format!("{:.0}", bar.value)
        } else {
            format!("{:.2}", bar.value)
        };
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LABELS}\" y=\"{top}\" width=\"{long}\" height=\"{}\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{text}\">{value}</text>",
            LABELS - 6,
            escaped(&bar.label),
            ROW - 4,
            LABELS as f64 + long + 5.0,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

//! docs/performance.md and its plots, from rows: a text with places for tables
//! (`report/performance.md`), targets, and the reasons for those that are not met
//! (`report/reasons.toml`).

mod plot;
mod table;
mod target;

use crate::{Error, Row, machine::Machine};
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

const TEXT: &str = include_str!("../../report/performance.md");
const REASONS: &str = include_str!("../../report/reasons.toml");

/// All that was measured, and where: what docs/performance.json holds.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// The figures.
    pub rows: Vec<Row>,
}

impl Report {
    /// The median of a row, if it was measured.
    #[must_use]
    pub fn median(&self, group: &str, name: &str, unit: &str) -> Option<f64> {
        let row = self
            .rows
            .iter()
            .find(|row| row.group == group && row.name == name && row.unit == unit)?;
        Some(row.summary.median)
    }

    fn group<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.group == group)
    }

    /// Writes performance.md, performance.json and the plots into `folder`.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(Error::io(folder.display().to_string()))?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(Error::io(path.display().to_string()))
        };
        let json = serde_json::to_string_pretty(self).map_err(|error| Error::Command {
            command: "performance.json".to_owned(),
            said: error.to_string(),
        })?;
        write("performance.json", &format!("{json}\n"))?;
        for (name, picture) in plot::all(self) {
            write(name, &picture)?;
        }
        write("performance.md", &self.text()?)
    }

    /// Reads performance.json.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).map_err(Error::io(name.clone()))?;
        serde_json::from_str(&text).map_err(|error| Error::Command {
            command: name,
            said: error.to_string(),
        })
    }

    fn text(&self) -> Result<String, Error> {
        let mut text = TEXT.to_owned();
        let mut put = |place: &str, value: String| {
            text = text.replace(&format!("{{{{{place}}}}}"), value.trim_end());
        };
        put("machine", self.machine());
        put("targets", self.targets()?);
        put("egress", table::egress(self));
        put("features", table::features(self));
        put("packets", table::packets(self));
        put("tcp", table::with_ratio(self, "tcp", "Gbit/s", 1));
        put("exits", table::exits(self));
        put("calls", table::plain(self, "control", "ns"));
        put(
            "connections",
            table::with_ratio(self, "control", "a second", 0),
        );
        put("userspace", table::plain(self, "userspace", "Mpps"));
        put("engines", table::engines(self));
        Ok(text)
    }

    fn machine(&self) -> String {
        let Machine {
            kernel,
            processor,
            processors,
            is_virtual,
            memory,
            date,
            others,
        } = &self.machine;
        let guest = if *is_virtual {
            ", a virtual machine"
        } else {
            ""
        };
        format!(
            "Measured in {date}: Linux {kernel}, {processors} processors ({processor}), \
             {memory} GB{guest}. Meanwhile others used {others:.1} % of the processors' time."
        )
    }

    fn targets(&self) -> Result<String, Error> {
        let reasons = reasons()?;
        let mut text =
            "| what | target | figure | met | if not, why |\n|---|---|---|---|---|\n".to_owned();
        for target in target::ALL {
            let figure = (target.figure)(self);
            let (shown, met) = match figure {
                Some(figure) => (
                    target.shown(figure),
                    if target.is_met(figure) {
                        "yes"
                    } else {
                        "**no**"
                    },
                ),
                None => ("not measured".to_owned(), "–"),
            };
            let missed = figure.is_none_or(|figure| !target.is_met(figure));
            let reason = reasons.get(target.key).filter(|_| missed);
            let _ = writeln!(
                text,
                "| {} | {} | {shown} | {met} | {} |",
                target.what,
                target.limit(),
                reason.map_or("", |reason| reason.trim())
            );
        }
        Ok(text)
    }

    /// Targets that were measured and are not met, by what they are about.
    pub fn missed(&self) -> Vec<String> {
        let missed = target::ALL.iter().filter_map(|target| {
            let figure = (target.figure)(self)?;
            (!target.is_met(figure)).then(|| {
                format!(
                    "{}: {}, not {}",
                    target.what,
                    target.shown(figure),
                    target.limit()
                )
            })
        });
        missed.collect()
    }
}

fn reasons() -> Result<BTreeMap<String, String>, Error> {
    toml::from_str(REASONS).map_err(|error| Error::Command {
        command: "reasons.toml".to_owned(),
        said: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Summary;

    fn report(rows: &[(&str, &str, &str, f64)]) -> Report {
        let row = |&(group, name, unit, value): &(&str, &str, &str, f64)| {
            Row::new(group, name, unit, Summary::of(&[value]))
        };
        Report {
            rows: rows.iter().map(row).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn every_reason_is_for_a_target_and_every_target_has_one() {
        let reasons = reasons().unwrap();
        let keys: Vec<&str> = reasons.keys().map(String::as_str).collect();
        let mut targets: Vec<&str> = target::ALL.iter().map(|target| target.key).collect();
        targets.sort_unstable();
        assert_eq!(keys, targets);
    }

    #[test]
    fn a_feature_costs_what_it_adds_to_the_c_program() {
        let text = table::features(&report(&[
            ("egress", "C with lookup, IPv6, headroom", "ns", 30.0),
            (
                "egress",
                "C without DSCP and ECN, IPv6, headroom",
                "ns",
                29.0,
            ),
            ("egress", "C and flow hash, IPv6, headroom", "ns", 34.5),
            ("egress", "dynencap, IPv6, headroom", "ns", 45.0),
        ]));
        for line in [
            "| C with lookup | 30.0 |  |",
            "| of which DSCP and ECN | 1.0 |  |",
            "| + the flow's hash: flow label, UDP source port | +4.5 |  |",
            "| dynencap, all it adds | +15.0 |  |",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn every_place_of_the_text_is_filled() {
        let text = Report::default().text().unwrap();
        assert!(!text.contains("{{"), "{text}");
    }

    #[test]
    fn a_target_is_met_or_missed_by_its_figure() {
        let rows = |ours| {
            report(&[
                ("egress", "C with lookup, IPv6", "ns", 100.0),
                ("egress", "dynencap, IPv6", "ns", ours),
            ])
        };
        assert_eq!(rows(102.0).missed(), [""; 0]);
        let missed = rows(104.0).missed();
        assert_eq!(missed.len(), 1);
        assert!(missed[0].contains("1.040"), "{missed:?}");
        let text = rows(104.0).targets().unwrap();
        assert!(text.contains("**no**"), "{text}");
    }

    #[test]
    fn what_was_written_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let written = report(&[("tcp", "plain", "Gbit/s", 15.5)]);
        written.write(folder.path()).unwrap();
        let read = Report::read(&folder.path().join("performance.json")).unwrap();
        assert_eq!(read.median("tcp", "plain", "Gbit/s"), Some(15.5));
        for (name, _) in plot::all(&written) {
            assert!(folder.path().join(name).exists());
        }
    }
}

//! Which captures there are, and what is expected of reading them.

use std::path::{Path, PathBuf};

/// A capture file.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    /// `testdata/…` or `traces/…`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) expected: Expected,
}

/// What reading it comes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    /// It is read to its end.
    Read,
    /// It is refused, with these words.
    Refused(&'static str),
}

/// Those of the shared traces that must be refused.
const REFUSED: &[(&str, &str)] = &[
    (
        "libpcap-pcap-invalid-version-1.pcap",
        "expected pcap version 2.4",
    ),
    (
        "pcap-parser-modified-format.pcap",
        "Kuznetzov's modified pcap is not supported",
    ),
    ("zeek-wlanmon.pcap", "found 105 (IEEE802_11)"),
];

/// Every capture of testdata, then of the shared traces where they are.
pub(crate) fn all() -> Vec<Capture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut captures = of_folder("testdata", &root.join("testdata"));
    assert!(!captures.is_empty(), "testdata holds captures");
    captures.extend(of_folder("traces", &root.join("../shared/traces")));
    captures
}

fn of_folder(name: &str, folder: &Path) -> Vec<Capture> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut captures: Vec<Capture> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let file = path.file_name()?.to_str()?.to_owned();
            let wanted = matches!(path.extension()?.to_str()?, "pcap" | "pcapng");
            let refused = REFUSED.iter().find(|(refused, _)| *refused == file);
            let expected = refused.map_or(Expected::Read, |(_, words)| Expected::Refused(words));
            wanted.then(|| Capture {
                name: format!("{name}/{file}"),
                path,
                expected,
            })
        })
        .collect();
    captures.sort_by(|a, b| a.name.cmp(&b.name));
    captures
}

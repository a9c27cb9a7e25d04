//! What reflection needs of an operator: the kernel's setting, and tunnels that end here.

use crate::{require::require, stage::Stage};
use aya::maps::{Array, Map, MapData};
use dynencap_abi::Config;
use std::fs;

/// Where tunnels to the host end.
const END: &str = "2001:db8:1::e";
const ACCEPT: &str = "/proc/sys/net/ipv4/tcp_fwmark_accept";

#[test]
fn the_kernels_setting_is_turned_on_and_comes_back() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    let setting = || stage.at_host(&format!("cat {ACCEPT}")).trim().to_owned();
    let set = |value: &str| stage.at_host(&format!("echo {value} > {ACCEPT}"));
    for was in ["0", "1"] {
        set(was);
        stage.up(&[]).exits(0);
        assert_eq!(setting(), was, "without reflection");
        stage.up(&["--reflect"]).exits(0);
        stage.up(&["--reflect"]).exits(0);
        assert_eq!(setting(), "1");
        stage.dynencap(&["status"]).exits(0);
        stage.up(&[]).exits(0);
        assert_eq!(setting(), was);
        stage.up(&["--reflect"]).exits(0);
        stage.dynencap(&["down"]).exits(0);
        assert_eq!(setting(), was);
    }
    set("0");
    stage.up(&["--reflect"]).exits(0);
    set("0");
    let status = stage.dynencap(&["status"]).exits(1);
    assert!(
        status.stdout.contains("tcp_fwmark_accept is NOT 1"),
        "{status:#?}"
    );
    stage.up(&["--reflect"]).exits(0);
    stage.dynencap(&["status"]).exits(0);
    // A failed one leaves no trace.
    stage.dynencap(&["down"]).exits(0);
    stage
        .up(&["--reflect", "--rule-priority", "40000"])
        .exits(1);
    assert_eq!(setting(), "0");
}

/// `Config::CAPTURE_OUTER` of the installation.
fn captures_outer(stage: &Stage) -> bool {
    let pin = stage.bpffs().join("dynencap/maps/CONFIG");
    let map = Map::Array(MapData::from_pin(pin).unwrap());
    let map: Array<MapData, [u8; size_of::<Config>()]> = map.try_into().unwrap();
    let flags = map.get(&0, 0).unwrap();
    let flags = u32::from_ne_bytes(flags[24..28].try_into().unwrap());
    flags & Config::CAPTURE_OUTER != 0
}

#[test]
fn tunnels_are_added_shown_applied_and_removed() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    let tunnel = |arguments: &[&str]| stage.dynencap(&[&["tunnel"], arguments].concat());
    tunnel(&["show"]).exits(1).says(&["nothing is installed"]);
    stage.up(&["--reflect"]).exits(0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tunnels.toml");
    let name = file.to_str().unwrap();
    let text = "[[tunnel]]
address = '192.0.2.1'
carries = 'udp'
port = 4790
header-len = 8
reflect = true

[[tunnel]]
address = '2001:db8:1::e'
carries = 'udp'
port = 6081
format = 'geneve'

[[tunnel]]
address = '2001:db8:1::e'
carries = 'ipv6'
kernel = true
reflect = true
";
    fs::write(&file, text).unwrap();
    tunnel(&["apply", name]).exits(0);
    assert!(captures_outer(&stage));
    let shown = tunnel(&["show"]).exits(0).stdout;
    fs::write(&file, &shown).unwrap();
    tunnel(&["apply", name]).exits(0);
    assert_eq!(
        tunnel(&["show"]).exits(0).stdout,
        shown,
        "as a file, it changes nothing"
    );
    let json = tunnel(&["show", "--json"]).exits(0).json();
    assert_eq!(json.as_array().unwrap().len(), 3, "{json:#}");
    stage.up(&["--reflect"]).exits(0);
    assert!(captures_outer(&stage), "another `up` leaves tunnels");
    tunnel(&["remove", "--address", "2001:db8:1::e", "--carries", "ipv6"]).exits(0);
    assert!(!captures_outer(&stage));
    for (port, count) in [("6081", "removed: 1\n"), ("6081", "removed: 0\n")] {
        let removed = tunnel(&[
            "remove",
            "--address",
            END,
            "--carries",
            "udp",
            "--port",
            port,
        ]);
        assert_eq!(removed.exits(0).stdout, count);
    }
    // All or nothing.
    fs::write(
        &file,
        format!("{text}\n[[tunnel]]\naddress = '::'\ncarries = 'ipv6'\n"),
    )
    .unwrap();
    tunnel(&["apply", name])
        .exits(2)
        .says(&[name, "line 20", "address ::"]);
    let json = tunnel(&["show", "--json"]).exits(0).json();
    assert_eq!(json[0]["address"], "192.0.2.1", "{json:#}");
    assert_eq!(json.as_array().unwrap().len(), 1, "{json:#}");
    stage.dynencap(&["down"]).exits(0);
}

//! Installing, comparing and removing: again, in part, halfway, and without permission.

use crate::{
    require::require,
    stage::{SERVER_V4, SERVER_V6, Stage, inside},
};
use dynencap_kernel::host::{self, Error, Plan, Sources};
use std::{env, process::Command};

/// Set in a child process that may not change anything.
const FORBIDDEN: &str = "DYNENCAP_TEST_FORBIDDEN";

#[test]
fn a_second_installation_changes_nothing() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    let plan = Plan::new("up0", [40, 56]);
    let first = inside(&stage.host, || host::install(&plan)).unwrap();
    assert!(!first.unchanged() && first.uplink_mtu == 1500, "{first:?}");
    // Per overhead and family: the default and the connected prefix of the uplink.
    assert_eq!(first.routes, 2 * 2 * 2);
    let listing = stage.listing();
    let second = inside(&stage.host, || host::install(&plan)).unwrap();
    assert!(second.unchanged(), "{second:?}");
    assert_eq!(second.routes, first.routes);
    assert_eq!(stage.listing(), listing);
    let status = inside(&stage.host, || host::status(&plan)).unwrap();
    assert!(status.complete(), "{status}");
    assert_eq!(status.present.len(), first.added);
}

#[test]
fn what_is_missing_differs_or_is_too_much_is_told_and_mended() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    let plan = Plan::new("up0", [40, 56]);
    let nothing = inside(&stage.host, || host::status(&plan)).unwrap();
    assert!(
        nothing.present.is_empty() && !nothing.complete(),
        "{nothing}"
    );
    inside(&stage.host, || host::install(&plan)).unwrap();
    let whole = stage.listing();

    stage.ip("rule del priority 1000 fwmark 0x280000/0x7f0000");
    stage.ip("-6 route del default table 1056");
    stage.ip("route change default via 10.1.0.2 table 1040 mtu 1500 proto 222");
    stage.ip("route add 100.64.0.0/10 via 10.1.0.2 table 1040 proto 222");
    let status = inside(&stage.host, || host::status(&plan)).unwrap();
    assert_eq!(status.missing.len(), 2, "{status}");
    assert!(
        status
            .missing
            .iter()
            .any(|entry| entry.contains("IPv4 rule 1000:")),
        "{status}"
    );
    assert!(
        status
            .missing
            .iter()
            .any(|entry| entry.contains("IPv6 route default")),
        "{status}"
    );
    assert_eq!(status.differing.len(), 1, "{status}");
    assert!(status.differing[0].0.contains("mtu 1500"), "{status}");
    assert!(status.differing[0].1.contains("mtu 1460"), "{status}");
    assert_eq!(status.obsolete.len(), 1, "{status}");
    assert!(status.obsolete[0].contains("100.64.0.0/10"), "{status}");

    let done = inside(&stage.host, || host::install(&plan)).unwrap();
    assert_eq!((done.added, done.replaced, done.removed), (2, 1, 1));
    assert_eq!(sorted(&stage.listing()), sorted(&whole));
}

/// Rules of one priority are listed in the order in which they were added.
fn sorted(listing: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = listing.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn another_plan_takes_the_first_ones_place() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    let before = stage.listing();
    inside(&stage.host, || host::install(&Plan::new("up0", [40, 56]))).unwrap();
    let plan = Plan {
        rule_priority: 500,
        table_base: 7000,
        ..Plan::new("up0", [48])
    };
    inside(&stage.host, || host::install(&plan)).unwrap();
    let rules = stage.ip("rule");
    assert!(
        rules.contains("500:\tfrom all fwmark 0x300000/0x7f0000 lookup 7048"),
        "{rules}"
    );
    assert_eq!(rules.matches("fwmark").count(), 1, "{rules}");
    let routes = stage.ip("route show table all");
    assert!(
        !routes.contains("table 1040") && !routes.contains("table 1056"),
        "{routes}"
    );
    let removed = inside(&stage.host, host::remove).unwrap();
    assert!(removed > 0);
    assert_eq!(stage.listing(), before);
    assert_eq!(inside(&stage.host, host::remove).unwrap(), 0);
}

#[test]
fn an_error_halfway_takes_back_what_was_done() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    let before = stage.listing();
    // IPv4 succeeds; then the kernel refuses a source address that the host does not have.
    let bad = Plan {
        source: Sources {
            v4: None,
            v6: Some("2001:db8:bad::1".parse().unwrap()),
        },
        ..Plan::new("up0", [40, 56])
    };
    let error = inside(&stage.host, || host::install(&bad)).unwrap_err();
    assert!(error.to_string().contains("adding a route"), "{error}");
    assert_eq!(stage.listing(), before);

    // The same over an earlier plan, whose routes were replaced and extended already.
    inside(&stage.host, || host::install(&Plan::new("up0", [40]))).unwrap();
    let before = stage.listing();
    let bad = Plan {
        lock_mtu: true,
        ..bad
    };
    inside(&stage.host, || host::install(&bad)).unwrap_err();
    assert_eq!(stage.listing(), before);
}

#[test]
fn routes_of_one_rank_are_taken_back_in_their_order() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    for command in [
        "route append 100.66.0.0/16 via 10.1.0.2 metric 3",
        "route append 100.66.0.0/16 via 10.2.0.2 metric 3",
        "route append 100.66.0.0/16 via 10.1.0.9 metric 3",
        "-6 route del default",
        "-6 route append fe80::/10 dev up0 metric 5",
        "-6 route append fe80::/10 dev lan0 metric 5",
    ] {
        stage.ip(command);
    }
    let bare = stage.listing();
    let plan = Plan::new("up0", [40]);
    inside(&stage.host, || host::install(&plan)).unwrap();
    let before = stage.listing();
    // Link-local prefixes keep their source, so that the first failure comes behind them.
    let bad = Plan {
        lock_mtu: true,
        source: Sources {
            v4: None,
            v6: Some("2001:db8:bad::1".parse().unwrap()),
        },
        ..plan
    };
    inside(&stage.host, || host::install(&bad)).unwrap_err();
    assert_eq!(stage.listing(), before);
    inside(&stage.host, host::remove).unwrap();
    assert_eq!(stage.listing(), bare);
}

#[test]
fn no_uplink_is_an_error_and_one_that_is_down_none() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    let before = stage.listing();
    for name in ["up9", "a_name_that_no_device_could_have"] {
        let error = inside(&stage.host, || host::install(&Plan::new(name, [40]))).unwrap_err();
        assert_eq!(error.to_string(), format!("there is no device {name}"));
    }
    assert_eq!(stage.listing(), before);
    let plan = Plan::new("up0", [40]);
    stage.ip("link set up0 down");
    let done = inside(&stage.host, || host::install(&plan)).unwrap();
    assert_eq!((done.routes, done.added), (0, 2), "the rules alone");
    stage.ip("link set up0 up");
    stage.ip("address add 2001:db8:1::1/64 dev up0 nodad");
    stage.defaults();
    inside(&stage.host, || host::install(&plan)).unwrap();
    for to in [SERVER_V4, SERVER_V6] {
        assert!(stage.route(to, Plan::mark(40)).contains("mtu 1460"));
    }
}

#[test]
fn without_the_capability_the_error_names_it() {
    if env::var_os(FORBIDDEN).is_some() {
        let plan = Plan::new("up0", [40]);
        // Looking needs no privilege.
        assert!(!host::status(&plan).unwrap().complete());
        let error = host::install(&plan).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Kernel(dynencap_kernel::Error::NotPermitted {
                    needs: "CAP_NET_ADMIN",
                    ..
                })
            ),
            "{error}"
        );
        println!("refused: {error}");
        return;
    }
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    let before = stage.listing();
    // In a user namespace of its own a process has no capability over this one's network.
    let output = inside(&stage.host, || {
        Command::new("unshare")
            .arg("--user")
            .arg(env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("install::without_the_capability_the_error_names_it")
            .env(FORBIDDEN, "1")
            .output()
            .unwrap()
    });
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("refused: not permitted: "), "{told}");
    assert!(told.contains("needs CAP_NET_ADMIN"), "{told}");
    assert_eq!(stage.listing(), before);
}

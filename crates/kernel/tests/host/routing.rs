//! Where packets go, and with which MTU and MSS: `ip route get` judges.

use crate::{
    require::require,
    stage::{LAN_V4, LAN_V6, SERVER_V4, SERVER_V6, Stage, inside},
};
use dynencap_abi::MARK_SENTINEL;
use dynencap_kernel::host::{self, Error, Families, Mss, Plan, Sources};

#[track_caller]
fn installed(stage: &Stage, plan: &Plan) {
    inside(&stage.host, || host::install(plan)).unwrap();
}

#[test]
fn each_overhead_has_its_mtu_and_mss() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    // The uplink's MTU, the overhead, and what is left: MTU, MSS of IPv4, MSS of IPv6.
    let cases = [
        (1500, 40, 1460, 1420, 1400),
        (1500, 56, 1444, 1404, 1384),
        (1500, 80, 1420, 1380, 1360),
        (1500, 20, 1480, 1440, 1420),
        (9000, 40, 8960, 8920, 8900),
        (9000, 80, 8920, 8880, 8860),
        (1360, 80, 1280, 1240, 1220),
        // The longest that the programs encapsulate, though the device would take more.
        (20_000, 40, 9176, 9136, 9116),
    ];
    for (uplink, overhead, mtu, v4, v6) in cases {
        stage.ip(&format!("link set up0 mtu {uplink}"));
        installed(&stage, &Plan::new("up0", [20, 40, 56, 80]));
        for mark in [Plan::mark(overhead), Plan::mark(overhead) | MARK_SENTINEL] {
            // The application's own bits do not matter.
            for mark in [mark, mark | 0x7f00_1234] {
                for (to, mss) in [(SERVER_V4, v4), (SERVER_V6, v6)] {
                    let route = stage.route(to, mark);
                    assert!(route.contains(" dev up0 "), "{route}");
                    assert!(route.contains(&format!(" mtu {mtu} ")), "{route}");
                    assert!(route.contains(&format!(" advmss {mss} ")), "{route}");
                }
            }
        }
        for mark in [0, MARK_SENTINEL, Plan::mark(48), 0x0000_0028] {
            for to in [SERVER_V4, SERVER_V6] {
                let route = stage.route(to, mark);
                assert!(
                    route.contains(" dev up0 ") && !route.contains("mtu"),
                    "{route}"
                );
            }
        }
    }
}

#[test]
fn connected_neighbours_have_them_too() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    installed(&stage, &Plan::new("up0", [40]));
    for (to, mss) in [("10.1.0.77", 1420), ("2001:db8:1::77", 1400)] {
        let route = stage.route(to, Plan::mark(40));
        assert!(!route.contains(" via "), "{route}");
        assert!(route.contains(&format!("mtu 1460 advmss {mss}")), "{route}");
    }
    let local = stage.route("10.1.0.1", Plan::mark(40));
    assert!(local.starts_with("local "), "{local}");
}

#[test]
fn what_main_sends_elsewhere_stays_there() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.ip("route add unreachable 203.0.113.0/24");
    stage.ip("-6 route add prohibit 2001:db8:66::/48");
    // More specific still, and through the uplink again.
    stage.ip("route add 198.51.100.128/25 via 10.1.0.2");
    stage.ip("-6 route add 2001:db8:55:8000::/49 via 2001:db8:1::2");
    // A default of lower rank through the other device changes nothing …
    stage.ip("route add default via 10.2.0.2 metric 500");
    stage.ip("-6 route add default via 2001:db8:2::2 metric 5000");
    // … and where it has the higher rank, its prefix is its own.
    stage.ip("route add 100.64.0.0/10 via 10.1.0.2 metric 9");
    stage.ip("route add 100.64.0.0/10 via 10.2.0.2 metric 7");
    stage.ip("-6 route add 2001:db8:77::/48 via 2001:db8:1::2 metric 9");
    stage.ip("-6 route add 2001:db8:77::/48 via 2001:db8:2::2 metric 7");
    installed(&stage, &Plan::new("up0", [40, 56]));
    let mark = Plan::mark(56) | MARK_SENTINEL;
    for to in [
        LAN_V4,
        LAN_V6,
        "10.2.0.9",
        "2001:db8:2::9",
        "100.64.0.1",
        "2001:db8:77::1",
    ] {
        let marked = stage.route(to, mark);
        assert!(marked.contains(" dev lan0 "), "{marked}");
        assert!(
            !marked.contains("mtu") && !marked.contains("advmss"),
            "{marked}"
        );
    }
    for to in [
        SERVER_V4,
        SERVER_V6,
        "198.51.100.200",
        "2001:db8:55:8000::1",
    ] {
        let marked = stage.route(to, mark);
        assert!(
            marked.contains(" dev up0 ") && marked.contains("mtu 1444"),
            "{marked}"
        );
    }
    for to in ["203.0.113.1", "2001:db8:66::1"] {
        let refused = inside(&stage.host, || {
            std::process::Command::new("ip")
                .args(["route", "get", to, "mark", &mark.to_string()])
                .output()
                .unwrap()
        });
        let told = String::from_utf8_lossy(&refused.stderr).into_owned()
            + &String::from_utf8_lossy(&refused.stdout);
        assert!(
            !refused.status.success() || told.starts_with("prohibit"),
            "{to}: {told}"
        );
    }
}

#[test]
fn sockets_bound_to_a_device() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    installed(&stage, &Plan::new("up0", [40]));
    let bound = |to: &str, device: &str| {
        let mark = Plan::mark(40);
        stage.ip(&format!("route get {to} oif {device} mark {mark:#x}"))
    };
    for to in [SERVER_V4, SERVER_V6, LAN_V6] {
        let route = bound(to, "up0");
        assert!(
            route.contains(" dev up0 ") && route.contains("mtu 1460"),
            "{route}"
        );
    }
    for to in [LAN_V4, LAN_V6] {
        let route = bound(to, "lan0");
        assert!(
            route.contains(" dev lan0 ") && !route.contains("mtu"),
            "{route}"
        );
    }
    // The limit that docs/host.md states: IPv4 asks for the prefix before the device.
    let route = bound(LAN_V4, "up0");
    assert!(
        route.contains(" dev up0 ") && !route.contains("mtu"),
        "{route}"
    );
}

#[test]
fn a_narrower_route_of_mains_stays_narrower() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.ip("link set up0 mtu 9000");
    stage.ip("route change default via 10.1.0.2 mtu 1500 window 4000");
    stage.ip("-6 route change default via 2001:db8:1::2 mtu lock 1500 advmss 1300 hoplimit 9");
    installed(&stage, &Plan::new("up0", [40]));
    let route = stage.route(SERVER_V4, Plan::mark(40));
    assert!(
        route.contains("mtu 1460") && route.contains("advmss 1420"),
        "{route}"
    );
    assert!(
        route.contains("window 4000") && !route.contains("lock"),
        "{route}"
    );
    let route = stage.route(SERVER_V6, Plan::mark(40));
    assert!(
        route.contains("mtu lock 1460 ") && route.contains("advmss 1300"),
        "{route}"
    );
    assert!(route.contains("hoplimit 9"), "{route}");
    let route = stage.route("10.1.0.77", Plan::mark(40));
    assert!(route.contains("mtu 8960"), "{route}");
}

#[test]
fn the_talks_settings_are_to_be_had() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.ip("address add 10.1.0.11/24 dev up0");
    stage.ip("address add 2001:db8:1::11/64 dev up0 nodad");
    let plan = Plan {
        lock_mtu: true,
        mss: Mss::TalkOptions,
        source: Sources {
            v4: Some("10.1.0.11".parse().unwrap()),
            v6: Some("2001:db8:1::11".parse().unwrap()),
        },
        ..Plan::new("up0", [56])
    };
    installed(&stage, &plan);
    let route = stage.route(SERVER_V6, Plan::mark(56));
    assert!(route.contains("mtu lock 1444 advmss 1372"), "{route}");
    assert!(route.contains("src 2001:db8:1::11"), "{route}");
    let route = stage.route(SERVER_V4, Plan::mark(56));
    assert!(route.contains("mtu lock 1444 advmss 1392"), "{route}");
    assert!(route.contains("src 10.1.0.11"), "{route}");
}

#[test]
fn an_mtu_that_is_too_small_is_told_and_changes_nothing() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.ip("link set up0 mtu 1319");
    let before = stage.listing();
    let plan = Plan::new("up0", [20, 40]);
    let error = inside(&stage.host, || host::install(&plan)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::InnerMtu {
                overhead: 40,
                outer: 1319,
                inner: 1279,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(stage.listing(), before);
    // IPv4 has no such minimum.
    let plan = Plan {
        families: Families {
            v4: true,
            v6: false,
        },
        ..plan
    };
    installed(&stage, &plan);
    assert!(stage.route(SERVER_V4, Plan::mark(40)).contains("mtu 1279"));
    assert!(!stage.route(SERVER_V6, Plan::mark(40)).contains("mtu"));
    inside(&stage.host, host::remove).unwrap();
    assert_eq!(stage.listing(), before);

    stage.ip("link set up0 mtu 1500");
    stage.ip("-6 route add 2001:db8:88::/48 via 2001:db8:1::2 mtu 1310");
    let plan = Plan::new("up0", [40]);
    let text = inside(&stage.host, || host::install(&plan))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("2001:db8:88::/48") && text.contains("1270 of 1310"),
        "{text}"
    );

    stage.ip("link set up0 mtu 1279");
    let error = inside(&stage.host, || host::install(&plan)).unwrap_err();
    assert!(
        matches!(error, Error::UplinkMtu { mtu: 1279, .. }),
        "{error}"
    );
}

#[test]
fn an_mtu_that_a_router_advertised_counts() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    inside(&stage.host, || {
        // Where the kernel writes it to (RFC 4861 §4.6.4).
        std::fs::write("/proc/sys/net/ipv6/conf/up0/mtu", "1400").unwrap();
    });
    let plan = Plan::new("up0", [40]);
    let done = inside(&stage.host, || host::install(&plan)).unwrap();
    assert_eq!(done.uplink_mtu, 1400);
    for to in [SERVER_V4, SERVER_V6] {
        let route = stage.route(to, Plan::mark(40));
        assert!(route.contains("mtu 1360"), "{route}");
    }
}

#[test]
fn a_route_over_several_devices() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.ip("address add 10.1.0.3/24 dev up0");
    stage.ip("route change default nexthop via 10.1.0.2 weight 3 nexthop via 10.1.0.4 weight 1");
    stage.ip("-6 route append default via 2001:db8:1::4");
    let plan = Plan::new("up0", [40]);
    installed(&stage, &plan);
    let table = stage.ip("route show table 1040");
    assert!(table.contains("10.1.0.2 dev up0 weight 3"), "{table}");
    let table = stage.ip("-6 route show table 1040");
    assert!(table.contains("2001:db8:1::4 dev up0 weight 1"), "{table}");
    assert!(
        inside(&stage.host, || host::install(&plan))
            .unwrap()
            .unchanged()
    );

    let before = stage.listing();
    stage.ip("route add 100.64.0.0/10 nexthop via 10.1.0.2 nexthop via 10.2.0.2");
    let error = inside(&stage.host, || host::install(&plan)).unwrap_err();
    assert!(matches!(error, Error::MixedMultipath { .. }), "{error}");
    assert!(error.to_string().contains("100.64.0.0/10"), "{error}");
    stage.ip("route del 100.64.0.0/10");
    assert_eq!(stage.listing(), before);
}

//! Nothing of anyone else is touched, byte for byte as `ip` shows it.

use crate::{
    require::require,
    stage::{Stage, inside},
};
use dynencap_kernel::host::{self, Error, Families, Plan};

#[test]
fn everything_else_is_as_it_was() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    for command in [
        // Rules: of our priority, of our mask, of another protocol.
        "rule add priority 1000 fwmark 0x12/0xff lookup 77",
        "rule add priority 1000 to 203.0.113.0/24 lookup 77 protocol static",
        "rule add priority 999 fwmark 0x280000/0x7f0000 lookup 78",
        "-6 rule add priority 1000 from 2001:db8:1::/64 lookup 77",
        "-6 rule add priority 1001 fwmark 0x280000/0x7f0000 lookup 77",
        // Routes of all shapes, in other tables and in main.
        "route add default via 10.1.0.2 table 77 proto bird metric 7",
        "-6 route add default via 2001:db8:1::2 table 77 proto 222",
        "-6 route flush table 77",
        "-6 route add 2001:db8:a::/48 via 2001:db8:1::2 table 77 metric 9",
        "route add blackhole 100.64.0.0/10",
        "route add throw 100.65.0.0/16",
        "route add 100.66.0.0/16 tos 0x10 via 10.1.0.2 metric 3",
        "route add 100.66.0.0/16 via 10.1.0.2 metric 3",
        "route add 100.66.0.0/16 via 10.2.0.2 metric 4",
        "route add 100.67.0.0/16 via 172.16.0.1 dev up0 onlink realm 5 initcwnd 20",
        "route add 100.68.0.0/16 nexthop via 10.1.0.2 weight 2 nexthop via 10.1.0.9",
        "route add 100.69.0.0/16 via inet6 2001:db8:1::2 dev up0",
        "nexthop add id 5 via 10.1.0.2 dev up0",
        "nexthop add id 6 via 10.2.0.2 dev lan0",
        "nexthop add id 7 via 2001:db8:1::2 dev up0",
        "route add 100.70.0.0/16 nhid 5",
        "route add 100.71.0.0/16 nhid 6",
        "-6 route add 2001:db8:b::/48 nhid 7",
        "-6 route add 2001:db8:c::/48 via 2001:db8:1::2 pref high mtu 1400",
        "-6 route add 2001:db8:d::/48 from 2001:db8:1::/64 via 2001:db8:1::2",
        "-6 route add unreachable 2001:db8:e::/48 metric 3",
        "-6 route append 2001:db8:f::/48 dev up0 metric 5",
        "-6 route append 2001:db8:f::/48 dev lan0 metric 5",
        "-6 route append fe80::/64 dev up0 metric 256",
        "-6 route append fe80::/64 dev lan0 metric 256",
    ] {
        stage.ip(command);
    }
    let before = stage.listing();
    let plan = Plan::new("up0", [20, 40, 56, 80]);
    let done = inside(&stage.host, || host::install(&plan)).unwrap();
    assert!(done.added > 100, "{done:?}");
    let ours = stage.listing();
    assert_ne!(ours, before);
    // What was there is there, in its order.
    let mut lines = ours.lines();
    for line in before.lines() {
        assert!(lines.any(|other| other == line), "lost: {line}");
    }
    // Every shape is told back as it was given.
    let again = inside(&stage.host, || host::install(&plan)).unwrap();
    assert!(again.unchanged(), "{again:?}");
    // Every shape can be replaced …
    stage.ip("link set up0 mtu 1600");
    let bare = stage.listing();
    let changed = inside(&stage.host, || host::install(&plan)).unwrap();
    assert!(changed.replaced > 40, "{changed:?}");
    assert_ne!(stage.listing(), bare);
    stage.ip("link set up0 mtu 1500");
    inside(&stage.host, || host::install(&plan)).unwrap();
    assert_eq!(stage.listing(), ours);
    // … and removed.
    inside(&stage.host, host::remove).unwrap();
    assert_eq!(stage.listing(), before);
}

#[test]
fn a_table_in_use_is_refused_by_name() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.ip("-6 route add 2001:db8:a::/48 via 2001:db8:1::2 table 1056");
    let before = stage.listing();
    let plan = Plan::new("up0", [40, 56]);
    let error = inside(&stage.host, || host::install(&plan)).unwrap_err();
    assert!(
        matches!(error, Error::ForeignTable { table: 1056, .. }),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("IPv6 table 1056") && text.contains("2001:db8:a::/48"),
        "{text}"
    );
    assert_eq!(stage.listing(), before);
    // Its number is another table in IPv4.
    let plan = Plan {
        families: Families {
            v4: true,
            v6: false,
        },
        ..plan
    };
    inside(&stage.host, || host::install(&plan)).unwrap();
    inside(&stage.host, host::remove).unwrap();
    assert_eq!(stage.listing(), before);
}

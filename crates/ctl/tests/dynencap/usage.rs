//! Wrong flags and files: exit status 2, and words that name field and expectation. No root.

use crate::program::dynencap;
use std::fs;

#[test]
fn wrong_flags_are_told_apart_from_failures() {
    let table: [(&[&str], &[&str]); 23] = [
        (&[], &["Usage: dynencap"]),
        (&["nothing"], &["unrecognized subcommand"]),
        (&["up"], &["--uplink", "--cgroup"]),
        (&["up", "--uplink", "eth0"], &["--cgroup"]),
        (
            &["up", "--uplink", "e", "--cgroup", "/", "--overhead", "19"],
            &["19", "20..=80"],
        ),
        (
            &[
                "up",
                "--uplink",
                "e",
                "--cgroup",
                "/",
                "--source",
                "192.0.2.1",
            ],
            &["--source", "IPv6"],
        ),
        (
            &[
                "up",
                "--uplink",
                "e",
                "--cgroup",
                "/",
                "--segmentation",
                "x",
            ],
            &["gso-aware", "segment-first"],
        ),
        (
            &["up", "--uplink", "e", "--cgroup", "/", "--hop-limit", "0"],
            &["--hop-limit"],
        ),
        (&["--pin", "a/b", "status"], &["--pin a/b", "absolute"]),
        (
            &["exec", "--via", "example.org", "--", "true"],
            &["example.org", "expected an IPv6 or IPv4 address"],
        ),
        (
            &["exec", "--via", "2001:db8::1/udp:0", "--", "true"],
            &["a port from 1 to 65535"],
        ),
        (&["exec", "--via", "2001:db8::1"], &["CMD"]),
        (&["exec", "--", "true"], &["--via"]),
        (
            &[
                "policy",
                "set",
                "--cgroup",
                "x",
                "--allow",
                "2001:db8::1/32",
            ],
            &["zero bits behind the prefix, as in 2001:db8::/32"],
        ),
        (
            &["policy", "set", "--cgroup", "x", "--ports", "6100-6000"],
            &["6100-6000", "a range such as 6000-6100"],
        ),
        (
            &[
                "policy",
                "set",
                "--cgroup",
                "x",
                "--default-exit",
                "2001:db8::1",
            ],
            &["default-exit 2001:db8::1", "add 2001:db8::1 to allow"],
        ),
        (&["policy", "remove"], &["--cgroup", "--gone"]),
        (
            &[
                "up",
                "--uplink",
                "e",
                "--cgroup",
                "/",
                "--reflect-entries",
                "9",
            ],
            &["--reflect"],
        ),
        (
            &["policy", "set", "--cgroup", "x", "--reflect-default", "vni"],
            &["`vni`", "`path`, `dscp`, `mark`"],
        ),
        (
            &[
                "policy",
                "set",
                "--cgroup",
                "x",
                "--reflect-default",
                "path",
            ],
            &["reflect-default path", "add its prefix to reflect"],
        ),
        (
            &[
                "tunnel",
                "add",
                "--address",
                "2001:db8::1",
                "--carries",
                "udp",
            ],
            &["port: expected the UDP destination port"],
        ),
        (
            &[
                "tunnel",
                "add",
                "--address",
                "2001:db8::1",
                "--carries",
                "gre",
            ],
            &["gre", "ipv4, ipv6, udp"],
        ),
        (
            &["tunnel", "remove", "--address", "2001:db8::1"],
            &["--carries"],
        ),
    ];
    for (arguments, words) in table {
        dynencap(arguments).exits(2).says(words);
    }
}

#[test]
fn a_broken_file_is_named_with_its_field() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policies.toml");
    let name = file.to_str().unwrap();
    let table: [(&str, &[&str]); 9] = [
        ("[[policy]", &["line 1"]),
        ("", &["missing field `policy`"]),
        ("[[policy]]\nallow = []\n", &["missing field `cgroup`"]),
        (
            "[[policy]]\ncgroup = 'a'\nalow = []\n",
            &["unknown field `alow`", "`allow`"],
        ),
        (
            "[[policy]]\ncgroup = 'a'\nallow = ['x/3']\n",
            &["`x/3`", "expected an address or prefix"],
        ),
        (
            "[[policy]]\ncgroup = 'a'\nports = [4789]\n",
            &["ports", "expected a string"],
        ),
        (
            "[[policy]]\ncgroup = 'a'\nallow = ['::/0']\ndefault-exit = '2001:db8::1/udp:1,x=2'\n",
            &["expected `header` or `source-port`"],
        ),
        (
            "[[policy]]\ncgroup = 'a'\nallow = ['::/0']\ndefault-exit = '2001:db8::1/udp:6080'\n",
            &["policy of a", "default-exit", "add 6080 to ports"],
        ),
        (
            "[[policy]]\ncgroup = 'a'\nreserve = 300\n",
            &["reserve", "expected"],
        ),
    ];
    for (text, words) in table {
        fs::write(&file, text).unwrap();
        let run = dynencap(&["policy", "apply", name]).exits(2);
        assert!(run.stderr.contains(name), "{run:#?}");
        run.says(words);
    }
    let head = "[[tunnel]]\naddress = '2001:db8::1'\ncarries = ";
    let table: [(&str, &[&str]); 7] = [
        (
            "'ipv6'\n[[tunnel]]\naddress = 'x'\n",
            &["line 5", "address"],
        ),
        ("'gre'\n", &["line 3", "`gre`", "`ipv4`, `ipv6`, `udp`"]),
        (
            "'ipv6'\nprot = 1\n",
            &["line 4", "unknown field `prot`", "`port`"],
        ),
        ("'udp'\nport = 70000\n", &["line 4", "port", "70000"]),
        (
            "'udp'\n",
            &["line 1", "port: expected the UDP destination port"],
        ),
        (
            "'udp'\nport = 1\nheader-len = 33\n",
            &["line 1", "header-len: expected at most 32"],
        ),
        (
            "'ipv6'\n[[tunnel]]\naddress = '2001:db8::1'\ncarries = 'ipv6'\nreflect = true\n",
            &["2001:db8::1 ipv6 stands there twice"],
        ),
    ];
    for (text, words) in table {
        fs::write(&file, format!("{head}{text}")).unwrap();
        let run = dynencap(&["tunnel", "apply", name]).exits(2);
        assert!(run.stderr.contains(name), "{run:#?}");
        run.says(words);
    }
    dynencap(&["policy", "apply", "/nowhere/policies.toml"])
        .exits(2)
        .says(&["/nowhere/policies.toml", "No such file"]);
}

#[test]
fn a_place_without_bpf_is_a_failure_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let pin = folder.path().join("pins");
    dynencap(&["--pin", pin.to_str().unwrap(), "status"])
        .exits(1)
        .says(&["not on a BPF file system", "mount -t bpf", "--pin"]);
    dynencap(&["up", "--uplink", "e", "--cgroup", "/nowhere"])
        .exits(1)
        .says(&["cgroup /nowhere", "cgroup2"]);
}

//! `watch` follows the uplink.

use crate::{
    require::require,
    stage::{EXIT, Stage},
};
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

#[test]
fn routes_and_programs_follow_the_uplinks_mtu() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.up(&["--overhead", "40"]).exits(0);
    let mut watch = stage
        .dynencap_command(&["watch"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(watch.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(line.contains("MTU 1500"), "{line}");
    stage.at_host("ip link set up0 mtu 1400");
    while !line.contains("MTU 1400") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0);
    }
    let status = stage.dynencap(&["status", "--json"]).exits(0).json();
    assert_eq!(status["host"]["uplink_mtu"], 1400, "{status:#}");
    let routes = stage.at_host("ip -6 route show table 1040");
    assert!(routes.contains("mtu 1360"), "{routes}");
    // A socket of the host sees what the programs go by.
    let info = stage.in_host(|| {
        let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
        dynencap::ExitSocket::exit(&socket).is_err()
    });
    assert!(info, "this process is in no cgroup of dynencap");
    let cgroup = stage.child_cgroup("tenant");
    let mut application = crate::policy::Application::start(&stage, &cgroup);
    assert_eq!(application.told(&format!("set {EXIT}")), "ok");
    drop(application);

    let killed = Command::new("kill")
        .arg(watch.id().to_string())
        .status()
        .unwrap();
    assert!(killed.success());
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    stage.dynencap(&["down"]).exits(0);
}

//! From nothing to traffic to nothing.

use crate::{
    program::DYNENCAP,
    require::require,
    stage::{EXIT, PEER, Stage},
};
use aya::programs::loaded_programs;
use serde_json::Value;
use std::{
    env,
    io::{Read, Write},
    net::TcpStream,
    os::unix::process::CommandExt,
    process::Command,
    thread,
    time::Duration,
};

/// Set in a child process that is to fetch from the server with this port.
const FETCH: &str = "DYNENCAP_TEST_FETCH";

/// The unmodified program: knows nothing of exits.
#[test]
fn client() {
    let Ok(port) = env::var(FETCH) else { return };
    let mut stream = TcpStream::connect((PEER, port.parse().unwrap())).unwrap();
    stream.write_all(b"GET ").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    println!("answer: {answer}");
}

/// Ids of the programs that `status` lists.
pub(crate) fn ids(status: &Value) -> Vec<u32> {
    let programs = status["programs"]["programs"].as_array().unwrap();
    programs
        .iter()
        .map(|program| u32::try_from(program["id"].as_u64().unwrap()).unwrap())
        .collect()
}

/// Whether none of these is loaded any more: the kernel frees them a moment later.
fn unloaded(ids: &[u32]) -> bool {
    (0..100).any(|_| {
        let left = loaded_programs()
            .filter_map(Result::ok)
            .any(|program| ids.contains(&program.id()));
        if left {
            thread::sleep(Duration::from_millis(20));
        }
        !left
    })
}

fn from_nothing_to_nothing(flags: &[&str]) {
    let stage = Stage::new();
    let before = stage.traces();
    stage.dynencap(&["status"]).exits(1);
    stage.dynencap(&["down"]).exits(0);
    stage
        .dynencap(&["stats"])
        .exits(1)
        .says(&["nothing is installed", "dynencap up"]);

    let up = stage.up(flags).exits(0);
    assert!(
        up.stdout.contains("installed: uplink up0 (MTU 1500)"),
        "{up:#?}"
    );
    let status = stage.dynencap(&["status", "--json"]).exits(0).json();
    assert_eq!(status["complete"], true, "{status:#}");
    let programs = ids(&status);
    let segmenting = !flags.contains(&"gso-aware");
    assert_eq!(programs.len(), if segmenting { 8 } else { 7 });
    let installed = stage.traces();
    assert_ne!(before, installed);

    let again = stage.up(flags).exits(0);
    assert!(again.stdout.contains("already installed"), "{again:#?}");
    assert_eq!(stage.traces(), installed);
    let status = stage.dynencap(&["status", "--json"]).exits(0).json();
    assert_eq!(ids(&status), programs, "no program was touched");

    let port = stage.serve("hello").to_string();
    let client = env::current_exe().unwrap();
    let fetch = |via: &[&str]| {
        let mut arguments = via.to_vec();
        arguments.extend([
            client.to_str().unwrap(),
            "--exact",
            "lifecycle::client",
            "--nocapture",
        ]);
        stage
            .dynencap_command(&arguments)
            .env(FETCH, &port)
            .output()
            .map(crate::program::Run::from)
            .unwrap()
    };
    let fetched = fetch(&["exec", "--via", EXIT, "--"]).exits(0);
    assert!(fetched.stdout.contains("answer: hello"), "{fetched:#?}");
    let stats = stage.stats();
    let encapsulated = stats["frames"]["encapsulated"].as_u64().unwrap();
    assert!(encapsulated >= 4, "SYN, ACK, request, FIN: {stats:#}");
    assert_eq!(stats["events"]["default_exit"], 1, "{stats:#}");
    let paths = stats["paths"].as_array().unwrap();
    assert!(
        paths.iter().any(|path| path["gateway"] == EXIT),
        "{stats:#}"
    );
    let text = stage.dynencap(&["stats"]).exits(0).stdout;
    assert!(
        text.contains("default_exit") && text.contains(EXIT),
        "{text}"
    );

    stage.dynencap(&["down"]).exits(0);
    assert_eq!(stage.traces(), before);
    assert!(unloaded(&programs), "{programs:?}");
}

#[test]
fn down_leaves_nothing_of_links() {
    if require(&[]) {
        from_nothing_to_nothing(&[]);
    }
}

#[test]
fn down_leaves_nothing_of_filters() {
    if require(&[]) {
        from_nothing_to_nothing(&["--clsact"]);
    }
}

#[test]
fn the_pair_stays_away_where_it_is_not_wanted() {
    if require(&[]) {
        from_nothing_to_nothing(&["--segmentation", "gso-aware"]);
    }
}

#[test]
fn a_qdisc_of_someone_else_stays_with_its_filters() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.at_host(
        "tc qdisc add dev up0 clsact
         tc filter add dev up0 egress pref 7 bpf bytecode '1,6 0 0 0,' flowid 1:1",
    );
    let before = stage.traces();
    let filters = || stage.at_host("tc filter show dev up0 egress");
    let filter = filters();
    stage.up(&["--clsact"]).exits(0);
    assert_ne!(filters(), filter);
    stage.dynencap(&["down"]).exits(0);
    assert_eq!((stage.traces(), filters()), (before, filter));
}

#[test]
fn what_is_there_for_something_else_stays_untouched() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.up(&[]).exits(0);
    let installed = stage.traces();
    stage.at_host("ip link add other type veth peer name other1");
    let with_device = stage.traces();
    let cgroup = stage.cgroup().to_str().unwrap();
    let arguments = ["up", "--uplink", "other", "--cgroup", cgroup];
    stage.dynencap(&arguments).exits(1).says(&[
        "already installed for uplink up0, not other",
        "dynencap down",
    ]);
    let below = stage.child_cgroup("below");
    stage
        .dynencap(&["up", "--uplink", "up0", "--cgroup", below.to_str().unwrap()])
        .exits(1)
        .says(&["already installed for cgroup", "dynencap down"]);
    std::fs::remove_dir(below).unwrap();
    assert_eq!(stage.traces(), with_device);
    stage.at_host("ip link del other");
    assert_eq!(stage.traces(), installed);
    stage.dynencap(&["down"]).exits(0);
}

#[test]
fn a_failed_installation_takes_back_what_it_did() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    let before = stage.traces();
    let cgroup = stage.cgroup().to_str().unwrap();
    stage
        .dynencap(&["up", "--uplink", "nothere", "--cgroup", cgroup])
        .exits(1)
        .says(&["there is no device nothere"]);
    stage
        .dynencap(&["up", "--uplink", "up0", "--cgroup", "/proc"])
        .exits(1)
        .says(&["not a cgroup2 directory"]);
    // The routes are refused after the programs have been attached.
    stage
        .up(&["--rule-priority", "40000"])
        .exits(1)
        .says(&["rule priority 40000"]);
    stage.at_host("ip -6 route add 2001:db8:77::/64 dev up0 table 1040");
    stage
        .up(&[])
        .exits(1)
        .says(&["table 1040", "another table base"]);
    stage.at_host("ip -6 route del 2001:db8:77::/64 dev up0 table 1040");
    assert_eq!(stage.traces(), before);
}

#[test]
fn without_privileges_nothing_happens_and_the_reason_is_told() {
    if !require(&[]) {
        return;
    }
    const NOBODY: u32 = 65_534;
    let stage = Stage::new();
    let before = stage.traces();
    let cgroup = stage.cgroup().to_str().unwrap();
    for arguments in [
        &["up", "--uplink", "up0", "--cgroup", cgroup][..],
        &["status"],
        &["exec", "--via", EXIT, "--", "true"],
    ] {
        let run: crate::program::Run = stage
            .command(
                "setpriv",
                &["--reuid=65534", "--regid=65534", "--clear-groups"],
            )
            .arg(DYNENCAP)
            .args(arguments)
            .output()
            .unwrap()
            .into();
        let run = run.exits(1);
        assert!(
            ["not permitted", "Permission denied", "nothing is installed"]
                .iter()
                .any(|words| run.stderr.contains(words) || run.stdout.contains(words)),
            "{run:#?}"
        );
    }
    assert_eq!(stage.traces(), before);
    // Nor does it read what root has installed.
    stage.up(&[]).exits(0);
    let output = Command::new(DYNENCAP)
        .args(["stats"])
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    stage.dynencap(&["down"]).exits(0);
}

#[test]
fn a_device_that_comes_back_is_served_again() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.up(&[]).exits(0);
    stage.at_host(
        "ip link del up0; ip link add up0 type veth peer name up9; ip link set up0 up; ip link set up9 up",
    );
    let status = stage.dynencap(&["status"]).exits(1);
    assert!(status.stdout.contains("egress") && status.stdout.contains("NOT attached"));
    let up = stage.up(&[]).exits(0);
    assert!(up.stdout.contains("repaired"), "{up:#?}");
    let status = stage.dynencap(&["status", "--json"]).json();
    assert_eq!(
        status["programs"]["programs"][0]["attached"], true,
        "{status:#}"
    );
    stage.dynencap(&["down"]).exits(0);
}

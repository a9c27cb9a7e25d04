//! A server that answers through the path by which its clients come, set up by commands alone;
//! the peer's tunnel is the kernel's own.

use crate::{
    require::require,
    stage::{EXIT, HOST, PEER, Stage},
};
use aya::maps::{Array, Map, MapData};
use dynencap_abi::Config;
use serde_json::json;
use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::{Child, ChildStdin, Stdio},
};

/// Set in a child process that plays the server.
const PLAY: &str = "DYNENCAP_TEST_SERVE";
/// Where tunnels to the host end.
const END: &str = "2001:db8:1::e";
const ACCEPT: &str = "/proc/sys/net/ipv4/tcp_fwmark_accept";

/// The unmodified server: speaks first, to whoever comes.
#[test]
fn server() {
    if env::var(PLAY).is_err() {
        return;
    }
    let mut line = String::new();
    // Told only when it is in its cgroup.
    std::io::stdin().read_line(&mut line).unwrap();
    let listener = TcpListener::bind((HOST, 7000)).unwrap();
    println!("listening");
    for stream in listener.incoming() {
        stream.unwrap().write_all(b"hello").unwrap();
    }
}

struct Server(
    Child,
    #[expect(dead_code, reason = "closed with it")] ChildStdin,
);

impl Server {
    fn start(stage: &Stage, cgroup: &Path) -> Self {
        let program = env::current_exe().unwrap();
        let arguments = ["--exact", "reflect::server", "--nocapture"];
        let mut child = stage
            .command(program.to_str().unwrap(), &arguments)
            .env(PLAY, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "start").unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "it ended");
        }
        Self(child, input)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One connection from the peer; what the server said.
fn fetch(stage: &Stage) -> String {
    stage.in_peer(|| {
        let mut stream = std::net::TcpStream::connect((HOST, 7000)).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    })
}

#[test]
fn a_server_answers_through_the_path_that_the_operator_lets() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.at_host(&format!("ip -6 addr add {END}/64 dev up0 nodad"));
    let before = stage.traces();
    // The peer's tunnel: an outer IPv6 header alone, and replies at its own end of it.
    stage.at_peer(&format!(
        "ip sr tunsrc set {EXIT}
         ip -6 route add {HOST}/128 encap seg6 mode encap.red segs {END} dev up1 mtu 1400"
    ));
    stage.up(&["--reflect"]).exits(0);
    let add = |more: &[&str]| {
        let tunnel = ["tunnel", "add", "--address", END, "--carries", "ipv6"];
        stage.dynencap(&[&tunnel, more].concat()).exits(0);
    };
    add(&["--reflect"]);
    let cgroup = stage.child_cgroup("web");
    let path = cgroup.to_str().unwrap();
    let policy = |flags: &[&str]| {
        let arguments = [&["policy", "set", "--cgroup", path][..], flags].concat();
        stage.dynencap(&arguments).exits(0);
    };
    policy(&["--reflect", EXIT, "--reflect-default", "path"]);
    let server = Server::start(&stage, &cgroup);
    let counts = |name: &str| stage.stats()["frames"][name].as_u64().unwrap();
    let events = |name: &str| stage.stats()["events"][name].as_u64().unwrap();

    assert_eq!(fetch(&stage), "hello");
    assert_eq!(events("reflect_captured"), 1);
    assert_eq!(events("reflect_taken"), 1);
    let first = counts("encapsulated");
    assert!(
        first >= 3,
        "SYN-ACK, data with FIN, ACK: {:#}",
        stage.stats()
    );
    let stats = stage.stats();
    let expected = json!({"present": 0, "kernel": 0, "capacity": 1000, "evicted_at_most": 0});
    assert_eq!(stats["reflected"], expected, "{stats:#}");
    let text = stage.dynencap(&["stats"]).exits(0).stdout;
    assert!(
        text.contains("reflect_taken") && text.contains("evicted, at most"),
        "{text}"
    );

    // A peer that the policy does not know.
    policy(&["--reflect", PEER, "--reflect-default", "path"]);
    assert_eq!(fetch(&stage), "hello", "outside of the tunnel");
    assert!(events("reflect_refused") >= 1, "SYN, ACK");
    assert_eq!(counts("encapsulated"), first);
    // A tunnel that is not reflected.
    policy(&["--reflect", EXIT, "--reflect-default", "path"]);
    add(&[]);
    assert_eq!(fetch(&stage), "hello");
    assert_eq!(counts("encapsulated"), first);
    // Reflection as a whole.
    add(&["--reflect"]);
    assert_eq!(fetch(&stage), "hello");
    let second = counts("encapsulated");
    assert!(second >= first + 3);
    stage.up(&[]).exits(0);
    assert_eq!(fetch(&stage), "hello");
    assert_eq!(counts("encapsulated"), second);

    drop(server);
    stage.dynencap(&["down"]).exits(0);
    fs::remove_dir(&cgroup).unwrap();
    assert_eq!(stage.traces(), before);
}

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

/// What `BPF_MAP_TYPE_NS_STORAGE` would be for: each namespace has an installation, and thereby
/// settings, tunnels and counters, of its own.
#[test]
fn each_network_namespace_has_settings_of_its_own() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.at_host(&format!("ip -6 addr add {END}/64 dev up0 nodad"));
    stage.at_peer(&format!(
        "ip sr tunsrc set {EXIT}
         ip -6 route add {HOST}/128 encap seg6 mode encap.red segs {END} dev up1 mtu 1400"
    ));
    let [ours, theirs] = ["ours", "theirs"].map(|name| stage.child_cgroup(name));
    let up = |uplink, cgroup: &Path| {
        let cgroup = cgroup.to_str().unwrap().to_owned();
        ["up", "--uplink", uplink, "--cgroup"]
            .map(str::to_owned)
            .into_iter()
            .chain([cgroup])
            .collect::<Vec<_>>()
    };
    let host_up = up("up0", &ours);
    let host_up: Vec<&str> = host_up.iter().map(String::as_str).collect();
    let peer_up = up("up1", &theirs);
    let peer_up: Vec<&str> = peer_up.iter().map(String::as_str).collect();
    stage
        .dynencap(&[&host_up[..], &["--reflect"]].concat())
        .exits(0);
    stage.dynencap_at_peer(&peer_up).exits(0);
    stage.dynencap(&["status"]).exits(0);
    stage.dynencap_at_peer(&["status"]).exits(0);
    let accept = format!("cat {ACCEPT}");
    assert_eq!(stage.at_host(&accept), "1\n");
    assert_eq!(stage.at_peer(&accept), "0\n");

    let tunnel = ["tunnel", "add", "--address", END, "--carries", "ipv6"];
    stage
        .dynencap(&[&tunnel[..], &["--reflect"]].concat())
        .exits(0);
    let policy = ["policy", "set", "--cgroup", ours.to_str().unwrap()];
    let rules = ["--reflect", EXIT, "--reflect-default", "path"];
    stage.dynencap(&[&policy[..], &rules].concat()).exits(0);
    let server = Server::start(&stage, &ours);
    assert_eq!(fetch(&stage), "hello");
    drop(server);
    let there = stage.dynencap_at_peer(&["stats", "--json"]);
    let (here, there) = (stage.stats(), there.exits(0).json());
    let taken = |stats: &serde_json::Value| stats["events"]["reflect_taken"].clone();
    assert_eq!((taken(&here), taken(&there)), (json!(1), json!(0)));
    assert!(here["frames"]["encapsulated"].as_u64().unwrap() >= 3);
    assert_eq!(there["frames"]["encapsulated"], 0);
    // What one side does is none of the other's.
    stage.dynencap(&["down"]).exits(0);
    stage.dynencap_at_peer(&["status"]).exits(0);
    stage.dynencap_at_peer(&["down"]).exits(0);
}

#[test]
fn the_map_is_as_large_as_was_asked() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.up(&["--reflect", "--reflect-entries", "64"]).exits(0);
    assert_eq!(stage.stats()["reflected"]["capacity"], 64);
    stage.up(&["--reflect"]).exits(0);
    assert_eq!(stage.stats()["reflected"]["capacity"], 64, "it stays");
    stage
        .up(&["--reflect", "--reflect-entries", "65"])
        .exits(1)
        .says(&["64", "not 65", "dynencap down"]);
    stage.dynencap(&["down"]).exits(0);
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

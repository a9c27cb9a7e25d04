//! Programs that know nothing of us, from Debian's packages: curl from nginx, scp and sftp to
//! sshd, iperf3 in both directions. All of them as nobody; and the same servers on a host that
//! reflects.

use crate::{
    Test,
    require::{ACROSS, Need, program},
};
use dynencap_e2e::{
    Audit, Exit, Place, Program, Topology,
    audit::Plain,
    payload::{Stream, hex},
    topology::{CLIENT, CLIENT4, SERVER, SERVER4, VNI, gateway, rules},
};
use sha2::{Digest, Sha256};
use std::{
    fs,
    net::{IpAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

const NGINX: &[Need] = &[Need::Program("nginx"), Need::Program("curl")];
const SSH: &[Need] = &[
    Need::Program("sshd"),
    Need::Program("scp"),
    Need::Program("ssh"),
    Need::Program("ssh-keygen"),
];
const IPERF: &[Need] = &[Need::Program("iperf3")];
const NGINX_ACROSS: &[Need] = &[ACROSS, Need::Program("nginx"), Need::Program("curl")];
const SSH_ACROSS: &[Need] = &[
    ACROSS,
    Need::Program("sshd"),
    Need::Program("scp"),
    Need::Program("ssh"),
    Need::Program("ssh-keygen"),
];
const IPERF_ACROSS: &[Need] = &[ACROSS, Need::Program("iperf3")];

/// In a cgroup without a policy they are bystanders; in one with a default exit all that they
/// send takes it.
pub(crate) const TESTS: &[Test] = &[
    (
        "program::curl_without_an_exit_is_a_bystander",
        NGINX,
        || bystander("curl", curl),
    ),
    ("program::scp_without_an_exit_is_a_bystander", SSH, || {
        bystander("scp", scp)
    }),
    (
        "program::iperf3_without_an_exit_is_a_bystander",
        IPERF,
        || bystander("iperf3", iperf),
    ),
    ("program::curl_through_an_exit", NGINX_ACROSS, || {
        through("curl-exit", Exit::ip(gateway(0)), curl)
    }),
    ("program::curl_through_udp", NGINX_ACROSS, || {
        through("curl-udp", Exit::udp(gateway(1), 8), curl)
    }),
    ("program::scp_through_an_exit", SSH_ACROSS, || {
        through("scp-exit", Exit::ip(gateway(2)), scp)
    }),
    ("program::scp_through_udp", SSH_ACROSS, || {
        through("scp-udp", Exit::udp(gateway(3), 32), scp)
    }),
    ("program::iperf3_through_an_exit", IPERF_ACROSS, || {
        through("iperf3-exit", Exit::ip(gateway(4)), iperf)
    }),
    ("program::iperf3_through_udp", IPERF_ACROSS, || {
        through("iperf3-udp", Exit::udp(gateway(5), 16), iperf)
    }),
    ("program::nginx_reflects", NGINX_ACROSS, || {
        reflected("nginx", curl)
    }),
    ("program::sshd_reflects", SSH_ACROSS, || {
        reflected("sshd", scp)
    }),
    ("program::iperf3_reflects", IPERF_ACROSS, || {
        reflected("iperf3", iperf)
    }),
];

/// Who serves and who comes.
struct Roles<'a> {
    topology: &'a Topology,
    server: Place<'a>,
    client: Place<'a>,
    /// Of the server, of both families.
    addresses: [IpAddr; 2],
}

impl<'a> Roles<'a> {
    /// The client's host is the one with an exit.
    fn usual(topology: &'a Topology) -> Self {
        Self {
            topology,
            server: topology.at_server(),
            client: topology.at_client(),
            addresses: [SERVER.into(), SERVER4.into()],
        }
    }

    /// The server's host is the one that reflects.
    fn mirrored(topology: &'a Topology) -> Self {
        Self {
            topology,
            server: topology.at_client(),
            client: topology.at_server(),
            addresses: [CLIENT.into(), CLIENT4.into()],
        }
    }
}

/// The server's host reflects, and neither program knows: the tunnel of the clients is a router's.
fn reflected(test: &str, scenario: Scenario) {
    let topology = Topology::reflecting();
    topology.tunnel_by_kernel(gateway(1), VNI);
    let capture = topology.mirror(&format!("program-{test}"));
    scenario(&Roles::mirrored(&topology));
    let (mirror, _) = capture.finish();
    mirror.assert_mirrored();
    assert!(mirror.history.len() > 100, "{mirror}");
    for path in mirror.paths.keys() {
        let header = path.udp.as_ref().map(|(_, header)| &header[4..7]);
        assert_eq!(header, Some(&[0, 0, 42][..]), "{mirror}");
    }
    assert_eq!(topology.drops(), [], "{mirror}");
}

fn through(test: &str, exit: Exit, scenario: Scenario) {
    let audit = run(test, Some(&exit), scenario);
    assert!(audit.through(exit.gateway) > 100, "{audit}");
    assert_eq!(audit.through(exit.gateway), audit.tunnelled(), "{audit}");
    assert_eq!(audit.plain, 0, "{audit}");
}

/// What a scenario does in the topology: serve, fetch, compare.
type Scenario = fn(&Roles);

fn bystander(test: &str, scenario: Scenario) {
    let audit = run(test, None, scenario);
    assert_eq!(audit.tunnelled(), 0, "{audit}");
    assert!(audit.plain > 100, "{audit}");
}

/// Runs it with the client's cgroup having this exit by default.
fn run(test: &str, exit: Option<&Exit>, scenario: Scenario) -> Audit {
    let mut topology = Topology::new();
    if let Some(exit) = exit {
        topology.default_exit(exit);
    }
    let plain = if exit.is_some() {
        Plain::Leak
    } else {
        Plain::Allowed
    };
    let capture = topology.audit_by(&format!("program-{test}"), rules(plain));
    scenario(&Roles::usual(&topology));
    let (audit, _) = capture.finish();
    audit.assert_clean();
    audit
}

fn path(name: &str) -> PathBuf {
    program(name).unwrap()
}

/// The server as a URL has it.
fn bracketed(server: IpAddr) -> String {
    match server {
        IpAddr::V6(address) => format!("[{address}]"),
        IpAddr::V4(address) => address.to_string(),
    }
}

/// A file that everyone may read, and its hash.
fn file(topology: &Topology, name: &str, bytes: usize) -> (PathBuf, String) {
    let mut payload = vec![0; bytes];
    Stream::new(bytes as u64).fill(&mut payload);
    let path = topology.scratch().join(name);
    fs::write(&path, &payload).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    (path, hex(&Sha256::digest(&payload)))
}

fn hash_of(path: &PathBuf) -> String {
    hex(&Sha256::digest(fs::read(path).unwrap()))
}

/// Waits until someone listens there.
fn listening(roles: &Roles, server: &mut Program, port: u16) {
    server.wait_until("listening", Duration::from_secs(15), |_| {
        let attempt = || Ok(TcpStream::connect((roles.addresses[0], port)).is_ok());
        roles.server.namespace.in_namespace(attempt).unwrap()
    });
}

fn curl(roles: &Roles) {
    let topology = roles.topology;
    let scratch = topology.scratch().display().to_string();
    let (_, expected) = file(topology, "big", 20_000_000);
    let configuration = format!(
        "daemon off; master_process off; pid {scratch}/nginx.pid; error_log stderr;\n\
         events {{ }}\n\
         http {{ access_log off; sendfile on;\n\
         client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy;\n\
         fastcgi_temp_path {scratch}/fastcgi; uwsgi_temp_path {scratch}/uwsgi;\n\
         scgi_temp_path {scratch}/scgi;\n\
         server {{ listen [::]:8080 ipv6only=off; root {scratch}; }} }}\n"
    );
    let configured = topology.scratch().join("nginx.conf");
    fs::write(&configured, configuration).unwrap();
    let arguments = ["-e", "stderr", "-c", configured.to_str().unwrap()];
    let mut server = roles.server.spawn(&path("nginx"), arguments, &[]);
    listening(roles, &mut server, 8080);
    for to in roles.addresses {
        let url = format!("http://{}:8080/big", bracketed(to));
        let got = topology.scratch().join("got");
        let output = got.to_str().unwrap();
        let arguments = [
            "-q",
            "-g",
            "-sS",
            "-f",
            "--noproxy",
            "*",
            "-o",
            output,
            &url,
        ];
        roles
            .client
            .spawn(&path("curl"), arguments, &[])
            .output(Duration::from_secs(60));
        assert_eq!(hash_of(&got), expected, "{url}");
        fs::remove_file(&got).unwrap();
    }
}

fn scp(roles: &Roles) {
    let topology = roles.topology;
    let scratch = topology.scratch().display().to_string();
    for key in ["host_key", "user_key"] {
        let at = format!("{scratch}/{key}");
        let arguments = ["-q", "-t", "ed25519", "-N", "", "-f", &at];
        roles
            .server
            .spawn(&path("ssh-keygen"), arguments, &[])
            .output(Duration::from_secs(20));
    }
    let configuration = format!(
        "Port 2222\nHostKey {scratch}/host_key\nPidFile none\nUsePAM yes\nStrictModes no\n\
         AuthorizedKeysFile {scratch}/user_key.pub\nPasswordAuthentication no\n\
         Subsystem sftp internal-sftp\nForceCommand internal-sftp\n"
    );
    let configured = format!("{scratch}/sshd.conf");
    fs::write(&configured, configuration).unwrap();
    let mut server = roles
        .server
        .spawn(&path("sshd"), ["-D", "-e", "-f", &configured], &[]);
    listening(roles, &mut server, 2222);

    let (sent, expected) = file(topology, "sent", 10_000_000);
    let identity = format!("{scratch}/user_key");
    for to in roles.addresses {
        let there = format!("nobody@{}:{scratch}/there", bracketed(to));
        let back = topology.scratch().join("back");
        for (from, to) in [
            (sent.to_str().unwrap(), &*there),
            (&there, back.to_str().unwrap()),
        ] {
            let arguments = [
                "-F",
                "none",
                "-q",
                "-P",
                "2222",
                "-i",
                &identity,
                "-o",
                "BatchMode=yes",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                from,
                to,
            ];
            roles
                .client
                .spawn(&path("scp"), arguments, &[])
                .output(Duration::from_secs(60));
        }
        assert_eq!(hash_of(&topology.scratch().join("there")), expected, "{to}");
        assert_eq!(hash_of(&back), expected, "{to}");
        fs::remove_file(&back).unwrap();
    }
}

fn iperf(roles: &Roles) {
    let temporary = roles.topology.scratch().to_str().unwrap();
    let environment = [("TMPDIR", temporary)];
    let arguments = ["-s", "-p", "5201", "--forceflush"];
    let mut server = roles.server.spawn(&path("iperf3"), arguments, &environment);
    // Its first connection would be the one that looks whether it listens.
    server.wait_for("Server listening", Duration::from_secs(15));
    for to in roles.addresses {
        for direction in [&[][..], &["-R"]] {
            let to = to.to_string();
            // As much as the capture holds, however late it is looked at.
            let mut arguments = vec!["-c", &to, "-p", "5201", "-J", "-t", "2", "-b", "500M"];
            arguments.extend(direction);
            let began = Instant::now();
            let mut client = roles.client.spawn(&path("iperf3"), arguments, &environment);
            let report: serde_json::Value =
                serde_json::from_str(&client.output(Duration::from_secs(60))).unwrap();
            let sum = |side: &str| report["end"][side]["bytes"].as_u64().unwrap();
            let (sent, received) = (sum("sum_sent"), sum("sum_received"));
            assert!(received > 1_000_000 && received <= sent, "{report}");
            println!(
                "iperf3 {to} {direction:?}: {:.0} Mbit/s",
                received as f64 * 8.0 / 1e6 / began.elapsed().as_secs_f64()
            );
        }
    }
}

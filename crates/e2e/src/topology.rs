//! The network of every test, in namespaces without names:
//!
//! ```text
//!  C client host       R router              X exit node         S server
//!  c0 ──────────────── r0     r1 ─────────── x0     x1 ────────── s0
//!  options in a        captured here:        decapsulates         plain
//!  cgroup, TC at c0    what C really sent    at x0
//! ```
//!
//! Replies come back outside of tunnels. Loading and attaching is left to [`datapath`],
//! what runs in it to the tests.
//!
//! [`datapath`]: Topology::attach

mod address;
mod build;
mod datapath;
mod mirrored;
mod policy;

pub use address::*;
pub use build::ip;
pub use datapath::{BOND, Link, Setup};
pub use mirrored::{END, END4, GPE, VNI, ends, gpe, udp};
pub use policy::Grant;

use crate::{
    Audit, Place, Program, Rules, User,
    agent::{INPUT, JOB},
    audit::Plain,
    capture::Capture,
    exit::Shape,
    job::server,
    limit::seconds,
};
use datapath::Datapath;
use dynencap_kernel::{Cgroup, Namespace};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// The four hosts, two cgroups, and a directory for what programs write.
#[derive(Debug)]
pub struct Topology {
    servers: Vec<Program>,
    datapath: Option<Datapath>,
    /// C.
    pub client: Namespace,
    /// R.
    pub router: Namespace,
    /// X.
    pub exit: Namespace,
    /// S.
    pub server: Namespace,
    client_cgroup: PathBuf,
    server_cgroup: PathBuf,
    scratch: TempDir,
    // The last to go: what is still running in it is ended before.
    cgroup: Cgroup,
}

impl Topology {
    /// Builds it, without any program of ours. One at a time in a process.
    #[must_use]
    pub fn build() -> Self {
        let cgroup = Cgroup::new().expect("a cgroup");
        let [client, router, exit, server] =
            [(); 4].map(|()| Namespace::new().expect("a namespace"));
        build::connect(&client, &router, &exit, &server);
        let scratch = tempfile::Builder::new()
            .prefix("dynencap-e2e-")
            .tempdir()
            .expect("a directory");
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(scratch.path(), open).expect("chmod");
        // Nobody may not be able to reach the folder that this binary lies in.
        fs::copy("/proc/self/exe", scratch.path().join("agent")).expect("a copy of this binary");
        Self {
            servers: Vec::new(),
            datapath: None,
            client,
            router,
            exit,
            server,
            client_cgroup: cgroup.child("client").expect("a cgroup"),
            server_cgroup: cgroup.child("server").expect("a cgroup"),
            scratch,
            cgroup,
        }
    }

    /// Where clients run: as nobody, with the option hooks on their cgroup.
    #[must_use]
    pub fn at_client(&self) -> Place<'_> {
        Place {
            namespace: &self.client,
            cgroup: &self.client_cgroup,
            scratch: self.scratch.path(),
            user: User::Nobody,
        }
    }

    /// A cgroup below the client's.
    #[must_use]
    pub fn room(&self, name: &str) -> PathBuf {
        self.cgroup
            .child(&format!("client/{name}"))
            .expect("a cgroup")
    }

    /// Where servers run: as nobody, without any hook.
    #[must_use]
    pub fn at_server(&self) -> Place<'_> {
        Place {
            namespace: &self.server,
            cgroup: &self.server_cgroup,
            scratch: self.scratch.path(),
            user: User::Nobody,
        }
    }

    /// A directory that every program may write to.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Starts one of this binary's jobs.
    #[must_use]
    pub fn start(&self, place: Place<'_>, job: &str, input: impl Serialize) -> Program {
        let input = serde_json::to_string(&input).expect("JSON");
        let environment = [(JOB, job), (INPUT, &input)];
        place.spawn(&self.scratch.path().join("agent"), [""; 0], &environment)
    }

    /// Runs a job at the client to its end.
    pub fn run<T: DeserializeOwned>(&self, job: &str, input: impl Serialize) -> T {
        self.run_within(job, input, Duration::from_secs(60))
    }

    /// The same with a time limit of its own.
    pub fn run_within<T: DeserializeOwned>(
        &self,
        job: &str,
        input: impl Serialize,
        time: Duration,
    ) -> T {
        result(&mut self.start(self.at_client(), job, input), time)
    }

    /// Starts the server of [`crate::job::server`] in S and waits until it listens.
    pub fn serve(&mut self) {
        let mut program = self.start(self.at_server(), server::NAME, ());
        program.wait_for(server::READY, Duration::from_secs(10));
        self.servers.push(program);
    }

    /// The same in C, where a mirrored topology has its servers.
    pub fn serve_mirrored(&mut self) {
        let mut program = self.start(self.at_client(), server::NAME, ());
        program.wait_for(server::READY, Duration::from_secs(10));
        self.servers.push(program);
    }

    /// Captures and audits all that C sends, in all shapes to all gateways, nothing plain.
    #[must_use]
    pub fn audit(&self, test: &str) -> Capture<Audit> {
        self.audit_by(test, rules(Plain::Leak))
    }

    /// The same with other rules.
    #[must_use]
    pub fn audit_by(&self, test: &str, rules: Rules) -> Capture<Audit> {
        let path = evidence().join(format!("{}.pcap", test.replace("::", "-")));
        Capture::start(&self.router, ROUTER_DEVICES[0], &path, Audit::new(rules))
    }

    /// Lets C's uplink sum transport checksums, as real devices do; captures then show sums that
    /// are not final. Without it the kernel's GSO refuses an encapsulated super-packet of
    /// `UDP_SEGMENT`, and the application gets `ENOMEM` (seen on 6.18).
    pub fn offload_checksums(&self) {
        let mut ethtool = std::process::Command::new("ethtool");
        ethtool.args(["-K", UPLINK, "tx-checksum-ip-generic", "on"]);
        let output = self
            .client
            .in_namespace(|| Ok(ethtool.output()))
            .expect("setns");
        let output = output.expect("ethtool");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Writes a setting below `/proc/sys/net` of a namespace.
    pub fn sysctl(namespace: &Namespace, name: &str, value: &str) {
        let path = format!("/proc/sys/net/{name}");
        let written = namespace.in_namespace(|| Ok(fs::write(&path, value)));
        written
            .expect("setns")
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        self.servers.clear();
        for cgroup in [&self.client_cgroup, &self.server_cgroup] {
            // Children of programs; ends nothing but what was started in this cgroup.
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        }
        self.detach();
        // The cgroup can only go once the killed have.
        let until = std::time::Instant::now() + seconds(2);
        let populated = |path: &Path| {
            fs::read_to_string(path.join("cgroup.procs"))
                .is_ok_and(|processes| !processes.is_empty())
        };
        while (populated(&self.client_cgroup) || populated(&self.server_cgroup))
            && std::time::Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = &self.cgroup;
    }
}

/// The last line of a job's output.
pub fn result<T: DeserializeOwned>(program: &mut Program, time: Duration) -> T {
    let output = program.output(time);
    let line = output.lines().next_back().expect("a result");
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {output}"))
}

/// What may leave the client in most tests.
#[must_use]
pub fn rules(plain: Plain) -> Rules {
    Rules {
        mtu: MTU,
        source: CLIENT,
        gateways: gateways().collect(),
        shapes: HEADER_LENS
            .iter()
            .map(|&len| Shape::udp(len))
            .chain([Shape::Ip])
            .collect(),
        plain,
        flags: 0,
    }
}

/// Lets a router lose every packet to `gateway`, for a while.
pub fn blackhole(router: &Namespace, gateway: IpAddr, time: Duration) {
    let family = if gateway.is_ipv6() { "-6 " } else { "" };
    build::ip(router, &format!("{family}route add blackhole {gateway}"));
    std::thread::sleep(time);
    build::ip(router, &format!("{family}route del blackhole {gateway}"));
}

/// Where captures are kept.
#[must_use]
pub fn evidence() -> PathBuf {
    let folder = std::env::var_os("DYNENCAP_EVIDENCE")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let binary = std::env::current_exe().expect("this binary");
            // <target>/<profile>/deps/<binary>
            let target = binary.ancestors().nth(3).expect("a target folder");
            target.join("e2e-evidence")
        });
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

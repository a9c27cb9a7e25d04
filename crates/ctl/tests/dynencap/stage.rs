//! Where the tests play: a host namespace with an uplink, a peer behind it that takes outer IPv6
//! headers off with the kernel's own means, a BPF file system, a cgroup. All of it goes with the
//! value.

use crate::program::{DYNENCAP, Run};
use dynencap_kernel::{Cgroup, sys};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

/// Address of the host, of the peer, and of the peer's tunnel end.
pub(crate) const HOST: &str = "2001:db8:1::1";
pub(crate) const PEER: &str = "2001:db8:1::2";
pub(crate) const EXIT: &str = "2001:db8:9::9";

/// A process that holds namespaces.
struct Holder(Child);

impl Holder {
    /// Runs `script` in new namespaces; they are ready when it has.
    fn new(script: &str) -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-ec"])
            .arg(format!("{script}\necho ready\nexec sleep 600"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process has one cgroup of its own, so there is one stage at a time.
static ONE: Mutex<()> = Mutex::new(());

/// See the module.
pub(crate) struct Stage {
    cgroup: Cgroup,
    host: Holder,
    peer: Holder,
    // Given back last.
    _one: MutexGuard<'static, ()>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = Holder::new("ip link set lo up");
        // Without a link-local address, which would come some time later and change the traces.
        let host = Holder::new(&format!(
            "mount -t bpf bpf /sys/fs/bpf
             ip link set lo up
             ip link add up0 type veth peer name up1 netns {}
             ip link set up0 addrgenmode none
             ip link set up0 up
             ip -6 addr add {HOST}/64 dev up0 nodad",
            peer.pid()
        ));
        let stage = Self {
            cgroup: Cgroup::new().unwrap(),
            host,
            peer,
            _one: one,
        };
        // The tunnel's end takes plain IPv6-in-IPv6 too.
        for command in [
            "ip link set up1 up".to_owned(),
            format!("ip -6 addr add {PEER}/64 dev up1 nodad"),
            format!("ip -6 route add {EXIT}/128 encap seg6local action End.DT6 table 255 dev up1"),
        ] {
            stage.at_peer(&command);
        }
        // The gateway is no neighbour: its packets go by the peer.
        stage.at_host(&format!("ip -6 route add {EXIT}/128 via {PEER}"));
        stage
    }

    /// The cgroup for which dynencap is installed.
    pub(crate) fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    /// A new one below it.
    pub(crate) fn child_cgroup(&self, name: &str) -> PathBuf {
        self.cgroup.child(name).unwrap()
    }

    /// A command in the host's namespaces.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.host.pid(), "--net", "--mount", program])
            .args(arguments);
        command
    }

    /// The built-in object's `dynencap`, or that of `DYNENCAP_OBJECT`.
    pub(crate) fn dynencap_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(DYNENCAP, &[]);
        if let Some(object) = std::env::var_os("DYNENCAP_OBJECT") {
            command.arg("--object").arg(object);
        }
        command.args(arguments);
        command
    }

    pub(crate) fn dynencap(&self, arguments: &[&str]) -> Run {
        self.dynencap_command(arguments).output().unwrap().into()
    }

    /// `dynencap` in the peer's network, with pins of its own in the host's BPF file system.
    pub(crate) fn dynencap_at_peer(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.host.pid(), "--mount"])
            .arg(format!("--net=/proc/{}/ns/net", self.peer.pid()))
            .arg(DYNENCAP);
        if let Some(object) = std::env::var_os("DYNENCAP_OBJECT") {
            command.arg("--object").arg(object);
        }
        command.args(["--pin", "/sys/fs/bpf/peer"]).args(arguments);
        command.output().unwrap().into()
    }

    /// `up` with the flags that every test needs, and more.
    pub(crate) fn up(&self, more: &[&str]) -> Run {
        let cgroup = self.cgroup().to_str().unwrap();
        let mut arguments = vec!["up", "--uplink", "up0", "--cgroup", cgroup];
        arguments.extend(more);
        self.dynencap(&arguments)
    }

    pub(crate) fn at_host(&self, command: &str) -> String {
        said(&mut self.command("sh", &["-c", command]))
    }

    pub(crate) fn at_peer(&self, command: &str) -> String {
        said(Command::new("nsenter").args([
            "--target",
            &self.peer.pid(),
            "--net",
            "sh",
            "-c",
            command,
        ]))
    }

    /// What an installation may change: rules, routes, devices, qdiscs, pins, cgroups.
    pub(crate) fn traces(&self) -> String {
        let shown = self.at_host(
            "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all
             ip -o link show; tc qdisc; ls -R /sys/fs/bpf",
        );
        let below = std::fs::read_dir(self.cgroup()).unwrap();
        let mut cgroups: Vec<String> = below
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .map(|path| path.display().to_string())
            .collect();
        cgroups.sort();
        format!("{shown}{cgroups:?}")
    }

    /// Runs `work` in the host's network namespace.
    pub(crate) fn in_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.host.pid(), work)
    }

    /// The same in the peer's.
    pub(crate) fn in_peer<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.peer.pid(), work)
    }

    /// The host's BPF file system, as seen from outside.
    pub(crate) fn bpffs(&self) -> PathBuf {
        let process = Path::new("/proc").join(self.host.pid());
        process.join("root").join("sys/fs/bpf")
    }

    /// A server behind the uplink that answers each connection with `answer`, until the process
    /// ends. Returns its port.
    pub(crate) fn serve(&self, answer: &'static str) -> u16 {
        let listener = in_namespace(&self.peer.pid(), || TcpListener::bind((PEER, 0)).unwrap());
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        port
    }

    /// Counters of `stats`, by name.
    pub(crate) fn stats(&self) -> serde_json::Value {
        self.dynencap(&["stats", "--json"]).exits(0).json()
    }
}

fn in_namespace<T: Send>(pid: &str, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::enter_network(namespace.as_fd()).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

#[track_caller]
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

//! Policies, from the command to the errno that an application gets, and to the packet.

use crate::{
    require::require,
    stage::{EXIT, PEER, Stage},
};
use dynencap::{Error, Exit, ExitSocket};
use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    net::UdpSocket,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

/// Set in a child process that plays the application.
const PLAY: &str = "DYNENCAP_TEST_PLAY";

/// The application: does what it is told on stdin, and says what came of it.
#[test]
fn application() {
    if env::var(PLAY).is_err() {
        return;
    }
    let mut lines = std::io::stdin().lines();
    // Told only when it is in its cgroup.
    assert_eq!(lines.next().unwrap().unwrap(), "start");
    let socket = UdpSocket::bind("[::]:0").unwrap();
    for line in lines {
        let line = line.unwrap();
        let answer = match line.split_once(' ') {
            Some(("set", exit)) => word(socket.set_exit(&exit.parse().unwrap())),
            _ if line == "clear" => word(socket.clear_exit()),
            _ if line == "send" => socket
                .send_to(b"x", (PEER, 9))
                .map_or("failed", |_| "sent")
                .to_owned(),
            _ if line == "get" => {
                let exit = socket.exit().unwrap();
                exit.map_or("none".to_owned(), |exit: Exit| exit.to_string())
            }
            _ => {
                let info = socket.exit_info().unwrap();
                format!(
                    "{} {} {:?}",
                    info.encapsulated, info.dropped, info.last_drop
                )
            }
        };
        println!("said: {answer}");
    }
}

fn word(result: Result<(), Error>) -> String {
    match result {
        Ok(()) => "ok",
        Err(Error::Denied) => "denied",
        Err(Error::NotInstalled) => "not installed",
        Err(_) => "error",
    }
    .to_owned()
}

/// That application, in a cgroup.
pub(crate) struct Application {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Application {
    pub(crate) fn start(stage: &Stage, cgroup: &Path) -> Self {
        let program = env::current_exe().unwrap();
        let mut child = stage
            .command(
                program.to_str().unwrap(),
                &["--exact", "policy::application", "--nocapture"],
            )
            .env(PLAY, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "start").unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            input,
            output,
        }
    }

    pub(crate) fn told(&mut self, what: &str) -> String {
        writeln!(self.input, "{what}").unwrap();
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some((_, said)) = line.trim().split_once("said: ") {
                return said.to_owned();
            }
            line.clear();
        }
        panic!("the application ended")
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_policy_binds_its_cgroup_and_live_sockets() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.up(&["--default", "deny"]).exits(0);
    let cgroup = stage.child_cgroup("tenant");
    let path = cgroup.to_str().unwrap();
    let mut application = Application::start(&stage, &cgroup);
    assert_eq!(
        application.told(&format!("set {EXIT}")),
        "denied",
        "by default"
    );

    let set = |flags: &[&str]| {
        let mut arguments = vec!["policy", "set", "--cgroup", path];
        arguments.extend(flags);
        stage.dynencap(&arguments).exits(0);
    };
    set(&[
        "--allow",
        "2001:db8:9::/48",
        "192.0.2.1",
        "--deny",
        "2001:db8:9:bad::/64",
        "--ports",
        "4789,6000-6100",
    ]);
    for (exit, expected) in [
        (EXIT, "ok"),
        ("2001:db8:9:bad::1", "denied"),
        ("2001:db8:8::1", "denied"),
        ("192.0.2.1", "ok"),
        ("192.0.2.2", "denied"),
        ("2001:db8:9::9/udp:6080", "ok"),
        ("2001:db8:9::9/udp:6101", "denied"),
        ("2001:db8:9::9/udp:6080,header=00", "denied"),
    ] {
        assert_eq!(application.told(&format!("set {exit}")), expected, "{exit}");
        let read = application.told("get");
        assert_eq!(read == exit, expected == "ok", "{exit}: {read}");
    }
    assert_eq!(application.told(&format!("set {EXIT}")), "ok");
    assert_eq!(application.told("send"), "sent");
    assert_eq!(application.told("info"), "1 0 None");

    // A live socket's exit is judged anew with its next packet.
    set(&["--allow", "2001:db8:8::/48", "--required"]);
    application.told("send");
    assert_eq!(application.told("info"), "1 1 Some(PolicyDenied)");
    assert_eq!(application.told("set 2001:db8:8::1"), "ok");
    assert_eq!(application.told("clear"), "denied", "--required");
    let shown = stage
        .dynencap(&["policy", "show", "--json"])
        .exits(0)
        .json();
    assert_eq!(shown[0]["cgroup"], path, "{shown:#}");
    assert_eq!(shown[0]["allow"], serde_json::json!(["2001:db8:8::/48"]));

    stage
        .dynencap(&["policy", "remove", "--cgroup", path])
        .exits(0);
    assert_eq!(application.told("clear"), "ok");
    let stats = stage.stats();
    assert_eq!(stats["frames"]["policy_denied"], 1, "{stats:#}");
    assert_eq!(stats["events"]["option_denied"], 7, "{stats:#}");
    drop(application);
    stage.dynencap(&["down"]).exits(0);
}

#[test]
fn a_file_is_applied_as_a_whole_and_shown_as_a_file() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.up(&[]).exits(0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policies.toml");
    let name = file.to_str().unwrap();
    stage.child_cgroup("one");
    stage.child_cgroup("two");
    let write = |second: &str| {
        let text = format!(
            "[[policy]]\ncgroup = 'one'\nallow = ['2001:db8::/32', '0.0.0.0/0']\nports = ['4789']\n\
             custom-headers = true\nsource = '2001:db8:1::1'\nreserve = 56\n\n\
             [[policy]]\ncgroup = '{second}'\nallow = ['::/0']\ndefault-exit = '{EXIT}'\nrequired = true\n"
        );
        fs::write(&file, text).unwrap();
    };
    for (second, words) in [
        ("three", "three"),
        ("one", "stands there twice"),
        ("../..", "is not below"),
    ] {
        write(second);
        let run = stage.dynencap(&["policy", "apply", name]);
        assert_ne!(run.code, Some(0));
        run.says(&[name, words]);
        let shown = stage.dynencap(&["policy", "show", "--json"]).json();
        assert_eq!(
            shown.as_array().map(Vec::len),
            Some(0),
            "nothing was written"
        );
    }
    write("two");
    stage.dynencap(&["policy", "apply", name]).exits(0);
    let shown = stage.dynencap(&["policy", "show"]).exits(0).stdout;
    // What is shown can be applied, and changes nothing.
    let copy = folder.path().join("copy.toml");
    fs::write(&copy, &shown).unwrap();
    stage
        .dynencap(&["policy", "apply", copy.to_str().unwrap()])
        .exits(0);
    assert_eq!(stage.dynencap(&["policy", "show"]).exits(0).stdout, shown);
    for words in [
        "reserve = 56",
        "default-exit = ",
        "\"0.0.0.0/0\"",
        "required = true",
    ] {
        assert!(shown.contains(words), "{shown}");
    }

    fs::remove_dir(stage.cgroup().join("one")).unwrap();
    let shown = stage.dynencap(&["policy", "show"]).exits(0).stdout;
    assert!(shown.contains("is gone"), "{shown}");
    let removed = stage.dynencap(&["policy", "remove", "--gone"]).exits(0);
    assert_eq!(removed.stdout, "removed: 1\n");
    stage.dynencap(&["down"]).exits(0);
}

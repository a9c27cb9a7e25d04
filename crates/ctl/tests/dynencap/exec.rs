//! `exec` passes on what its program does, and leaves nothing.

use crate::{
    program::Run,
    require::require,
    stage::{EXIT, Stage},
};
use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

fn exec(stage: &Stage, script: &str) -> std::process::Output {
    stage
        .dynencap_command(&["exec", "--via", EXIT, "--", "sh", "-c", script])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn status_and_signals_are_those_of_the_program() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.up(&[]).exits(0);
    let before = stage.traces();
    for code in [0, 1, 7, 255] {
        let output = exec(&stage, &format!("exit {code}"));
        assert_eq!(output.status.code(), Some(code));
    }
    for (signal, name) in [(9, "KILL"), (15, "TERM"), (6, "ABRT")] {
        let output = exec(&stage, &format!("kill -{name} $$"));
        assert_eq!(output.status.signal(), Some(signal), "{output:?}");
    }
    let run = |arguments: &[&str]| -> Run { stage.dynencap(arguments) };
    run(&["exec", "--via", EXIT, "--", "/no/such/program"])
        .exits(127)
        .says(&["/no/such/program", "No such file"]);
    run(&["exec", "--via", EXIT, "--", "/proc"]).exits(126);
    run(&["exec", "--via", EXIT, "--user", "nosuchuser", "--", "true"])
        .exits(2)
        .says(&["--user nosuchuser", "/etc/passwd"]);
    let user = run(&[
        "exec",
        "--via",
        EXIT,
        "--user",
        "nobody",
        "--",
        "sh",
        "-c",
        "id -u; id -G",
    ])
    .exits(0);
    assert_eq!(user.stdout, "65534\n65534\n");
    assert_eq!(stage.traces(), before, "no cgroup is left");
    let policies = run(&["policy", "show", "--json"]).exits(0).json();
    assert_eq!(policies.as_array().map(Vec::len), Some(0), "{policies:#}");
    stage.dynencap(&["down"]).exits(0);
}

#[test]
fn signals_reach_the_program_which_decides() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.up(&[]).exits(0);
    let before = stage.traces();
    for signal in ["INT", "TERM", "HUP", "QUIT", "USR1"] {
        let script = format!(
            "trap 'echo got {signal}; kill $sleeping; exit 33' {signal}
             sleep 60 & sleeping=$!; echo ready; wait"
        );
        let mut child = stage
            .dynencap_command(&["exec", "--via", EXIT, "--", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        // nsenter has become dynencap: no namespace of processes is entered.
        let killed = Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, format!("got {signal}\n"));
        assert_eq!(child.wait().unwrap().code(), Some(33));
    }
    assert_eq!(stage.traces(), before);
    stage.dynencap(&["down"]).exits(0);
}

#[test]
fn who_stays_behind_keeps_the_exit_until_the_end() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.up(&[]).exits(0);
    let before = stage.traces();
    let output: Run = exec(&stage, "sleep 60 >/dev/null 2>&1 & echo $!").into();
    let output = output.exits(0).says(&["processes are left"]);
    let left = stage.dynencap(&["policy", "show", "--json"]).json();
    assert_eq!(left[0]["default-exit"], EXIT, "{left:#}");
    assert_eq!(left[0]["required"], true);
    let killed = Command::new("kill")
        .arg(output.stdout.trim())
        .status()
        .unwrap();
    assert!(killed.success());
    // The next one sweeps.
    let swept = (0..100).any(|_| {
        exec(&stage, "true");
        stage.traces() == before
    });
    assert!(swept);
    let left = stage.dynencap(&["policy", "show", "--json"]).json();
    assert_eq!(left.as_array().map(Vec::len), Some(0), "{left:#}");
    stage.dynencap(&["down"]).exits(0);
}

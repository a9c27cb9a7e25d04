//! The programs that CI and the guests run: each in a process group of its own, its output line
//! by line, and ended as a whole when this program is interrupted or out of time.

use anyhow::{Context, bail, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{BufRead, BufReader, PipeReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(100);
/// How long a program that was told to end may take to clean up.
const GRACE: Duration = Duration::from_secs(15);
/// How long output may outlive the program: a daemon that it left holds the pipe open.
const AFTERMATH: Duration = Duration::from_secs(2);
/// Lines of a quiet program that are shown when it fails.
const TAIL: usize = 80;

/// Whose output is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// All of it, as it comes.
    Live,
    /// Its last lines, if it fails.
    Failure,
}

/// Why everything has to end early.
pub(crate) struct Limits {
    interrupted: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

impl Limits {
    /// From now on an interruption ends the program that runs, and this one with it.
    pub(crate) fn new(time: Option<Duration>) -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        Ok(Self {
            interrupted,
            deadline: time.map(|time| Instant::now() + time),
        })
    }

    /// The same interruption, and `time` from now on.
    pub(crate) fn within(&self, time: Duration) -> Self {
        Self {
            interrupted: Arc::clone(&self.interrupted),
            deadline: Some(Instant::now() + time),
        }
    }

    /// Fails when everything has to end.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.reached().map_or(Ok(()), |why| bail!("{why}"))
    }

    /// Whether time is over, and nobody has interrupted.
    pub(crate) fn is_late(&self) -> bool {
        !self.interrupted.load(Ordering::Relaxed)
            && self.deadline.is_some_and(|end| Instant::now() > end)
    }

    fn reached(&self) -> Option<&'static str> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Some("interrupted");
        }
        self.is_late().then_some("its time is over")
    }
}

/// Runs a program to its end and hands on each line of its output; fails if it fails.
pub(crate) fn run(
    command: &mut Command,
    show: Show,
    limits: &Limits,
    mut on_line: impl FnMut(&str),
) -> anyhow::Result<()> {
    let name = described(command);
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run: {name}"))?;
    // Ours of the writing ends, or the output would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let lines = lines_of(reader);
    let mut tail = Vec::new();
    let status = follow(&mut child, &lines, limits, &mut |line| {
        match show {
            Show::Live => println!("{line}"),
            Show::Failure => {
                if tail.len() == TAIL {
                    tail.remove(0);
                }
                tail.push(line.to_owned());
            }
        }
        on_line(line);
    })?;
    if !status.success() {
        for line in tail {
            println!("{line}");
        }
    }
    ensure!(status.success(), "{name}: {status}");
    Ok(())
}

/// The first line that a program prints; `None` where it is not there or fails.
pub(crate) fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output
        .status
        .success()
        .then(|| text.lines().next().unwrap_or_default().to_owned())
}

fn described(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

fn lines_of(reader: PipeReader) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

fn follow(
    child: &mut Child,
    lines: &Receiver<String>,
    limits: &Limits,
    on_line: &mut dyn FnMut(&str),
) -> anyhow::Result<ExitStatus> {
    let mut ended: Option<Instant> = None;
    loop {
        match lines.recv_timeout(POLL) {
            Ok(line) => on_line(&line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => thread::sleep(POLL / 10),
        }
        if let Some(why) = limits.reached() {
            end(child)?;
            bail!("{why}");
        }
        if ended.is_none() && child.try_wait()?.is_some() {
            ended = Some(Instant::now());
        }
        let Some(since) = ended else { continue };
        match lines.try_recv() {
            Ok(line) => on_line(&line),
            Err(mpsc::TryRecvError::Disconnected) => return Ok(child.wait()?),
            Err(mpsc::TryRecvError::Empty) if since.elapsed() > AFTERMATH => {
                return Ok(child.wait()?);
            }
            Err(mpsc::TryRecvError::Empty) => {}
        }
    }
}

/// Ends the program with everything that it started.
fn end(child: &mut Child) -> anyhow::Result<()> {
    signal(child, "TERM")?;
    let asked = Instant::now();
    while asked.elapsed() < GRACE && child.try_wait()?.is_none() {
        thread::sleep(POLL);
    }
    // Whoever is left of the group, the program itself included.
    signal(child, "KILL")?;
    child.wait()?;
    Ok(())
}

fn signal(child: &Child, name: &str) -> anyhow::Result<()> {
    let script = format!("kill -{name} -{} 2>/dev/null", child.id());
    // It fails when the group is empty, which is what is wanted.
    Command::new("sh").args(["-c", &script]).status()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::new(None).unwrap()
    }

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_streams_come_line_by_line_and_a_failure_names_the_command() {
        let mut lines = Vec::new();
        let mut script = sh("echo one; echo two >&2; printf three; exit 3");
        let error = run(&mut script, Show::Failure, &limits(), |line| {
            lines.push(line.to_owned());
        })
        .unwrap_err();
        assert_eq!(lines, ["one", "two", "three"]);
        let text = error.to_string();
        assert!(text.contains("sh -c") && text.contains('3'), "{text}");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_with_its_name() {
        let mut command = Command::new("no-such-program-of-ours");
        let error = run(&mut command, Show::Live, &limits(), |_| {}).unwrap_err();
        assert!(error.to_string().contains("no-such-program-of-ours"));
    }

    #[test]
    fn an_interruption_ends_the_whole_group() {
        let limits = limits();
        let mut pids = Vec::new();
        let mut script = sh("sleep 600 & echo $!; sleep 600");
        let error = run(&mut script, Show::Failure, &limits, |line| {
            pids.push(line.to_owned());
            limits.interrupted.store(true, Ordering::Relaxed);
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "interrupted");
        let [pid] = &pids[..] else {
            panic!("{pids:?}");
        };
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let gone = state.is_empty() || state.contains(") Z ");
        assert!(gone, "still there: {state}");
    }

    #[test]
    fn time_that_is_over_ends_the_program() {
        let limits = Limits::new(Some(Duration::from_millis(200))).unwrap();
        let started = Instant::now();
        let error = run(&mut sh("sleep 600"), Show::Failure, &limits, |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "its time is over");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_daemon_that_keeps_the_output_open_does_not_keep_us() {
        let started = Instant::now();
        let mut pid = String::new();
        run(
            &mut sh("sleep 600 & echo $!"),
            Show::Failure,
            &limits(),
            |line| pid = line.to_owned(),
        )
        .unwrap();
        assert!(started.elapsed() < Duration::from_secs(30));
        let kill = format!("kill {pid}");
        assert!(sh(&kill).status().unwrap().success());
    }
}

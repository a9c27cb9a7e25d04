//! Programs inside the topology: in a namespace, in a cgroup of their own, as nobody, without
//! a way back to privileges; ended when their value goes.

use crate::limit::limit;
use dynencap_kernel::Namespace;
use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// nobody and nogroup.
pub const NOBODY: u32 = 65_534;

/// Whose rights a program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Nobody's: no capability, and none to be had.
    Nobody,
    /// All of this process's: for what an application with privileges would do.
    Root,
}

/// Joins the cgroup `$0` and becomes the program. `0` means the writer.
const JOIN: &str = r#"echo 0 > "$0/cgroup.procs" && exec "$@""#;

/// Joins the cgroup `$0`, gives up every privilege, becomes the program.
const ENTER: &str = r#"echo 0 > "$0/cgroup.procs" && exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs -- "$@""#;

/// Where a program runs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its network.
    pub namespace: &'a Namespace,
    /// Its cgroup's directory.
    pub cgroup: &'a Path,
    /// Where its output is kept.
    pub scratch: &'a Path,
    /// With whose rights.
    pub user: User,
}

/// A program that was started.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Place<'_> {
    /// Starts a program.
    #[must_use]
    pub fn spawn<S: AsRef<OsStr>>(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
        environment: &[(&str, &str)],
    ) -> Program {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = program
            .file_name()
            .expect("a program")
            .to_string_lossy()
            .into_owned();
        let stdout = self.scratch.join(format!("{number}-{name}.out"));
        let stderr = self.scratch.join(format!("{number}-{name}.err"));
        let mut command = Command::new("/bin/sh");
        command
            .args([
                "-c",
                if self.user == User::Nobody {
                    ENTER
                } else {
                    JOIN
                },
            ])
            .arg(self.cgroup)
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(self.scratch)
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).expect("a scratch file"))
            .stderr(File::create(&stderr).expect("a scratch file"));
        let child = self
            .namespace
            .in_namespace(|| Ok(command.spawn()))
            .expect("setns")
            .expect("/bin/sh");
        Program {
            name,
            child,
            stdout,
            stderr,
        }
    }
}

impl Program {
    /// What it has written to its standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has written to its standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Its process id: `sh` and `setpriv` become the program.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until its output says `word`.
    pub fn wait_for(&mut self, word: &str, time: Duration) {
        self.wait_until(word, time, |program| program.stdout().contains(word));
    }

    /// Waits until `condition` holds.
    pub fn wait_until(&mut self, what: &str, time: Duration, condition: impl Fn(&Self) -> bool) {
        let until = Instant::now() + limit(time);
        while !condition(self) {
            if let Some(status) = self.child.try_wait().expect("wait") {
                panic!(
                    "{} ended ({status}) before {what}: {}",
                    self.name,
                    self.stderr()
                );
            }
            assert!(
                Instant::now() < until,
                "{}: {what}: not in time: {}",
                self.name,
                self.stderr()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end.
    pub fn status(&mut self, time: Duration) -> ExitStatus {
        let until = Instant::now() + limit(time);
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(
                Instant::now() < until,
                "{} did not end in time: {}",
                self.name,
                self.stderr()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end, which must be a success; what it wrote to its standard output.
    pub fn output(&mut self, time: Duration) -> String {
        let status = self.status(time);
        assert!(
            status.success(),
            "{}: {status}: {}{}",
            self.name,
            self.stdout(),
            self.stderr()
        );
        self.stdout()
    }

    /// Ends it at once, and reaps it.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).expect("a scratch file")).into_owned()
}

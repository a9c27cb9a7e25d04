//! `exec`: an unmodified program whose connections leave through an exit. It runs in a cgroup of
//! its own, whose policy gives every socket that exit and allows no other.

use crate::{
    Usage, group,
    installed::{Installed, Pins},
    policy,
    rules::Rules,
    user::User,
};
use anyhow::Context;
use clap::Args;
use dynencap::Exit;
use dynencap_kernel::Loaded;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH},
    iterator::Signals,
    low_level::emulate_default_handler,
};
use std::{
    fs, io,
    io::IsTerminal,
    net::Ipv4Addr,
    net::Ipv6Addr,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{self, Child, Command, ExitCode, ExitStatus},
    thread,
    time::Duration,
};

/// Names of the cgroups, followed by the process id.
const PREFIX: &str = "dynencap-exec-";

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Where packets leave: `ADDRESS[/udp:PORT[,header=HEX][,source-port=PORT]]`
    #[arg(long, value_name = "EXIT")]
    via: Exit,
    /// Run it as this user: NAME or UID, with :GROUP if another than the user's own
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(crate) fn run(pins: &Pins, exec: &Exec) -> anyhow::Result<ExitCode> {
    let user = exec.user.as_deref().map(User::find).transpose()?;
    let [program, arguments @ ..] = exec.command.as_slice() else {
        return Err(Usage("exec: expected a program behind `--`".to_owned()).into());
    };
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(User { uid, gid }) = user {
        // Supplementary groups go with the user.
        command.uid(uid).gid(gid);
    }
    let room = Room::make(pins, &exec.via)?;
    // Caught from now on, so that a signal cannot end this process and leave the room.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH])?;
    let handle = signals.handle();
    let child = room.start(&mut command)?;
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            eprintln!("dynencap: {program}: {error}");
            room.leave(pins)?;
            return Ok(ExitCode::from(match error.kind() {
                io::ErrorKind::NotFound => 127,
                _ => 126,
            }));
        }
    };
    let pid = Pid::from_child(&child);
    let forwarder = thread::spawn(move || {
        // From the terminal the program has had its own.
        let terminal = io::stdin().is_terminal();
        for signal in signals.forever() {
            let had = terminal && [SIGINT, SIGQUIT, SIGWINCH].contains(&signal);
            if let Some(signal) = Signal::from_named_raw(signal).filter(|_| !had) {
                let _ = kill_process(pid, signal);
            }
        }
    });
    let status = wait(&mut child, pid, || handle.close());
    let _ = forwarder.join();
    room.leave(pins)?;
    ended(status?)
}

/// Waits for the end; `before` runs while the process id is still the program's.
fn wait(child: &mut Child, pid: Pid, before: impl FnOnce()) -> io::Result<ExitStatus> {
    loop {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(pid), options) {
            Err(rustix::io::Errno::INTR) => {}
            _ => break,
        }
    }
    before();
    child.wait()
}

/// Ends as the program did.
fn ended(status: ExitStatus) -> anyhow::Result<ExitCode> {
    if let Some(signal) = status.signal() {
        // Ends this process, unless the signal does not end processes by default.
        emulate_default_handler(signal)?;
        return Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(1)));
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// The program's cgroup and its policy.
struct Room {
    path: PathBuf,
    id: u64,
    /// Where this process was.
    home: PathBuf,
}

impl Room {
    fn make(pins: &Pins, exit: &Exit) -> anyhow::Result<Self> {
        let installed = pins.open()?;
        let cgroup = &installed.settings.up.cgroup;
        sweep_policies(pins, &installed)?;
        let home = group::home(cgroup)
            .filter(|home| home.join("cgroup.procs").exists())
            .context("the cgroup of this process is not below the installed cgroup's mount")?;
        // Below this process's own cgroup its limits go on to hold.
        let above = if home.starts_with(cgroup) {
            home.clone()
        } else {
            cgroup.clone()
        };
        let path = above.join(format!("{PREFIX}{}", process::id()));
        fs::create_dir(&path).with_context(|| format!("making cgroup {}", path.display()))?;
        let id = group::id(&path)?;
        let room = Self { path, id, home };
        if let Err(error) = room.furnish(pins, &installed, &above, exit) {
            let _ = fs::remove_dir(&room.path);
            return Err(error);
        }
        Ok(room)
    }

    fn furnish(
        &self,
        pins: &Pins,
        installed: &Installed,
        above: &Path,
        exit: &Exit,
    ) -> anyhow::Result<()> {
        group::served(&self.path, &installed.settings.up.cgroup)?;
        let mut maps = installed.maps(pins)?;
        let mut rules = Rules::only(exit);
        (rules.source, rules.source4) = sources(&maps, above)?;
        rules.check()?;
        policy::write(&mut maps, self.id, &rules)?;
        maps.raise_policy_generation()?;
        Ok(())
    }

    /// Starts the program inside: this process goes in for as long as that takes. The inner
    /// error is the program's.
    fn start(&self, command: &mut Command) -> anyhow::Result<io::Result<Child>> {
        group::join(&self.path)
            .with_context(|| format!("moving into cgroup {}", self.path.display()))?;
        let child = command.spawn();
        group::join(&self.home)
            .with_context(|| format!("moving back into cgroup {}", self.home.display()))?;
        Ok(child)
    }

    /// Takes cgroup and policy away, unless processes of the program are still there.
    fn leave(&self, pins: &Pins) -> anyhow::Result<()> {
        if !remove_empty(&self.path) {
            eprintln!(
                "dynencap: processes are left in {}: they keep the exit; the next exec or down \
                 takes it away",
                self.path.display()
            );
            return Ok(());
        }
        // Without an installation there is no policy any more.
        if let Some(installed) = pins.find()? {
            let mut maps = installed.maps(pins)?;
            policy::erase(&mut maps, self.id)?;
        }
        Ok(())
    }
}

/// The sources of the policy that is in force above.
fn sources(maps: &Loaded, above: &Path) -> anyhow::Result<(Option<Ipv6Addr>, Option<Ipv4Addr>)> {
    let policies = maps.policies()?;
    for path in above.ancestors() {
        let Ok(id) = group::id(path) else { break };
        if let Some((_, policy)) = policies.iter().find(|(of, _)| *of == id) {
            let rules = Rules::of(policy, &[]);
            return Ok((rules.source, rules.source4));
        }
    }
    Ok((None, None))
}

/// Removes the cgroup; a moment is given to those who are about to end.
fn remove_empty(path: &Path) -> bool {
    for _ in 0..20 {
        match fs::remove_dir(path) {
            Ok(()) => return true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
    false
}

/// Removes empty cgroups of commands that were killed, and returns their ids.
pub(crate) fn sweep(cgroup: &Path) -> Vec<u64> {
    let mut swept = Vec::new();
    for (id, path) in group::paths(cgroup) {
        let of = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix(PREFIX)?.parse::<u32>().ok());
        let Some(of) = of else { continue };
        let alive = Path::new(&format!("/proc/{of}")).exists();
        if !alive && fs::remove_dir(&path).is_ok() {
            swept.push(id);
        }
    }
    swept
}

fn sweep_policies(pins: &Pins, installed: &Installed) -> anyhow::Result<()> {
    let swept = sweep(&installed.settings.up.cgroup);
    if !swept.is_empty() {
        let mut maps = installed.maps(pins)?;
        for id in swept {
            policy::erase(&mut maps, id)?;
        }
    }
    Ok(())
}

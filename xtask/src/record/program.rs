//! The programs that the recorder drives: whether they are here, their versions, running them to
//! their end or until dropped. Where they run is the caller's affair (`Namespace::enter`).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};

/// A program by name, and the argument that makes it print its version.
pub(super) struct Program {
    pub(super) name: &'static str,
    version: &'static str,
}

pub(super) const CURL: Program = Program {
    name: "curl",
    version: "--version",
};
pub(super) const DIG: Program = Program {
    name: "dig",
    version: "-v",
};
pub(super) const DNSMASQ: Program = Program {
    name: "dnsmasq",
    version: "--version",
};
pub(super) const ETHTOOL: Program = Program {
    name: "ethtool",
    version: "--version",
};
pub(super) const IP: Program = Program {
    name: "ip",
    version: "-Version",
};
pub(super) const IPERF3: Program = Program {
    name: "iperf3",
    version: "--version",
};
pub(super) const NGINX: Program = Program {
    name: "nginx",
    version: "-v",
};
pub(super) const TCPDUMP: Program = Program {
    name: "tcpdump",
    version: "--version",
};
pub(super) const TSHARK: Program = Program {
    name: "tshark",
    version: "--version",
};
pub(super) const UNSHARE: Program = Program {
    name: "unshare",
    version: "--version",
};

/// Debian keeps daemons and `ip` in `sbin`, which an ordinary PATH leaves out.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Program {
    /// Where the program lies, if it is installed.
    pub(super) fn path(&self) -> Option<PathBuf> {
        PATH.split(':')
            .map(|dir| Path::new(dir).join(self.name))
            .find(|path| path.is_file())
    }

    /// Name and version, as the program itself tells it.
    pub(super) fn label(&self) -> String {
        let told = Command::new(self.name)
            .arg(self.version)
            .env("PATH", PATH)
            .output();
        let told = told
            .map(|out| [out.stdout, out.stderr].concat())
            .unwrap_or_default();
        let told = String::from_utf8_lossy(&told);
        match version_in(told.lines().next().unwrap_or_default()) {
            Some(version) => format!("{} {version}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// The command, with an environment that depends on nobody's settings.
    pub(super) fn command(&self, home: &Path) -> Command {
        let mut command = Command::new(self.name);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .env("HOME", home)
            .env("TMPDIR", home)
            .current_dir(home)
            .stdin(Stdio::null());
        command
    }
}

/// The first word of a line that looks like a version, without what a distribution adds to it.
fn version_in(line: &str) -> Option<&str> {
    line.split([' ', '/', '-', ','])
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
}

/// Runs a command to its end; its standard output.
pub(super) fn run(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let said = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !said.status.success() {
        let complaint = String::from_utf8_lossy(&said.stderr);
        bail!("{command:?}: {}: {}", said.status, complaint.trim());
    }
    Ok(said.stdout)
}

/// A running program, killed when dropped.
pub(super) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts a command that does not end by itself.
    pub(super) fn start(command: &mut Command) -> anyhow::Result<Self> {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only for a program that has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn version_is_found_in_each_programs_own_wording() {
        for (line, version) in [
            ("curl 7.88.1 (x86_64-pc-linux-gnu) libcurl/7.88.1", "7.88.1"),
            ("DiG 9.18.33-1~deb12u2-Debian", "9.18.33"),
            ("Dnsmasq version 2.90  Copyright (c) 2000-2024", "2.90"),
            ("iperf 3.12 (cJSON 1.7.15)", "3.12"),
            ("nginx version: nginx/1.22.1", "1.22.1"),
            ("ip utility, iproute2-6.1.0, libbpf 1.1.2", "6.1.0"),
            ("tcpdump version 4.99.3", "4.99.3"),
        ] {
            assert_eq!(version_in(line), Some(version), "{line}");
        }
        assert_eq!(version_in("no digits here"), None);
    }
}

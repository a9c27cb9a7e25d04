//! One boot of a kernel in QEMU: the host's root read-only over 9p, a script, its output line by
//! line. Always emulated (TCG): what a machine offers as KVM may be nested and hang.

use super::initramfs;
use super::kernel::Kernel;
use crate::child::{self, Limits, Show};
use anyhow::Context;
use std::path::Path;
use std::process::Command;

const QEMU: &str = "qemu-system-x86_64";
const CPUS: &str = "2";
const MEMORY: &str = "3G";
/// Warnings and worse go to the kernel's console, which nobody sees unless it matters.
const CONSOLE: &str = "console=ttyS0 loglevel=5 panic=-1";
const STAGE: &str = include_str!("stage.sh");
/// The script's last word.
const DONE: &str = "guest: done";
/// The script's first word.
pub(super) const READY: &str = "guest: ready ";
/// Times a kernel is started. Emulated CPUs now and then trip over code that the kernel patches
/// under them, nearly always while it boots: that says nothing about our programs.
const BOOTS: u32 = 3;
/// What a kernel says of its own faults.
const FAULTS: &[&str] = &["WARNING: ", "BUG: ", "Oops", "general protection fault"];
/// Of these what is known and no fault of ours: shown, and no failure. The verifier finds that its
/// own bounds of a register contradict each other, on a branch that cannot be taken, and goes on
/// without bounds (6.18.15; 6.18.44 says nothing about the same programs).
const KNOWN: &[&str] = &["reg_bounds_sanity_check"];
/// Lines of the console that are shown when the guest died.
const TAIL: usize = 40;

/// How a boot ended.
pub(super) struct Ending {
    /// Whether the script came to its end.
    pub(super) finished: bool,
    /// Faults that the kernel itself reported.
    pub(super) faults: Vec<String>,
    /// Those among them that are known.
    pub(super) known: Vec<String>,
    /// The console's last lines.
    pub(super) console: String,
}

/// Boots, runs `script` after `stage.sh`, and waits for the end. Whatever ends this, QEMU has
/// ended and its files are gone when it returns. A guest that dies before the script begins is
/// booted again.
pub(super) fn run(
    kernel: &Kernel,
    script: &str,
    limits: &Limits,
    mut on_line: impl FnMut(&str),
) -> anyhow::Result<Ending> {
    let folder = tempfile::Builder::new()
        .prefix("dynencap-guest-")
        .tempdir()?;
    let initrd = folder.path().join("initrd");
    std::fs::write(&initrd, initramfs::build(kernel, &whole(kernel, script))?)?;
    let console = folder.path().join("console");
    let mut boot = 1;
    loop {
        let (mut begun, mut finished) = (false, false);
        let mut qemu = command(kernel, &initrd, &console);
        child::run(&mut qemu, Show::Failure, limits, |line| {
            begun |= line.starts_with(READY);
            finished |= line == DONE;
            on_line(line);
        })
        .with_context(|| last_lines(&said(&console)))?;
        let said = said(&console);
        if begun || boot == BOOTS {
            let is_known = |fault: &String| KNOWN.iter().any(|known| fault.contains(known));
            let (known, faults) = faults(&said).into_iter().partition(is_known);
            return Ok(Ending {
                finished,
                faults,
                known,
                console: last_lines(&said),
            });
        }
        boot += 1;
        println!("guest: it died while booting; {}", last_lines(&said));
        println!("guest: starting it again");
    }
}

fn faults(console: &str) -> Vec<String> {
    let is_fault = |line: &&str| FAULTS.iter().any(|fault| line.contains(fault));
    console
        .lines()
        .map(str::trim_end)
        .filter(is_fault)
        .map(str::to_owned)
        .collect()
}

fn whole(kernel: &Kernel, script: &str) -> String {
    let modules = kernel.root.join("lib/modules").join(&kernel.release);
    format!(
        "release={} modules={}\n{STAGE}\n{script}\necho '{DONE}'\n\
         # It waits until the line is empty.\nstty -F /dev/ttyS1 raw\nexec busybox poweroff -f\n",
        quoted(&kernel.release),
        quoted(&modules.to_string_lossy()),
    )
}

/// A word of a shell's.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn command(kernel: &Kernel, initrd: &Path, console: &Path) -> Command {
    let mut qemu = Command::new(QEMU);
    qemu.args(["-machine", "q35", "-accel", "tcg,thread=multi"])
        .args(["-cpu", "max", "-smp", CPUS, "-m", MEMORY])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(kernel.image())
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", CONSOLE])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio"])
        .args(["-device", "virtio-rng-pci"])
        .arg("-virtfs")
        .arg("local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap");
    qemu
}

fn said(console: &Path) -> String {
    let bytes = std::fs::read(console).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let from = lines.len().saturating_sub(TAIL);
    format!("the console's last lines:\n{}", lines[from..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_comes_out_of_the_shell_as_it_was() {
        for text in ["", "a b", "it's", "$HOME `x` \"y\" \\ *", "'", "a\nb"] {
            let script = format!("printf %s {}", quoted(text));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        }
    }

    #[test]
    fn a_kernels_own_faults_are_found_on_its_console() {
        let console = "[    1.0] raid6: slow\r\n\
                       [    2.0] WARNING: CPU: 1 PID: 9 at net/core/dev.c:1 f+0x1/0x2\r\n\
                       [    2.1] Call Trace:\r\n\
                       [    3.0] BUG: unable to handle page fault\r\n";
        let found = faults(console);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with("f+0x1/0x2"));
        assert_eq!(faults("[    1.0] all is well\n"), [""; 0]);
    }

    #[test]
    fn of_a_long_console_the_end_is_shown() {
        let text: String = (0..100)
            .map(|number| format!("line {number}\r\n"))
            .collect();
        let shown = last_lines(&text);
        assert!(shown.contains("line 99") && shown.contains("line 60"));
        assert!(!shown.contains("line 59") && !shown.contains('\r'));
    }
}

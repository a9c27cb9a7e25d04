//! The archive that a guest's kernel starts from: busybox, the modules that its root needs, two
//! scripts. Written as `newc` (Documentation/driver-api/early-userspace/buffer-format.rst).

use super::apt;
use super::kernel::Kernel;
use anyhow::{Context, ensure};
use std::path::Path;
use std::process::Command;

/// What the host's root, seen from the guest, is made of. All else is loaded from there.
const MODULES: &[&str] = &["virtio_pci", "9pnet_virtio", "9p", "overlay"];
const BUSYBOX: &str = "/bin/busybox";
const INIT: &str = include_str!("init.sh");
/// Mount points of `init.sh`, and the folders of what follows.
const FOLDERS: &[&str] = &[
    "bin", "dev", "lower", "modules", "new", "proc", "rw", "stage",
];

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
/// Name of the record that ends an archive.
const END: &str = "TRAILER!!!";

/// The archive; `script` is what the guest runs in the host's root.
pub(super) fn build(kernel: &Kernel, script: &str) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.add(folder, FOLDER, &[])?;
    }
    archive.add("bin/busybox", PROGRAM, &read(Path::new(BUSYBOX))?)?;
    archive.add("init", PROGRAM, INIT.as_bytes())?;
    archive.add("stage/run", PROGRAM, script.as_bytes())?;
    for (index, path) in modules(kernel)?.iter().enumerate() {
        let path = Path::new(path);
        let bytes = if path.extension().is_some_and(|kind| kind == "xz") {
            decompressed(path)?
        } else {
            read(path)?
        };
        // The order of the names is that of loading.
        archive.add(&format!("modules/{index:02}.ko"), PROGRAM, &bytes)?;
    }
    archive.add(END, 0, &[])?;
    Ok(archive.bytes)
}

/// Files of the modules and of those that they need, in the order of loading.
fn modules(kernel: &Kernel) -> anyhow::Result<Vec<String>> {
    let mut files: Vec<String> = Vec::new();
    for module in MODULES {
        let mut show = Command::new("modprobe");
        show.arg("-d").arg(&kernel.root).arg("-S");
        show.args([&kernel.release[..], "--show-depends", module]);
        // "insmod <file> <parameters>", or "builtin <name>"
        for line in apt::run(&mut show)?.lines() {
            let file = line.trim().strip_prefix("insmod ");
            let file = file.map(|rest| rest.trim().to_owned());
            files.extend(file.filter(|file| !files.contains(file)));
        }
    }
    Ok(files)
}

fn decompressed(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut xz = Command::new("xz");
    let output = xz.arg("-dc").arg(path).output().context("cannot run xz")?;
    ensure!(output.status.success(), "xz -dc {}", path.display());
    Ok(output.stdout)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// Appends a record: header of 13 numbers, name, content, each padded to 4 bytes.
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        self.inode += 1;
        let length = u32::try_from(content.len())?;
        let name_length = u32::try_from(name.len() + 1)?;
        // inode, mode, uid, gid, links, mtime, size, 4 device numbers, name's size, checksum
        let fields = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            length,
            0,
            0,
            0,
            0,
            name_length,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_padded_and_their_sizes_stand_in_the_header() {
        let mut archive = Archive::default();
        archive.add("init", PROGRAM, b"hello").unwrap();
        archive.add(END, 0, &[]).unwrap();
        let bytes = &archive.bytes;
        assert_eq!(&bytes[..22], b"07070100000001000081ed");
        assert_eq!(&bytes[54..62], b"00000005");
        assert_eq!(&bytes[94..102], b"00000005");
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..124], b"hello\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert_eq!(bytes.len(), 124 + (110 + 11usize).next_multiple_of(4));
    }
}

//! tcpdump in a namespace, from "listening" to a complete file, and the step from pcap to pcapng.
//! What ought to be in the file is `verify`'s affair.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};

use pcap_file::pcapng::{PcapNgReader, PcapNgWriter};

use super::lab::Namespace;
use super::program::{TCPDUMP, run};

/// Where frames are taken.
#[derive(Clone, Copy)]
pub(super) enum Tap {
    /// One device, with its own link type.
    Device(&'static str),
    /// All devices at once, as LINUX_SLL2.
    Any,
}

/// A capture under way. Dropped unfinished, it ends and its file is worth nothing.
pub(super) struct Capture {
    child: Child,
    stderr: BufReader<ChildStderr>,
    path: PathBuf,
}

/// tcpdump takes packets from the kernel in blocks, at the latest after a second.
const BLOCK_TIMEOUT: Duration = Duration::from_millis(1300);

impl Capture {
    /// Starts capturing what `filter` lets through, and returns when nothing can be missed.
    pub(super) fn start(
        namespace: &Namespace,
        home: &Path,
        tap: Tap,
        filter: &str,
    ) -> anyhow::Result<Self> {
        let path = home.join("raw.pcap");
        let file = File::create(&path).context("cannot create the raw capture")?;
        let mut tcpdump = TCPDUMP.command(home);
        // To standard output: confinement profiles restrict which files tcpdump may open.
        // -Z: root stays root, there is nobody to drop to in a bare namespace.
        tcpdump.args([
            "-n", "-U", "-s", "0", "-B", "32768", "-Z", "root", "-w", "-",
        ]);
        match tap {
            Tap::Device(name) => tcpdump.args(["-i", name]),
            Tap::Any => tcpdump.args(["-i", "any", "-y", "LINUX_SLL2"]),
        };
        tcpdump.arg(filter).stdout(file).stderr(Stdio::piped());
        let mut child = namespace.enter(|| tcpdump.spawn().context("cannot start tcpdump"))?;
        let stderr = child
            .stderr
            .take()
            .context("tcpdump has no standard error")?;
        let mut capture = Self {
            child,
            stderr: BufReader::new(stderr),
            path,
        };
        let mut said = String::new();
        while !said.contains("listening on") {
            ensure!(
                capture.stderr.read_line(&mut said)? > 0,
                "tcpdump ended: {}",
                said.trim()
            );
        }
        Ok(capture)
    }

    /// Waits for the last packets and ends the capture; the finished pcap file.
    pub(super) fn finish(mut self) -> anyhow::Result<PathBuf> {
        std::thread::sleep(BLOCK_TIMEOUT);
        // The gentle signal, so that tcpdump says how many packets it lost.
        run(Command::new("sh").args(["-c", &format!("kill -INT {}", self.child.id())]))?;
        let mut said = String::new();
        self.stderr.read_to_string(&mut said)?;
        ensure!(
            self.child.wait()?.success(),
            "tcpdump failed: {}",
            said.trim()
        );
        if !said
            .lines()
            .any(|line| line.starts_with("0 packets dropped by kernel"))
        {
            bail!("the capture has holes: {}", said.trim());
        }
        Ok(self.path.clone())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Both fail only for a tcpdump that has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rewrites a pcap as pcapng. By hand, because the usual tools add the machine's hardware,
/// operating system and device names.
pub(super) fn to_pcapng(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut reader = PcapReader::new(File::open(from)?)?;
    let header = reader.header();
    let mut writer = PcapNgWriter::new(BufWriter::new(File::create(to)?))?;
    const NANOSECONDS: u8 = 9;
    writer.write_pcapng_block(InterfaceDescriptionBlock {
        linktype: header.datalink,
        snaplen: header.snaplen,
        options: vec![InterfaceDescriptionOption::IfTsResol(NANOSECONDS)],
    })?;
    while let Some(packet) = reader.next_packet() {
        let packet = packet?;
        writer.write_pcapng_block(EnhancedPacketBlock {
            interface_id: 0,
            timestamp: packet.timestamp,
            original_len: packet.orig_len,
            data: packet.data,
            options: vec![],
        })?;
    }
    writer
        .into_inner()
        .flush()
        .context("cannot write the pcapng")
}

/// The number of frames in a finished file.
pub(super) fn frames(path: &Path) -> anyhow::Result<usize> {
    let file = File::open(path)?;
    let mut frames = 0;
    if path
        .extension()
        .is_some_and(|extension| extension == "pcapng")
    {
        let mut reader = PcapNgReader::new(file)?;
        while let Some(block) = reader.next_block() {
            frames += usize::from(block?.into_enhanced_packet().is_some());
        }
    } else {
        let mut reader = PcapReader::new(file)?;
        while let Some(packet) = reader.next_packet() {
            packet?;
            frames += 1;
        }
    }
    Ok(frames)
}

//! Seeds: made from the captures of testdata/ before libFuzzer reads its corpus, so that none
//! need to be kept.

use crate::input::Hosting;
use arbitrary::{Arbitrary, Unstructured};
use dynencap_abi::{Exit, MAX_HEADER_LEN, TunnelSpec};
use dynencap_model::{Frame, Host, Packet, Port, Socket, SocketKind};
use dynencap_sim::scenario::Scenario;
use dynencap_sim::trace::{Reader, link};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longer ones slow libFuzzer down more than they teach it.
const LONGEST: usize = 4096;

/// What a target's inputs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A capture's bytes.
    Capture,
    /// A scenario's text.
    Scenario,
    /// A head of this many bytes, then a packet that leaves.
    Leaving(usize),
    /// A head of this many bytes, then a packet that comes through a tunnel.
    Tunnelled(usize),
}

/// Writes the target's seeds to `corpus/<target>/`. What cannot be read or written is passed
/// over: a target runs without seeds too.
pub fn plant(target: &str, kind: Kind) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = root.join("corpus").join(target);
    if fs::create_dir_all(&corpus).is_err() {
        return;
    }
    let files = files(&root.join("../testdata"));
    let seeds: Vec<Vec<u8>> = match kind {
        Kind::Capture => captures(&files).filter_map(|path| head(&path)).collect(),
        Kind::Scenario => std::iter::once(Scenario::default().to_toml().into_bytes())
            .chain(
                files
                    .iter()
                    .filter(|path| path.extension().is_some_and(|end| end == "toml"))
                    .filter_map(|path| fs::read(path).ok()),
            )
            .collect(),
        Kind::Leaving(head) => packets(&files)
            .map(|packet| [vec![0; head], packet.bytes].concat())
            .collect(),
        Kind::Tunnelled(head) => packets(&files)
            .flat_map(|packet| tunnelled(&packet))
            .map(|packet| [vec![0; head], packet.bytes].concat())
            .collect(),
    };
    for (number, seed) in seeds.iter().enumerate() {
        let _ = fs::write(corpus.join(format!("seed-{number:03}")), seed);
    }
}

/// All files below a folder, in the names' order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn captures(files: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    let is_capture = |path: &&PathBuf| {
        path.extension()
            .is_some_and(|end| end == "pcap" || end == "pcapng")
    };
    files.iter().filter(is_capture).cloned()
}

fn head(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    bytes.truncate(LONGEST);
    Some(bytes)
}

/// The captures' packets, one of each length.
fn packets(files: &[PathBuf]) -> impl Iterator<Item = Frame> {
    let mut lengths = HashSet::new();
    captures(files)
        .flat_map(|path| packets_of(&path))
        .filter(move |packet| packet.bytes.len() <= LONGEST && lengths.insert(packet.bytes.len()))
}

fn packets_of(path: &Path) -> Vec<Frame> {
    let mut packets = Vec::new();
    let Ok(mut reader) = Reader::open_path(path) else {
        return packets;
    };
    while let Ok(Some(frame)) = reader.next_frame() {
        let link = link(frame.link_type, frame.bytes);
        packets.push(Frame {
            port: Port::Wire,
            ethertype: link.ethertype,
            bytes: link.payload.to_vec(),
        });
    }
    packets
}

/// A header that a tunnel of this format takes off a packet of this Ethernet type.
fn custom(spec: &TunnelSpec, ethertype: u16) -> Vec<u8> {
    let is_v4 = ethertype == 0x0800;
    match spec.format {
        TunnelSpec::GUE => vec![1, if is_v4 { 4 } else { 41 }, 0, 0, 0xc0, 0xff, 0xee, 0],
        TunnelSpec::GENEVE => [
            &[1, 0],
            &ethertype.to_be_bytes()[..],
            &[0, 0, 123, 0, 1, 2, 3, 0],
        ]
        .concat(),
        // VXLAN-GPE's, where its 8 bytes are all.
        _ => {
            let mut header = vec![0x0c, 0, 0, if is_v4 { 1 } else { 2 }, 0, 0, 123, 0];
            header.resize(usize::from(spec.header_len), 0);
            header
        }
    }
}

/// The packet through each of the tunnels that a head of zeros has.
fn tunnelled(packet: &Frame) -> Vec<Frame> {
    let mut frames = Vec::new();
    let Ok(hosting) = Hosting::arbitrary(&mut Unstructured::new(&[])) else {
        return frames;
    };
    for (key, spec) in hosting.reflecting() {
        let custom = custom(&spec, packet.ethertype);
        let mut header = [0; MAX_HEADER_LEN];
        if let Some(place) = header.get_mut(..custom.len()) {
            place.copy_from_slice(&custom);
        }
        let mut socket = Socket::new(SocketKind {
            family: 10,
            ty: 1,
            protocol: 6,
        });
        let flags = if key.protocol == 17 { Exit::UDP } else { 0 };
        socket.set_exit(Exit {
            gateway: key.address,
            destination_port: key.port,
            flags: flags | Exit::GATEWAY,
            header,
            header_len: if flags == 0 { 0 } else { custom.len() as u8 },
            ..Exit::NONE
        });
        let leaving = Packet {
            ethertype: packet.ethertype,
            bytes: &packet.bytes,
            gso_size: 0,
        };
        Host::new(hosting.config()).egress(Some(&socket), leaving, &mut frames);
    }
    frames
}

//! Seeded slowdowns, for the gate's own tests: an object with more instructions, a model with
//! a loop too many.

use std::fs;
use std::path::Path;

/// An instruction's 8 bytes.
const fn insn(code: u8, dst: u8, src: u8, imm: i32) -> [u8; 8] {
    let imm = imm.to_le_bytes();
    [code, src << 4 | dst, 0, 0, imm[0], imm[1], imm[2], imm[3]]
}

/// One more `bpf_skb_load_bytes`, of the frame's first byte: seven instructions that leave the
/// program's argument as it was.
const LOAD_BYTES: [[u8; 8]; 7] = [
    insn(0xbf, 6, 1, 0),
    insn(0xb7, 2, 0, 0),
    insn(0xbf, 3, 10, 0),
    insn(0x07, 3, 0, -8),
    insn(0xb7, 4, 0, 1),
    insn(0x85, 0, 0, 26),
    insn(0xbf, 1, 6, 0),
];

/// The object with [`LOAD_BYTES`] in front of a TC program.
pub(crate) fn slow_object(object: &[u8], program: &str) -> Option<Vec<u8>> {
    let elf = Elf(object);
    let (section, at) = elf.symbol(program)?;
    let code = elf.section(section)?;
    let added = LOAD_BYTES.concat();
    let grown = added.len() as u64;
    let mut out = object.to_vec();

    // The longer code goes to the end of the file, its header with it.
    let start = out.len() as u64;
    out.extend(elf.contents(&code)?.get(..at as usize)?);
    out.extend(&added);
    out.extend(elf.contents(&code)?.get(at as usize..)?);
    put(&mut out, elf.header(section)? + 24, start)?;
    put(&mut out, elf.header(section)? + 32, code.size + grown)?;

    for index in 0..elf.sections()? {
        let other = elf.section(index)?;
        let entries = |len: u64| (0..other.size / len).map(move |n| other.offset + n * len);
        match other.kind {
            // Symbols: those behind move, the program itself becomes longer.
            2 => {
                for entry in entries(24) {
                    let value = elf.u64(entry + 8)?;
                    if usize::from(elf.u16(entry + 6)?) != section {
                        continue;
                    }
                    let size = elf.u64(entry + 16)?;
                    if value == at && size > 0 {
                        put(&mut out, entry + 16, size + grown)?;
                    } else if value > at {
                        put(&mut out, entry + 8, value + grown)?;
                    }
                }
            }
            // Relocations of this code.
            9 if other.info == section => {
                for entry in entries(16) {
                    let place = elf.u64(entry)?;
                    if place >= at {
                        put(&mut out, entry, place + grown)?;
                    }
                }
            }
            _ => {}
        }
    }
    shift_debug_info(&elf, &mut out, section, at, grown as u32)?;
    Some(out)
}

/// `.BTF.ext` says of which instruction each function and line is.
fn shift_debug_info(
    elf: &Elf<'_>,
    out: &mut [u8],
    section: usize,
    at: u64,
    grown: u32,
) -> Option<()> {
    let name = elf.name(section)?;
    let strings = elf.section(elf.named(".BTF")?)?.offset;
    let strings = strings + u64::from(elf.u32(strings + 4)?) + u64::from(elf.u32(strings + 16)?);
    let info = elf.section(elf.named(".BTF.ext")?)?.offset;
    let body = info + u64::from(elf.u32(info + 4)?);
    // Functions, then lines: offset and length of each.
    for table in [8, 16] {
        let mut cursor = body + u64::from(elf.u32(info + table)?);
        let end = cursor + u64::from(elf.u32(info + table + 4)?);
        let record = u64::from(elf.u32(cursor)?);
        cursor += 4;
        while cursor < end {
            let of = elf.string(strings + u64::from(elf.u32(cursor)?))?;
            let count = u64::from(elf.u32(cursor + 4)?);
            cursor += 8;
            for entry in (0..count).map(|n| cursor + n * record) {
                let place = elf.u32(entry)?;
                // What begins here begins here still: the added code is of its line.
                if of == name && u64::from(place) > at {
                    let place = (place + grown).to_le_bytes();
                    out.get_mut(entry as usize..)?
                        .first_chunk_mut()
                        .map(|bytes| *bytes = place)?;
                }
            }
            cursor += count * record;
        }
    }
    Some(())
}

fn put(bytes: &mut [u8], at: u64, value: u64) -> Option<()> {
    *bytes.get_mut(at as usize..)?.first_chunk_mut()? = value.to_le_bytes();
    Some(())
}

/// A 64-bit little-endian object file, as far as this needs it.
struct Elf<'a>(&'a [u8]);

struct Section {
    kind: u32,
    offset: u64,
    size: u64,
    link: usize,
    info: usize,
}

impl<'a> Elf<'a> {
    fn chunk<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        self.0.get(at as usize..)?.first_chunk().copied()
    }

    fn u16(&self, at: u64) -> Option<u16> {
        self.chunk(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: u64) -> Option<u32> {
        self.chunk(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: u64) -> Option<u64> {
        self.chunk(at).map(u64::from_le_bytes)
    }

    fn sections(&self) -> Option<usize> {
        self.u16(0x3c).map(usize::from)
    }

    fn header(&self, index: usize) -> Option<u64> {
        let size = u64::from(self.u16(0x3a)?);
        Some(self.u64(0x28)? + index as u64 * size)
    }

    fn section(&self, index: usize) -> Option<Section> {
        let at = self.header(index)?;
        Some(Section {
            kind: self.u32(at + 4)?,
            offset: self.u64(at + 24)?,
            size: self.u64(at + 32)?,
            link: self.u32(at + 40)? as usize,
            info: self.u32(at + 44)? as usize,
        })
    }

    fn contents(&self, section: &Section) -> Option<&'a [u8]> {
        let start = section.offset as usize;
        self.0.get(start..start + section.size as usize)
    }

    fn string(&self, at: u64) -> Option<&'a [u8]> {
        self.0.get(at as usize..)?.split(|byte| *byte == 0).next()
    }

    fn name(&self, index: usize) -> Option<&'a [u8]> {
        let names = self.section(usize::from(self.u16(0x3e)?))?.offset;
        self.string(names + u64::from(self.u32(self.header(index)?)?))
    }

    fn named(&self, name: &str) -> Option<usize> {
        (0..self.sections()?).find(|index| self.name(*index) == Some(name.as_bytes()))
    }

    /// The section and the place there of a function.
    fn symbol(&self, name: &str) -> Option<(usize, u64)> {
        let table = self.section(self.named(".symtab")?)?;
        let names = self.section(table.link)?.offset;
        (0..table.size / 24)
            .map(|n| table.offset + n * 24)
            .find_map(|at| {
                let of = self.string(names + u64::from(self.u32(at)?))?;
                let place = (usize::from(self.u16(at + 6)?), self.u64(at + 8)?);
                (of == name.as_bytes()).then_some(place)
            })
    }
}

/// A workspace of the model and its measuring program alone, in which each packet's count
/// costs a loop.
pub(crate) fn slow_model(root: &Path, into: &Path) -> std::io::Result<()> {
    let folders = ["benches/gate/model", "crates/abi", "crates/model"];
    for folder in folders {
        copy(&root.join(folder), &into.join(folder))?;
    }
    fs::copy(root.join("Cargo.lock"), into.join("Cargo.lock"))?;
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let start = manifest.find("members = [").unwrap();
    let end = start + manifest[start..].find(']').unwrap();
    let manifest = format!(
        "{}members = [\"{}\"{}",
        &manifest[..start],
        folders.join("\", \""),
        &manifest[end..]
    );
    fs::write(into.join("Cargo.toml"), manifest)?;
    let file = into.join("crates/model/src/host.rs");
    let source = fs::read_to_string(&file)?;
    let place = "fn count(&mut self, reason: Reason) {";
    assert!(source.contains(place), "the model counts elsewhere now");
    let slow = format!("{place} for turn in 0..1000 {{ std::hint::black_box(turn); }}");
    fs::write(file, source.replace(place, &slow))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::write(to, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

//! `cargo xtask sequences`: makes the vm's table of instruction sequences anew from the committed
//! object; `--check` tells whether the committed table is what the object gives. What the table
//! holds and why is `benches/gate/object/src/sequence.rs`'s to know.

use crate::child::Limits;
use crate::gate::program::{Kind, Program};
use crate::gate::{OBJECT, root, target};
use anyhow::{Context, ensure};
use std::ffi::OsStr;
use std::fs;

const TABLE: &str = "crates/vm/src/sequence/table.rs";

/// Arguments of `cargo xtask sequences`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail when the committed table is not that of the committed object
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let root = root()?;
    let file = root.join(TABLE);
    let limits = Limits::new(None)?;
    let program = Program::build(Kind::Object, &root, &target(&root), &limits)
        .with_context(|| format!("its program contains the vm, and so the present {TABLE}"))?;
    let object = root.join(OBJECT);
    let (new, said) = program.text(&[OsStr::new("sequences"), object.as_os_str()])?;
    let old = fs::read_to_string(&file).with_context(|| TABLE.to_owned())?;
    if args.check {
        check(&old, &new)?;
        println!("compared: {TABLE} is what {OBJECT} gives");
        return Ok(());
    }
    println!("{said}");
    if old == new {
        println!("{TABLE} stays as it is");
    } else {
        fs::write(&file, &new).with_context(|| TABLE.to_owned())?;
        println!("{TABLE} is new: commit it with what changed the object or the gate's paths");
    }
    Ok(())
}

fn check(old: &str, new: &str) -> anyhow::Result<()> {
    let at = old
        .lines()
        .zip(new.lines())
        .take_while(|(old, new)| old == new)
        .count();
    ensure!(
        old == new,
        "{TABLE} is not what {OBJECT} and the gate's paths give, from line {} on: \
         `cargo xtask sequences` makes it anew",
        at + 1
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_not_the_objects_is_told_with_the_command_that_mends_it() {
        check("a\nb\n", "a\nb\n").unwrap();
        for old in ["a\nc\n", "a\n", "a\nc\nb\n"] {
            let error = check(old, "a\nb\n").unwrap_err().to_string();
            assert!(
                error.contains("line 2") && error.contains("cargo xtask sequences"),
                "{error}"
            );
        }
    }
}

//! `cargo xtask gate`: refuses what is slower. Owns the order of the comparisons, and the
//! report; what is measured is the programs' of benches/gate. docs/gate.md is for its readers.

use crate::child::Limits;
use anyhow::{Context, bail};
use base::Base;
use count::Counts;
use judge::{Acceptance, Verdict, acceptances, judge};
use program::{Answer, Kind, Program};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

mod base;
mod callgrind;
mod count;
mod judge;
pub(crate) mod program;
#[cfg(test)]
mod seed;
mod statistic;
#[cfg(test)]
mod tests;
mod time;

const BASELINE: &str = "benches/gate/baseline.txt";
pub(crate) const OBJECT: &str = "crates/bpf/dynencap.bpf.o";
/// What the model's instructions depend on.
const MODEL_SOURCES: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "benches/gate/model",
    "crates/abi",
    "crates/model",
];

/// Arguments of `cargo xtask gate`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Compare with this revision, times included [default: where this branch left its
    /// upstream, else the last commit]
    #[arg(long, value_name = "REV")]
    against: Option<String>,
    /// Compare times as well
    #[arg(long)]
    time: bool,
    /// Compare no times
    #[arg(long, conflicts_with = "time")]
    short: bool,
    /// Write the baseline anew; say in the commit why
    #[arg(long, conflicts_with_all = ["against", "time", "short"])]
    bless: bool,
}

/// One run.
struct Gate {
    root: PathBuf,
    target: PathBuf,
    limits: Limits,
    ran: Vec<String>,
    skipped: Vec<String>,
    failed: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if let Err(error) = pass(args) {
        println!("gate: {error:#}");
        // The lines above say it all; a backtrace of this program would hide them.
        std::process::exit(1);
    }
    Ok(())
}

fn pass(args: &Args) -> anyhow::Result<()> {
    let root = root()?;
    let mut gate = Gate {
        target: target(&root),
        root,
        limits: Limits::new(None)?,
        ran: Vec::new(),
        skipped: Vec::new(),
        failed: Vec::new(),
    };
    let programs = Programs {
        object: gate.build(Kind::Object)?,
        model: gate.build(Kind::Model)?,
    };
    if args.bless {
        return gate.bless(&programs);
    }
    gate.baseline(&programs)?;
    let time = args.time || args.against.is_some() && !args.short;
    match Base::find(&gate.root, args.against.as_deref())? {
        Some(base) => gate.against(&base, &programs, time)?,
        None => gate
            .skipped
            .push("comparison: there is no revision to compare with".to_owned()),
    }
    gate.report()
}

/// This revision's.
struct Programs {
    object: Program,
    model: Program,
}

pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    Ok(root.context("xtask lies in the workspace")?.to_owned())
}

pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// What follows from the bytes alone.
fn counts(programs: &Programs, object: &Path) -> anyhow::Result<Counts> {
    let mut counts = asked(&programs.object, &[OsStr::new("count"), object.as_os_str()])?;
    counts.append(&mut asked(&programs.model, &["allocations"])?);
    Ok(counts)
}

fn asked(program: &Program, arguments: &[impl AsRef<OsStr>]) -> anyhow::Result<Counts> {
    match program.ask(arguments)? {
        Answer::Counts(counts) => Ok(counts),
        Answer::Unavailable(why) => bail!("{why}"),
    }
}

impl Gate {
    fn build(&self, kind: Kind) -> anyhow::Result<Program> {
        Program::build(kind, &self.root, &self.target, &self.limits)
    }

    fn bless(&self, programs: &Programs) -> anyhow::Result<()> {
        let file = self.root.join(BASELINE);
        let old = match fs::read_to_string(&file) {
            // What cannot be read is written anew, a file full of merge marks too.
            Ok(text) => count::parse_file(&text).unwrap_or_default(),
            Err(_) => Counts::new(),
        };
        let new = counts(programs, &self.root.join(OBJECT))?;
        let verdict = judge(&old, &new, &[]);
        fs::write(&file, count::render(&new)).with_context(|| BASELINE.to_owned())?;
        print!("{}", verdict.table());
        println!("{BASELINE} has {} numbers now", new.len());
        if !verdict.grown.is_empty() {
            println!("Something grew: commit it with the change, and say in the message why.");
        }
        Ok(())
    }

    /// Against the numbers in the repository.
    fn baseline(&mut self, programs: &Programs) -> anyhow::Result<()> {
        let text = fs::read_to_string(self.root.join(BASELINE))
            .with_context(|| format!("{BASELINE}: cargo xtask gate --bless writes it"))?;
        let old = count::parse_file(&text).with_context(|| BASELINE.to_owned())?;
        let new = counts(programs, &self.root.join(OBJECT))?;
        let verdict = judge(&old, &new, &[]);
        self.say(BASELINE, &verdict);
        if !verdict.shrunk.is_empty() {
            println!("`cargo xtask gate --bless` keeps what was gained.");
        }
        self.ran.push(format!("{} counts: {BASELINE}", new.len()));
        // A path that is not watched is one that may grow.
        if !(verdict.grown.is_empty() && verdict.added.is_empty() && verdict.gone.is_empty()) {
            let what = format!(
                "{BASELINE}: {} grew, {} new, {} gone; where that is meant: \
                 cargo xtask gate --bless, and the reason in the commit",
                verdict.grown.len(),
                verdict.added.len(),
                verdict.gone.len()
            );
            self.failed.push(what);
        }
        Ok(())
    }

    /// Against another revision.
    fn against(&mut self, base: &Base, programs: &Programs, time: bool) -> anyhow::Result<()> {
        println!("compared with {}", base.short());
        let (accepted, malformed) = acceptances(&base.messages());
        for line in malformed {
            self.failed.push(format!(
                "a commit says `{line}`; it has to be `Gate-accepts: table/subject N% why`"
            ));
        }
        self.kernel(base, programs, &accepted)?;
        let mut built = Built::new(self, base);
        self.model(base, programs, &mut built, &accepted)?;
        if time {
            self.time(base, programs, &mut built)?;
        }
        Ok(())
    }

    /// What the running kernel makes of both objects.
    fn kernel(
        &mut self,
        base: &Base,
        programs: &Programs,
        accepted: &[Acceptance],
    ) -> anyhow::Result<()> {
        self.limits.check()?;
        let Some(old) = base.file(OBJECT)? else {
            let what = format!("verifier and JIT: {} has no object", base.short());
            self.skipped.push(what);
            return Ok(());
        };
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("base.o");
        fs::write(&file, old)?;
        let load = |object: &Path| {
            let arguments = [OsStr::new("kernel"), object.as_os_str()];
            programs.object.ask(&arguments)
        };
        let new = match load(&self.root.join(OBJECT))? {
            Answer::Counts(counts) => counts,
            Answer::Unavailable(why) => {
                self.skipped.push(format!("verifier and JIT: {why}"));
                return Ok(());
            }
        };
        match load(&file) {
            Ok(Answer::Counts(old)) => {
                self.compared("verifier and JIT", base, &old, &new, accepted);
            }
            // What was wrong with it then is not this revision's fault.
            Ok(Answer::Unavailable(why)) => self.skipped.push(format!("verifier and JIT: {why}")),
            Err(error) => self.skipped.push(format!(
                "verifier and JIT: the object of {} does not load: {error:#}",
                base.short()
            )),
        }
        Ok(())
    }

    /// Instructions of the model's operations, both built by the same compiler.
    fn model(
        &mut self,
        base: &Base,
        programs: &Programs,
        built: &mut Built<'_>,
        accepted: &[Acceptance],
    ) -> anyhow::Result<()> {
        if !callgrind::is_there() {
            let what = "instructions of the model: valgrind is not installed";
            self.skipped.push(what.to_owned());
            return Ok(());
        }
        let what = "instructions of the model";
        if !base.differs(MODEL_SOURCES) {
            let same = format!("{what}: nothing of it changed since {}", base.short());
            self.ran.push(same);
            return Ok(());
        }
        let Some(old) = built.program(self, Kind::Model)? else {
            return Ok(());
        };
        let old = callgrind::count(old.path())?;
        self.limits.check()?;
        let new = callgrind::count(programs.model.path())?;
        self.compared(what, base, &old, &new, accepted);
        Ok(())
    }

    fn time(
        &mut self,
        base: &Base,
        programs: &Programs,
        built: &mut Built<'_>,
    ) -> anyhow::Result<()> {
        let Some(object) = base.file(OBJECT)? else {
            return Ok(());
        };
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("base.o");
        fs::write(&file, object)?;
        let head = self.root.join(OBJECT);
        for kind in [Kind::Model, Kind::Object] {
            let Some(old) = built.program(self, kind)? else {
                continue;
            };
            let (new, arguments) = match kind {
                Kind::Model => (&programs.model, [None, None]),
                Kind::Object => (&programs.object, [Some(&file), Some(&head)]),
            };
            let ask = |program: &Program, object: Option<&PathBuf>| {
                let mut arguments = vec![OsStr::new("time")];
                arguments.extend(object.map(|object| object.as_os_str()));
                asked(program, &arguments)
            };
            let changes = time::compare(
                || ask(&old, arguments[0]),
                || ask(new, arguments[1]),
                time::ROUNDS,
                &self.limits,
            )?;
            println!("{:<32} {:>8} {:>8}", "rate", "old", "new");
            for change in &changes {
                println!("{change}");
            }
            let slower: Vec<&str> = changes
                .iter()
                .filter(|change| change.slower)
                .map(|change| &change.name.subject[..])
                .collect();
            if !slower.is_empty() {
                let what = format!("slower than {}: {}", base.short(), slower.join(", "));
                self.failed.push(what);
            }
            self.ran.push(format!(
                "{} times against {}: {}",
                changes.len(),
                base.short(),
                kind.manifest().trim_end_matches("/Cargo.toml")
            ));
        }
        Ok(())
    }

    fn compared(
        &mut self,
        what: &str,
        base: &Base,
        old: &Counts,
        new: &Counts,
        accepted: &[Acceptance],
    ) {
        let verdict = judge(old, new, accepted);
        self.say(what, &verdict);
        self.ran.push(format!(
            "{what}: {} numbers against {}",
            new.len(),
            base.short()
        ));
        if !verdict.grown.is_empty() {
            let line = format!(
                "{what}: {} grew since {}; where that is meant, a commit says \
                 `Gate-accepts: table/subject N% why`",
                verdict.grown.len(),
                base.short()
            );
            self.failed.push(line);
        }
    }

    fn say(&self, what: &str, verdict: &Verdict) {
        if !verdict.is_empty() {
            println!("{what}:");
            print!("{}", verdict.table());
        }
    }

    fn report(&self) -> anyhow::Result<()> {
        println!("== report");
        for line in &self.ran {
            println!("ran: {line}");
        }
        for line in &self.skipped {
            println!("skipped: {line}");
        }
        if self.failed.is_empty() {
            return Ok(());
        }
        for line in &self.failed {
            println!("FAILED: {line}");
        }
        bail!("the gate is closed")
    }
}

/// The base's programs, built when they are first needed, and not twice.
struct Built<'a> {
    base: &'a Base,
    target: PathBuf,
    worktree: Option<base::Worktree>,
}

impl<'a> Built<'a> {
    fn new(gate: &Gate, base: &'a Base) -> Self {
        Self {
            base,
            // Its dependencies stay built from run to run.
            target: gate.target.join("gate"),
            worktree: None,
        }
    }

    /// `None` where that revision has none, or it does not build; the gate then reports it.
    fn program(&mut self, gate: &mut Gate, kind: Kind) -> anyhow::Result<Option<Program>> {
        if !self.base.has(kind.manifest()) {
            let what = format!(
                "comparison by {}: {} has no such program",
                kind.manifest(),
                self.base.short()
            );
            gate.skipped.push(what);
            return Ok(None);
        }
        let worktree = match self.worktree.take() {
            Some(worktree) => worktree,
            None => self.base.check_out(&gate.limits)?,
        };
        let worktree = self.worktree.insert(worktree);
        let (root, into) = (&worktree.path, worktree.beside());
        match Program::build_apart(kind, root, &self.target, into, &gate.limits) {
            Ok(program) => Ok(Some(program)),
            // Not this revision's fault.
            Err(error) => {
                gate.limits.check()?;
                println!("{error:#}");
                let what = format!(
                    "comparison by {}: {} does not build",
                    kind.manifest(),
                    self.base.short()
                );
                gate.skipped.push(what);
                Ok(None)
            }
        }
    }
}

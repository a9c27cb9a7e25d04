//! The gate on itself: a seeded slowdown in the programs and in the model is caught, by each
//! measure that can see it, and nothing at all passes ten times of ten.

use super::count::{Counts, Name};
use super::judge::{Verdict, judge};
use super::program::{Kind, Program};
use super::*;
use std::sync::{Mutex, OnceLock};

/// Times are taken by one test at a time.
static QUIET: Mutex<()> = Mutex::new(());
/// The operation whose time is taken here, and how often.
const TIMED: &str = "encapsulate/ip6";
const ROUNDS: usize = 9;

fn programs() -> &'static Programs {
    static BUILT: OnceLock<Programs> = OnceLock::new();
    BUILT.get_or_init(|| {
        let (root, limits) = (root().unwrap(), Limits::new(None).unwrap());
        let build = |kind| Program::build(kind, &root, &target(&root), &limits).unwrap();
        Programs {
            object: build(Kind::Object),
            model: build(Kind::Model),
        }
    })
}

fn skipped(test: &str, why: &str) {
    let required = std::env::var("DYNENCAP_REQUIRE");
    let required = required.is_ok_and(|tiers| tiers.split([',', ' ']).any(|tier| tier == "kernel"));
    assert!(!required, "may not be skipped: {test}: {why}");
    eprintln!("skipped: {test}: {why}");
}

struct Object {
    folder: tempfile::TempDir,
}

impl Object {
    fn slow(program: &str) -> Self {
        let object = fs::read(root().unwrap().join(OBJECT)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let slow = seed::slow_object(&object, program).unwrap();
        fs::write(folder.path().join("slow.o"), slow).unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("slow.o")
    }
}

fn committed() -> PathBuf {
    root().unwrap().join(OBJECT)
}

fn kernel(object: &Path) -> Option<Counts> {
    let arguments = [OsStr::new("kernel"), object.as_os_str()];
    match programs().object.ask(&arguments).unwrap() {
        Answer::Counts(counts) => Some(counts),
        Answer::Unavailable(_) => None,
    }
}

fn subjects(verdict: &Verdict) -> Vec<String> {
    let grown = verdict.grown.iter();
    grown.map(|row| row.name.to_string()).collect()
}

#[test]
fn a_slower_program_is_caught_by_name() {
    let slow = Object::slow("egress");
    let old = counts(programs(), &committed()).unwrap();
    let new = counts(programs(), &slow.path()).unwrap();
    let verdict = judge(&old, &new, &[]);
    let grown = subjects(&verdict);
    for name in [
        "path/egress/ip6/tcp6 helpers",
        "path/egress/ip6/tcp6 instructions",
        "path/egress/no-exit instructions",
    ] {
        assert!(grown.iter().any(|grown| grown == name), "{grown:?}");
    }
    // And it alone.
    let others = grown.iter().filter(|name| !name.contains("/egress"));
    assert_eq!(others.count(), 0, "{grown:?}");
    let before = old.get(&Name::new("path", "egress/ip6/tcp6", "instructions"));
    let after = new.get(&Name::new("path", "egress/ip6/tcp6", "instructions"));
    assert_eq!(after.unwrap() - before.unwrap(), 7);
}

#[test]
fn what_the_kernel_has_more_to_do_for_is_caught() {
    let slow = Object::slow("lab_deliver");
    let (Some(old), Some(new)) = (kernel(&committed()), kernel(&slow.path())) else {
        skipped("gate::kernel", "this process may not load BPF programs");
        return;
    };
    let grown = subjects(&judge(&old, &new, &[]));
    assert_eq!(
        grown,
        ["kernel/lab_deliver jited", "kernel/lab_deliver verified"]
    );
}

#[test]
fn a_slower_model_is_caught_by_instructions_and_by_time() {
    let (root, limits) = (root().unwrap(), Limits::new(None).unwrap());
    let copy = tempfile::tempdir().unwrap();
    seed::slow_model(&root, copy.path()).unwrap();
    let target = target(&root).join("gate");
    let slow =
        Program::build_apart(Kind::Model, copy.path(), &target, copy.path(), &limits).unwrap();
    if callgrind::is_there() {
        let old = callgrind::count(programs().model.path()).unwrap();
        let new = callgrind::count(slow.path()).unwrap();
        let grown = subjects(&judge(&old, &new, &[]));
        for name in [
            "model/encapsulate/ip6 instructions",
            "model/decapsulate/ip6 instructions",
        ] {
            assert!(grown.iter().any(|grown| grown == name), "{grown:?}");
        }
    } else {
        eprintln!("skipped: gate: instructions of a slower model: valgrind is not installed");
    }
    let _quiet = QUIET.lock().unwrap();
    let changes = compare(&programs().model, &slow);
    assert!(changes.iter().all(|change| change.slower), "{changes:?}");
    assert_eq!(changes.len(), 1);
}

fn compare(old: &Program, new: &Program) -> Vec<time::Change> {
    let ask = |program: &Program| asked(program, &["time", TIMED]);
    let limits = Limits::new(None).unwrap();
    time::compare(|| ask(old), || ask(new), ROUNDS, &limits).unwrap()
}

#[test]
fn nothing_passes_ten_times_of_ten() {
    let counted = || counts(programs(), &committed()).unwrap();
    let instructions = || match callgrind::is_there() {
        true => callgrind::count(programs().model.path()).unwrap(),
        false => Counts::new(),
    };
    let in_kernel = || kernel(&committed()).unwrap_or_default();
    let first = (counted(), instructions(), in_kernel());
    if first.1.is_empty() {
        eprintln!("skipped: gate: instructions of the same model: valgrind is not installed");
    }
    if first.2.is_empty() {
        skipped("gate::kernel", "this process may not load BPF programs");
    }
    let _quiet = QUIET.lock().unwrap();
    for turn in 1..=10 {
        for (old, new) in [
            (&first.0, counted()),
            (&first.1, instructions()),
            (&first.2, in_kernel()),
        ] {
            let verdict = judge(old, &new, &[]);
            let table = verdict.table();
            assert!(verdict.grown.is_empty(), "turn {turn}: {table}");
            assert!(
                verdict.added.is_empty() && verdict.gone.is_empty(),
                "{table}"
            );
        }
        let changes = compare(&programs().model, &programs().model);
        assert_eq!(changes.len(), 1);
        assert!(
            changes.iter().all(|change| !change.slower),
            "turn {turn}: {changes:?}"
        );
    }
}

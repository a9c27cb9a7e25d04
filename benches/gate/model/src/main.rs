//! What the model's operations cost, for `cargo xtask gate`: it builds this program at two
//! revisions, and compares. Owns the command line and the way of measuring; which operations
//! there are stands in [`operation`].
//!
//! `allocations`: how often each operation takes memory from the heap, a line each.
//! `run`: each operation [`TIMES`] times within [`measured`], for callgrind to count.
//! `list`: the operations' names, in the order of `run`, and `TIMES`.
//! `time`: how long each operation takes that is a packet's way, a line each; `time NAME`: one.

mod allocation;
mod operation;

use operation::Operation;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often callgrind sees each operation.
const TIMES: u32 = 200;
/// How often allocations are counted.
const COUNTED: u32 = 1000;
/// How long one timing takes, and of how many the shortest counts.
const WINDOW: Duration = Duration::from_millis(2);
const WINDOWS: usize = 15;

/// The one function that callgrind looks into, by its name.
#[inline(never)]
fn measured(operation: &mut dyn FnMut() -> bool, times: u32) -> bool {
    let mut all = true;
    for _ in 0..times {
        all &= black_box(operation());
    }
    all
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let only = arguments.next();
    let mut operations = operation::all();
    // Memory that is kept is taken once; and an operation must do what its name says.
    for operation in &mut operations {
        if !((operation.run)() && (operation.run)()) {
            eprintln!("{} does not do what it should", operation.name);
            return ExitCode::FAILURE;
        }
    }
    match &command[..] {
        "allocations" => operations.iter_mut().for_each(allocations),
        "run" => {
            for operation in &mut operations {
                measured(&mut operation.run, TIMES);
            }
        }
        "list" => {
            for operation in &operations {
                println!("{} {TIMES}", operation.name);
            }
        }
        "time" => operations
            .iter_mut()
            .filter(|operation| match &only {
                Some(only) => operation.name == only,
                None => operation.timed,
            })
            .for_each(time),
        _ => {
            eprintln!("usage: dynencap-gate-model allocations|run|list|time [NAME]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn allocations(operation: &mut Operation) {
    let before = allocation::taken();
    for _ in 0..COUNTED {
        black_box((operation.run)());
    }
    let taken = allocation::taken() - before;
    println!(
        "allocation {} per-1000={}",
        operation.name,
        taken * 1000 / u64::from(COUNTED)
    );
}

/// The shortest of a few windows: what disturbs makes a window longer, never shorter.
fn time(operation: &mut Operation) {
    let mut times = 16;
    let mut took = |times: u32| {
        let since = Instant::now();
        measured(&mut operation.run, times);
        since.elapsed()
    };
    while took(times) < WINDOW && times < u32::MAX / 2 {
        times *= 2;
    }
    let best = (0..WINDOWS).map(|_| took(times)).min();
    let picoseconds = best.unwrap_or_default().as_nanos() * 1000 / u128::from(times);
    println!("time {} picoseconds={picoseconds}", operation.name);
}

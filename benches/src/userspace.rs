//! Rows that another program measures: user space's (`examples/userspace.rs`), which prints one
//! JSON object a line.

use crate::{Error, Row, Run, sample::Summary};
use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

#[derive(serde::Deserialize)]
struct Line {
    group: String,
    name: String,
    unit: String,
    median: f64,
    min: f64,
    max: f64,
    rounds: usize,
}

/// Runs it to its end. It may use every CPU: this process' pin is not for it.
pub fn measure(run: &Run, program: &Path) -> Result<Vec<Row>, Error> {
    let name = program.display().to_string();
    let mut command = Command::new(program);
    if run.quick {
        command.args(["--rounds", "3", "--packets", "300000"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    run.everywhere.apply().map_err(Error::io("unpinning"))?;
    let child = command.spawn();
    run.here.apply().map_err(Error::io("pinning"))?;
    let mut child = child.map_err(Error::io(name.clone()))?;
    // Its output is shorter than a pipe holds.
    while child.try_wait().map_err(Error::io(name.clone()))?.is_none() {
        if let Err(interrupted) = run.interrupt.check() {
            // It may have ended just now.
            let _ = child.kill();
            let _ = child.wait();
            return Err(interrupted.into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output().map_err(Error::io(name.clone()))?;
    if !output.status.success() {
        return Err(Error::Command {
            command: name,
            said: output.status.to_string(),
        });
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| row(line, &name)).collect()
}

fn row(line: &str, program: &str) -> Result<Row, Error> {
    let line: Line = serde_json::from_str(line).map_err(|error| Error::Command {
        command: program.to_owned(),
        said: format!("{error}: {line}"),
    })?;
    let summary = Summary {
        median: line.median,
        lower: line.min,
        upper: line.max,
        min: line.min,
        max: line.max,
        rounds: line.rounds,
    };
    let (unit, summary) = match line.unit.as_str() {
        "packets/s" => ("Mpps", summary.scaled(1e-6)),
        other => (other, summary),
    };
    Ok(Row::new(&line.group, &line.name, unit, summary))
}

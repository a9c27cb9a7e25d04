//! The test binary as a client or a server of its own: started again inside the topology, it
//! runs one named job with JSON as its input, prints JSON, and ends.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{env, io::Write};

/// Names the job in the environment of an agent.
pub const JOB: &str = "DYNENCAP_E2E_JOB";
/// Its input.
pub const INPUT: &str = "DYNENCAP_E2E_INPUT";

/// A job: name, and what it does.
pub type Job = (&'static str, fn(Value) -> Value);

/// Runs the job that the environment names, if it names one: then this process is done.
pub fn ran(jobs: &[Job]) -> bool {
    let Ok(name) = env::var(JOB) else {
        return false;
    };
    let input = env::var(INPUT).expect("an agent's input");
    let input = serde_json::from_str(&input).expect("an agent's input");
    let job = jobs.iter().find(|(known, _)| *known == name);
    let (_, job) = job.unwrap_or_else(|| panic!("no job {name}"));
    say(&job(input).to_string());
    true
}

/// A line for whoever started this agent.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").expect("stdout");
    out.flush().expect("stdout");
}

/// The job's typed input.
#[must_use]
pub fn input<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the job's input")
}

/// The job's typed output.
#[must_use]
pub fn output(value: impl Serialize) -> Value {
    serde_json::to_value(value).expect("the job's output")
}

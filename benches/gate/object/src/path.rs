//! A path: one run of one program in one situation, by name, with what it cost. The situations
//! stand in the modules below, a line or two each; a program without any is an error.

mod device;
mod group;
mod reflect;

use crate::host::Host;
use anyhow::{Context, ensure};
use dynencap_abi::Reason;
use dynencap_vm::{Machine, Meter, Skb};
use std::collections::BTreeSet;

/// Makes the situation and runs the program once, and makes sure of what it did.
type Run = Box<dyn Fn(&mut Host) -> anyhow::Result<Meter>>;

/// See the module.
pub(crate) struct Path {
    pub(crate) program: &'static str,
    /// Behind the program's name.
    name: String,
    run: Run,
}

impl Path {
    fn new(
        program: &'static str,
        name: impl Into<String>,
        run: impl Fn(&mut Host) -> anyhow::Result<Meter> + 'static,
    ) -> Self {
        Self {
            program,
            name: name.into(),
            run: Box::new(run),
        }
    }

    /// A TC program on a frame like one before it, which must count this reason.
    fn frame(
        program: &'static str,
        name: impl Into<String>,
        reason: Reason,
        make: impl Fn(&mut Host) -> anyhow::Result<Skb> + 'static,
    ) -> Self {
        Self::new(program, name, move |host| {
            let mut skb = make(host)?;
            host.frame(program, reason, &mut skb.clone())?;
            host.frame(program, reason, &mut skb)
        })
    }

    /// The same on the first such frame.
    fn first(
        program: &'static str,
        name: impl Into<String>,
        reason: Reason,
        make: impl Fn(&mut Host) -> anyhow::Result<Skb> + 'static,
    ) -> Self {
        Self::new(program, name, move |host| {
            let mut skb = make(host)?;
            host.frame(program, reason, &mut skb)
        })
    }

    /// `program/name`.
    pub(crate) fn title(&self) -> String {
        format!("{}/{}", self.program, self.name)
    }

    /// What it costs on a fresh host.
    pub(crate) fn cost(&self, loaded: &Machine) -> anyhow::Result<Meter> {
        Ok(self.run(loaded)?.0)
    }

    /// The same, and the host as the run left it.
    pub(crate) fn run(&self, loaded: &Machine) -> anyhow::Result<(Meter, Host)> {
        let mut host = Host::new(loaded)?;
        let cost = (self.run)(&mut host).with_context(|| self.title())?;
        Ok((cost, host))
    }
}

/// Every path of every program of this object.
pub(crate) fn all(loaded: &Machine) -> anyhow::Result<Vec<Path>> {
    let paths: Vec<Path> = [device::paths(), group::paths(), reflect::paths()]
        .into_iter()
        .flatten()
        .collect();
    let known: BTreeSet<&str> = paths.iter().map(|path| path.program).collect();
    let unknown: Vec<&str> = loaded
        .programs()
        .filter(|program| !known.contains(program))
        .collect();
    ensure!(
        unknown.is_empty(),
        "no path runs {}: add one to benches/gate/object/src/path/",
        unknown.join(", ")
    );
    Ok(paths)
}

/// Those whose time is taken: what a packet costs most often.
pub(crate) use device::TIMED;

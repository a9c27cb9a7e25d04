//! Host configuration: the rules, tables and routes by which a socket with an exit learns
//! its inner MTU and MSS from the uplink, one table an overhead; and the veth pair that
//! segments in front of the uplink. See docs/host.md.
//!
//! Everything acts on the network namespace of the calling thread, by rtnetlink alone. Who
//! sets the mark is left to the programs at `setsockopt` (docs/datapath.md §1), and what
//! happens behind the segmenting pair to whoever attaches there.

mod change;
mod desired;
mod error;
mod netlink;
mod plan;
mod route;
mod rule;
mod segment;
mod state;
mod uplink;
mod watch;

pub use error::Error;
pub use plan::{Families, Family, Inner, Mss, OVERHEADS, Plan, Sources};
pub use segment::{Ensured, SegmentPair, offers_checksums};
pub use watch::{Event, watch};

use change::Undo;
use netlink::Netlink;
use state::State;
use std::fmt;

/// The `protocol` of every route and rule of ours (`RTPROT_*`, `FRA_PROTOCOL`): a number that
/// neither the kernel nor iproute2's table gives to anyone. By it, and by nothing else, we
/// know what is ours.
pub const PROTOCOL: u8 = 0xde;

/// How often an installation looks again, because main's routes or the uplink changed under it.
const ROUNDS: usize = 3;

/// What an installation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// The uplink's MTU that everything was computed from, in bytes from the outer IP header
    /// on: what `dynencap_abi::Config::uplink_mtu` has to say.
    pub uplink_mtu: u32,
    /// Routes through the uplink that stand in our tables now, over all tables and families.
    /// Zero while the uplink is down.
    pub routes: usize,
    /// Routes and rules that were added.
    pub added: usize,
    /// Routes that were replaced.
    pub replaced: usize,
    /// Routes and rules that were taken away.
    pub removed: usize,
}

impl Installed {
    /// Everything was there before.
    #[must_use]
    pub fn unchanged(&self) -> bool {
        self.added + self.replaced + self.removed == 0
    }
}

/// What there is of a plan, each entry in the words of `ip rule` and `ip route`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The uplink's MTU, as in [`Installed::uplink_mtu`].
    pub uplink_mtu: u32,
    /// There, as planned.
    pub present: Vec<String>,
    /// Planned, and not there.
    pub missing: Vec<String>,
    /// There in another shape: what is there, and what is planned.
    pub differing: Vec<(String, String)>,
    /// Ours, and not of this plan: of an earlier plan, or of a route that main has no more.
    pub obsolete: Vec<String>,
}

impl Status {
    /// An installation would change nothing.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.missing.is_empty() && self.differing.is_empty() && self.obsolete.is_empty()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "uplink mtu {}", self.uplink_mtu)?;
        let listed = [
            ("present", &self.present),
            ("missing", &self.missing),
            ("obsolete", &self.obsolete),
        ];
        for (state, entries) in listed {
            for entry in entries {
                writeln!(f, "{state}: {entry}")?;
            }
        }
        for (there, planned) in &self.differing {
            writeln!(f, "differs: {there}, planned: {planned}")?;
        }
        Ok(())
    }
}

/// Brings the host to what `plan` says: whatever of ours is of another plan goes, what is
/// right stays untouched. There is one plan a network namespace.
///
/// Routes are complete before a rule leads to them. On an error what was changed is taken
/// back.
///
/// # Errors
///
/// Every variant of [`Error`] but those of the segmenting pair. `CAP_NET_ADMIN` is needed.
pub fn install(plan: &Plan) -> Result<Installed, Error> {
    plan.validate()?;
    netlink::run(async |netlink| bring_about(&netlink, plan).await)
}

/// Takes away every rule and route of ours, of any plan, and returns how many there were.
///
/// # Errors
///
/// Netlink's, or that the process lacks `CAP_NET_ADMIN`; then all is as it was.
pub fn remove() -> Result<usize, Error> {
    netlink::run(async |netlink| {
        let there = State::read(&netlink).await?;
        let steps = change::steps(&there.ours, &state::Entries::default());
        let mut undo = Undo::default();
        match undo.run(&netlink, &steps).await {
            Ok(()) => Ok(steps.len()),
            Err(error) => {
                undo.back(&netlink).await;
                Err(error)
            }
        }
    })
}

/// Compares the host with `plan`, without changing anything; no privilege is needed.
///
/// # Errors
///
/// As [`install`], permissions apart.
pub fn status(plan: &Plan) -> Result<Status, Error> {
    plan.validate()?;
    netlink::run(async |netlink| {
        let there = State::read(&netlink).await?;
        let uplink = uplink::find(&netlink, plan).await?;
        there.refuse_foreign(plan)?;
        let wanted = desired::entries(plan, &uplink, &there.main)?;
        Ok(change::compare(&there.ours, &wanted, uplink.mtu))
    })
}

async fn bring_about(netlink: &Netlink, plan: &Plan) -> Result<Installed, Error> {
    let mut undo = Undo::default();
    let result = rounds(netlink, plan, &mut undo).await;
    if result.is_err() {
        undo.back(netlink).await;
    }
    result
}

/// Changes, and looks whether the kernel holds now what was asked for. It does not where the
/// uplink went down in between, say, and then the plan is another one.
async fn rounds(netlink: &Netlink, plan: &Plan, undo: &mut Undo) -> Result<Installed, Error> {
    let mut done = Installed::default();
    let mut left = String::new();
    for _ in 0..ROUNDS {
        let there = State::read(netlink).await?;
        let uplink = uplink::find(netlink, plan).await?;
        there.refuse_foreign(plan)?;
        let wanted = desired::entries(plan, &uplink, &there.main)?;
        let steps = change::steps(&there.ours, &wanted);
        done.uplink_mtu = uplink.mtu;
        done.routes = wanted
            .routes
            .iter()
            .filter(|route| !route.is_throw())
            .count();
        let Some(first) = steps.first() else {
            return Ok(done);
        };
        left = first.to_string();
        for step in &steps {
            match step {
                change::Step::Add(_) => done.added += 1,
                change::Step::Replace { .. } => done.replaced += 1,
                change::Step::Delete(_) => done.removed += 1,
            }
        }
        undo.run(netlink, &steps).await?;
    }
    Err(Error::Unsettled { left })
}

//! From what is there to what is wanted, in steps that can be taken back.

use super::{
    Error, Status,
    netlink::Netlink,
    route::{Key, Route},
    rule::Rule,
    state::Entries,
};
use rtnetlink::{
    packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::RouteNetlinkMessage,
};
use std::{collections::BTreeMap, fmt};

/// A route or a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Route(Route),
    Rule(Rule),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Add(Entry),
    Replace { old: Route, new: Route },
    Delete(Entry),
}

/// The steps, in an order in which a rule never leads to a table that lacks something: what
/// is new in the tables, the rules, and at last what the tables have too much.
pub(super) fn steps(there: &Entries, wanted: &Entries) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut there_by_key = by_key(&there.routes);
    for (key, new) in by_key(&wanted.routes) {
        let old = there_by_key.remove(&key).unwrap_or_default();
        match (old.as_slice(), new.as_slice()) {
            (old, new) if old == new => {}
            ([old], [new]) => steps.push(Step::Replace {
                old: (*old).clone(),
                new: (*new).clone(),
            }),
            // Several of one key rank by their order, so they are made anew.
            (old, new) => {
                steps.extend(deletions(old));
                steps.extend(new.iter().map(|&new| Step::Add(Entry::Route(new.clone()))));
            }
        }
    }
    let missing = wanted
        .rules
        .iter()
        .filter(|rule| !there.rules.contains(rule));
    steps.extend(missing.map(|rule| Step::Add(Entry::Rule(rule.clone()))));
    let obsolete = there
        .rules
        .iter()
        .filter(|rule| !wanted.rules.contains(rule));
    steps.extend(obsolete.map(|rule| Step::Delete(Entry::Rule(rule.clone()))));
    for old in there_by_key.values() {
        steps.extend(deletions(old));
    }
    steps
}

fn by_key(routes: &[Route]) -> BTreeMap<Key, Vec<&Route>> {
    let mut by_key: BTreeMap<Key, Vec<&Route>> = BTreeMap::new();
    for route in routes {
        by_key.entry(route.key()).or_default().push(route);
    }
    by_key
}

/// The last first, so that taking them back gives the same order.
fn deletions(routes: &[&Route]) -> impl Iterator<Item = Step> {
    routes
        .iter()
        .rev()
        .map(|&route| Step::Delete(Entry::Route(route.clone())))
}

/// The same comparison, for people.
pub(super) fn compare(there: &Entries, wanted: &Entries, uplink_mtu: u32) -> Status {
    let mut status = Status {
        uplink_mtu,
        ..Status::default()
    };
    for step in steps(there, wanted) {
        match step {
            Step::Add(entry) => status.missing.push(entry.to_string()),
            Step::Delete(entry) => status.obsolete.push(entry.to_string()),
            Step::Replace { old, new } => {
                status.differing.push((old.to_string(), new.to_string()));
            }
        }
    }
    let rules = wanted
        .rules
        .iter()
        .filter(|rule| there.rules.contains(rule));
    status.present.extend(rules.map(ToString::to_string));
    let routes = wanted
        .routes
        .iter()
        .filter(|route| there.routes.contains(route));
    status.present.extend(routes.map(ToString::to_string));
    status
}

/// The steps that were taken, to be taken back.
#[derive(Debug, Default)]
pub(super) struct Undo {
    taken: Vec<Step>,
}

impl Undo {
    /// Takes the steps up to the first that the kernel refuses.
    pub(super) async fn run(&mut self, netlink: &Netlink, steps: &[Step]) -> Result<(), Error> {
        for step in steps {
            match take(netlink, step).await {
                Ok(()) => self.taken.push(step.clone()),
                // The kernel itself took it, with its device or address.
                Err(error)
                    if matches!(step, Step::Delete(_))
                        && matches!(error.errno(), Some(libc::ESRCH | libc::ENOENT)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes all steps back, as far as the kernel lets: an error has been there before.
    pub(super) async fn back(&mut self, netlink: &Netlink) {
        while let Some(step) = self.taken.pop() {
            let back = match step {
                Step::Add(entry) => Step::Delete(entry),
                Step::Delete(entry) => Step::Add(entry),
                Step::Replace { old, new } => Step::Replace { old: new, new: old },
            };
            let _ = take(netlink, &back).await;
        }
    }
}

async fn take(netlink: &Netlink, step: &Step) -> Result<(), Error> {
    let route = |route: &Route| route.message().clone();
    let rule = |rule: &Rule| rule.message().clone();
    let (what, message, flags) = match step {
        Step::Add(Entry::Route(new)) => (
            "adding a route",
            RouteNetlinkMessage::NewRoute(route(new)),
            // Behind those of the same key, as main has them.
            NLM_F_CREATE | NLM_F_APPEND,
        ),
        Step::Replace { new, .. } => (
            "replacing a route",
            RouteNetlinkMessage::NewRoute(route(new)),
            NLM_F_CREATE | NLM_F_REPLACE,
        ),
        Step::Delete(Entry::Route(old)) => (
            "deleting a route",
            RouteNetlinkMessage::DelRoute(old.to_be_deleted()),
            0,
        ),
        Step::Add(Entry::Rule(new)) => (
            "adding a rule",
            RouteNetlinkMessage::NewRule(rule(new)),
            NLM_F_CREATE | NLM_F_EXCL,
        ),
        Step::Delete(Entry::Rule(old)) => (
            "deleting a rule",
            RouteNetlinkMessage::DelRule(rule(old)),
            0,
        ),
    };
    netlink.change(what, message, flags).await
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(route) => write!(f, "{route}"),
            Self::Rule(rule) => write!(f, "{rule}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(entry) => write!(f, "add {entry}"),
            Self::Replace { old, new } => write!(f, "replace {old} by {new}"),
            Self::Delete(entry) => write!(f, "delete {entry}"),
        }
    }
}

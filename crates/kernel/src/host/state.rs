//! What the host holds now: ours, main's routes, and who else is in the plan's tables.

use super::{
    Error, Family, PROTOCOL, Plan,
    netlink::Netlink,
    route::{self, Route, Words},
    rule::Rule,
};
use rtnetlink::packet_route::route::{RouteFlags, RouteHeader, RouteMessage};

/// Routes and rules of ours: those that are there, or those that are to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    pub(super) routes: Vec<Route>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) ours: Entries,
    /// Main's, in the kernel's order.
    pub(super) main: Vec<RouteMessage>,
    /// All others.
    foreign: Vec<RouteMessage>,
}

/// Default, main and local: nothing in them is ever ours, whatever its protocol says.
const SHARED: std::ops::RangeInclusive<u32> = 253..=255;

impl State {
    pub(super) async fn read(netlink: &Netlink) -> Result<Self, Error> {
        let mut state = Self {
            ours: Entries::default(),
            main: Vec::new(),
            foreign: Vec::new(),
        };
        for family in Family::ALL {
            for route in netlink.routes(family).await? {
                // The kernel's memory of a path MTU or a redirect, not a route.
                if route.header.flags.contains(RouteFlags::Cloned) {
                    continue;
                }
                let table = route::table(&route);
                if table == u32::from(RouteHeader::RT_TABLE_MAIN) {
                    state.main.push(route);
                } else if u8::from(route.header.protocol) == PROTOCOL && !SHARED.contains(&table) {
                    state.ours.routes.push(Route::new(&route));
                } else {
                    state.foreign.push(route);
                }
            }
            let rules = netlink.rules(family).await?;
            state.ours.rules.extend(rules.iter().filter_map(Rule::ours));
        }
        Ok(state)
    }

    /// An error if someone else has routes in a table of the plan's.
    pub(super) fn refuse_foreign(&self, plan: &Plan) -> Result<(), Error> {
        for route in &self.foreign {
            let table = route::table(route);
            let planned = plan
                .overheads
                .iter()
                .any(|&overhead| plan.table(overhead) == table);
            if let Some(family) = Family::of(route.header.address_family)
                && plan.families.contains(family)
                && planned
            {
                return Err(Error::ForeignTable {
                    family,
                    table,
                    route: Words(route).to_string(),
                });
            }
        }
        Ok(())
    }
}

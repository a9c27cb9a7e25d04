//! From main's routes and the uplink to our tables. Pure.
//!
//! A packet that our rule sends to one of our tables must go where main would send it. So a
//! table repeats main route by route, with main's priorities and in main's order: a route
//! through the uplink is copied and gets MTU and MSS; of every other one stands there that
//! its prefix is not in this table (`throw`), so that the lookup goes on to the next rule, and
//! main decides by itself.

use super::{
    Error, Family, Inner, Plan,
    route::{Route, Words},
    rule::Rule,
    state::Entries,
    uplink::Uplink,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteScope,
    RouteType,
};
use std::collections::BTreeSet;

/// Number of the MTU in the metrics, a bit of the metric `lock` (`RTAX_MTU`).
const MTU_LOCK: u32 = 1 << 2;

/// Everything that the plan wants on this host.
pub(super) fn entries(
    plan: &Plan,
    uplink: &Uplink,
    main: &[RouteMessage],
) -> Result<Entries, Error> {
    let mut entries = Entries::default();
    for family in Family::ALL {
        if !plan.families.contains(family) {
            continue;
        }
        let ways = ways(family, uplink, main)?;
        for &overhead in &plan.overheads {
            // Known before there is any route: an uplink that is down has none.
            plan.checked_inner(family, overhead, uplink.mtu, || plan.uplink.clone())?;
            entries.rules.push(Rule::planned(plan, family, overhead));
            let mut thrown = BTreeSet::new();
            for (way, route) in &ways {
                match way {
                    Way::Uplink => {
                        entries
                            .routes
                            .push(copy(plan, uplink, family, overhead, route)?);
                    }
                    Way::Elsewhere => {
                        let throw = throw(plan.table(overhead), route);
                        if thrown.insert(throw.key()) {
                            entries.routes.push(throw);
                        }
                    }
                }
            }
        }
    }
    Ok(entries)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Uplink,
    Elsewhere,
}

/// Main's routes of a family, and where each leads. Empty if none leads through the uplink:
/// then nothing in our table could catch another's packets.
fn ways<'a>(
    family: Family,
    uplink: &Uplink,
    main: &'a [RouteMessage],
) -> Result<Vec<(Way, &'a RouteMessage)>, Error> {
    let ways = main
        .iter()
        .filter(|route| route.header.address_family == family.address_family())
        .map(|route| Ok((way(uplink, route)?, route)))
        .collect::<Result<Vec<_>, Error>>()?;
    if ways.iter().any(|(way, _)| *way == Way::Uplink) {
        Ok(ways)
    } else {
        Ok(Vec::new())
    }
}

fn way(uplink: &Uplink, route: &RouteMessage) -> Result<Way, Error> {
    if route.header.kind != RouteType::Unicast {
        return Ok(Way::Elsewhere);
    }
    let mut devices = BTreeSet::new();
    let mut hidden = false;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => {
                devices.insert(*index);
            }
            RouteAttribute::MultiPath(hops) => {
                devices.extend(hops.iter().map(|hop| hop.interface_index));
            }
            RouteAttribute::NhId(_) => hidden = true,
            _ => {}
        }
    }
    if devices.is_empty() && hidden {
        return Err(Error::HiddenNexthop {
            route: Words(route).to_string(),
        });
    }
    match (devices.contains(&uplink.index), devices.len()) {
        (true, 1) => Ok(Way::Uplink),
        (true, _) => Err(Error::MixedMultipath {
            route: Words(route).to_string(),
        }),
        (false, _) => Ok(Way::Elsewhere),
    }
}

fn copy(
    plan: &Plan,
    uplink: &Uplink,
    family: Family,
    overhead: u8,
    main: &RouteMessage,
) -> Result<Route, Error> {
    let mut route = in_table(plan.table(overhead), main);
    let mut metrics = Vec::new();
    for attribute in &main.attributes {
        if let RouteAttribute::Metrics(own) = attribute {
            metrics.extend(own.iter().cloned());
        }
    }
    let own = |of: fn(&RouteMetric) -> Option<u32>| metrics.iter().find_map(of);
    // A route's own MTU tells of a narrower way behind the uplink, which the outer packets
    // have to fit as well.
    let own_mtu = own(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    let outer = own_mtu.map_or(uplink.mtu, |mtu| mtu.min(uplink.mtu));
    let Inner { mtu, advmss } = plan.checked_inner(family, overhead, outer, || {
        if outer == uplink.mtu {
            plan.uplink.clone()
        } else {
            Words(main).to_string()
        }
    })?;
    let own_mss = own(|metric| match metric {
        RouteMetric::Advmss(mss) => Some(*mss),
        _ => None,
    });
    let own_lock = own(|metric| match metric {
        RouteMetric::Lock(lock) => Some(*lock),
        _ => None,
    });
    let lock = own_lock.unwrap_or(0) | if plan.lock_mtu { MTU_LOCK } else { 0 };
    metrics.retain(|metric| {
        !matches!(
            metric,
            RouteMetric::Mtu(_) | RouteMetric::Advmss(_) | RouteMetric::Lock(_)
        )
    });
    if lock != 0 {
        metrics.push(RouteMetric::Lock(lock));
    }
    metrics.push(RouteMetric::Mtu(mtu));
    metrics.push(RouteMetric::Advmss(
        own_mss.map_or(advmss, |mss| mss.min(advmss)),
    ));
    route
        .attributes
        .retain(|attribute| !matches!(attribute, RouteAttribute::Metrics(_)));
    route.attributes.push(RouteAttribute::Metrics(metrics));
    if let Some(source) = source(plan, family, main) {
        route
            .attributes
            .retain(|attribute| !matches!(attribute, RouteAttribute::PrefSource(_)));
        route.attributes.push(RouteAttribute::PrefSource(source));
    }
    Ok(Route::new(&route))
}

fn source(plan: &Plan, family: Family, main: &RouteMessage) -> Option<RouteAddress> {
    let link_local = main.attributes.iter().any(|attribute| {
        matches!(
            attribute,
            RouteAttribute::Destination(RouteAddress::Inet6(to)) if to.is_unicast_link_local()
        )
    });
    match family {
        Family::V4 => plan.source.v4.map(RouteAddress::Inet),
        Family::V6 if link_local => None,
        Family::V6 => plan.source.v6.map(RouteAddress::Inet6),
    }
}

fn throw(table: u32, main: &RouteMessage) -> Route {
    let mut route = in_table(table, main);
    route.header.kind = RouteType::Throw;
    route.header.scope = RouteScope::Universe;
    route.header.flags = RouteFlags::empty();
    Route::new(&route)
}

fn in_table(table: u32, main: &RouteMessage) -> RouteMessage {
    let mut route = main.clone();
    route.header.table = RouteHeader::RT_TABLE_UNSPEC;
    route
        .attributes
        .retain(|attribute| !matches!(attribute, RouteAttribute::Table(_)));
    route.attributes.push(RouteAttribute::Table(table));
    route
}

//! `stats`: frames by reason, events, and the paths to exits.

use crate::{cli::Output, installed::Pins};
use dynencap_abi::{Event, Exit, PathKey, PathState, Reason, Verdict};
use dynencap_kernel::Loaded;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::{collections::BTreeMap, net::Ipv6Addr, process::ExitCode};

#[derive(Serialize)]
struct Report {
    frames: BTreeMap<&'static str, u64>,
    events: BTreeMap<&'static str, u64>,
    /// Captured paths that wait for their connection, and those of UDP peers.
    reflected: Reflected,
    paths: Vec<Path>,
}

#[derive(Serialize)]
struct Reflected {
    /// Present now, for sockets of cgroups.
    present: u64,
    /// Present now, for the kernel's own resets.
    kernel: u64,
    /// The most that can be.
    capacity: u32,
    /// Captured, and neither taken nor present: they gave way to newer ones. Not more than this:
    /// what was removed otherwise, and connected UDP sockets' (which are never in the map), are
    /// in it too.
    evicted_at_most: u64,
}

/// An exit that some socket chose, and what is known of the way there.
#[derive(Serialize)]
struct Path {
    gateway: String,
    /// UDP destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// Learned path MTU in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    /// Seconds since it was learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<u64>,
    /// It limits packets: it was learned less than ten minutes ago.
    fresh: bool,
}

pub(crate) fn run(pins: &Pins, output: Output) -> anyhow::Result<ExitCode> {
    let maps = pins.open()?.maps(pins)?;
    let (counters, events) = (maps.counters()?, maps.events()?);
    let now = clock_gettime(ClockId::Monotonic);
    let now = u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(now.tv_nsec).unwrap_or(0);
    let paths: Vec<Path> = maps
        .paths()?
        .iter()
        .map(|(key, state)| path(key, state, now))
        .collect();
    let reflected = reflected(&maps, &events)?;
    if output.json {
        let report = Report {
            frames: Reason::ALL.iter().map(|r| r.name()).zip(counters).collect(),
            events: Event::ALL.iter().map(|e| e.name()).zip(events).collect(),
            reflected,
            paths,
        };
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(ExitCode::SUCCESS);
    }
    for (verdict, title) in [
        (Verdict::Encapsulated, "encapsulated"),
        (Verdict::Decapsulated, "decapsulated"),
        (Verdict::Passed, "passed"),
        (Verdict::Dropped, "dropped"),
    ] {
        let of = || {
            Reason::ALL
                .into_iter()
                .zip(counters)
                .filter(move |(reason, count)| reason.verdict() == verdict && *count > 0)
        };
        println!(
            "{:<28}{:>14}",
            title,
            of().map(|(_, count)| count).sum::<u64>()
        );
        for (reason, count) in of().filter(|(reason, _)| reason.name() != title) {
            println!("  {:<26}{count:>14}", reason.name());
        }
    }
    println!("events");
    for (event, count) in Event::ALL
        .iter()
        .zip(events)
        .filter(|(_, count)| *count > 0)
    {
        println!("  {:<26}{count:>14}", event.name());
    }
    println!("captured paths");
    for (name, count) in [
        ("present", reflected.present),
        ("of the kernel's own", reflected.kernel),
        ("capacity", reflected.capacity.into()),
        ("evicted, at most", reflected.evicted_at_most),
    ] {
        println!("  {name:<26}{count:>14}");
    }
    println!("paths");
    for path in paths {
        let port = path
            .port
            .map_or_else(String::new, |port| format!("/udp:{port}"));
        let mtu = match (path.mtu, path.age) {
            (Some(mtu), Some(age)) => format!(
                "MTU {mtu}, learned {age} s ago{}",
                if path.fresh { "" } else { ", expired" }
            ),
            _ => "no MTU learned".to_owned(),
        };
        println!("  {}{port}: {mtu}", path.gateway);
    }
    Ok(ExitCode::SUCCESS)
}

fn reflected(maps: &Loaded, events: &[u64; Event::COUNT]) -> anyhow::Result<Reflected> {
    let entries = maps.reflected()?;
    let kernel = entries.iter().filter(|(_, entry)| entry.cgroup == 0);
    let kernel = u64::try_from(kernel.count()).unwrap_or(u64::MAX);
    let present = u64::try_from(entries.len()).unwrap_or(u64::MAX) - kernel;
    let count = |event: Event| events[event as usize];
    Ok(Reflected {
        present,
        kernel,
        capacity: maps.reflected_capacity()?,
        evicted_at_most: count(Event::ReflectCaptured)
            .saturating_sub(count(Event::ReflectTaken))
            .saturating_sub(present),
    })
}

fn path(key: &PathKey, state: &PathState, now: u64) -> Path {
    let address = Ipv6Addr::from(key.gateway);
    let age = now.saturating_sub(state.learned);
    let learned = state.mtu != 0;
    Path {
        gateway: address
            .to_ipv4_mapped()
            .map_or_else(|| address.to_string(), |address| address.to_string()),
        port: (key.flags & Exit::UDP != 0).then(|| u16::from_be_bytes(key.destination_port)),
        mtu: learned.then_some(state.mtu),
        age: learned.then_some(age / 1_000_000_000),
        fresh: learned && age < PathState::LIFETIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_mtu_expires_after_ten_minutes() {
        let key = PathKey {
            gateway: std::net::Ipv4Addr::new(192, 0, 2, 1)
                .to_ipv6_mapped()
                .octets(),
            destination_port: [0x17, 0xc0],
            flags: Exit::UDP,
            reserved: 0,
        };
        let state = PathState {
            learned: 1_000_000_000,
            mtu: 1400,
            header_len: 0,
        };
        let at = |now| {
            let path = path(&key, &state, now);
            (path.gateway, path.port, path.mtu, path.age, path.fresh)
        };
        let gateway = || "192.0.2.1".to_owned();
        assert_eq!(
            at(600_999_999_999),
            (gateway(), Some(6080), Some(1400), Some(599), true)
        );
        assert_eq!(
            at(601_000_000_000),
            (gateway(), Some(6080), Some(1400), Some(600), false)
        );
    }
}

//! `status`: programs, rules and routes, against what `up` was told.

use crate::{cli::Output, installed::Pins, settings::Settings, sysctl};
use anyhow::Context;
use dynencap_kernel::{host, install};
use serde::Serialize;
use std::process::ExitCode;

#[derive(Serialize)]
struct Report {
    installed: bool,
    /// Every program runs, every rule and route is there.
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<Settings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    programs: Option<install::Status>,
    /// The running programs are this build's.
    current: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Host>,
}

#[derive(Serialize)]
struct Host {
    uplink_mtu: u32,
    present: Vec<String>,
    missing: Vec<String>,
    differing: Vec<[String; 2]>,
    obsolete: Vec<String>,
}

pub(crate) fn run(pins: &Pins, output: Output) -> anyhow::Result<ExitCode> {
    let Some(installed) = pins.find()? else {
        let report = Report {
            installed: false,
            complete: false,
            settings: None,
            programs: None,
            current: false,
            host: None,
        };
        if output.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            println!("nothing is installed at {}", pins.path().display());
        }
        return Ok(ExitCode::FAILURE);
    };
    installed.installation.must_be_here()?;
    let programs = installed.installation.status()?;
    let routes = host::status(&installed.settings.plan()).context("rules and routes");
    // A device that is gone is part of the answer.
    let (routes, trouble) = match routes {
        Ok(routes) => (Some(routes), None),
        Err(error) => (None, Some(error)),
    };
    let marks = !installed.settings.up.reflect || sysctl::read()? == sysctl::ON;
    let complete =
        programs.complete() && routes.as_ref().is_some_and(host::Status::complete) && marks;
    let current = installed.installation.is_of(pins.object());
    if output.json {
        let host = routes.map(|routes| Host {
            uplink_mtu: routes.uplink_mtu,
            present: routes.present,
            missing: routes.missing,
            differing: routes
                .differing
                .into_iter()
                .map(|(there, planned)| [there, planned])
                .collect(),
            obsolete: routes.obsolete,
        });
        let report = Report {
            installed: true,
            complete,
            settings: Some(installed.settings),
            programs: Some(programs),
            current,
            host,
        };
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!(
            "uplink {}, cgroup {}",
            programs.uplink.name,
            programs.cgroup.display()
        );
        for program in &programs.programs {
            let id = program
                .id
                .map_or_else(|| "not loaded".to_owned(), |id| format!("id {id}"));
            let state = if program.attached {
                "attached"
            } else {
                "NOT attached"
            };
            println!("program {}: {id}, {state}", program.name);
        }
        if !current {
            println!("programs are of another build: `dynencap upgrade`");
        }
        if let Some(routes) = routes {
            print!("{routes}");
        }
        if !marks {
            println!("{} is NOT {}", sysctl::NAME, sysctl::ON);
        }
        println!(
            "{}",
            if complete {
                "complete"
            } else {
                "INCOMPLETE: `dynencap up` with the same flags repairs it"
            }
        );
    }
    if let Some(error) = trouble {
        eprintln!("dynencap: {error:#}");
    }
    Ok(ExitCode::from(u8::from(!complete)))
}

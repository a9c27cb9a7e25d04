//! `up`, `down`, `watch`, `upgrade`: programs, segmenting pair, rules and routes as one thing.

use crate::{
    Usage, exec, group,
    installed::{Installed, Pins},
    settings::{PAIR, Settings, Up},
    sysctl, tunnel,
};
use anyhow::Context;
use dynencap_kernel::{
    Interrupt,
    host::{self, Ensured, SegmentPair},
    install::{Change, Hook, Installation, Spec},
};
use std::process::ExitCode;

pub(crate) fn up(pins: &Pins, mut up: Up) -> anyhow::Result<ExitCode> {
    up.cgroup = group::canonical(&up.cgroup)?;
    if up.uplink.is_empty() {
        return Err(Usage("--uplink: expected the name of a device".to_owned()).into());
    }
    let mut settings = Settings {
        up,
        fwmark_accept_was: None,
    };
    if let Some(there) = pins.find()? {
        // Before anything of the other's is changed.
        let (installed, wanted) = (&there.settings.up, &settings.up);
        for (what, installed, wanted) in [
            ("uplink", installed.uplink.clone(), wanted.uplink.clone()),
            (
                "cgroup",
                installed.cgroup.display().to_string(),
                wanted.cgroup.display().to_string(),
            ),
        ] {
            anyhow::ensure!(
                installed == wanted,
                "already installed for {what} {installed}, not {wanted}: `dynencap down` first"
            );
        }
        there.installation.must_be_here()?;
        settings.fwmark_accept_was = there.settings.fwmark_accept_was;
    }
    let (installed, change, routes) = bring_about(pins, settings)?;
    let word = match change {
        Change::Installed => "installed",
        Change::Repaired => "repaired",
        Change::Unchanged => "already installed",
    };
    println!(
        "{word}: uplink {} (MTU {}), cgroup {}",
        installed.settings.up.uplink,
        routes.uplink_mtu,
        installed.settings.up.cgroup.display()
    );
    println!(
        "routes: {} in place; {} added, {} replaced, {} removed",
        routes.routes, routes.added, routes.replaced, routes.removed
    );
    if !installed.installation.is_of(pins.object()) {
        println!("the running programs are of another build: `dynencap upgrade` replaces them");
    }
    Ok(ExitCode::SUCCESS)
}

/// Installs, or brings what is there to the settings. What is new goes again on an error.
fn bring_about(
    pins: &Pins,
    mut settings: Settings,
) -> anyhow::Result<(Installed, Change, host::Installed)> {
    let plan = settings.plan();
    // Names the device that is not there, and gives the MTU.
    let uplink_mtu = host::status(&plan)?.uplink_mtu;
    let pair = settings
        .pair()
        .then(|| SegmentPair::ensure(PAIR[0], PAIR[1]))
        .transpose()
        .context("the segmenting pair")?;
    let made = matches!(pair, Some((_, Ensured::Created)));
    let result = programs(pins, &settings, uplink_mtu, pair.map(|(pair, _)| pair));
    let (mut installation, change) = match result {
        Ok(done) => done,
        Err(error) => {
            if made {
                let _ = SegmentPair::remove(PAIR[0], PAIR[1]);
            }
            return Err(error);
        }
    };
    let routes = accept_marks(&mut installation, &mut settings)
        .and_then(|()| host::install(&plan).context("rules and routes"));
    let routes = match routes {
        Ok(routes) => routes,
        Err(error) => {
            if change == Change::Installed {
                if let Some(was) = &settings.fwmark_accept_was {
                    let _ = sysctl::restore(was);
                }
                let _ = installation.remove();
            }
            if made {
                let _ = SegmentPair::remove(PAIR[0], PAIR[1]);
            }
            return Err(error);
        }
    };
    if !settings.pair() {
        SegmentPair::remove(PAIR[0], PAIR[1]).context("the segmenting pair")?;
    }
    let installed = Installed {
        installation,
        settings,
    };
    if routes.uplink_mtu != uplink_mtu {
        set_mtu(pins, &installed, routes.uplink_mtu)?;
    }
    Ok((installed, change, routes))
}

/// Notes the settings, and brings `net.ipv4.tcp_fwmark_accept` to them: what was there is noted
/// before it is changed.
fn accept_marks(installation: &mut Installation, settings: &mut Settings) -> anyhow::Result<()> {
    if settings.up.reflect {
        if settings.fwmark_accept_was.is_none() {
            settings.fwmark_accept_was = Some(sysctl::read()?);
        }
        installation.set_note(settings.to_note()?)?;
        return sysctl::turn_on();
    }
    if let Some(was) = settings.fwmark_accept_was.take() {
        sysctl::restore(&was)?;
    }
    Ok(installation.set_note(settings.to_note()?)?)
}

fn programs(
    pins: &Pins,
    settings: &Settings,
    uplink_mtu: u32,
    pair: Option<SegmentPair>,
) -> anyhow::Result<(Installation, Change)> {
    let up = &settings.up;
    let uplink = dynencap_kernel::sys::Link::named(&up.uplink)
        .with_context(|| format!("device {}", up.uplink))?;
    let mut config = settings.config(
        uplink_mtu,
        uplink.index(),
        pair.as_ref().map(SegmentPair::near),
        host::offers_checksums(&up.uplink)?,
    );
    if let Some(there) = pins.find()? {
        // Tunnels are no setting of `up`: they stay, and what follows from them.
        config.flags |= tunnel::capture_flag(&there.maps(pins)?)?;
    }
    let spec = Spec {
        object: pins.object(),
        pins: pins.path(),
        uplink: &up.uplink,
        segment: pair.is_some().then_some(PAIR[1]),
        cgroup: &up.cgroup,
        hook: up.clsact.then_some(Hook::Clsact),
        reflected: up.reflect_entries,
    };
    Ok(Installation::install(&spec, &config)?)
}

fn set_mtu(pins: &Pins, installed: &Installed, uplink_mtu: u32) -> anyhow::Result<()> {
    let mut maps = installed.maps(pins)?;
    let mut config = maps.config()?;
    config.uplink_mtu = uplink_mtu;
    maps.set_config(&config)?;
    Ok(())
}

pub(crate) fn down(pins: &Pins) -> anyhow::Result<ExitCode> {
    let Some(installed) = pins.find()? else {
        println!("nothing is installed at {}", pins.path().display());
        return Ok(ExitCode::SUCCESS);
    };
    let Installed {
        installation,
        settings,
    } = installed;
    installation.must_be_here()?;
    host::remove().context("rules and routes")?;
    if let Some(was) = &settings.fwmark_accept_was {
        sysctl::restore(was)?;
    }
    exec::sweep(&settings.up.cgroup);
    installation.remove()?;
    if settings.pair() {
        SegmentPair::remove(PAIR[0], PAIR[1]).context("the segmenting pair")?;
    }
    println!("removed");
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn upgrade(pins: &Pins) -> anyhow::Result<ExitCode> {
    let mut installed = pins.open()?;
    if installed.installation.is_of(pins.object()) {
        println!("the running programs are this build's already");
        return Ok(ExitCode::SUCCESS);
    }
    installed.installation.upgrade(pins.object())?;
    println!("upgraded");
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn watch(pins: &Pins) -> anyhow::Result<ExitCode> {
    let plan = {
        let installed = pins.open()?;
        installed.installation.must_be_here()?;
        installed.settings.plan()
    };
    let interrupt = Interrupt::on_signals()?;
    let mut gone = None;
    host::watch(&plan, &interrupt, |event| {
        let told = match event {
            host::Event::Failed(error) => {
                eprintln!("dynencap: {error}");
                return;
            }
            host::Event::Installed(routes) => follow(pins, routes),
        };
        match told {
            Ok(true) => {}
            Ok(false) => {
                gone = Some(());
                interrupt.request();
            }
            Err(error) => eprintln!("dynencap: {error:#}"),
        }
    })?;
    if gone.is_some() {
        // Rules and routes of a plan that nobody wants any more.
        host::remove()?;
        println!("the installation is gone");
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings the programs to what the routes were made from: another MTU, or a device that came
/// back under another index. `false`: there is no installation any more.
fn follow(pins: &Pins, routes: &host::Installed) -> anyhow::Result<bool> {
    let Some(installed) = pins.find()? else {
        return Ok(false);
    };
    let settings = installed.settings;
    // The lock goes with it: installing takes it again.
    drop(installed.installation);
    let pair = settings
        .pair()
        .then(|| SegmentPair::ensure(PAIR[0], PAIR[1]))
        .transpose()?;
    let pair = pair.map(|(pair, _)| pair);
    programs(pins, &settings, routes.uplink_mtu, pair)?;
    println!(
        "uplink {} (MTU {}): {} routes; {} added, {} replaced, {} removed",
        settings.up.uplink,
        routes.uplink_mtu,
        routes.routes,
        routes.added,
        routes.replaced,
        routes.removed
    );
    Ok(true)
}

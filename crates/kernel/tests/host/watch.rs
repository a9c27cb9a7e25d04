//! The watch follows the uplink, main's routes, and meddling with what is ours.

use crate::{
    require::require,
    stage::{SERVER_V4, SERVER_V6, Stage, inside},
};
use dynencap_kernel::{
    Interrupt,
    host::{self, Event, Plan},
};
use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the watch told: the uplink's MTU and routes, or the failure.
type Told = Result<(u32, usize), String>;

/// Runs `scene` while the watch follows `plan`.
fn watched(stage: &Stage, plan: &Plan, scene: impl FnOnce(&Receiver<Told>)) {
    let interrupt = Interrupt::default();
    let (sender, told) = mpsc::channel();
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            inside(&stage.host, || {
                host::watch(plan, &interrupt, |event| {
                    let event = match event {
                        Event::Installed(done) => Ok((done.uplink_mtu, done.routes)),
                        Event::Failed(error) => Err(error.to_string()),
                    };
                    sender.send(event).unwrap();
                })
            })
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scene(&told)));
        interrupt.request();
        let asked = Instant::now();
        watch.join().unwrap().unwrap();
        assert!(
            asked.elapsed() < Duration::from_secs(1),
            "it heeds an interrupt"
        );
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
}

#[track_caller]
fn next(told: &Receiver<Told>) -> Told {
    told.recv_timeout(PATIENCE)
        .expect("the watch says something")
}

/// Waits until a marked packet's route to each server has, or no more has, those words.
#[track_caller]
fn until(stage: &Stage, has: bool, words: &str) {
    let start = Instant::now();
    loop {
        let routes = [SERVER_V4, SERVER_V6].map(|to| stage.route(to, Plan::mark(40)));
        if routes.iter().all(|route| route.contains(words) == has) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{words:?} {has}: {routes:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_uplinks_mtu_is_followed() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    watched(&stage, &Plan::new("up0", [40]), |told| {
        assert_eq!(next(told), Ok((1500, 4)));
        until(&stage, true, "mtu 1460");
        stage.ip("link set up0 mtu 9000");
        until(&stage, true, "mtu 8960");
        assert_eq!(next(told), Ok((9000, 4)));
        // Too small for IPv6: told once; what was there stays, and a remedy is seen.
        stage.ip("link set up0 mtu 1300");
        let failure = next(told).unwrap_err();
        assert!(failure.contains("1260 of 1300"), "{failure}");
        stage.ip("link set up0 mtu 1400");
        assert_eq!(next(told), Ok((1400, 4)));
        until(&stage, true, "mtu 1360");
    });
    // What is installed stays.
    until(&stage, true, "mtu 1360");
}

#[test]
fn mains_routes_are_followed() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    watched(&stage, &Plan::new("up0", [40]), |told| {
        next(told).unwrap();
        stage.ip("route change default via 10.1.0.9");
        stage.ip("-6 route change default via 2001:db8:1::9");
        until(&stage, true, ":9 ".trim_start_matches(':'));
        until(&stage, true, "mtu 1460");
        // To another device: ours are gone, and main's hold.
        stage.ip("route change default via 10.2.0.2");
        stage.ip("-6 route del default");
        stage.ip("-6 route add default via 2001:db8:2::2");
        until(&stage, false, "mtu");
        until(&stage, true, "dev lan0");
        // And a new one, more specific.
        stage.ip("route add 192.0.2.0/24 via 10.1.0.2");
        stage.ip("-6 route add 2001:db8:99::/48 via 2001:db8:1::2");
        until(&stage, true, "mtu 1460");
    });
}

#[test]
fn meddling_with_ours_is_mended_and_other_changes_are_left_alone() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    watched(&stage, &Plan::new("up0", [40]), |told| {
        next(told).unwrap();
        stage.ip("rule del priority 1000");
        stage.ip("-6 rule del priority 1000");
        until(&stage, true, "mtu 1460");
        stage.ip("route flush table 1040");
        stage.ip("-6 route flush table 1040");
        until(&stage, true, "mtu 1460");
        // Let the last of these be told.
        while told.recv_timeout(Duration::from_millis(500)).is_ok() {}
        stage.ip("route add 203.0.113.0/24 via 10.1.0.2 table 77");
        stage.ip("rule add priority 5 to 203.0.113.0/24 lookup 77");
        stage.ip("link set lan0 mtu 1400");
        assert_eq!(
            told.recv_timeout(Duration::from_millis(500)),
            Err(RecvTimeoutError::Timeout)
        );
    });
}

#[test]
fn an_uplink_that_goes_is_told_and_awaited() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    watched(&stage, &Plan::new("up0", [40]), |told| {
        next(told).unwrap();
        // Down and up again: the kernel drops its routes, in IPv4 without a word.
        stage.ip("link set up0 down");
        stage.ip("link set up0 up");
        stage.ip("address add 2001:db8:1::1/64 dev up0 nodad");
        stage.defaults();
        until(&stage, true, "mtu 1460");
        while told.recv_timeout(Duration::from_millis(500)).is_ok() {}

        stage.ip("link del up0");
        let gone = loop {
            if let Err(gone) = next(told) {
                break gone;
            }
        };
        assert_eq!(gone, "there is no device up0");
        stage.ip("link add up0 mtu 1600 type veth peer name other");
        stage.ip("address add 10.1.0.1/24 dev up0");
        stage.ip("address add 2001:db8:1::1/64 dev up0 nodad");
        stage.ip("link set other up");
        stage.ip("link set up0 up");
        stage.defaults();
        until(&stage, true, "mtu 1560");
    });
}

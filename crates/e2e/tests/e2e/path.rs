//! The way to an exit becomes narrower under a live transfer: a real router says so, the
//! programs learn it, the kernel hears of it, and every byte arrives.

use crate::{Test, require::ACROSS};
use dynencap_abi::{Config, Event, Reason};
use dynencap_e2e::{
    Audit, Exit, Setup, Topology,
    capture::Capture,
    gap::Gaps,
    job::{
        bulk::{self, Bulk, Sent},
        probe::{self, Learned, Probe},
        server::{DATAGRAMS, SINK},
    },
    limit,
    topology::{
        self, CLIENT, ROUTER_DEVICES, SERVER_DEVICE, evidence, gateway, gateway4, server, server4,
    },
};
use dynencap_kernel::sys;
use std::{
    io::IoSlice,
    net::{Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    thread,
    time::Duration,
};

pub(crate) const TESTS: &[Test] = &[
    ("path::shrinks_to_the_minimum_of_ipv6", &[], || {
        shrinks("minimum", server(SINK), Exit::ip(gateway(0)), 1280 + 40);
    }),
    ("path::shrinks_in_udp", &[], || {
        shrinks("udp", server(SINK), Exit::udp(gateway(1), 8), 1400);
    }),
    ("path::shrinks_with_ipv4_inside", &[ACROSS], || {
        shrinks("ipv4", server4(SINK), Exit::udp(gateway(2), 8), 1280 + 56);
    }),
    ("path::shrinks_in_ipv4", &[ACROSS], || {
        shrinks("in-ipv4", server(SINK), Exit::ip(gateway4(3)), 1280 + 20);
    }),
    ("path::shrinks_in_udp_over_ipv4", &[], || {
        shrinks("udp4", server4(SINK), Exit::udp(gateway4(4), 8), 1400);
    }),
    ("path::a_datagram_socket_is_told", &[], || {
        datagrams("told", server(DATAGRAMS), Exit::udp(gateway(0), 8));
        datagrams("told4", server4(DATAGRAMS), Exit::ip(gateway(1)));
    }),
    (
        "path::a_datagram_socket_is_told_over_ipv4",
        &[ACROSS],
        || {
            datagrams("told-over4", server(DATAGRAMS), Exit::ip(gateway4(2)));
            datagrams("told4-over4", server4(DATAGRAMS), Exit::udp(gateway4(3), 8));
        },
    ),
    ("path::too_small_for_ipv6_is_counted", &[], too_small),
    ("path::forged_errors_change_nothing", &[], || {
        let forged = [Forgery::Sequence, Forgery::Flow, Forgery::Gateway];
        let (sent, topology) = forged_errors("forged", &forged);
        assert_eq!(topology.event(Event::PathMtuRefused), 3);
        assert_eq!(topology.event(Event::PathMtuLearned), 0);
        assert_eq!(topology.count(Reason::TooBigTold), 0);
        assert_eq!(sent.info.unwrap().mtu, 1460);
        assert_eq!(sent.mss, 1460 - 60 - 12);
    }),
    (
        "path::a_true_error_of_the_same_shape_is_believed",
        &[],
        || {
            let (sent, topology) = forged_errors("true", &[Forgery::Nothing]);
            assert_eq!(topology.event(Event::PathMtuRefused), 0);
            assert_eq!(topology.event(Event::PathMtuLearned), 1);
            assert_eq!(sent.info.unwrap().mtu, FORGED_MTU - 40);
        },
    ),
];

const TELLING: Setup = Setup {
    flags: Config::TELL_TOO_BIG,
    link: topology::Link::Direct,
    egress_only: false,
};

fn shrink(topology: &Topology, mtu: usize) {
    let onward = ROUTER_DEVICES[1];
    topology::ip(&topology.router, &format!("link set {onward} mtu {mtu}"));
}

fn transfer(to: SocketAddr, exit: &Exit) -> Bulk {
    let mut bulk = Bulk::new(to, u64::MAX, Some(exit.clone()));
    bulk.milliseconds = 2500;
    bulk
}

/// Enough for the windows to be open.
fn running(capture: &Capture<Audit>, exit: &Exit) {
    capture.wait_until("the transfer", |audit| audit.through(exit.gateway) > 300);
}

fn shrinks(test: &str, to: SocketAddr, exit: Exit, mtu: usize) {
    let mut topology = Topology::with(&TELLING);
    topology.serve();
    let capture = topology.audit(&format!("path-{test}"));
    let file = evidence().join(format!("path-{test}-server.pcap"));
    let arrivals = Capture::start(&topology.server, SERVER_DEVICE, &file, Gaps::default());
    let mut program = topology.start(topology.at_client(), bulk::NAME, transfer(to, &exit));
    running(&capture, &exit);
    shrink(&topology, mtu);
    let sent: Sent = topology::result(&mut program, Duration::from_secs(60));
    let (audit, _) = capture.finish();
    let (arrivals, _) = arrivals.finish();
    println!(
        "path-{test}: to {mtu}: longest gap {:?}, {:.0} Mbit/s, {} retransmits, told {} times",
        arrivals.longest,
        sent.rate() / 1e6,
        sent.retransmits,
        topology.count(Reason::TooBigTold)
    );
    sent.assert_whole();
    audit.assert_clean();
    assert_eq!(audit.through(exit.gateway), audit.tunnelled(), "{audit}");
    let fits = mtu - exit.overhead();
    let header = if to.is_ipv6() { 40 } else { 20 };
    assert_eq!(sent.info.unwrap().mtu as usize, fits, "{sent:?}");
    assert_eq!(sent.mss as usize, fits - header - 20 - 12, "{sent:?}");
    learned(&topology);
    let told = topology.count(Reason::TooBigTold);
    assert!(told > 0, "{:?}", topology.drops());
    assert_eq!(topology.drops(), [(Reason::TooBigTold.name(), told)]);
    assert!(arrivals.frames > 300, "{arrivals:?}");
    // A retransmission timeout or two, not a connection that has to be given up.
    assert!(
        arrivals.longest < limit(Duration::from_millis(1500)),
        "{arrivals:?}"
    );
}

/// What was learned is counted alike beside the frames and among them.
fn learned(topology: &Topology) {
    let events = topology.event(Event::PathMtuLearned);
    assert!(events > 0);
    assert_eq!(events, topology.count(Reason::PathMtuLearned));
    assert_eq!(
        topology.event(Event::PathMtuRefused),
        topology.count(Reason::PathMtuRefused)
    );
}

fn datagrams(test: &str, to: SocketAddr, exit: Exit) {
    const MTU: usize = 1400;
    let mut topology = Topology::with(&TELLING);
    topology.serve();
    shrink(&topology, MTU);
    let capture = topology.audit(&format!("path-{test}"));
    let headers = if to.is_ipv6() { 48 } else { 28 };
    let order = Probe {
        server: to,
        exit: exit.clone(),
        size: (1500 - exit.overhead() - headers) as u16,
    };
    let told: Learned = topology.run(probe::NAME, order);
    let (audit, _) = capture.finish();
    audit.assert_clean();
    const EMSGSIZE: i32 = 90;
    assert_eq!(told.errno, EMSGSIZE, "{told:?}");
    assert!(told.queued && told.fits, "{told:?}");
    assert_eq!(told.mtu as usize, MTU - exit.overhead(), "{told:?}");
    assert_eq!(told.info.unwrap().mtu as usize, MTU - exit.overhead());
    // One for the router to refuse, one for the programs; what was sent before they knew.
    assert!(told.sent >= 2, "{told:?}");
    assert!(topology.count(Reason::TooBigTold) >= 1);
    learned(&topology);
    assert_eq!(audit.through(exit.gateway), audit.tunnelled(), "{audit}");
}

fn too_small() {
    let exit = Exit::udp(gateway(0), 8);
    let mut topology = Topology::with(&TELLING);
    topology.serve();
    let capture = topology.audit("path-too-small");
    let mut program = topology.start(
        topology.at_client(),
        bulk::NAME,
        transfer(server(SINK), &exit),
    );
    running(&capture, &exit);
    shrink(&topology, 1280 + exit.overhead() - 1);
    topology.wait_for(Reason::PathTooSmall, 1);
    // What else it tries.
    thread::sleep(limit(Duration::from_millis(1000)));
    program.kill();
    thread::sleep(limit(Duration::from_millis(300)));
    let (audit, _) = capture.finish();
    audit.assert_clean();
    assert_eq!(audit.through(exit.gateway), audit.tunnelled(), "{audit}");
    learned(&topology);
}

/// What is wrong with the packet that an error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgery {
    /// Nothing: it is one that is on its way.
    Nothing,
    /// A sequence number that is not.
    Sequence,
    /// A connection that is none.
    Flow,
    /// A gateway that nobody uses.
    Gateway,
}

const FORGED_MTU: u32 = 1400;

/// Errors about a transfer whose packets are lost, so that what they quote is unacknowledged.
fn forged_errors(test: &str, forgeries: &[Forgery]) -> (Sent, Topology) {
    let exit = Exit::ip(gateway(3));
    let mut topology = Topology::with(&TELLING);
    topology.serve();
    let capture = topology.audit(&format!("path-{test}"));
    let mut program = topology.start(
        topology.at_client(),
        bulk::NAME,
        transfer(server(SINK), &exit),
    );
    running(&capture, &exit);
    let route = |verb: &str| {
        let command = format!("-6 route {verb} blackhole {}", exit.gateway);
        topology::ip(&topology.router, &command);
    };
    route("add");
    thread::sleep(limit(Duration::from_millis(300)));
    let packet = capture.with(|audit| audit.sample.clone()).unwrap();
    for forgery in forgeries {
        send_error(&topology, *forgery, &packet);
    }
    let count = forgeries.len() as u64;
    let seen = [Reason::PathMtuLearned, Reason::PathMtuRefused];
    let until = std::time::Instant::now() + limit(Duration::from_secs(5));
    while seen
        .iter()
        .map(|&reason| topology.count(reason))
        .sum::<u64>()
        < count
    {
        assert!(std::time::Instant::now() < until, "no error was looked at");
        thread::sleep(Duration::from_millis(5));
    }
    route("del");
    let sent: Sent = topology::result(&mut program, Duration::from_secs(60));
    let (audit, _) = capture.finish();
    sent.assert_whole();
    audit.assert_clean();
    (sent, topology)
}

/// ICMPv6 "packet too big" (RFC 4443 §3.2) from R to C.
fn send_error(topology: &Topology, forgery: Forgery, packet: &[u8]) {
    const INNER: usize = 40;
    const TCP: usize = INNER + 40;
    let mut quote = packet[..packet.len().min(1232)].to_vec();
    match forgery {
        Forgery::Nothing => {}
        Forgery::Sequence => quote[TCP + 4] ^= 0x40,
        Forgery::Flow => quote[TCP + 1] ^= 0xff,
        Forgery::Gateway => quote[39] = 0x77,
    }
    let router = Ipv6Addr::new(0xfd00, 0xc, 0, 0, 0, 0, 0, 0xff);
    let length = (8 + quote.len()) as u16;
    let mut icmp = vec![2, 0, 0, 0];
    icmp.extend(FORGED_MTU.to_be_bytes());
    icmp.extend(quote);
    let pseudo = [
        &router.octets()[..],
        &CLIENT.octets(),
        &[0, 0],
        &length.to_be_bytes(),
        &[0, 0, 0, 58],
    ]
    .concat();
    let words = [pseudo, icmp.clone()].concat();
    let mut sum: u32 = words
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    icmp[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let header = [
        &[0x60, 0, 0, 0][..],
        &length.to_be_bytes(),
        &[58, 64],
        &router.octets(),
        &CLIENT.octets(),
    ]
    .concat();
    let ethernet = [link_address(topology), [2; 6].to_vec(), vec![0x86, 0xdd]].concat();
    let send = || {
        let socket = sys::packet_socket()?;
        let link = sys::Link::named(ROUTER_DEVICES[0])?;
        let pieces = [&ethernet, &header, &icmp].map(|piece| IoSlice::new(piece));
        sys::send_frame(socket.as_fd(), link, 0x86dd, &pieces)
    };
    topology
        .router
        .in_namespace(|| Ok(send()))
        .unwrap()
        .unwrap();
}

/// C's link-layer address.
fn link_address(topology: &Topology) -> Vec<u8> {
    let mut ip = std::process::Command::new("ip");
    ip.args(["-br", "link", "show", topology::UPLINK]);
    let output = topology.client.in_namespace(|| Ok(ip.output()));
    let output = output.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let address = text.split_whitespace().nth(2).unwrap();
    address
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16).unwrap())
        .collect()
}

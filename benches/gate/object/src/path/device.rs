//! The programs at devices: egress, behind the segmenter, ingress.

use super::Path;
use crate::host::{GATEWAY, GATEWAY4, Host, SEGMENTER, UDP, UDP8, UDP32, ends};
use crate::packet::{Inside, LEN, SEGMENT, SUPER_LEN, arp, ip4, ip6, ip6_extended, too_big};
use anyhow::ensure;
use dynencap_abi::object::{EGRESS, INGRESS, LAB_DELIVER, LAB_DEVICE, SEGMENTED};
use dynencap_abi::{Config, MARK_DONE, Reason};
use dynencap_vm::{Gso, GsoKind, Skb, TcpState};

/// Gateway and `ENCAP_UDP`'s value.
type Exit = (&'static [u8], &'static [u8]);
type Make = fn(&mut Host) -> anyhow::Result<Skb>;
/// Makes a frame.
type Frame = fn() -> Vec<u8>;

const IP6: Exit = (&GATEWAY, &[]);
const UDP6_8: Exit = (&GATEWAY, &UDP8);
const IP4: Exit = (&GATEWAY4, &[]);
const UDP4_8: Exit = (&GATEWAY4, &UDP8);
/// Every shape of outer headers.
const EXITS: [(&str, Exit); 7] = [
    ("ip6", IP6),
    ("udp6", (&GATEWAY, &UDP)),
    ("udp6-8", UDP6_8),
    ("udp6-32", (&GATEWAY, &UDP32)),
    ("ip4", IP4),
    ("udp4", (&GATEWAY4, &UDP)),
    ("udp4-8", UDP4_8),
];

pub(crate) const TIMED: &[(&str, Make)] = &[
    ("egress/ip6/tcp6", |host| {
        sent(host, IP6, &ip6(Inside::Tcp, LEN))
    }),
    ("egress/udp6-8/tcp6", |host| {
        sent(host, UDP6_8, &ip6(Inside::Tcp, LEN))
    }),
    ("egress/no-exit", |host| {
        let socket = host.bare();
        Ok(host.skb(&ip6(Inside::Tcp, LEN), Some(socket)))
    }),
    ("ingress/ip6/tcp6", |host| {
        arrived(host, IP6, &ip6(Inside::Tcp, LEN))
    }),
];

pub(super) fn paths() -> Vec<Path> {
    let mut paths = Vec::new();
    for program in [EGRESS, SEGMENTED] {
        paths.extend(shapes(program));
    }
    paths.extend(super_packets());
    paths.extend(features());
    paths.extend(ownership());
    paths.extend(passing());
    paths.extend(ingress());
    paths.extend(learning());
    paths.push(Path::new(LAB_DELIVER, "any", |host| {
        host.map(LAB_DEVICE, &[0; 4], &9u32.to_ne_bytes())?;
        let run = host
            .machine
            .run_tc(LAB_DELIVER, &mut Skb::new(&arp(), 0x0806))?;
        ensure!(run.redirect.is_some(), "{run:?}");
        Ok(run.meter)
    }));
    paths
}

/// A frame of a socket with this exit.
fn sent(host: &mut Host, exit: Exit, frame: &[u8]) -> anyhow::Result<Skb> {
    let socket = host.socket(exit)?;
    Ok(host.skb(frame, Some(socket)))
}

/// What such a frame is at the other end.
fn arrived(host: &mut Host, exit: Exit, frame: &[u8]) -> anyhow::Result<Skb> {
    let mut skb = sent(host, exit, frame)?;
    host.frame(EGRESS, Reason::Encapsulated, &mut skb)?;
    Ok(host.skb(skb.data(), None))
}

/// Each exit around each kind of packet.
fn shapes(program: &'static str) -> Vec<Path> {
    let insides: [(&str, Frame); 4] = [
        ("tcp6", || ip6(Inside::Tcp, LEN)),
        ("udp6", || ip6(Inside::Udp, LEN)),
        ("tcp4", || ip4(Inside::Tcp, LEN)),
        ("extended6", || ip6_extended(LEN)),
    ];
    let mut paths = Vec::new();
    for (exit_name, exit) in EXITS {
        for (inside, frame) in insides {
            // What all exits do alike is seen once.
            if matches!(inside, "udp6" | "extended6") && !matches!(exit_name, "ip6" | "udp6-8") {
                continue;
            }
            let name = format!("{exit_name}/{inside}");
            paths.push(Path::frame(
                program,
                name,
                Reason::Encapsulated,
                move |host| sent(host, exit, &frame()),
            ));
        }
    }
    paths
}

fn as_super_packet(mut skb: Skb, kind: GsoKind) -> Skb {
    skb.gso = Some(Gso {
        size: SEGMENT,
        kind,
    });
    skb
}

fn super_packets() -> Vec<Path> {
    let whole = |name: &'static str, exit: Exit, frame: Frame, kind: GsoKind| {
        Path::frame(
            EGRESS,
            format!("super-packet/{name}"),
            Reason::Encapsulated,
            move |host| Ok(as_super_packet(sent(host, exit, &frame())?, kind)),
        )
    };
    let tcp6 = || ip6(Inside::Tcp, SUPER_LEN);
    vec![
        whole("ip6/tcp6", IP6, tcp6, GsoKind::Tcp6),
        whole("udp6-8/tcp6", UDP6_8, tcp6, GsoKind::Tcp6),
        whole("ip4/tcp6", IP4, tcp6, GsoKind::Tcp6),
        whole(
            "ip6/tcp4",
            IP6,
            || ip4(Inside::Tcp, SUPER_LEN),
            GsoKind::Tcp4,
        ),
        whole(
            "ip6/udp6",
            IP6,
            || ip6(Inside::Udp, SUPER_LEN),
            GsoKind::Udp,
        ),
        Path::frame(
            EGRESS,
            "super-packet/segment-first",
            Reason::Segmenting,
            move |host| {
                host.configure(|config| config.flags |= Config::SEGMENT_FIRST)?;
                Ok(as_super_packet(sent(host, IP6, &tcp6())?, GsoKind::Tcp6))
            },
        ),
    ]
}

/// What a socket with an exit pays for more than its header.
fn features() -> Vec<Path> {
    let with = |name: &'static str, exit: Exit, change: fn(&mut Config)| {
        Path::frame(EGRESS, name, Reason::Encapsulated, move |host| {
            host.configure(change)?;
            sent(host, exit, &ip6(Inside::Tcp, LEN))
        })
    };
    let big = |name: &'static str, reason: Reason, flags: u32, frame: Frame| {
        Path::frame(EGRESS, name, reason, move |host| {
            host.configure(|config| config.flags |= flags)?;
            sent(host, IP6, &frame())
        })
    };
    vec![
        with("udp6-8/checksum", UDP6_8, |config| {
            config.flags |= Config::UDP_CHECKSUM;
        }),
        with("udp4-8/checksum", UDP4_8, |config| {
            config.flags |= Config::UDP_CHECKSUM;
        }),
        with("ip6/hop-limit", IP6, |config| config.hop_limit = 77),
        with("ip6/under-policy", IP6, |config| {
            config.policy_generation = 7;
        }),
        Path::first(
            EGRESS,
            "ip6/asked-no-policy",
            Reason::Encapsulated,
            |host| {
                let skb = sent(host, IP6, &ip6(Inside::Tcp, LEN))?;
                host.configure(|config| config.policy_generation = 7)?;
                Ok(skb)
            },
        ),
        Path::first(
            EGRESS,
            "udp6-8/asked-policy",
            Reason::Encapsulated,
            |host| {
                host.policy(|_| {})?;
                sent(host, UDP6_8, &ip6(Inside::Tcp, LEN))
            },
        ),
        Path::frame(
            EGRESS,
            "udp6-8/policy-denied",
            Reason::PolicyDenied,
            |host| {
                let skb = sent(host, UDP6_8, &ip6(Inside::Tcp, LEN))?;
                host.policy(|policy| policy.flags = 0)?;
                Ok(skb)
            },
        ),
        Path::frame(EGRESS, "ip6/path-learned", Reason::Encapsulated, |host| {
            learned(host, IP6)?;
            sent(host, IP6, &ip6(Inside::Tcp, LEN))
        }),
        // Longer than the smallest path MTU that may be learned: this one has to be looked up.
        Path::frame(
            EGRESS,
            "ip6/path-learned/long",
            Reason::Encapsulated,
            |host| {
                learned(host, IP6)?;
                sent(host, IP6, &ip6(Inside::Tcp, 1340))
            },
        ),
        big("ip6/too-big", Reason::TooBig, 0, || ip6(Inside::Tcp, 1480)),
        big(
            "ip6/too-big-told",
            Reason::TooBigTold,
            Config::TELL_TOO_BIG,
            || ip6(Inside::Tcp, 1480),
        ),
        big(
            "ip6/too-big-told4",
            Reason::TooBigTold,
            Config::TELL_TOO_BIG,
            || ip4(Inside::Tcp, 1480),
        ),
    ]
}

/// Packets that find their exit without a storage of their own socket.
fn ownership() -> Vec<Path> {
    let tcp6 = || ip6(Inside::Tcp, LEN);
    vec![
        Path::frame(EGRESS, "owner/request", Reason::Encapsulated, move |host| {
            let listener = host.socket(IP6)?;
            host.machine.set_state(listener, TcpState::Listen);
            let request = host.machine.open_request(listener, ends());
            Ok(host.marked(&tcp6(), Some(request)))
        }),
        Path::frame(
            EGRESS,
            "owner/time-wait",
            Reason::Encapsulated,
            move |host| {
                let socket = host.kept(IP6)?;
                let successor = host.machine.open_time_wait(socket);
                Ok(host.marked(&tcp6(), Some(successor)))
            },
        ),
        Path::frame(EGRESS, "owner/late-reset", Reason::Encapsulated, |host| {
            let socket = host.kept(IP6)?;
            host.machine.close_socket(socket);
            Ok(host.skb(&ip6(Inside::Reset, LEN), None))
        }),
        Path::frame(
            EGRESS,
            "owner/looked-up",
            Reason::Encapsulated,
            move |host| {
                host.socket(IP6)?;
                Ok(host.marked(&tcp6(), None))
            },
        ),
        Path::frame(
            EGRESS,
            "owner/nobody",
            Reason::MarkedWithoutExit,
            move |host| Ok(host.marked(&tcp6(), None)),
        ),
        Path::frame(EGRESS, "owner/nobodys-reset", Reason::NoSocket, |host| {
            Ok(host.skb(&ip6(Inside::Reset, LEN), None))
        }),
    ]
}

/// What bystanders pay.
fn passing() -> Vec<Path> {
    let tcp6 = || ip6(Inside::Tcp, LEN);
    let mut paths = vec![
        Path::frame(EGRESS, "no-exit", Reason::NoExit, move |host| {
            let socket = host.bare();
            Ok(host.skb(&tcp6(), Some(socket)))
        }),
        Path::frame(EGRESS, "no-socket", Reason::NoSocket, move |host| {
            Ok(host.skb(&tcp6(), None))
        }),
        Path::frame(EGRESS, "no-gateway", Reason::NoGateway, move |host| {
            let socket = host.socket(IP6)?;
            host.set(socket, dynencap_abi::option::ENCAP_GW, &[])?;
            Ok(host.skb(&tcp6(), Some(socket)))
        }),
        Path::frame(EGRESS, "not-ip", Reason::NotIp, |host| {
            Ok(host.skb(&arp(), None))
        }),
        Path::frame(EGRESS, "marked-not-ip", Reason::MarkedNotIp, |host| {
            Ok(host.marked(&arp(), None))
        }),
    ];
    for (program, name, reason) in [
        (EGRESS, "done", Reason::AlreadyEncapsulated),
        (SEGMENTED, "no-socket", Reason::NoSocket),
    ] {
        paths.push(Path::frame(program, name, reason, move |host| {
            let mut skb = host.skb(&tcp6(), None);
            if program == EGRESS {
                skb.mark = MARK_DONE;
            }
            skb.ifindex = SEGMENTER;
            Ok(skb)
        }));
    }
    paths
}

fn ingress() -> Vec<Path> {
    let mut paths = Vec::new();
    let known = [
        ("ip6", IP6),
        ("udp6-8", UDP6_8),
        ("ip4", IP4),
        ("udp4-8", UDP4_8),
    ];
    for (name, exit) in known {
        paths.push(Path::frame(
            INGRESS,
            format!("{name}/tcp6"),
            Reason::Decapsulated,
            move |host| arrived(host, exit, &ip6(Inside::Tcp, LEN)),
        ));
        paths.push(Path::frame(
            INGRESS,
            format!("{name}/tcp4"),
            Reason::Decapsulated,
            move |host| arrived(host, exit, &ip4(Inside::Tcp, LEN)),
        ));
    }
    paths.extend([
        // The inner ECN field and, in IPv4, the checksum change with it.
        Path::frame(INGRESS, "ip6/congested4", Reason::Decapsulated, |host| {
            let mut inner = ip4(Inside::Tcp, LEN);
            set(&mut inner, 14 + 1, 2);
            let skb = arrived(host, IP6, &inner)?;
            let mut frame = skb.data().to_vec();
            // Traffic class 3: congestion experienced.
            set(&mut frame, 14 + 1, 0x30);
            Ok(host.skb(&frame, None))
        }),
        Path::frame(INGRESS, "not-tunnel/tcp6", Reason::NotTunnel, |host| {
            Ok(host.skb(&ip6(Inside::Tcp, LEN), None))
        }),
        Path::frame(INGRESS, "not-tunnel/udp6", Reason::NotTunnel, |host| {
            Ok(host.skb(&ip6(Inside::Udp, LEN), None))
        }),
        Path::frame(INGRESS, "not-tunnel/tcp4", Reason::NotTunnel, |host| {
            Ok(host.skb(&ip4(Inside::Tcp, LEN), None))
        }),
        Path::frame(INGRESS, "not-ip", Reason::NotIp, |host| {
            Ok(host.skb(&arp(), None))
        }),
    ]);
    paths
}

fn set(frame: &mut [u8], at: usize, value: u8) {
    if let Some(place) = frame.get_mut(at) {
        *place = value;
    }
}

/// An error about a packet of a socket with this exit.
fn error(host: &mut Host, exit: Exit, mtu: u16) -> anyhow::Result<Skb> {
    let skb = arrived(host, exit, &ip6(Inside::Tcp, LEN))?;
    let error = too_big(mtu, skb.data());
    Ok(host.skb(&error, None))
}

fn learned(host: &mut Host, exit: Exit) -> anyhow::Result<()> {
    host.machine.set_clock(1_000_000_000);
    let mut skb = error(host, exit, 1400)?;
    host.frame(INGRESS, Reason::PathMtuLearned, &mut skb)?;
    Ok(())
}

fn learning() -> Vec<Path> {
    let first = |name: &'static str, reason: Reason, exit: Exit, mtu: u16| {
        Path::first(INGRESS, name, reason, move |host| error(host, exit, mtu))
    };
    vec![
        first("too-big/ip6", Reason::PathMtuLearned, IP6, 1400),
        first("too-big/udp6-8", Reason::PathMtuLearned, UDP6_8, 1400),
        first("too-big/ip4", Reason::PathMtuLearned, IP4, 1400),
        first("too-big/refused", Reason::PathMtuRefused, IP6, 9000),
    ]
}

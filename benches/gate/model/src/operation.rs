//! The operations of the model that the gate watches: one more is a line more in [`all`].
//!
//! A change of what an operation does wants a change of its name: the gate compares names over
//! revisions.

use dynencap_abi::option::{AF_INET6, ENCAP_GW, ENCAP_INFO, ENCAP_UDP};
use dynencap_abi::{Config, Policy, PolicyExitKey, PortRange, Reason, TunnelKey, TunnelSpec};
use dynencap_model::{Host, Origin, Packet, Port, Sink, Socket, SocketKind, reflection};
use std::hint::black_box;

const V4: u16 = 0x0800;
const V6: u16 = 0x86dd;
const GATEWAY: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const GATEWAY4: [u8; 4] = [203, 0, 113, 9];
const UDP8: [u8; 12] = [0, 0, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8];
const CGROUP: u64 = 20;
/// A sender's packet, and one of 64 KB that is cut.
const LEN: usize = 500;
const SUPER_LEN: usize = 65_000;
const SEGMENT: u16 = 1384;

/// One operation.
pub(crate) struct Operation {
    /// `way/variant`.
    pub(crate) name: &'static str,
    /// Does it once; whether it did what it is here for.
    pub(crate) run: Box<dyn FnMut() -> bool>,
    /// Whether its time is measured too: one of each way is enough.
    pub(crate) timed: bool,
}

impl Operation {
    fn new(name: &'static str, run: impl FnMut() -> bool + 'static) -> Self {
        Self {
            name,
            run: Box::new(run),
            timed: false,
        }
    }

    fn timed(mut self) -> Self {
        self.timed = true;
        self
    }
}

/// Takes each frame and copies nothing.
#[derive(Default)]
struct Counted {
    bytes: usize,
}

impl Sink for Counted {
    fn frame(&mut self, _: Port, ethertype: u16, parts: &[&[u8]]) {
        self.bytes += black_box(parts)
            .iter()
            .map(|part| part.len())
            .sum::<usize>();
        black_box(ethertype);
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Operation> {
    let ip6 = || socket(&GATEWAY, &[]);
    let udp = || socket(&GATEWAY, &UDP8);
    let ip4 = || socket(&GATEWAY4, &[]);
    let long = || tcp6(SUPER_LEN);
    let super_packets = |flags| Config { flags, ..config() };
    vec![
        egress("encapsulate/ip6", ip6(), config(), tcp6(LEN), 0).timed(),
        egress("encapsulate/udp6-8", udp(), config(), tcp6(LEN), 0).timed(),
        egress("encapsulate/ip4", ip4(), config(), tcp6(LEN), 0),
        egress("encapsulate/ip6/ipv4-inside", ip6(), config(), tcp4(LEN), 0),
        egress(
            "encapsulate/udp6-8/checksum",
            udp(),
            super_packets(Config::UDP_CHECKSUM),
            tcp6(LEN),
            0,
        ),
        egress("super-packet/ip6", ip6(), config(), long(), SEGMENT).timed(),
        egress("super-packet/udp6-8", udp(), config(), long(), SEGMENT),
        egress(
            "segment-first/ip6",
            ip6(),
            super_packets(Config::SEGMENT_FIRST),
            long(),
            SEGMENT,
        )
        .timed(),
        checked_anew(),
        passes("pass/no-exit", Some(bare()), Reason::NoExit).timed(),
        passes("pass/no-socket", None, Reason::NoSocket),
        decapsulate("decapsulate/ip6", &ip6()).timed(),
        decapsulate("decapsulate/udp6-8", &udp()),
        decapsulate("decapsulate/ip4", &ip4()),
        not_tunnel(),
        reflect("reflect/udp6-8", &udp()),
        set_option("option/set-gateway", ENCAP_GW, &GATEWAY),
        set_option("option/set-udp", ENCAP_UDP, &UDP8),
        Operation::new("option/get-info", {
            let (host, socket) = (Host::new(config()), ip6());
            move || {
                host.option(black_box(&socket), ENCAP_INFO, 32)
                    .is_ok_and(|value| value.len() == 32)
            }
        }),
    ]
}

fn config() -> Config {
    Config {
        source: [0xfd; 16],
        source4: [10, 0, 0, 1],
        uplink_mtu: 1500,
        segmenter: 6,
        uplink: 5,
        ..Config::default()
    }
}

fn bare() -> Socket {
    let kind = SocketKind {
        family: AF_INET6,
        ty: 1,
        protocol: 6,
    };
    Socket::in_cgroup(kind, &[1, CGROUP])
}

fn socket(gateway: &[u8], udp: &[u8]) -> Socket {
    let mut socket = bare();
    // A refusal shows at once: the operation then passes the packet.
    let _ = socket.set_option(&config(), ENCAP_GW, gateway);
    let _ = socket.set_option(&config(), ENCAP_UDP, udp);
    socket
}

/// TCP in IPv6, `len` bytes in all.
fn tcp6(len: usize) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(((len - 40) as u16).to_be_bytes());
    bytes.extend([6, 64]);
    for last in [1, 2] {
        bytes.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    tcp(&mut bytes, len);
    bytes
}

/// The same in IPv4.
fn tcp4(len: usize) -> Vec<u8> {
    let mut bytes = vec![0x45, 0];
    bytes.extend((len as u16).to_be_bytes());
    bytes.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7]);
    tcp(&mut bytes, len);
    bytes
}

fn tcp(bytes: &mut Vec<u8>, len: usize) {
    bytes.extend([
        4, 0, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0,
    ]);
    bytes.resize(len, 0xa5);
}

fn packet(bytes: &[u8], gso_size: u16) -> Packet<'_> {
    Packet {
        ethertype: match bytes.first() {
            Some(first) if first >> 4 == 4 => V4,
            _ => V6,
        },
        bytes,
        gso_size,
    }
}

/// The whole way of a packet of a socket with an exit.
fn egress(
    name: &'static str,
    socket: Socket,
    config: Config,
    bytes: Vec<u8>,
    gso_size: u16,
) -> Operation {
    let mut host = Host::new(config);
    let mut sink = Counted::default();
    let expected = if gso_size > 0 && config.flags & Config::SEGMENT_FIRST != 0 {
        Reason::Segmenting
    } else {
        Reason::Encapsulated
    };
    Operation::new(name, move || {
        let (origin, mark) = (Origin::Socket(black_box(&socket)), socket.mark());
        let packet = packet(black_box(&bytes), gso_size);
        host.transmit(origin, mark, &(), packet, &mut sink).reason == expected
    })
}

/// Every packet is the first after a change of the policies.
fn checked_anew() -> Operation {
    let mut host = Host::new(config());
    let policy = Policy {
        source: [0; 16],
        source4: [0; 4],
        id: 3,
        flags: Policy::CUSTOM_HEADERS,
        reserve: 0,
        port_count: 1,
        reflect: 0,
        ports: [PortRange {
            first: 0x1000,
            last: 0x2000,
        }; Policy::MAX_PORTS],
        default_exit: dynencap_abi::Exit::NONE,
    };
    host.set_policy(CGROUP, policy);
    let key = PolicyExitKey {
        prefix_len: 32 + 32,
        policy: 3,
        address: GATEWAY,
    };
    // Refused, it would deny, and the operation would not encapsulate.
    let _ = host.set_policy_exit(&key, 1);
    let (socket, bytes) = (socket(&GATEWAY, &UDP8), tcp6(LEN));
    let mut sink = Counted::default();
    let mut config = config();
    Operation::new("encapsulate/udp6-8/policy-asked", move || {
        config.policy_generation = config.policy_generation.wrapping_add(1);
        host.set_config(config);
        let packet = packet(black_box(&bytes), 0);
        host.egress(Some(&socket), packet, &mut sink).reason == Reason::Encapsulated
    })
}

fn passes(name: &'static str, socket: Option<Socket>, expected: Reason) -> Operation {
    let (mut host, mut sink) = (Host::new(config()), Counted::default());
    let bytes = tcp6(LEN);
    Operation::new(name, move || {
        let packet = packet(black_box(&bytes), 0);
        host.egress(socket.as_ref(), packet, &mut sink).reason == expected
    })
}

fn receiver() -> Host {
    let mut host = Host::new(config());
    let mut mapped = [0; 16];
    mapped[10..12].fill(0xff);
    mapped[12..].copy_from_slice(&GATEWAY4);
    for (address, protocol, port, header_len) in [
        (GATEWAY, 41, [0; 2], 0),
        (GATEWAY, 17, [0x12, 0x34], 8),
        (mapped, 41, [0; 2], 0),
    ] {
        let key = TunnelKey {
            address,
            protocol,
            reserved: 0,
            port,
        };
        let spec = TunnelSpec {
            header_len,
            flags: 0,
            format: TunnelSpec::FIXED,
            reserved: 0,
        };
        host.add_tunnel(key, spec);
    }
    host
}

/// What a socket's packet is on the wire.
fn encapsulated(socket: &Socket) -> Vec<u8> {
    let mut frames: Vec<dynencap_model::Frame> = Vec::new();
    Host::new(config()).egress(Some(socket), packet(&tcp6(LEN), 0), &mut frames);
    frames.pop().map_or_else(Vec::new, |frame| frame.bytes)
}

fn decapsulate(name: &'static str, socket: &Socket) -> Operation {
    let (mut host, mut sink) = (receiver(), Counted::default());
    let bytes = encapsulated(socket);
    Operation::new(name, move || {
        host.ingress(packet(black_box(&bytes), 0), &mut sink) == Reason::Decapsulated
    })
}

fn not_tunnel() -> Operation {
    let (mut host, mut sink) = (receiver(), Counted::default());
    let bytes = tcp6(LEN);
    Operation::new("decapsulate/not-tunnel", move || {
        host.ingress(packet(black_box(&bytes), 0), &mut sink) == Reason::NotTunnel
    })
}

fn reflect(name: &'static str, socket: &Socket) -> Operation {
    let (host, bytes) = (receiver(), encapsulated(socket));
    Operation::new(name, move || {
        reflection::parse(black_box(&packet(&bytes, 0)), host.tunnels()).is_ok()
    })
}

fn set_option(name: &'static str, option: i32, value: &'static [u8]) -> Operation {
    let (mut host, mut socket) = (Host::new(config()), bare());
    Operation::new(name, move || {
        host.set_option(&mut socket, &[1, CGROUP], option, black_box(value))
            .is_ok()
    })
}

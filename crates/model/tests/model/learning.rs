//! Section 8: from which ICMP errors a path MTU is learned, and what it does.

use crate::support::*;
use dynencap_abi::option::{ENCAP_GW, ENCAP_INFO, ENCAP_UDP};
use dynencap_abi::{Config, Event, Exit, FlowKey, Info, PathKey, PathState, Reason};
use dynencap_model::{Found, Frame, Host, Socket, Sockets, flow};

const UNA: u32 = 0xffff_f000;
/// The sequence number of `support::tcp_segment`.
const SEQUENCE: u32 = 0xffff_fc00;
const NXT: u32 = 0x100;

/// The kernel's one socket, found by its flow.
struct Kernel<'a> {
    flow: FlowKey,
    socket: &'a Socket,
    una: u32,
    nxt: u32,
}

impl Kernel<'_> {
    fn find(&self, flow: &FlowKey, protocol: u8) -> Option<Found<'_>> {
        (*flow == self.flow && flow.protocol == protocol).then_some(Found {
            socket: self.socket,
            snd_una: self.una,
            snd_nxt: self.nxt,
        })
    }
}

impl Sockets for Kernel<'_> {
    fn tcp(&self, flow: &FlowKey) -> Option<Found<'_>> {
        self.find(flow, TCP)
    }

    fn udp(&self, flow: &FlowKey) -> Option<Found<'_>> {
        self.find(flow, UDP)
    }
}

/// A socket and a packet of it, on the wire.
struct Sent {
    host: Host,
    socket: Socket,
    inner: (u16, Vec<u8>),
    outer: (u16, Vec<u8>),
}

fn sent(gateway: &[u8], udp: Option<&[u8]>, inner: (u16, u8)) -> Sent {
    let mut host = Host::new(Config {
        flags: Config::TELL_TOO_BIG,
        ..config()
    });
    let mut socket = socket();
    if let Some(header) = udp {
        let value = [&[0, 0, 0x17, 0xc0], header].concat();
        host.set_option(&mut socket, &[], ENCAP_UDP, &value)
            .unwrap();
    }
    host.set_option(&mut socket, &[], ENCAP_GW, gateway)
        .unwrap();
    let (ethertype, protocol) = inner;
    let bytes = sound_transport(ethertype, protocol, &pattern(1300));
    let mut frames: Vec<Frame> = Vec::new();
    host.egress(Some(&socket), packet(ethertype, &bytes), &mut frames);
    let outer = frames.remove(0);
    Sent {
        host,
        socket,
        inner: (ethertype, bytes),
        outer: (outer.ethertype, outer.bytes),
    }
}

impl Sent {
    fn kernel(&self) -> Kernel<'_> {
        Kernel {
            flow: flow::key(&packet(self.inner.0, &self.inner.1)).unwrap(),
            socket: &self.socket,
            una: UNA,
            nxt: NXT,
        }
    }

    fn key(&self) -> PathKey {
        let exit = self.socket.exit().unwrap();
        PathKey {
            gateway: exit.gateway,
            destination_port: exit.destination_port,
            flags: exit.flags & Exit::UDP,
            reserved: 0,
        }
    }

    /// A router's error that quotes `quoted` bytes of the packet.
    fn error(&self, mtu: u32, quoted: usize) -> Vec<u8> {
        error(self.outer.0, &self.outer.1[..quoted], mtu)
    }
}

fn error(ethertype: u16, quote: &[u8], mtu: u32) -> Vec<u8> {
    let mut icmp = match ethertype {
        V6 => vec![2, 0, 0, 0],
        _ => vec![3, 4, 0, 0],
    };
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(quote);
    match ethertype {
        V6 => ipv6_packet(58, &icmp),
        _ => {
            // Without DF: a router need not set it.
            let mut bytes = changed(&ipv4_packet(&[], 1, &icmp), 6, 0);
            rewrite_checksum(&mut bytes);
            bytes
        }
    }
}

fn arrive(host: &mut Host, sockets: &impl Sockets, ethertype: u16, bytes: &[u8]) -> Reason {
    let mut frames: Vec<Frame> = Vec::new();
    let reason = host.ingress_among(sockets, packet(ethertype, bytes), &mut frames);
    assert_eq!(frames[0].bytes, bytes, "it passes");
    reason
}

/// Every kind of exit with every kind of packet in it.
fn all() -> Vec<Sent> {
    let mut all = Vec::new();
    for gateway in [&GATEWAY[..], &GATEWAY4] {
        for udp in [None, Some(&b""[..]), Some(b"network")] {
            for ethertype in [V4, V6] {
                for protocol in [TCP, UDP] {
                    all.push(sent(gateway, udp, (ethertype, protocol)));
                }
            }
        }
    }
    all
}

#[test]
fn what_is_learned_limits_the_next_packets_until_it_expires() {
    for sent in all() {
        let error = sent.error(1300, 120);
        let mut host = sent.host.clone();
        host.set_now(1_000_000);
        let reason = arrive(&mut host, &sent.kernel(), sent.outer.0, &error);
        assert_eq!(reason, Reason::PathMtuLearned);
        assert_eq!(host.events()[Event::PathMtuLearned as usize], 1);
        assert_eq!(host.counters()[Reason::PathMtuLearned as usize], 1);
        let state = host.path(&sent.key()).unwrap();
        assert_eq!((state.mtu, state.learned), (1300, 1_000_000));
        // Who chooses the exit once more does not forget what was learned.
        let name = if sent.key().flags == 0 {
            ENCAP_GW
        } else {
            ENCAP_UDP
        };
        let value = host.option(&sent.socket, name, 64).unwrap();
        host.set_option(&mut sent.socket.clone(), &[], name, &value)
            .unwrap();
        assert_eq!(host.path(&sent.key()).unwrap().mtu, 1300);

        let header = sent.outer.1.len() - sent.inner.1.len();
        let info = |host: &Host| {
            Info::from_bytes(&host.option(&sent.socket, ENCAP_INFO, 32).unwrap()).unwrap()
        };
        assert_eq!(info(&host).mtu as usize, 1300 - header);
        let send = |host: &mut Host, socket: &Socket| {
            let (ethertype, bytes) = &sent.inner;
            let mut frames: Vec<Frame> = Vec::new();
            host.egress(Some(socket), packet(*ethertype, bytes), &mut frames)
                .reason
        };
        assert_eq!(send(&mut host, &sent.socket), Reason::TooBigTold);
        let mut another = sent.socket.clone();
        another
            .set_option(&config(), ENCAP_UDP, &[0, 0, 9, 9])
            .unwrap();
        assert_eq!(send(&mut host, &another), Reason::Encapsulated);
        host.set_now(1_000_000 + PathState::LIFETIME - 1);
        assert_eq!(send(&mut host, &sent.socket), Reason::TooBigTold);
        host.set_now(1_000_000 + PathState::LIFETIME);
        assert_eq!(send(&mut host, &sent.socket), Reason::Encapsulated);
        assert_eq!(info(&host).mtu as usize, 1500 - header);
    }
}

#[test]
fn quotes_that_are_not_of_packets_in_flight_are_refused() {
    let other = ip_exit();
    for sent in all() {
        let flow = sent.kernel().flow;
        let mut same_exit_elsewhere = sent.socket.clone();
        same_exit_elsewhere
            .set_option(&config(), ENCAP_GW, &address(0x12))
            .unwrap();
        let mut cleared = sent.socket.clone();
        cleared.set_option(&config(), ENCAP_GW, &[]).unwrap();
        let bare = socket();
        let tcp = flow.protocol == TCP;
        let window = |una, nxt| Kernel {
            una,
            nxt,
            ..sent.kernel()
        };
        let of = |socket| Kernel {
            socket,
            ..sent.kernel()
        };
        let stranger = Kernel {
            flow: flow.reversed(),
            ..sent.kernel()
        };
        // Whether it is believed.
        let cases = [
            ("in flight", sent.kernel(), true),
            ("oldest", window(SEQUENCE, SEQUENCE), true),
            ("acknowledged", window(SEQUENCE + 1, NXT), !tcp),
            ("not sent", window(UNA, SEQUENCE - 1), !tcp),
            ("next", window(UNA, SEQUENCE), true),
            ("nobody's", stranger, false),
            ("no storage", of(&bare), false),
            ("no gateway", of(&cleared), false),
            ("another exit", of(&same_exit_elsewhere), false),
            (
                "IP-in-IP",
                of(&other),
                sent.key().flags == 0 && sent.key().gateway == GATEWAY,
            ),
        ];
        for (name, kernel, believed) in cases {
            let mut host = sent.host.clone();
            let reason = arrive(&mut host, &kernel, sent.outer.0, &sent.error(1300, 120));
            let expected = if believed {
                Reason::PathMtuLearned
            } else {
                Reason::PathMtuRefused
            };
            assert_eq!(reason, expected, "{name}: {:?}", sent.key());
            let event = if believed {
                Event::PathMtuLearned
            } else {
                Event::PathMtuRefused
            };
            assert_eq!(host.events()[event as usize], 1);
        }
    }
}

#[test]
fn short_quotes_are_believed_over_ipv4_alone() {
    for sent in all() {
        let header = sent.outer.1.len() - sent.inner.1.len();
        let inner_ip = if sent.inner.0 == V4 { 20 } else { 40 };
        let short = header + inner_ip + 7;
        // The kernel's sockets would not do: it is believed without them, or not at all.
        let mut host = sent.host.clone();
        let reason = arrive(&mut host, &(), sent.outer.0, &sent.error(1300, short));
        let expected = if sent.outer.0 == V4 {
            Reason::PathMtuLearned
        } else {
            Reason::PathMtuRefused
        };
        assert_eq!(reason, expected);
        // One byte more, and they are asked.
        let mut host = sent.host.clone();
        let reason = arrive(&mut host, &(), sent.outer.0, &sent.error(1300, short + 1));
        assert_eq!(reason, Reason::PathMtuRefused);
        let reason = arrive(
            &mut host,
            &sent.kernel(),
            sent.outer.0,
            &sent.error(1300, short + 1),
        );
        assert_eq!(reason, Reason::PathMtuLearned);
    }
}

#[test]
fn what_else_stands_inside_cannot_be_told() {
    for (gateway, expected) in [
        (&GATEWAY[..], Reason::PathMtuRefused),
        (&GATEWAY4, Reason::PathMtuLearned),
    ] {
        let sent = sent(gateway, None, (V4, TCP));
        let header = sent.outer.1.len() - sent.inner.1.len();
        let quote = |at: usize, value: u8| changed(&sent.outer.1[..120], header + at, value);
        let mut six = sent.outer.1[..120].to_vec();
        six[header] = 0x65;
        for (name, quote) in [
            ("ICMP", quote(9, 1)),
            ("fragment", quote(6, 0x20)),
            ("IHL 6", quote(0, 0x46)),
            ("version 5", quote(0, 0x55)),
            ("version 6 announced as 4", six),
        ] {
            let mut host = sent.host.clone();
            let bytes = error(sent.outer.0, &quote, 1300);
            let reason = arrive(&mut host, &sent.kernel(), sent.outer.0, &bytes);
            assert_eq!(reason, expected, "{name}");
        }
    }
}

#[test]
fn mtus_only_fall_and_not_below_the_least() {
    use Reason::{PathMtuLearned as Learned, PathMtuRefused as Refused};
    for sent in [
        sent(&GATEWAY, None, (V6, TCP)),
        sent(&GATEWAY4, None, (V6, TCP)),
    ] {
        let v6 = sent.outer.0 == V6;
        let least = if v6 { 1280 } else { 576 };
        let wide = if v6 { u32::MAX } else { 0xffff };
        let mut host = sent.host.clone();
        let steps = [
            (0, 1500, Refused, 0),
            (1, wide, Refused, 0),
            (2, 1499, Learned, 1499),
            (3, 1499, Refused, 1499),
            (4, 1498, Learned, 1498),
            (5, 1499, Refused, 1498),
            (6, 0, Learned, least),
            (7, 1, Refused, least),
            (6 + PathState::LIFETIME - 1, 1400, Refused, least),
            (6 + PathState::LIFETIME, 1400, Learned, 1400),
        ];
        for (now, mtu, reason, known) in steps {
            host.set_now(now);
            let bytes = sent.error(mtu, 120);
            let arrived = arrive(&mut host, &sent.kernel(), sent.outer.0, &bytes);
            assert_eq!(arrived, reason, "{mtu} at {now}");
            assert_eq!(host.path(&sent.key()).unwrap().mtu, known);
        }
    }
}

#[test]
fn packets_of_other_shapes_are_no_errors_about_tunnels() {
    let v6 = sent(&GATEWAY, Some(b""), (V6, TCP));
    let v4 = sent(&GATEWAY4, Some(b""), (V6, TCP));
    let (six, four) = (v6.error(1300, 120), v4.error(1300, 120));
    let (ip6, ip4) = (40, 20);
    let at = |bytes: &[u8], at, value| changed(bytes, at, value);
    let is_error = Reason::PathMtuLearned;
    let not = Reason::NotTunnel;
    #[rustfmt::skip]
    let cases = [
        ("ICMPv6", &v6, six.clone(), is_error),
        ("ICMPv6 checksum", &v6, at(&six, ip6 + 2, 0x55), is_error),
        ("next header", &v6, at(&six, 6, 59), not),
        ("version", &v6, at(&six, 0, 0x50), not),
        ("type", &v6, at(&six, ip6, 1), not),
        ("code", &v6, at(&six, ip6 + 1, 1), not),
        ("quoted version", &v6, at(&six, ip6 + 8, 0x40), not),
        ("quoted TCP", &v6, at(&six, ip6 + 8 + 6, TCP), not),
        ("quoted port", &v6, at(&six, ip6 + 8 + 40 + 3, 1), not),
        ("quoted gateway", &v6, at(&six, ip6 + 8 + 39, 1), not),
        ("quote cut in UDP", &v6, six[..ip6 + 8 + 47].to_vec(), not),
        ("quote cut behind UDP", &v6, six[..ip6 + 8 + 48].to_vec(), Reason::PathMtuRefused),
        ("short", &v6, six[..87].to_vec(), not),
        ("ICMPv4", &v4, four.clone(), is_error),
        ("with DF", &v4, at(&four, 6, 0x40), is_error),
        ("IHL", &v4, at(&four, 0, 0x46), not),
        ("fragment", &v4, at(&four, 6, 0x20), not),
        ("offset", &v4, at(&four, 7, 1), not),
        ("protocol", &v4, at(&four, 9, 2), not),
        ("type", &v4, at(&four, ip4, 11), not),
        ("code", &v4, at(&four, ip4 + 1, 3), not),
        ("quoted version", &v4, at(&four, ip4 + 8, 0x65), not),
        ("quoted IHL", &v4, at(&four, ip4 + 8, 0x46), not),
        ("quoted TCP", &v4, at(&four, ip4 + 8 + 9, TCP), not),
        ("quoted port", &v4, at(&four, ip4 + 8 + 20 + 3, 1), not),
        ("short", &v4, four[..ip4 + 8 + 27].to_vec(), not),
        ("8 bytes quoted", &v4, four[..ip4 + 8 + 28].to_vec(), is_error),
    ];
    for (name, sent, bytes, expected) in cases {
        let mut host = sent.host.clone();
        let reason = arrive(&mut host, &sent.kernel(), sent.outer.0, &bytes);
        assert_eq!(reason, expected, "{name} {:x}", sent.outer.0);
    }
}

#[test]
fn an_ip_in_ip_exit_that_nobody_chose_is_refused() {
    for gateway in [&GATEWAY[..], &GATEWAY4] {
        for ethertype in [V4, V6] {
            let sent = sent(gateway, None, (ethertype, TCP));
            let bytes = sent.error(1300, 120);
            let reason = arrive(&mut host(), &sent.kernel(), sent.outer.0, &bytes);
            assert_eq!(reason, Reason::PathMtuRefused);
            let quote_alone = sent.error(1300, if sent.outer.0 == V6 { 40 } else { 28 });
            let reason = arrive(&mut host(), &sent.kernel(), sent.outer.0, &quote_alone);
            assert_eq!(reason, Reason::PathMtuRefused);
        }
    }
}

#[test]
fn an_error_is_recognised_before_a_tunnel() {
    // A tunnel for UDP to the error's own addressee does not hide the error.
    let sent = sent(&GATEWAY, Some(b""), (V6, TCP));
    let mut host = sent.host.clone();
    for protocol in [4, 41, UDP] {
        let mut key = tunnel(protocol).0;
        key.address = DESTINATION;
        host.add_tunnel(key, spec(0));
    }
    let bytes = sent.error(1300, 120);
    let reason = arrive(&mut host, &sent.kernel(), V6, &bytes);
    assert_eq!(reason, Reason::PathMtuLearned);
}

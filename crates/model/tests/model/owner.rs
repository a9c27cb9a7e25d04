//! Section 2.1: whose packet it is, and what the hook lets one see of it (T7).

use crate::reflecting::{ACK, RST, SYN};
use crate::support::*;
use dynencap_abi::option::ENCAP_GW;
use dynencap_abi::{Config, Event, Exit, FlowKey, MARK_DONE, MARK_SENTINEL, Reason};
use dynencap_model::{Found, Frame, Hook, Host, Need, Origin, Socket, Sockets, TcpState, flow};

/// The kernel's one TCP socket.
struct Kernel<'a>(Option<(FlowKey, &'a Socket)>);

impl Sockets for Kernel<'_> {
    fn tcp(&self, flow: &FlowKey) -> Option<Found<'_>> {
        let (key, socket) = self.0.filter(|(key, _)| key == flow)?;
        assert_eq!(key.protocol, TCP);
        Some(Found {
            socket,
            snd_una: 0,
            snd_nxt: 0,
        })
    }

    fn udp(&self, _: &FlowKey) -> Option<Found<'_>> {
        None
    }
}

fn with_gateway(last: u8) -> Socket {
    let mut socket = socket();
    socket
        .set_option(&config(), ENCAP_GW, &address(last))
        .unwrap();
    socket
}

fn in_state(state: TcpState) -> Socket {
    let mut socket = socket();
    socket.set_state(state);
    socket
}

/// The reason, and the last byte of the gateway to which the packet went.
fn send(
    host: &mut Host,
    hook: Hook,
    origin: Origin<'_>,
    mark: u32,
    kernel: &Kernel<'_>,
    bytes: &[u8],
) -> (Reason, Option<u8>) {
    let mut frames: Vec<Frame> = Vec::new();
    let egress = host.egress_at(hook, origin, mark, kernel, packet(V6, bytes), &mut frames);
    let gateway = (egress.reason == Reason::Encapsulated).then(|| frames[0].bytes[39]);
    (egress.reason, gateway)
}

#[test]
fn the_first_place_that_knows_an_exit_decides() {
    let data = ipv6_packet(TCP, &tcp_segment(0, &[], b"data"));
    let reset = ipv6_packet(TCP, &tcp_segment(RST, &[], &[]));
    let answer = ipv6_packet(TCP, &tcp_segment(SYN | ACK, &[], &[]));
    let udp = ipv6_packet(UDP, &udp_datagram(b"data"));
    let flow = flow::key(&packet(V6, &data)).unwrap();
    let udp_flow = flow::key(&packet(V6, &udp)).unwrap();
    let own = with_gateway(0x10);
    let listener = with_gateway(0x20);
    let kept = with_gateway(0x30);
    let found = with_gateway(0x40);
    let open = in_state(TcpState::Open);
    let control = in_state(TcpState::Close);
    let bare = in_state(TcpState::Listen);
    let (none, all) = (Kernel(None), Kernel(Some((flow, &found))));
    let storeless = Kernel(Some((flow, &bare)));
    let fragment = ipv6_packet(44, &[&[TCP, 0, 0, 0, 0, 0, 0, 1], &reset[40..]].concat());
    let cut = ipv6_packet(TCP, &reset[40..59]);
    let chained = ipv6_packet(60, &[&extension(TCP, 8)[..], &reset[40..]].concat());
    let mut bad = reset.clone();
    bad[0] = 0x45;

    let marked = MARK_SENTINEL;
    let gone = Reason::MarkedWithoutExit;
    let went = |last| (Reason::Encapsulated, Some(last));
    let not = |reason| (reason, None);
    use Origin::{None as Nobody, Request, Socket as Own, TimeWait};
    use Reason::{NoExit, NoSocket};
    #[rustfmt::skip]
    let cases = [
        // name, origin, mark, kept in CLOSING, the kernel's sockets, packet, expected
        ("own storage first", Own(&own), marked, true, &all, &data, went(0x10)),
        ("own storage, unmarked", Own(&own), 0, true, &all, &data, went(0x10)),
        ("unmarked, no socket", Nobody, 0, true, &all, &data, not(NoSocket)),
        ("unmarked, no storage", Own(&open), 0, true, &all, &data, not(NoExit)),
        ("unmarked request", Request(&listener), 0, true, &all, &data, not(NoExit)),
        ("unmarked TIME_WAIT", TimeWait, 0, true, &all, &data, not(NoExit)),
        ("unmarked control socket", Own(&control), 0, true, &all, &data, not(NoExit)),
        ("listener's before kept", Request(&listener), marked, true, &all, &data, went(0x20)),
        ("listener without storage", Request(&bare), marked, true, &all, &data, went(0x30)),
        ("TIME_WAIT", TimeWait, marked, true, &all, &data, went(0x30)),
        ("kept before looked up", Nobody, marked, true, &all, &data, went(0x30)),
        ("a SYN-ACK is of a new one", Nobody, marked, true, &all, &answer, went(0x40)),
        ("and of nobody", Nobody, marked, true, &none, &answer, not(gone)),
        ("a request's", Request(&bare), marked, true, &all, &answer, went(0x40)),
        ("looked up", Nobody, marked, false, &all, &data, went(0x40)),
        ("looked up, no storage", Nobody, marked, false, &storeless, &data, not(gone)),
        ("marked, nothing known", Nobody, marked, false, &none, &data, not(gone)),
        ("marked, own socket", Own(&open), marked, false, &none, &data, not(gone)),
        ("late reset", Nobody, 0, true, &none, &reset, went(0x30)),
        ("late reset, looked up", Nobody, 0, false, &all, &reset, went(0x40)),
        ("late reset of control socket", Own(&control), 0, true, &all, &reset, went(0x30)),
        ("late reset of nobody's", Nobody, 0, false, &none, &reset, not(NoSocket)),
        ("the same of control socket", Own(&control), 0, false, &none, &reset, not(NoExit)),
        ("reset of an open socket", Own(&open), 0, true, &all, &reset, not(NoExit)),
        ("reset of a request", Request(&listener), 0, true, &all, &reset, not(NoExit)),
        ("reset of TIME_WAIT", TimeWait, 0, true, &all, &reset, not(NoExit)),
        ("a fragment is no reset", Nobody, 0, true, &all, &fragment, not(NoSocket)),
        ("nor is a cut header", Nobody, 0, true, &all, &cut, not(NoSocket)),
        ("behind an extension it is", Nobody, 0, true, &all, &chained, went(0x30)),
        ("nor is what is malformed", Nobody, 0, true, &all, &bad, not(NoSocket)),
        ("malformed and marked", Nobody, marked, true, &all, &bad, not(gone)),
        ("cut, marked, kept", Nobody, marked, true, &all, &cut, went(0x30)),
        ("cut, marked, not kept", Nobody, marked, false, &all, &cut, not(gone)),
        ("UDP, kept", Nobody, marked, true, &all, &udp, went(0x30)),
        ("UDP is not looked up", Nobody, marked, false, &all, &udp, not(gone)),
        ("segmenter's mark", Own(&own), MARK_DONE, true, &all, &data,
            not(Reason::AlreadyEncapsulated)),
        ("more than the segmenter's", Own(&own), MARK_DONE | marked, true, &all, &data,
            went(0x10)),
    ];
    for (name, origin, mark, keep, kernel, bytes, expected) in cases {
        let mut host = host();
        if keep {
            host.closed(&kept, flow);
            host.closed(&kept, udp_flow);
        }
        let sent = send(&mut host, Hook::Tc, origin, mark, kernel, bytes);
        assert_eq!(sent, expected, "{name}");
    }
}

#[test]
fn a_closing_connections_exit_is_kept_until_the_flow_begins_anew() {
    let data = ipv6_packet(TCP, &tcp_segment(0, &[], b"data"));
    let flow = flow::key(&packet(V6, &data)).unwrap();
    let mut host = host();
    host.closed(&socket(), flow);
    let mut cleared = ip_exit();
    cleared.set_option(&config(), ENCAP_GW, &[]).unwrap();
    host.closed(&cleared, flow);
    assert_eq!(host.kept(&flow), None, "nothing to keep");
    assert_eq!(host.events()[Event::ExitKept as usize], 0);
    host.closing(&ip_exit(), flow);
    assert_eq!(host.kept(&flow), ip_exit().exit(), "before it is closed");
    assert_eq!(host.events()[Event::ExitKept as usize], 0);
    host.closed(&cleared, flow);
    assert_eq!(host.kept(&flow), None, "cleared meanwhile");
    host.closed(&ip_exit(), flow);
    assert_eq!(host.kept(&flow), ip_exit().exit());
    host.established(&flow.reversed());
    assert!(host.kept(&flow).is_some());
    host.established(&flow);
    assert_eq!(host.kept(&flow), None);
    assert_eq!(host.events()[Event::ExitKept as usize], 1);
}

#[test]
fn kept_exits_count_in_no_storage_and_ask_no_policy() {
    let data = ipv6_packet(TCP, &tcp_segment(0, &[], b"data"));
    let flow = flow::key(&packet(V6, &data)).unwrap();
    let mut host = host();
    let closed = ip_exit();
    host.closed(&closed, flow);
    host.set_config(dynencap_abi::Config {
        flags: dynencap_abi::Config::DENY_BY_DEFAULT,
        ..config()
    });
    let none = Kernel(None);
    let sent = send(
        &mut host,
        Hook::Tc,
        Origin::TimeWait,
        MARK_SENTINEL,
        &none,
        &data,
    );
    assert_eq!(sent, (Reason::Encapsulated, Some(GATEWAY[15])));
    let info = |socket: &Socket| host.option(socket, dynencap_abi::option::ENCAP_INFO, 32);
    assert_eq!(info(&closed).unwrap()[..8], [0; 8]);
}

#[test]
fn a_looked_up_sockets_storage_counts() {
    let data = ipv6_packet(TCP, &tcp_segment(0, &[], b"data"));
    let flow = flow::key(&packet(V6, &data)).unwrap();
    let found = ip_exit();
    let mut host = host();
    let kernel = Kernel(Some((flow, &found)));
    send(
        &mut host,
        Hook::Tc,
        Origin::None,
        MARK_SENTINEL,
        &kernel,
        &data,
    );
    let listener = Origin::Request(&found);
    send(&mut host, Hook::Tc, listener, MARK_SENTINEL, &kernel, &data);
    let info = host
        .option(&found, dynencap_abi::option::ENCAP_INFO, 32)
        .unwrap();
    assert_eq!(info[..8], 2u64.to_ne_bytes());
}

#[test]
fn a_lightweight_tunnel_sees_no_socket_storage() {
    let data = ipv6_packet(TCP, &tcp_segment(0, &[], b"data"));
    let flow = flow::key(&packet(V6, &data)).unwrap();
    let own = ip_exit();
    let kernel = Kernel(Some((flow, &own)));
    let origins = [Origin::Socket(&own), Origin::Request(&own), Origin::None];
    for origin in origins {
        let mut host = host();
        let tc = send(&mut host, Hook::Tc, origin, own.mark(), &kernel, &data);
        assert_eq!(tc.0, Reason::Encapsulated);
        let lwt = send(&mut host, Hook::Lwt, origin, own.mark(), &kernel, &data);
        assert_eq!(lwt.0, Reason::MarkedWithoutExit);
        // A map by the flow, which it can read, serves both.
        host.closed(&own, flow);
        let lwt = send(&mut host, Hook::Lwt, origin, own.mark(), &kernel, &data);
        assert_eq!(lwt.0, Reason::Encapsulated);
    }
    let missing = [Need::SocketStorage, Need::SocketLookup, Need::EveryPacket];
    for need in [
        Need::Packet,
        Need::Maps,
        Need::SuperPacket,
        Need::Push,
        Need::SocketStorage,
        Need::SocketLookup,
        Need::EveryPacket,
    ] {
        assert!(Hook::Tc.offers(need));
        assert_eq!(Hook::Lwt.offers(need), !missing.contains(&need), "{need:?}");
    }
}

#[test]
fn storage_without_a_gateway_passes_but_a_marked_answer_does_not() {
    let data = ipv6_packet(TCP, &tcp_segment(0, &[], b"data"));
    let mut listener = socket();
    listener.set_exit(Exit::NONE);
    let none = Kernel(None);
    let send = |origin| send(&mut host(), Hook::Tc, origin, MARK_SENTINEL, &none, &data).0;
    assert_eq!(send(Origin::Socket(&listener)), Reason::NoGateway);
    let answer = Origin::Request(&listener);
    assert_eq!(send(answer), Reason::MarkedWithoutExit);
}

#[test]
fn a_socket_that_was_looked_up_must_have_been_asked_before() {
    let data = ipv6_packet(TCP, &tcp_segment(0, &[], b"data"));
    let flow = flow::key(&packet(V6, &data)).unwrap();
    let listener = ip_exit();
    let kernel = Kernel(Some((flow, &listener)));
    let mark = listener.mark();
    let mut host = host();
    let raise = |host: &mut Host| {
        let config = *host.config();
        host.set_config(Config {
            policy_generation: config.policy_generation + 1,
            ..config
        });
    };
    let cookie = |host: &mut Host| send(host, Hook::Tc, Origin::None, mark, &kernel, &data).0;
    // Without any policy there is nobody to ask.
    assert_eq!(cookie(&mut host), Reason::Encapsulated);
    raise(&mut host);
    assert_eq!(cookie(&mut host), Reason::PolicyDenied);
    // A SYN-ACK of the listener's own tells the cgroup, and the answer holds for cookies.
    let own = Origin::Request(&listener);
    let answered = send(&mut host, Hook::Tc, own, mark, &kernel, &data);
    assert_eq!(answered.0, Reason::Encapsulated);
    assert_eq!(cookie(&mut host), Reason::Encapsulated);
    raise(&mut host);
    assert_eq!(cookie(&mut host), Reason::PolicyDenied);
}

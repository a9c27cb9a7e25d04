//! Section 2.1 with reflection: what the kernel sends for a socket finds its way.

use crate::reflecting::*;
use crate::support::*;
use dynencap_abi::option::*;
use dynencap_abi::{Config, Exit, FlowKey, MARK_SENTINEL, Reason};
use dynencap_model::{Found, Frame, Host, Origin, Socket, Sockets, TcpState};

struct Kernel<'a>(Option<&'a Socket>);

impl Sockets for Kernel<'_> {
    fn tcp(&self, flow: &FlowKey) -> Option<Found<'_>> {
        assert_eq!(flow.source, DESTINATION);
        Some(Found {
            socket: self.0?,
            snd_una: 0,
            snd_nxt: 0,
        })
    }

    fn udp(&self, _: &FlowKey) -> Option<Found<'_>> {
        None
    }
}

fn answer(flags: u8) -> Vec<u8> {
    let mut tcp = tcp_segment(0, &[], &[]);
    tcp[13] = flags;
    from_server(TCP, &tcp)
}

/// A listener that got a SYN by `via(last)`.
fn asked(host: &mut Host, bits: u32, last: u8) -> Socket {
    let mut socket = listener(host, &CGROUP);
    set_reflection(host, &mut socket, bits);
    get(
        host,
        &mut socket,
        Some(via(last)),
        &from_client(SYN, 0, 0, &[]),
    );
    socket
}

fn send(
    host: &mut Host,
    origin: Origin<'_>,
    mark: u32,
    kernel: &Kernel<'_>,
    bytes: &[u8],
) -> (Reason, Option<u8>) {
    let mut frames: Vec<Frame> = Vec::new();
    let egress = host.egress_from(origin, mark, kernel, packet(V6, bytes), &mut frames);
    let to = (egress.reason == Reason::Encapsulated).then(|| frames[0].bytes[39]);
    (egress.reason, to)
}

#[test]
fn answers_leave_by_the_path_of_the_question() {
    use Origin::{None as Nobody, Request, Socket as Own, TimeWait};
    use Reason::{NoExit, NoGateway, NoSocket};
    let (syn_ack, reset, ack) = (answer(SYN | ACK), answer(RST | ACK), answer(ACK));
    let marked = MARK_SENTINEL;
    let went = |last| (Reason::Encapsulated, Some(last));
    let not = |reason: Reason| (reason, None);
    let gone = not(Reason::MarkedWithoutExit);
    // What each host knows beside a listener: an entry of its cgroup, of the kernel's, of another.
    let mut with_entry = reflecting();
    let asking = asked(&mut with_entry, REFLECT_PATH, 0x31);
    let flow = replies(&from_client(SYN, 0, 0, &[]));
    let mut none = with_entry.clone();
    none.evict_reflected(&flow).unwrap();
    let mut kernels = none.clone();
    let mut refused = ipv6_packet(41, &from_client(SYN, 0, 0, &[]));
    refused[8..24].copy_from_slice(&address(0x32));
    refused[24..40].copy_from_slice(&GATEWAY);
    kernels.ingress(packet(V6, &refused), &mut Vec::new());
    let mut theirs = none.clone();
    let mut other = listener(&mut theirs, &OTHER);
    let syn = from_client(SYN, 0, 0, &[]);
    get(&mut theirs, &mut other, Some(via(0x33)), &syn);
    let mut kept = with_entry.clone();
    kept.closed(&ip_exit(), flow);
    let mut kept_alone = none.clone();
    kept_alone.closed(&ip_exit(), flow);
    let mut kept_and_kernels = kernels.clone();
    kept_and_kernels.closed(&ip_exit(), flow);
    let mut off = with_entry.clone();
    off.set_config(config());

    let mut chosen = asking.clone();
    chosen.set_exit(Exit {
        gateway: address(0x44),
        flags: Exit::GATEWAY,
        ..Exit::NONE
    });
    let mut bare = Socket::in_cgroup(STREAM, &CGROUP);
    bare.set_state(TcpState::Listen);
    let untouched = listener(&mut none.clone(), &CGROUP);
    let control = socket();
    let (nobody, everyone) = (Kernel(None), Kernel(Some(&asking)));
    let choosing = Kernel(Some(&chosen));
    let ignorant = Kernel(Some(&bare));
    let idle = Kernel(Some(&untouched));
    let mut child = asking.accept();
    child.set_mark(marked);

    #[rustfmt::skip]
    let cases = [
        // name, host, origin, mark, the kernel's socket, packet, expected
        ("SYN-ACK", &with_entry, Request(&asking), marked, &nobody, &syn_ack, went(0x31)),
        ("SYN-ACK without the mark", &with_entry, Request(&asking), 0, &nobody, &syn_ack, went(0x31)),
        ("before the listener's own exit", &with_entry, Request(&chosen), 0, &nobody, &syn_ack, went(0x31)),
        ("the listener's own exit", &none, Request(&chosen), 0, &nobody, &syn_ack, went(0x44)),
        ("no entry", &none, Request(&asking), 0, &nobody, &syn_ack, not(NoGateway)),
        ("entry lost", &none, Request(&asking), marked, &nobody, &syn_ack, gone),
        ("another cgroup's entry", &theirs, Request(&asking), 0, &nobody, &syn_ack, not(NoGateway)),
        ("the same, marked", &theirs, Request(&asking), marked, &nobody, &syn_ack, gone),
        ("the kernel's entry", &kernels, Request(&asking), marked, &nobody, &syn_ack, gone),
        ("nothing was captured yet", &with_entry, Request(&untouched), 0, &nobody, &syn_ack, not(NoGateway)),
        ("no storage", &with_entry, Request(&bare), 0, &nobody, &syn_ack, not(NoExit)),
        ("no storage, kept", &kept, Request(&bare), 0, &nobody, &syn_ack, not(NoExit)),
        ("no storage, kept, marked", &kept, Request(&bare), marked, &nobody, &syn_ack, gone),
        ("entry before kept", &kept, Request(&asking), marked, &nobody, &syn_ack, went(0x31)),
        ("a request's reset", &with_entry, Request(&asking), 0, &nobody, &reset, went(0x31)),
        ("reflection off", &off, Request(&asking), 0, &nobody, &syn_ack, not(NoExit)),
        ("off, marked", &off, Request(&asking), marked, &nobody, &syn_ack, gone),

        ("cookie", &with_entry, Nobody, marked, &everyone, &syn_ack, went(0x31)),
        ("cookie of a flow that was kept", &kept, Nobody, marked, &everyone, &syn_ack, went(0x31)),
        ("cookie, kept, entry lost", &kept_alone, Nobody, marked, &everyone, &syn_ack, gone),
        ("cookie without the mark", &with_entry, Nobody, 0, &everyone, &syn_ack, went(0x31)),
        ("cookie of the control socket", &with_entry, Own(&control), 0, &everyone, &syn_ack, went(0x31)),
        ("cookie, no entry", &none, Nobody, 0, &everyone, &syn_ack, not(NoGateway)),
        ("cookie, entry lost", &none, Nobody, marked, &everyone, &syn_ack, gone),
        ("cookie, another's entry", &theirs, Nobody, marked, &everyone, &syn_ack, gone),
        ("cookie, own exit", &with_entry, Nobody, marked, &choosing, &syn_ack, went(0x44)),
        ("cookie, no storage", &with_entry, Nobody, 0, &ignorant, &syn_ack, not(NoSocket)),
        ("cookie, nothing captured", &with_entry, Nobody, 0, &idle, &syn_ack, not(NoGateway)),
        ("cookie, reflection off", &off, Nobody, 0, &everyone, &syn_ack, not(NoSocket)),
        ("an ACK is no late answer", &with_entry, Nobody, 0, &everyone, &ack, not(NoSocket)),
        ("TIME_WAIT's SYN-ACK", &with_entry, TimeWait, 0, &everyone, &syn_ack, not(NoExit)),

        ("reset of a refused connection", &kernels, Nobody, 0, &nobody, &reset, went(0x32)),
        ("of the control socket", &kernels, Own(&control), 0, &nobody, &reset, went(0x32)),
        ("marked", &kernels, Nobody, marked, &nobody, &reset, went(0x32)),
        ("of what was kept", &kept_and_kernels, Nobody, 0, &nobody, &reset, went(0x99)),
        ("of a cgroup's entry", &with_entry, Nobody, 0, &nobody, &reset, not(NoSocket)),
        ("late, of the connection", &with_entry, Nobody, 0, &everyone, &reset, went(0x31)),
        ("no reset", &kernels, Nobody, marked, &nobody, &syn_ack, gone),

        ("an accepted connection", &none, Own(&child), marked, &nobody, &ack, gone),
        ("unmarked", &none, Own(&child), 0, &nobody, &ack, not(NoGateway)),
        ("TCP takes no entry", &with_entry, Own(&child), marked, &nobody, &ack, gone),
        ("of a cgroup that captured nothing", &none, Own(&untouched), marked, &nobody, &ack, not(NoGateway)),
        ("reflection off meanwhile", &off, Own(&child), marked, &nobody, &ack, not(NoGateway)),
    ];
    for (name, host, origin, mark, kernel, bytes, expected) in cases {
        let mut host = host.clone();
        let sent = send(&mut host, origin, mark, kernel, bytes);
        assert_eq!(sent, expected, "{name}");
    }
}

#[test]
fn the_dscp_of_the_syn_comes_back() {
    let reflecting_dscp = |bits: u32, captured: bool| {
        let mut host = reflecting();
        let mut socket = listener(&mut host, &CGROUP);
        set_reflection(&mut host, &mut socket, bits);
        let mut syn = from_client(SYN, 0, 0, &[]);
        syn[..2].copy_from_slice(&[0x62, 0xe1]);
        get(&mut host, &mut socket, captured.then(|| via(0x31)), &syn);
        (host, socket)
    };
    // The answer has class 0xb9: its ECN stays.
    for (bits, captured, encapsulated, class) in [
        (REFLECT_PATH, true, true, 0xb9),
        (REFLECT_PATH | REFLECT_DSCP, true, true, 0x2d),
        (REFLECT_DSCP, true, false, 0x2d),
        (REFLECT_DSCP | REFLECT_PATH, false, false, 0x2d),
        (REFLECT_MARK, false, false, 0xb9),
    ] {
        let (mut host, socket) = reflecting_dscp(bits, captured);
        let bytes = answer(SYN | ACK);
        for origin in [Origin::Request(&socket), Origin::None] {
            let mut frames: Vec<Frame> = Vec::new();
            let kernel = Kernel(Some(&socket));
            let sent = host.egress_from(origin, 0, &kernel, packet(V6, &bytes), &mut frames);
            let frame = &frames[0].bytes;
            let inner = &frame[frame.len() - bytes.len()..];
            let cookie = matches!(origin, Origin::None) && !encapsulated;
            let class = if cookie { 0xb9 } else { class };
            assert_eq!(
                [inner[0], inner[1] & 0xf0],
                [0x60 | class >> 4, class << 4],
                "{bits}"
            );
            assert_eq!(inner[2..], bytes[2..]);
            if encapsulated {
                assert_eq!(sent.reason, Reason::Encapsulated);
                let outer = [frame[0], frame[1] & 0xf0];
                assert_eq!(outer, [inner[0], inner[1] & 0xf0], "the outer class");
            } else {
                assert_eq!(sent.reason, Reason::NoGateway);
            }
        }
    }
}

#[test]
fn an_ipv4_answers_checksum_follows_its_dscp() {
    let mut host = reflecting();
    let mut socket = listener(&mut host, &CGROUP);
    set_reflection(&mut host, &mut socket, REFLECT_DSCP);
    let mut syn = ipv4_packet(&[], TCP, &from_client(SYN, 0, 0, &[])[40..]);
    syn[1] = 0xb8;
    let mut receiver = dynencap_model::Receiver {
        socket: &mut socket,
        sequence: EXPECTED,
        connected: false,
    };
    let incoming = dynencap_model::Incoming {
        packet: packet(V4, &syn),
        mark: 0,
        captured: None,
        front: &[],
    };
    host.reflect(&mut receiver, &incoming);
    let mut reply = ipv4_packet(&[], TCP, &answer(SYN | ACK)[40..]);
    reply[12..16].copy_from_slice(&DESTINATION4);
    reply[16..20].copy_from_slice(&SOURCE4);
    rewrite_checksum(&mut reply);
    let mut expected = reply.clone();
    expected[1] = 0xba;
    rewrite_checksum(&mut expected);
    let mut wrong = reply.clone();
    wrong[11] ^= 1;
    for (bytes, right) in [(reply, true), (wrong, false)] {
        let mut frames: Vec<Frame> = Vec::new();
        let origin = Origin::Request(&socket);
        let sent = host.egress_from(origin, 0, &(), packet(V4, &bytes), &mut frames);
        assert_eq!(sent.reason, Reason::NoGateway);
        assert_eq!(frames[0].bytes == expected, right);
        assert_eq!(frames[0].bytes[1], 0xba);
    }
}

#[test]
fn reflected_exits_are_judged_by_their_own_right() {
    let mut host = reflecting();
    trust(&mut host, false);
    let socket = connection(&mut host, 3);
    let generation = |host: &mut Host| {
        let config = *host.config();
        let policy_generation = config.policy_generation + 1;
        host.set_config(Config {
            policy_generation,
            ..config
        });
    };
    let ack = answer(ACK);
    let sent = |host: &mut Host| {
        let kernel = Kernel(None);
        send(host, Origin::Socket(&socket), socket.mark(), &kernel, &ack).0
    };
    generation(&mut host);
    assert_eq!(
        sent(&mut host),
        Reason::Encapsulated,
        "though its source is no policy's"
    );
    for rights in [0, 1, 4] {
        grant(&mut host, 7, 128, address(3), rights);
        generation(&mut host);
        assert_eq!(sent(&mut host), Reason::PolicyDenied, "{rights}");
    }
    grant(&mut host, 7, 128, address(3), 2);
    assert_eq!(sent(&mut host), Reason::Encapsulated);
}

//! A host that reflects, its sockets and what comes in for them; for the tests of section 5.

use crate::support::*;
use dynencap_abi::option::{ENCAP_REFLECT, REFLECT_PATH};
use dynencap_abi::{
    Config, Event, Exit, FlowKey, MARK_SENTINEL, POLICY_EXIT_FOLLOW, POLICY_EXIT_REFLECT,
    PolicyExitKey, TunnelKey, TunnelSpec,
};
use dynencap_model::{Host, Incoming, Receiver, Sequence, Socket, SocketKind, TcpState, flow};

pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;
pub(crate) const SERVER: u64 = CGROUP[2];
/// Two more cgroups, beside the server's and above it.
pub(crate) const OTHER: [u64; 3] = [1, 20, 301];

pub(crate) const DATAGRAMS: SocketKind = SocketKind {
    family: dynencap_abi::option::AF_INET6,
    ty: 2,
    protocol: 0,
};

/// What a connection under test expects.
pub(crate) const EXPECTED: Sequence = Sequence {
    rcv_nxt: 0xffff_fff0,
    snd_una: 0xffff_ff00,
    snd_nxt: 0x100,
};

pub(crate) fn reflecting() -> Host {
    let mut host = receiver(0);
    host.set_config(Config {
        flags: Config::REFLECT,
        ..config()
    });
    for protocol in [4, 41, UDP] {
        let key = tunnel(protocol).0;
        for address in [GATEWAY, mapped(GATEWAY4)] {
            host.add_tunnel(TunnelKey { address, ..key }, mirrored(TunnelSpec::FIXED));
        }
    }
    host
}

/// A tunnel that reflects, without a header of fixed length.
pub(crate) fn mirrored(format: u8) -> TunnelSpec {
    TunnelSpec {
        flags: TunnelSpec::REFLECT,
        format,
        ..spec(0)
    }
}

/// The captured exit of who came from this address.
pub(crate) fn via(last: u8) -> Exit {
    Exit {
        gateway: address(last),
        source: GATEWAY,
        flags: Exit::GATEWAY | Exit::REFLECTED,
        ..Exit::NONE
    }
}

/// The server's policy: whoever came may be answered, and followed where `follow` is set.
pub(crate) fn trust(host: &mut Host, follow: bool) {
    let rights = if follow {
        POLICY_EXIT_REFLECT | POLICY_EXIT_FOLLOW
    } else {
        POLICY_EXIT_REFLECT
    };
    host.set_policy(SERVER, policy(7));
    grant(host, 7, 32, GATEWAY, rights);
}

pub(crate) fn grant(host: &mut Host, policy: u32, bits: u32, address: [u8; 16], rights: u32) {
    let key = PolicyExitKey {
        prefix_len: 32 + bits,
        policy,
        address,
    };
    host.set_policy_exit(&key, rights).unwrap();
}

pub(crate) fn set_reflection(host: &mut Host, socket: &mut Socket, bits: u32) {
    let cgroup = socket.cgroup().to_vec();
    host.set_option(socket, &cgroup, ENCAP_REFLECT, &bits.to_ne_bytes())
        .unwrap();
}

/// A listener of a cgroup that reflects paths.
pub(crate) fn listener(host: &mut Host, cgroup: &[u64]) -> Socket {
    let mut socket = Socket::in_cgroup(STREAM, cgroup);
    socket.set_state(TcpState::Listen);
    set_reflection(host, &mut socket, REFLECT_PATH);
    socket
}

/// A segment from the client, by its distances from what [`EXPECTED`] expects.
pub(crate) fn from_client(flags: u8, sequence: u32, acknowledged: u32, payload: &[u8]) -> Vec<u8> {
    let mut tcp = tcp_segment(0, &[], payload);
    let sequence = EXPECTED.rcv_nxt.wrapping_add(sequence);
    let acknowledged = EXPECTED.snd_una.wrapping_add(acknowledged);
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[8..12].copy_from_slice(&acknowledged.to_be_bytes());
    tcp[13] = flags;
    ipv6_packet(TCP, &tcp)
}

pub(crate) fn from_server(protocol: u8, upper: &[u8]) -> Vec<u8> {
    let mut bytes = ipv6_packet(protocol, upper);
    bytes[8..24].copy_from_slice(&DESTINATION);
    bytes[24..40].copy_from_slice(&SOURCE);
    bytes[40..44].copy_from_slice(&[1, 0xbb, 4, 0]);
    bytes
}

/// The flow of replies.
pub(crate) fn replies(bytes: &[u8]) -> FlowKey {
    flow::key(&packet(V6, bytes)).unwrap().reversed()
}

/// `cgroup_skb/ingress` of a packet with a capture; returns the packet's mark.
pub(crate) fn get(
    host: &mut Host,
    socket: &mut Socket,
    captured: Option<Exit>,
    bytes: &[u8],
) -> u32 {
    get_connected(host, socket, false, captured, bytes)
}

pub(crate) fn get_connected(
    host: &mut Host,
    socket: &mut Socket,
    connected: bool,
    captured: Option<Exit>,
    bytes: &[u8],
) -> u32 {
    let mut receiver = Receiver {
        socket,
        sequence: EXPECTED,
        connected,
    };
    let incoming = Incoming {
        packet: packet(V6, bytes),
        mark: 0x4200_0042,
        captured,
        front: &[],
    };
    host.reflect(&mut receiver, &incoming)
}

/// A connection that came by `via(first)`.
pub(crate) fn connection(host: &mut Host, first: u8) -> Socket {
    let mut listener = listener(host, &CGROUP);
    let syn = from_client(SYN, 0, 0, &[]);
    let mark = get(host, &mut listener, Some(via(first)), &syn);
    assert_ne!(mark & MARK_SENTINEL, 0);
    let mut socket = listener.accept();
    // tcp_fwmark_accept
    socket.set_mark(mark);
    host.accepted(&mut socket, &replies(&syn));
    assert_eq!(socket.exit(), Some(&via(first)));
    socket
}

pub(crate) fn count(host: &Host, event: Event) -> u64 {
    host.events()[event as usize]
}

/// What happened since, options apart.
pub(crate) fn happened(host: &Host, before: &[u64]) -> Vec<Event> {
    Event::ALL
        .into_iter()
        .filter(|event| host.events()[*event as usize] > before[*event as usize])
        .filter(|event| *event != Event::OptionSet)
        .collect()
}

//! Reflection: from the tunnel packet that comes in to the reply that leaves, step by step, and
//! what packets pay that are none of its business.

use super::Path;
use crate::host::{GATEWAY, Host, LOCAL, REMOTE};
use crate::packet::{Inside, LEN, ip6};
use anyhow::ensure;
use dynencap_abi::object::{EGRESS, INGRESS, REFLECT, TRACK};
use dynencap_abi::option::{ENCAP_REFLECT, REFLECT_PATH};
use dynencap_abi::{
    Event, POLICY_EXIT_CHOOSE, POLICY_EXIT_FOLLOW, POLICY_EXIT_REFLECT, Reason, TunnelSpec,
};
use dynencap_vm::{Endpoints, Meter, Skb, SocketId, TcpState};
use std::net::SocketAddr;

/// Of the TCP packets of these paths.
const SEQUENCE: u32 = 100;
/// Where Ethernet and IPv6 end, and places in TCP behind.
const TCP: usize = 14 + 40;
const SEQUENCE_AT: usize = TCP + 4;
const FLAGS_AT: usize = TCP + 13;
const SYN_ACK: u8 = 0x12;
/// `BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB`.
const ACCEPTED: u32 = 5;

pub(super) fn paths() -> Vec<Path> {
    vec![
        Path::frame(INGRESS, "reflect/staged", Reason::Decapsulated, |host| {
            host.reflecting()?;
            host.arriving(&ip6(Inside::Tcp, LEN))
        }),
        Path::frame(
            INGRESS,
            "reflect/nobodys-syn",
            Reason::Decapsulated,
            |host| {
                host.reflecting()?;
                host.arriving(&ip6(Inside::Syn, LEN))
            },
        ),
        Path::frame(INGRESS, "kernels/left-alone", Reason::NotTunnel, |host| {
            host.reflecting_by(TunnelSpec::KERNEL)?;
            host.arriving(&ip6(Inside::Tcp, LEN))
        }),
        Path::frame(INGRESS, "kernels/staged", Reason::NotTunnel, |host| {
            host.reflecting_by(TunnelSpec::KERNEL | TunnelSpec::REFLECT)?;
            host.arriving(&ip6(Inside::Tcp, LEN))
        }),
        Path::new(REFLECT, "off", |host| {
            let socket = server(host, TcpState::Established);
            plain(host, socket)
        }),
        Path::new(REFLECT, "bystander", |host| {
            host.reflecting()?;
            let socket = server(host, TcpState::Established);
            plain(host, socket)
        }),
        Path::new(REFLECT, "listener/plain", |host| {
            host.reflecting()?;
            let socket = server(host, TcpState::Listen);
            plain(host, socket)
        }),
        Path::new(REFLECT, "listener/not-asked", |host| {
            host.reflecting()?;
            let socket = server(host, TcpState::Listen);
            tunnelled(host, socket, SEQUENCE)
        }),
        Path::new(REFLECT, "listener/captured", |host| {
            host.reflecting()?;
            Ok(captured(host)?.1)
        }),
        Path::new(REFLECT, "established/moves", |host| {
            let socket = followed(host)?;
            let meter = tunnelled(host, socket, SEQUENCE)?;
            expect(host, Event::ReflectMoved)?;
            Ok(meter)
        }),
        Path::new(REFLECT, "established/same-path", |host| {
            let socket = followed(host)?;
            tunnelled(host, socket, SEQUENCE)?;
            tunnelled(host, socket, SEQUENCE + LEN as u32)
        }),
        Path::first(
            EGRESS,
            "owner/reflected-request",
            Reason::Encapsulated,
            |host| {
                host.reflecting()?;
                let (listener, _) = captured(host)?;
                let request = host.machine.open_request(listener, server_ends());
                Ok(host.skb(&syn_ack(), Some(request)))
            },
        ),
        Path::new(TRACK, "accepted/reflected", |host| {
            host.reflecting()?;
            let (listener, _) = captured(host)?;
            let child = host.machine.clone_socket(listener);
            host.machine.set_endpoints(child, Some(server_ends()));
            host.machine.set_state(child, TcpState::Established);
            let meter = host.tell(child, ACCEPTED)?;
            expect(host, Event::ReflectTaken)?;
            Ok(meter)
        }),
    ]
}

/// The other side of [`crate::host::ends`].
fn server_ends() -> Endpoints {
    Endpoints {
        local: SocketAddr::from(REMOTE),
        remote: Some(SocketAddr::from(LOCAL)),
    }
}

fn server(host: &mut Host, state: TcpState) -> SocketId {
    let socket = host.bare();
    let ends = Endpoints {
        remote: server_ends().remote.filter(|_| state != TcpState::Listen),
        ..server_ends()
    };
    host.machine.set_endpoints(socket, Some(ends));
    host.machine.set_state(socket, state);
    socket
}

/// A connection that follows whoever the policy trusts, which is everyone.
fn followed(host: &mut Host) -> anyhow::Result<SocketId> {
    host.reflecting()?;
    host.policy(|_| {})?;
    host.allow(POLICY_EXIT_CHOOSE | POLICY_EXIT_REFLECT | POLICY_EXIT_FOLLOW)?;
    let socket = server(host, TcpState::Established);
    host.set(socket, ENCAP_REFLECT, &REFLECT_PATH.to_ne_bytes())?;
    host.machine.set_sequence(socket, 1, 10);
    host.machine.set_expected(socket, SEQUENCE);
    Ok(socket)
}

/// A listener for whose client an exit was captured, and what that cost.
fn captured(host: &mut Host) -> anyhow::Result<(SocketId, Meter)> {
    let listener = server(host, TcpState::Listen);
    host.set(listener, ENCAP_REFLECT, &REFLECT_PATH.to_ne_bytes())?;
    let meter = tunnelled(host, listener, SEQUENCE)?;
    expect(host, Event::ReflectCaptured)?;
    Ok((listener, meter))
}

/// A packet without a tunnel reaches the socket.
fn plain(host: &mut Host, socket: SocketId) -> anyhow::Result<Meter> {
    let skb = host.skb(&ip6(Inside::Tcp, LEN), None);
    reach(host, socket, skb)
}

/// One that came through our decapsulation.
fn tunnelled(host: &mut Host, socket: SocketId, sequence: u32) -> anyhow::Result<Meter> {
    let mut inner = ip6(Inside::Tcp, LEN);
    for (place, byte) in inner
        .iter_mut()
        .skip(SEQUENCE_AT)
        .zip(sequence.to_be_bytes())
    {
        *place = byte;
    }
    let mut skb = host.arriving(&inner)?;
    host.frame(INGRESS, Reason::Decapsulated, &mut skb)?;
    reach(host, socket, skb)
}

fn reach(host: &mut Host, socket: SocketId, mut skb: Skb) -> anyhow::Result<Meter> {
    skb.arrive();
    skb.socket = Some(socket);
    let run = host.machine.run_arrival(REFLECT, &mut skb)?;
    ensure!(run.passes, "the packet was dropped");
    Ok(run.meter)
}

/// From the server to its client.
fn syn_ack() -> Vec<u8> {
    let mut frame = ip6(Inside::Syn, 60);
    let addresses = [REMOTE.0, LOCAL.0].concat();
    let ports = [REMOTE.1.to_be_bytes(), LOCAL.1.to_be_bytes()].concat();
    for (place, byte) in frame
        .iter_mut()
        .skip(14 + 8)
        .zip([addresses, ports].concat())
    {
        *place = byte;
    }
    if let Some(flags) = frame.get_mut(FLAGS_AT) {
        *flags = SYN_ACK;
    }
    frame
}

fn expect(host: &Host, event: Event) -> anyhow::Result<()> {
    let count = host.events()?.get(event as usize).copied();
    ensure!(count == Some(1), "{}: {count:?}", event.name());
    Ok(())
}

impl Host {
    /// Reflection is on, and for the tunnel without UDP.
    fn reflecting(&mut self) -> anyhow::Result<()> {
        self.reflecting_by(TunnelSpec::REFLECT)
    }

    /// The same, where that tunnel has these flags.
    fn reflecting_by(&mut self, flags: u8) -> anyhow::Result<()> {
        use dynencap_abi::{Config, TunnelKey, object::TUNNELS};
        self.configure(|config| config.flags |= Config::REFLECT)?;
        let key = TunnelKey {
            address: GATEWAY,
            protocol: 41,
            reserved: 0,
            port: [0; 2],
        };
        let spec = TunnelSpec {
            header_len: 0,
            flags,
            format: TunnelSpec::FIXED,
            reserved: 0,
        };
        self.map(TUNNELS, &key.to_bytes(), &spec.to_bytes())
    }

    /// The frame as it comes through that tunnel.
    fn arriving(&mut self, inner: &[u8]) -> anyhow::Result<Skb> {
        let (ethernet, packet) = inner.split_at(14);
        let mut frame = ethernet.to_vec();
        frame.extend([0x60, 0, 0, 0]);
        frame.extend((packet.len() as u16).to_be_bytes());
        frame.extend([41, 64]);
        frame.extend([LOCAL.0, GATEWAY].concat());
        frame.extend(packet);
        Ok(self.skb(&frame, None))
    }
}

//! One host: its configuration, its tunnels and its counters, and the step that gives every
//! packet exactly one reason.

use crate::packet::{Packet, Sink};
use crate::socket::Socket;
use crate::tunnel::{Tunnelled, Tunnels};
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::{decapsulation, encapsulation, segment};
use dynencap_abi::{Config, Exit, MARK_SENTINEL, Reason, TunnelKey, TunnelSpec, Verdict};

/// What became of a packet at egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The one reason.
    pub reason: Reason,
    /// How many segments left; 0 unless it was a super-packet that was cut.
    pub segments: u32,
}

impl Egress {
    /// What the reason explains.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.reason.verdict()
    }
}

/// Model of one host.
#[derive(Clone, Debug)]
pub struct Host {
    config: Config,
    tunnels: Tunnels,
    counters: [u64; Reason::COUNT],
}

impl Host {
    /// A host without tunnels.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            tunnels: Tunnels::default(),
            counters: [0; Reason::COUNT],
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The next packet goes by this configuration.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// The tunnels that end here.
    #[must_use]
    pub fn tunnels(&self) -> &Tunnels {
        &self.tunnels
    }

    /// Adds a tunnel, or changes how its headers are taken off.
    pub fn add_tunnel(&mut self, key: TunnelKey, spec: TunnelSpec) {
        self.tunnels.insert(key, spec);
    }

    /// Removes a tunnel and returns it.
    pub fn remove_tunnel(&mut self, key: &TunnelKey) -> Option<TunnelSpec> {
        self.tunnels.remove(key)
    }

    /// How many packets each reason has met.
    #[must_use]
    pub fn counters(&self) -> &[u64; Reason::COUNT] {
        &self.counters
    }

    /// TC egress. The packet carries its socket's mark; without a socket, none.
    pub fn egress(
        &mut self,
        socket: Option<&Socket>,
        packet: Packet<'_>,
        sink: &mut impl Sink,
    ) -> Egress {
        let mark = socket.map_or(0, Socket::mark);
        self.egress_marked(socket, mark, packet, sink)
    }

    /// TC egress of a packet whose mark is not its socket's: a TIME_WAIT's reply, a
    /// forwarded packet.
    pub fn egress_marked(
        &mut self,
        socket: Option<&Socket>,
        mark: u32,
        packet: Packet<'_>,
        sink: &mut impl Sink,
    ) -> Egress {
        let outcome = exit_of(socket, mark, packet.ethertype)
            .and_then(|exit| encapsulation::encapsulate(&self.config, exit, &packet, sink));
        let (reason, segments) = match outcome {
            Ok(segments) => (Reason::Encapsulated, segments),
            Err(reason) if reason.verdict() == Verdict::Passed => {
                let segments = segment::segment(&packet, sink).unwrap_or_else(|| {
                    sink.frame(packet.ethertype, &[packet.bytes]);
                    0
                });
                (reason, segments)
            }
            Err(reason) => (reason, 0),
        };
        self.count(reason);
        Egress { reason, segments }
    }

    /// TC ingress. A super-packet of the receive offload stays one.
    pub fn ingress(&mut self, packet: Packet<'_>, sink: &mut impl Sink) -> Reason {
        let outcome = Tunnelled::parse(&packet, &self.tunnels)
            .and_then(|tunnelled| decapsulation::decapsulate(&tunnelled, sink));
        let reason = match outcome {
            Ok(()) => Reason::Decapsulated,
            Err(reason) => {
                if reason.verdict() == Verdict::Passed {
                    sink.frame(packet.ethertype, &[packet.bytes]);
                }
                reason
            }
        };
        self.count(reason);
        reason
    }

    fn count(&mut self, reason: Reason) {
        if let Some(counter) = self.counters.get_mut(reason as usize) {
            *counter = counter.wrapping_add(1);
        }
    }
}

/// Section 2, steps 1 to 4. Here no writer runs beside the reader, so no exit is ever torn.
fn exit_of(socket: Option<&Socket>, mark: u32, ethertype: u16) -> Result<&Exit, Reason> {
    let marked = mark & MARK_SENTINEL != 0;
    if !matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6) {
        return Err(if marked {
            Reason::MarkedNotIp
        } else {
            Reason::NotIp
        });
    }
    let exit = match (socket.map(Socket::exit), marked) {
        (Some(Some(exit)), _) => exit,
        (_, true) => return Err(Reason::MarkedWithoutExit),
        (None, false) => return Err(Reason::NoSocket),
        (Some(None), false) => return Err(Reason::NoExit),
    };
    if exit.flags & Exit::GATEWAY == 0 {
        return Err(Reason::NoGateway);
    }
    Ok(exit)
}

//! The step that gives every packet exactly one reason: sections 2 and 4 from their first
//! lines on.

use crate::decapsulation::decapsulate;
use crate::encapsulation::{Program, Run};
use crate::hook::Hook;
use crate::host::Host;
use crate::owner::{Answer, Origin, Owner, Search, Sockets};
use crate::packet::{Packet, Port, Sink};
use crate::policy::Judge;
use crate::reflection::Capture;
use crate::socket::Socket;
use crate::tunnel::Tunnelled;
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, reclassified};
use crate::{learning, segment};
use dynencap_abi::{Config, Event, Exit, MARK_DONE, MARK_MASK, MARK_SENTINEL, Reason, Verdict};
use std::mem;

/// What became of a packet at egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The one reason.
    pub reason: Reason,
    /// How many segments left; 0 unless it was a super-packet that was cut.
    pub segments: u32,
}

/// What became of a frame at ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// The one reason.
    pub reason: Reason,
    /// The exit of replies, which [`Host::reflect`] is given with the packet.
    pub captured: Option<Exit>,
}

impl Egress {
    /// What the reason explains.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.reason.verdict()
    }
}

impl Host {
    /// TC egress of a packet of this socket, with its mark; without a socket, with none.
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
        self.egress_from(socket.into(), mark, &(), packet, sink)
    }

    /// TC egress in full: whatever the packet's origin, among the kernel's sockets.
    ///
    /// Frames of a packet that was encapsulated or passed come out at [`Port::Wire`], a
    /// super-packet's as the segments that the kernel's GSO makes. Those of one that was sent
    /// to the segmenter come out at [`Port::Segmenter`], each to be given to
    /// [`Host::segmented`]; [`Host::transmit`] does both. An ICMP error to the sender comes
    /// out at [`Port::Delivered`].
    pub fn egress_from(
        &mut self,
        origin: Origin<'_>,
        mark: u32,
        sockets: &impl Sockets,
        packet: Packet<'_>,
        sink: &mut impl Sink,
    ) -> Egress {
        self.egress_at(Hook::Tc, origin, mark, sockets, packet, sink)
    }

    /// The same at another hook, with what it offers (T7).
    pub fn egress_at(
        &mut self,
        hook: Hook,
        origin: Origin<'_>,
        mark: u32,
        sockets: &impl Sockets,
        packet: Packet<'_>,
        sink: &mut impl Sink,
    ) -> Egress {
        let run = Sent {
            hook,
            program: Program::Egress,
            origin,
            mark,
            sockets,
        };
        let mut buffer = Vec::new();
        let (outcome, packet) = self.decide(&run, packet, &mut buffer, sink);
        self.settle(outcome, &packet, sink)
    }

    /// The program behind the segmenter: one segment of what [`Host::egress_from`] sent there.
    /// What it lets out goes to TC egress of the uplink once more, marked
    /// [`MARK_DONE`]: this counts that program's run alone.
    pub fn segmented(
        &mut self,
        origin: Origin<'_>,
        mark: u32,
        sockets: &impl Sockets,
        packet: Packet<'_>,
        sink: &mut impl Sink,
    ) -> Egress {
        let run = Sent::at_tc(Program::Segmented, origin, mark, sockets);
        let mut buffer = Vec::new();
        let (outcome, packet) = self.decide(&run, packet, &mut buffer, sink);
        self.settle(outcome, &packet, sink)
    }

    /// The whole way of a packet to the wire: TC egress and, where that sends it to the
    /// segmenter, the program behind it for each segment and TC egress for each that it lets
    /// out. The reason is the first program's; `segments` counts what left the segmenter,
    /// whatever became of it there. What the segmenter cannot cut arrives there whole.
    pub fn transmit(
        &mut self,
        origin: Origin<'_>,
        mark: u32,
        sockets: &impl Sockets,
        packet: Packet<'_>,
        sink: &mut impl Sink,
    ) -> Egress {
        let run = Sent::at_tc(Program::Egress, origin, mark, sockets);
        let mut buffer = Vec::new();
        let (outcome, packet) = self.decide(&run, packet, &mut buffer, sink);
        if outcome != Err(Reason::Segmenting) {
            return self.settle(outcome, &packet, sink);
        }
        self.count(Reason::Segmenting);
        let mut scratch = mem::take(&mut self.scratch);
        let mut forward = |packet: Packet<'_>| {
            let sent = self.segmented(origin, mark, sockets, packet, sink);
            if sent.verdict() != Verdict::Dropped {
                self.count(Reason::AlreadyEncapsulated);
            }
        };
        let mut each = ForEach(|parts: &[&[u8]]| {
            scratch.clear();
            for part in parts {
                scratch.extend_from_slice(part);
            }
            forward(Packet {
                ethertype: packet.ethertype,
                bytes: &scratch,
                gso_size: 0,
            });
        });
        let segments = segment::segment_to(Port::Segmenter, &packet, &mut each);
        if segments.is_none() {
            forward(packet);
        }
        self.scratch = scratch;
        Egress {
            reason: Reason::Segmenting,
            segments: segments.unwrap_or_default(),
        }
    }

    /// TC ingress on a host whose kernel has no sockets to look up. A super-packet of the
    /// receive offload stays one.
    pub fn ingress(&mut self, packet: Packet<'_>, sink: &mut impl Sink) -> Reason {
        self.ingress_among(&(), packet, sink)
    }

    /// The same among the kernel's sockets.
    pub fn ingress_among(
        &mut self,
        sockets: &impl Sockets,
        packet: Packet<'_>,
        sink: &mut impl Sink,
    ) -> Reason {
        self.receive(sockets, packet, sink).reason
    }

    /// TC ingress in full.
    pub fn receive(
        &mut self,
        sockets: &impl Sockets,
        packet: Packet<'_>,
        sink: &mut impl Sink,
    ) -> Ingress {
        let learned = learning::learn(&packet, &self.config, &mut self.paths, sockets, self.now);
        let mut captured = None;
        let outcome = match learned {
            Some(reason) => Err(reason),
            None => Tunnelled::parse(&packet, &self.tunnels).and_then(|tunnelled| {
                let taken_off = if tunnelled.by_kernel {
                    Err(Reason::NotTunnel)
                } else {
                    Ok(decapsulate(&tunnelled, sink)?)
                };
                captured = self.reflects().then(|| Capture::of(&tunnelled)).flatten();
                taken_off
            }),
        };
        if let Some(capture) = &captured {
            self.capture_for_kernel(capture, sockets);
        }
        let reason = match outcome {
            Ok(()) => Reason::Decapsulated,
            Err(reason) => {
                if reason.verdict() == Verdict::Passed {
                    sink.frame(Port::Delivered, packet.ethertype, &[packet.bytes]);
                }
                reason
            }
        };
        match reason {
            Reason::PathMtuLearned => self.happened(Event::PathMtuLearned),
            Reason::PathMtuRefused => self.happened(Event::PathMtuRefused),
            _ => {}
        }
        self.count(reason);
        Ingress {
            reason,
            captured: captured.map(|capture| capture.exit),
        }
    }

    /// Whether reflection is on.
    pub(crate) fn reflects(&self) -> bool {
        self.config.flags & Config::REFLECT != 0
    }

    /// Section 2, steps 0 to 15: emits what is encapsulated, and nothing of what passes.
    /// Returns the packet too, which may have taken a DSCP over (into `buffer`).
    fn decide<'p>(
        &self,
        sent: &Sent<'_, impl Sockets>,
        packet: Packet<'p>,
        buffer: &'p mut Vec<u8>,
        sink: &mut impl Sink,
    ) -> (Result<u32, Reason>, Packet<'p>) {
        let (owner, class) = self.owner(sent, &packet);
        let packet = match class {
            Some(class) => reclassified(packet, class, buffer),
            None => packet,
        };
        let outcome = owner.and_then(|owner| {
            // No writer runs beside the reader here, so that no exit is ever torn (step 3).
            if owner.exit().flags & Exit::GATEWAY == 0 {
                return Err(Reason::NoGateway);
            }
            let outcome = self.encapsulate(sent.program, &owner, &packet, sink);
            if let Some(storage) = owner.storage() {
                match outcome {
                    Ok(_) => storage.encapsulated(),
                    Err(reason) if reason.verdict() == Verdict::Dropped => storage.dropped(reason),
                    Err(_) => {}
                }
            }
            outcome
        });
        (outcome, packet)
    }

    /// Steps 0 to 2.
    fn owner<'a>(&'a self, sent: &Sent<'a, impl Sockets>, packet: &Packet<'_>) -> Answer<'a> {
        if sent.program == Program::Egress && sent.mark & MARK_MASK == MARK_DONE {
            return (Err(Reason::AlreadyEncapsulated), None);
        }
        if !matches!(packet.ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6) {
            let reason = if sent.mark & MARK_SENTINEL == 0 {
                Reason::NotIp
            } else {
                Reason::MarkedNotIp
            };
            return (Err(reason), None);
        }
        let search = Search {
            hook: sent.hook,
            origin: sent.origin,
            mark: sent.mark,
            closing: &self.closing,
            reflected: self.reflects().then_some(&self.reflected),
            sockets: sent.sockets,
        };
        search.owner(packet)
    }

    pub(crate) fn judge(&self, cgroup: &[u64]) -> Judge<'_> {
        self.policies.judge(&self.config, cgroup)
    }

    /// Steps 5 to 15.
    fn encapsulate(
        &self,
        program: Program,
        owner: &Owner<'_>,
        packet: &Packet<'_>,
        sink: &mut impl Sink,
    ) -> Result<u32, Reason> {
        let generation = self.config.policy_generation;
        let permitted = match owner {
            Owner::Stored(socket, storage) => {
                storage.permitted(generation, || self.judge(socket.cgroup()))
            }
            // Nobody can be asked, unless there never was a policy.
            Owner::LookedUp(storage) if generation == 0 => {
                storage.permitted(generation, || self.judge(&[]))
            }
            Owner::LookedUp(storage) => storage.is_permitted(generation),
            Owner::Kept(_) | Owner::Peers(..) => true,
        };
        if !permitted {
            return Err(Reason::PolicyDenied);
        }
        let run = Run {
            config: &self.config,
            program,
            exit: owner.exit(),
            stored: owner.storage().is_some(),
            path_mtu: self.paths.mtu(owner.exit(), self.now),
        };
        run.encapsulate(packet, sink)
    }

    /// Counts, and emits what passes.
    fn settle(
        &mut self,
        outcome: Result<u32, Reason>,
        packet: &Packet<'_>,
        sink: &mut impl Sink,
    ) -> Egress {
        let (reason, segments) = match outcome {
            Ok(segments) => (Reason::Encapsulated, segments),
            Err(reason) if reason.verdict() == Verdict::Passed => {
                let port = match reason {
                    Reason::Segmenting => Port::Segmenter,
                    _ => Port::Wire,
                };
                let segments = segment::segment_to(port, packet, sink).unwrap_or_else(|| {
                    sink.frame(port, packet.ethertype, &[packet.bytes]);
                    0
                });
                (reason, segments)
            }
            Err(reason) => (reason, 0),
        };
        self.count(reason);
        Egress { reason, segments }
    }
}

/// A packet's way into a program, beside its bytes.
struct Sent<'a, S> {
    hook: Hook,
    program: Program,
    origin: Origin<'a>,
    mark: u32,
    sockets: &'a S,
}

impl<'a, S: Sockets> Sent<'a, S> {
    fn at_tc(program: Program, origin: Origin<'a>, mark: u32, sockets: &'a S) -> Self {
        Self {
            hook: Hook::Tc,
            program,
            origin,
            mark,
            sockets,
        }
    }
}

/// Gives each frame's parts to a function.
struct ForEach<F>(F);

impl<F: FnMut(&[&[u8]])> Sink for ForEach<F> {
    fn frame(&mut self, _: Port, _: u16, parts: &[&[u8]]) {
        self.0(parts);
    }
}

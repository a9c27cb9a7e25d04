//! What is captured, and for whom: the program at `cgroup_skb/ingress` (5.4).

use super::capture::{has_transport, in_front};
use super::newer::{Segment, Sequence};
use crate::ecn::Ecn;
use crate::host::Host;
use crate::packet::Packet;
use crate::socket::{Socket, TcpState};
use crate::wire::{Ip, TCP};
use crate::{extension, flow, mtu};
use dynencap_abi::option::{REFLECT_DSCP, REFLECT_MARK, REFLECT_PATH};
use dynencap_abi::{
    Config, Event, Exit, FlowKey, MARK_MASK, MARK_OVERHEAD_SHIFT, MARK_SENTINEL, Reflected,
    SocketState,
};

/// The socket that gets a packet.
#[derive(Debug)]
pub struct Receiver<'a> {
    /// The socket; for a request the listener.
    pub socket: &'a mut Socket,
    /// What it expects; TCP only.
    pub sequence: Sequence,
    /// It has a remote port; UDP only.
    pub connected: bool,
}

/// A packet on its way to a socket.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// From its IP header on.
    pub packet: Packet<'a>,
    /// Its mark.
    pub mark: u32,
    /// What [`Host::receive`] captured of it.
    pub captured: Option<Exit>,
    /// What stands from the MAC header on: outer headers, where a device of the kernel left them.
    pub front: &'a [u8],
}

/// A packet that may be reflected.
struct Arrival<'a> {
    ip: Ip<'a>,
    flow: FlowKey,
    segment: Option<Segment>,
    mark: u32,
    captured: Option<Exit>,
}

impl Host {
    /// Lets the packet pass, and returns its mark.
    pub fn reflect(&mut self, to: &mut Receiver<'_>, incoming: &Incoming<'_>) -> u32 {
        let Some(arrival) = self.arrival(incoming) else {
            return incoming.mark;
        };
        // Raw sockets get copies of what is for others.
        if !to.socket.speaks(arrival.flow.protocol) {
            return incoming.mark;
        }
        match (arrival.segment, arrival.captured) {
            (Some(_), _) if to.socket.state() == TcpState::Listen => {
                return self.listen(to.socket, &arrival);
            }
            (Some(segment), Some(exit)) => self.follow(to, &segment, exit),
            (None, Some(exit)) if to.connected => self.reply(to.socket, exit),
            (None, Some(exit)) => self.reply_to_peer(to.socket, &arrival, exit),
            (_, None) => {}
        }
        incoming.mark
    }

    /// Lines 1 and 2.
    fn arrival<'a>(&self, incoming: &Incoming<'a>) -> Option<Arrival<'a>> {
        let Packet {
            ethertype, bytes, ..
        } = incoming.packet;
        let ip = Ip::parse(ethertype, bytes).filter(|_| self.reflects())?;
        let upper = extension::upper(&ip, bytes);
        if !has_transport(&upper, bytes) {
            return None;
        }
        let left = || {
            let looks = self.config.flags & Config::CAPTURE_OUTER != 0;
            looks
                .then(|| in_front(incoming.front, &ip, &self.tunnels))
                .flatten()
        };
        Some(Arrival {
            ip,
            flow: flow::key_of(&ip, bytes),
            segment: (upper.protocol == TCP)
                .then(|| Segment::of(&upper, bytes))
                .flatten(),
            mark: incoming.mark,
            captured: incoming.captured.or_else(left),
        })
    }

    fn bits(&self, socket: &Socket) -> u32 {
        socket.reflection(&self.judge(socket.cgroup()))
    }

    fn may_reflect(&self, socket: &Socket, exit: &Exit) -> bool {
        self.judge(socket.cgroup()).allows_reflection(exit.gateway)
    }

    fn may_follow(&self, socket: &Socket, exit: &Exit) -> bool {
        self.judge(socket.cgroup()).allows_following(exit.gateway)
    }

    /// Line 3; returns the packet's mark.
    fn listen(&mut self, socket: &mut Socket, arrival: &Arrival<'_>) -> u32 {
        let bits = self.bits(socket);
        let mut exit = arrival.captured.filter(|_| bits & REFLECT_PATH != 0);
        if exit.is_some_and(|exit| !self.may_reflect(socket, &exit)) {
            self.happened(Event::ReflectRefused);
            exit = None;
        }
        let replies = arrival.flow.reversed();
        let cgroup = socket.cgroup_id();
        if exit.is_none() && bits & (REFLECT_DSCP | REFLECT_MARK) == 0 {
            if self.captured_for(&replies, cgroup).is_some() {
                self.reflected.remove(&replies);
            }
            return arrival.mark;
        }
        socket.storage_or_new().reflecting.cgroup = cgroup;
        let entry = arrival.entry(exit.unwrap_or(Exit::NONE), cgroup, bits);
        if self.reflected.insert(replies, entry).is_none() {
            self.happened(Event::ReflectCaptured);
        }
        match exit {
            Some(exit) => arrival.mark_for(&exit),
            None => arrival.mark,
        }
    }

    /// Lines 5 to 8.
    fn follow(&mut self, to: &mut Receiver<'_>, segment: &Segment, exit: Exit) {
        let Some(storage) = to.socket.storage() else {
            return;
        };
        let present = storage.exit;
        let reflecting = storage.reflecting;
        let chosen = storage.has_gateway() && present.flags & Exit::REFLECTED == 0;
        let asked = SocketState::REFLECT_SET | REFLECT_PATH;
        let reflects = reflecting.flags & SocketState::REFLECT_PASSIVE != 0
            || reflecting.flags & asked == asked;
        if to.socket.state() != TcpState::Open || !reflects || chosen {
            return;
        }
        if !segment.counts(&to.sequence, reflecting.newest) {
            if exit != present {
                self.happened(Event::ReflectIgnored);
            }
            return;
        }
        if exit == present {
            to.socket.storage_or_new().reflecting.newest = segment.newest();
            return;
        }
        if self.bits(to.socket) & REFLECT_PATH == 0 {
            return;
        }
        let lost = !has_gateway(&present) && to.socket.mark() & MARK_SENTINEL != 0;
        let allowed =
            self.may_reflect(to.socket, &exit) && (lost || self.may_follow(to.socket, &exit));
        if !allowed {
            self.happened(Event::ReflectRefused);
            return;
        }
        self.move_to(to.socket, exit);
        to.socket.storage_or_new().reflecting.newest = segment.newest();
        self.happened(Event::ReflectMoved);
    }

    /// Line 9: a connected UDP socket.
    fn reply(&mut self, socket: &mut Socket, exit: Exit) {
        if !self.may_answer(socket, &exit) {
            return;
        }
        let present = socket.storage_or_new().exit;
        let replaces = has_gateway(&present);
        let chosen = replaces && present.flags & Exit::REFLECTED == 0;
        if chosen || present == exit {
            return;
        }
        if replaces && !self.may_follow(socket, &exit) {
            self.happened(Event::ReflectRefused);
            return;
        }
        self.move_to(socket, exit);
        self.happened(if replaces {
            Event::ReflectMoved
        } else {
            Event::ReflectCaptured
        });
    }

    /// Line 10: a UDP socket of many peers.
    fn reply_to_peer(&mut self, socket: &mut Socket, arrival: &Arrival<'_>, exit: Exit) {
        if !self.may_answer(socket, &exit) {
            return;
        }
        let cgroup = socket.cgroup_id();
        let replies = arrival.flow.reversed();
        socket.storage_or_new();
        let before = self.captured_for(&replies, cgroup).map(|entry| entry.exit);
        if before == Some(exit) {
            return;
        }
        if before.is_some() && !self.may_follow(socket, &exit) {
            self.happened(Event::ReflectRefused);
            return;
        }
        let bits = self.bits(socket) & !(REFLECT_DSCP | REFLECT_MARK);
        socket.storage_or_new().reflecting.cgroup = cgroup;
        let replaced = self
            .reflected
            .insert(replies, arrival.entry(exit, cgroup, bits));
        if before.is_some() {
            self.happened(Event::ReflectMoved);
        } else if replaced.is_none() {
            self.happened(Event::ReflectCaptured);
        }
    }

    /// What lines 9 and 10 ask first.
    fn may_answer(&mut self, socket: &Socket, exit: &Exit) -> bool {
        if self.bits(socket) & REFLECT_PATH == 0 {
            return false;
        }
        let allowed = self.may_reflect(socket, exit);
        if !allowed {
            self.happened(Event::ReflectRefused);
        }
        allowed
    }

    /// A write of the exit without the socket's lock: its mark stays.
    fn move_to(&mut self, socket: &mut Socket, exit: Exit) {
        let cgroup = socket.cgroup_id();
        let storage = socket.storage_or_new();
        storage.write(exit);
        storage.reflecting.cgroup = cgroup;
        self.paths.choose(&exit);
    }

    fn captured_for(&self, replies: &FlowKey, cgroup: u64) -> Option<&Reflected> {
        self.reflected
            .get(replies)
            .filter(|entry| entry.cgroup == cgroup)
    }
}

impl Arrival<'_> {
    fn entry(&self, exit: Exit, cgroup: u64, flags: u32) -> Reflected {
        Reflected {
            exit,
            cgroup,
            mark: self.mark & !MARK_MASK,
            flags,
            class: self.ip.traffic_class() & !Ecn::MASK,
            reserved: [0; 7],
        }
    }

    /// By `net.ipv4.tcp_fwmark_accept` SYN-ACK and child take this mark over.
    fn mark_for(&self, exit: &Exit) -> u32 {
        let overhead = (mtu::overhead(exit) as u32) << MARK_OVERHEAD_SHIFT;
        self.mark & !MARK_MASK | MARK_SENTINEL | overhead
    }
}

fn has_gateway(exit: &Exit) -> bool {
    exit.flags & Exit::GATEWAY != 0
}

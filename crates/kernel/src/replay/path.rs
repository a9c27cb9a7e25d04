//! A way through the lab: frames go in at one device and are captured at another.

use super::{
    capture::{Capture, Sentinel, Sink},
    packet::{Framed, Packet},
};
use crate::{
    Error, Interrupt,
    namespace::Namespace,
    sys::{self, Link},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Where frames go in.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) link: Link,
}

/// Entry and capture.
pub(super) struct Path {
    socket: OwnedFd,
    entry: Link,
    capture: Capture,
    nonce: u64,
    sentinels: u64,
}

impl Path {
    pub(super) fn open(entry: Entry<'_>, capture: Capture, nonce: u64) -> Result<Self, Error> {
        Ok(Self {
            socket: open_sender(entry.namespace)?,
            entry: entry.link,
            capture,
            nonce,
            sentinels: 0,
        })
    }

    /// Sends on the path's own socket, which has no exit.
    pub(super) fn send(&self, framed: &Framed<'_>, ethertype: u16) -> io::Result<()> {
        self.send_on(self.socket.as_fd(), framed, ethertype)
    }

    /// Sends on a socket from [`open_sender`].
    pub(super) fn send_on(
        &self,
        socket: BorrowedFd<'_>,
        framed: &Framed<'_>,
        ethertype: u16,
    ) -> io::Result<()> {
        sys::send_frame(socket, self.entry, ethertype, &framed.pieces())
    }

    /// Hands over everything sent before, in order.
    pub(super) fn barrier(
        &mut self,
        interrupt: &Interrupt,
        sink: &mut Sink<'_>,
    ) -> Result<(), Error> {
        let sentinel = Sentinel::new(self.nonce, self.sentinels);
        let packet = Packet {
            ethertype: Sentinel::ETHERTYPE,
            bytes: sentinel.bytes(),
            gso: None,
        };
        if let Some(framed) = Framed::new(&packet) {
            self.send(&framed, packet.ethertype)
                .map_err(Error::syscall("sending a barrier's frame"))?;
        }
        self.sentinels += 1;
        self.capture.read_until(&sentinel, interrupt, sink)
    }

    /// How many frames of its own it has sent, each of which the programs have counted.
    pub(super) fn sentinels(&self) -> u64 {
        self.sentinels
    }
}

/// A packet socket that receives nothing and sends frames behind a virtio header.
pub(super) fn open_sender(namespace: &Namespace) -> Result<OwnedFd, Error> {
    namespace.in_namespace(|| {
        let socket = sys::packet_socket().map_err(Error::syscall("socket(AF_PACKET)"))?;
        let on = 1_i32.to_ne_bytes();
        sys::set_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_VNET_HDR, &on)
            .map_err(Error::syscall("setsockopt(PACKET_VNET_HDR)"))?;
        Ok(socket)
    })
}

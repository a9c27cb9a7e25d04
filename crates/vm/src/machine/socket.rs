//! A machine's sockets from outside: what the rest of the kernel does to them.

use super::Machine;
use crate::fault::MapError;
use crate::socket::{Endpoints, Socket, SocketId, SocketKind, TcpState};
use std::sync::Arc;

const NO_KIND: SocketKind = SocketKind {
    family: 0,
    ty: 0,
    protocol: 0,
};

impl Machine {
    /// The value of a socket's storage.
    ///
    /// # Errors
    /// No such map.
    pub fn storage(&self, map: &str, socket: SocketId) -> Result<Option<Vec<u8>>, MapError> {
        let entry = &self.maps[self.map_index(map)?];
        Ok(self
            .sockets
            .slot(socket)
            .and_then(|slot| entry.storage(slot))
            .map(|slot| entry.value(slot, &self.memory).to_vec()))
    }

    /// The cgroup of the task that opens sockets and sets options from now on: the ids of the
    /// cgroups above it and its own, the root first. At the start it is the root, id 1.
    pub fn set_task_cgroup(&mut self, path: &[u64]) {
        if *self.task_cgroup != *path {
            self.task_cgroup = path.into();
        }
    }

    /// Opens a socket in the task's cgroup, in state [`TcpState::Close`], without running any
    /// program: as the kernel opens its own, or before programs are attached.
    pub fn open_socket(&mut self, kind: SocketKind) -> SocketId {
        let socket = Socket::new(kind, Arc::clone(&self.task_cgroup));
        self.sockets.open(socket, &mut self.memory)
    }

    /// Closes a socket and frees its storages; a closed one is left alone.
    pub fn close_socket(&mut self, socket: SocketId) {
        if let Some(slot) = self.sockets.close(socket, &mut self.memory) {
            for map in &mut self.maps {
                // No storage, or a map of another type: nothing to free.
                let _ = map.drop_storage(slot);
            }
        }
    }

    fn socket(&self, socket: SocketId) -> Option<&Socket> {
        self.sockets.get(self.sockets.slot(socket)?)
    }

    /// The socket that a listener's handshake makes: of its kind, in its cgroup, with its mark
    /// and with a copy of each storage whose map is `BPF_F_CLONE`, in state
    /// [`TcpState::SynRecv`]. A closed listener gives a child of no kind.
    pub fn clone_socket(&mut self, listener: SocketId) -> SocketId {
        let child = match self.socket(listener) {
            Some(listener) => Socket {
                state: TcpState::SynRecv,
                endpoints: None,
                callbacks: listener.callbacks,
                ..listener.clone()
            },
            None => Socket::new(NO_KIND, Arc::clone(&self.task_cgroup)),
        };
        let child = self.sockets.open(child, &mut self.memory);
        if let (Some(from), Some(to)) = (self.sockets.slot(listener), self.sockets.slot(child)) {
            for map in &mut self.maps {
                map.clone_storage(from, to, &mut self.memory);
            }
        }
        child
    }

    /// A request socket of a listener: what a SYN-ACK has as its socket. It has no storage.
    pub fn open_request(&mut self, listener: SocketId, endpoints: Endpoints) -> SocketId {
        let (kind, mark) = self
            .socket(listener)
            .map_or((NO_KIND, 0), |listener| (listener.kind, listener.mark));
        let mut request = Socket::new(kind, Arc::new([]));
        request.state = TcpState::NewSynRecv;
        request.mark = mark;
        request.endpoints = Some(endpoints);
        request.listener = Some(listener);
        self.sockets.open(request, &mut self.memory)
    }

    /// The TIME_WAIT socket that takes over from a socket: of its kind, addresses and mark,
    /// without its storage. The socket itself stays; the kernel has put it into
    /// [`TcpState::Close`] by then ([`Machine::change_state`]).
    pub fn open_time_wait(&mut self, socket: SocketId) -> SocketId {
        let mut successor = Socket::new(NO_KIND, Arc::new([]));
        if let Some(socket) = self.socket(socket) {
            successor.kind = socket.kind;
            successor.mark = socket.mark;
            successor.device = socket.device;
            successor.endpoints = socket.endpoints;
        }
        successor.state = TcpState::TimeWait;
        self.sockets.open(successor, &mut self.memory)
    }

    fn change(&mut self, socket: SocketId, change: impl FnOnce(&mut Socket)) {
        if let Some(slot) = self.sockets.slot(socket) {
            self.sockets.change(slot, &mut self.memory, change);
        }
    }

    /// Gives a socket addresses and ports, so that lookups find it; a closed one is left alone,
    /// here and below.
    pub fn set_endpoints(&mut self, socket: SocketId, endpoints: Option<Endpoints>) {
        self.change(socket, |socket| socket.endpoints = endpoints);
    }

    /// Puts a socket into a state, without running any program.
    pub fn set_state(&mut self, socket: SocketId, state: TcpState) {
        self.change(socket, |socket| socket.state = state);
    }

    /// What TCP has sent and what of it is acknowledged (`snd_una`, `snd_nxt`).
    pub fn set_sequence(&mut self, socket: SocketId, snd_una: u32, snd_nxt: u32) {
        self.change(socket, |socket| {
            (socket.snd_una, socket.snd_nxt) = (snd_una, snd_nxt);
        });
    }

    /// The sequence number that TCP expects next (`rcv_nxt`).
    pub fn set_expected(&mut self, socket: SocketId, rcv_nxt: u32) {
        self.change(socket, |socket| socket.rcv_nxt = rcv_nxt);
    }

    /// Binds a socket to a device; 0: to none.
    pub fn bind_to_device(&mut self, socket: SocketId, ifindex: u32) {
        self.change(socket, |socket| socket.device = ifindex);
    }

    /// Sets `IPV6_V6ONLY`.
    pub fn set_ipv6_only(&mut self, socket: SocketId, ipv6_only: bool) {
        self.change(socket, |socket| socket.ipv6_only = ipv6_only);
    }

    /// Puts a socket into a cgroup other than that in which it was opened.
    pub fn set_socket_cgroup(&mut self, socket: SocketId, path: &[u64]) {
        self.change(socket, |socket| socket.cgroup = path.into());
    }

    /// The device to which a socket is bound; 0: none.
    #[must_use]
    pub fn bound_device(&self, socket: SocketId) -> u32 {
        self.socket(socket).map_or(0, |socket| socket.device)
    }

    /// The socket's `SO_PRIORITY`.
    #[must_use]
    pub fn priority(&self, socket: SocketId) -> u32 {
        self.socket(socket).map_or(0, |socket| socket.priority)
    }

    /// The socket's `IP_TOS` or `IPV6_TCLASS`.
    #[must_use]
    pub fn traffic_class(&self, socket: SocketId) -> u8 {
        self.socket(socket).map_or(0, |socket| socket.traffic_class)
    }

    /// The socket's state.
    #[must_use]
    pub fn state(&self, socket: SocketId) -> Option<TcpState> {
        self.socket(socket).map(|socket| socket.state)
    }

    /// The socket's `SO_MARK`; 0 for a closed one.
    #[must_use]
    pub fn mark(&self, socket: SocketId) -> u32 {
        self.sockets
            .slot(socket)
            .map_or(0, |slot| self.sockets.mark(slot))
    }

    /// Sets the socket's `SO_MARK`.
    pub fn set_mark(&mut self, socket: SocketId, mark: u32) {
        if let Some(slot) = self.sockets.slot(socket) {
            self.sockets.set_mark(slot, mark, &mut self.memory);
        }
    }
}

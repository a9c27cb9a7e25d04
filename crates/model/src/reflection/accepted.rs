//! A listener's connection is established and takes its entry over (5.5).

use crate::host::Host;
use crate::socket::Socket;
use dynencap_abi::option::{REFLECT_DSCP, REFLECT_MARK, REFLECT_PATH};
use dynencap_abi::{Event, Exit, FlowKey, MARK_MASK, SocketState};

impl Host {
    /// `sock_ops`: a connection that a listener accepted is established; `socket` is what
    /// [`Socket::accept`] made, `flow` as the packets that it sends show it.
    pub fn accepted(&mut self, socket: &mut Socket, flow: &FlowKey) {
        self.established(flow);
        if !self.reflects() {
            return;
        }
        let Some(storage) = socket.storage_mut() else {
            return;
        };
        let cgroup = storage.reflecting.cgroup;
        if cgroup == 0 {
            return;
        }
        storage.reflecting.flags |= SocketState::REFLECT_PASSIVE;
        storage.reflecting.newest = 0;
        let Some(entry) = self.reflected.get(flow).copied() else {
            return;
        };
        if entry.cgroup != cgroup {
            return;
        }
        self.reflected.remove(flow);
        self.happened(Event::ReflectTaken);
        if entry.flags & REFLECT_PATH != 0 && entry.exit.flags & Exit::GATEWAY != 0 {
            socket.set_exit(entry.exit);
            self.paths.choose(&entry.exit);
        }
        if entry.flags & REFLECT_MARK != 0 {
            let ours = socket.mark() & MARK_MASK;
            socket.set_mark(entry.mark & !MARK_MASK | ours);
        }
        if entry.flags & REFLECT_DSCP != 0 {
            socket.set_traffic_class(entry.class);
        }
    }
}

//! `cgroup/sock_create`: a new socket begins with its cgroup's default exit, or with the mark for
//! which its routes are planned (docs/datapath.md §1).

use crate::{
    map, mark, path,
    policy::{InForce, Policy},
    socket::Socket,
};
use aya_ebpf::{bindings::bpf_sock, programs::SockContext};
use dynencap_abi::{
    Event,
    option::{AF_INET, AF_INET6, IPPROTO_MPTCP},
};

const ALLOW: i32 = 1;
/// `socket(2)` fails with `EPERM`.
const REFUSE: i32 = 0;

/// A socket that nobody but its maker knows: the hook's context. Its mark is written in place.
pub(crate) struct NewSocket {
    context: *mut bpf_sock,
}

impl NewSocket {
    #[inline(always)]
    pub(crate) fn new(context: &SockContext) -> Self {
        Self {
            context: context.sock,
        }
    }

    #[inline(always)]
    fn socket(&self) -> Option<Socket> {
        Socket::new(self.context)
    }

    #[inline(always)]
    fn set_mark(&self, mark: u32) {
        // SAFETY: a field of the hook's context that it may write; the verifier checks it.
        unsafe { (&raw mut (*self.context).mark).write_volatile(mark) }
    }
}

#[inline(always)]
pub(crate) fn run(new: &NewSocket) -> i32 {
    let Some(socket) = new.socket() else {
        return ALLOW;
    };
    if !matches!(socket.family(), AF_INET | AF_INET6) {
        return ALLOW;
    }
    let Some(policy) = InForce::of_task().policy() else {
        return ALLOW;
    };
    if policy.has(dynencap_abi::Policy::DEFAULT_EXIT) {
        return begin(new, socket, policy);
    }
    if policy.reserve > 0 {
        new.set_mark(mark::with_reserve(socket.mark(), policy.reserve));
    }
    ALLOW
}

/// With the default exit.
#[inline(always)]
fn begin(new: &NewSocket, socket: Socket, policy: &Policy) -> i32 {
    // Its subflows are sockets of their own, without storage: they would leave in the clear.
    if socket.protocol() == IPPROTO_MPTCP {
        map::count_event(Event::SocketRefused);
        return REFUSE;
    }
    let exit = policy.first_exit();
    let Some(storage) = socket.storage_or_new() else {
        return REFUSE;
    };
    storage.write(&exit);
    new.set_mark(mark::for_exit(socket.mark(), &exit));
    path::remember(&exit);
    map::count_event(Event::DefaultExit);
    ALLOW
}

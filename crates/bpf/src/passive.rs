//! `sock_ops` at passive establishment: a captured exit goes from its entry to the connection
//! (docs/datapath.md §5.5).

use crate::{
    closing::FlowKey,
    map, mark, path,
    reflected::{self, Reflected, There},
    socket::Socket,
    storage::Storage,
    track::Connection,
};
use core::mem::MaybeUninit;
use dynencap_abi::{
    Event, MARK_MASK, SocketState,
    option::{AF_INET, REFLECT_DSCP, REFLECT_MARK, REFLECT_PATH},
};

const SOL_IP: i32 = 0;
const IP_TOS: i32 = 1;
const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;
const SOL_IPV6: i32 = 41;
const IPV6_TCLASS: i32 = 67;

/// `key`: the flow of the packets that this side sends.
#[inline(always)]
pub(crate) fn take_over(connection: &Connection, key: &FlowKey) {
    let Some(socket) = connection.socket() else {
        return;
    };
    let Some(storage) = socket.storage() else {
        return;
    };
    // It may have been copied from the listener in the middle of a write; of this one there is
    // none yet.
    storage.release();
    let cgroup = storage.cgroup();
    if cgroup == 0 || !map::reflects() {
        return;
    }
    storage.set_reflect(storage.reflect() | SocketState::REFLECT_PASSIVE);
    storage.set_newest(0);
    let mut entry = MaybeUninit::uninit();
    if reflected::find(key, cgroup, &mut entry) != There::Own {
        return;
    }
    reflected::remove(key);
    map::count_event(Event::ReflectTaken);
    // SAFETY: `find` wrote it.
    take(connection, socket, storage, unsafe {
        entry.assume_init_ref()
    });
}

#[inline(always)]
fn take(connection: &Connection, socket: Socket, storage: Storage, entry: &Reflected) {
    let before = socket.mark();
    let mut wanted = before;
    if entry.flags & REFLECT_MARK != 0 {
        wanted = wanted & MARK_MASK | entry.mark & !MARK_MASK;
    }
    if entry.flags & REFLECT_PATH != 0 && entry.exit.has_gateway() && storage.claim() {
        storage.write(&entry.exit);
        storage.release();
        path::remember(&entry.exit);
        wanted = mark::for_exit(wanted, &entry.exit);
    }
    // What the kernel refuses stays as it was.
    if wanted != before {
        let _ = connection.set_option(SOL_SOCKET, SO_MARK, wanted);
    }
    if entry.flags & REFLECT_DSCP != 0 {
        let class = u32::from(entry.class());
        let _ = if connection.family() == AF_INET {
            connection.set_option(SOL_IP, IP_TOS, class)
        } else {
            connection.set_option(SOL_IPV6, IPV6_TCLASS, class)
        };
    }
}

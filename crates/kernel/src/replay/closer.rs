//! Closing packet sockets, many at a time.
//!
//! Each `close` waits for an RCU grace period (`packet_release` calls `synchronize_net`), some
//! ten milliseconds: one after the other, thousands of flows would take minutes. Waiting is
//! shared by those who wait at once.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

/// How many sockets are closed at once.
const THREADS: usize = 64;

type Inbox = Arc<Mutex<Receiver<OwnedFd>>>;

/// Takes sockets and closes them on threads of its own; when dropped, it waits for all.
#[derive(Default)]
pub(super) struct Closer {
    started: Option<(Sender<OwnedFd>, Inbox)>,
    threads: Vec<JoinHandle<()>>,
}

impl Closer {
    /// Closes a socket before long.
    pub(super) fn close(&mut self, socket: OwnedFd) {
        let (sender, inbox) = self.started.get_or_insert_with(|| {
            let (sender, inbox) = channel();
            (sender, Arc::new(Mutex::new(inbox)))
        });
        if self.threads.len() < THREADS {
            let inbox = Arc::clone(inbox);
            let spawned = thread::Builder::new().spawn(move || {
                loop {
                    // A thread that panicked here would have lost nothing but its turn.
                    let turn = inbox.lock().unwrap_or_else(|held| held.into_inner());
                    let next = turn.recv();
                    drop(turn);
                    match next {
                        Ok(socket) => drop(socket),
                        Err(_) => return,
                    }
                }
            });
            self.threads.extend(spawned);
        }
        // Without a thread to take it, it comes back and is closed here.
        if self.threads.is_empty() {
            drop(socket);
        } else if let Err(returned) = sender.send(socket) {
            drop(returned.0);
        }
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        drop(self.started.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

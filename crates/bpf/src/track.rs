//! `sock_ops`: what the kernel still sends for a TCP connection after its socket is gone (the ACKs
//! of TIME_WAIT, resets) finds the connection's exit (docs/datapath.md §2.1).

use crate::{
    closing::{self, FlowKey},
    flow::mapped,
    map, passive,
    socket::Socket,
};
use aya_ebpf::{
    bindings::bpf_sock_ops,
    helpers::generated::{bpf_setsockopt, bpf_sock_ops_cb_flags_set},
    programs::SockOpsContext,
};
use core::mem::size_of;
use dynencap_abi::{
    Event,
    option::{AF_INET, AF_INET6},
};

/// `BPF_SOCK_OPS_TCP_CONNECT_CB`: an active connection is about to send its SYN.
const CONNECTS: u32 = 3;
/// `BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB`.
const CONNECTED: u32 = 4;
/// `BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB`.
const ACCEPTED: u32 = 5;
/// `BPF_SOCK_OPS_STATE_CB`; the second argument is the new state.
const STATE: u32 = 10;
/// `BPF_SOCK_OPS_STATE_CB_FLAG`.
const ASK_FOR_STATES: u32 = 1 << 2;
/// `TCP_FIN_WAIT2` and `TCP_CLOSING`, from which TIME_WAIT takes a connection over. It is hashed, and
/// answers on other CPUs, before the state becomes [`CLOSED`].
const MAY_WAIT: [u32; 2] = [5, 11];
/// `TCP_CLOSE`.
const CLOSED: u32 = 7;
const TCP: u8 = 6;
/// What the hook's return value means depends on the operation; for these it is not looked at.
const DONE: u32 = 1;

/// A TCP connection as the hook shows it. Each field is loaded by itself, from the context's own
/// address: the verifier allows neither merged loads nor a context that was computed with.
pub(crate) struct Connection {
    context: *mut bpf_sock_ops,
}

#[inline(always)]
pub(crate) fn run(connection: &Connection) -> u32 {
    match connection.operation() {
        CONNECTS => connection.ask_for_states(),
        CONNECTED => {
            connection.ask_for_states();
            if let Some(key) = connection.key() {
                closing::forget(&key);
            }
        }
        ACCEPTED => {
            connection.ask_for_states();
            if let Some(key) = connection.key() {
                closing::forget(&key);
                passive::take_over(connection, &key);
            }
        }
        STATE => {
            let state = connection.new_state();
            if state == CLOSED {
                if keep(connection) {
                    map::count_event(Event::ExitKept);
                }
            } else if MAY_WAIT.contains(&state) {
                keep(connection);
            }
        }
        _ => {}
    }
    DONE
}

/// Whether there was something to keep, and a place for it.
#[inline(always)]
fn keep(connection: &Connection) -> bool {
    let Some(storage) = connection.socket().and_then(Socket::storage) else {
        return false;
    };
    let Some((exit, _)) = storage.read() else {
        return false;
    };
    let Some(key) = connection.key() else {
        return false;
    };
    if exit.has_gateway() {
        closing::keep(&key, &exit).is_ok()
    } else {
        closing::forget(&key);
        false
    }
}

impl Connection {
    #[inline(always)]
    pub(crate) fn new(context: &SockOpsContext) -> Self {
        Self {
            context: context.ops,
        }
    }

    #[inline(always)]
    fn operation(&self) -> u32 {
        // SAFETY: a field of the hook's context; the verifier checks each access.
        unsafe { (&raw const (*self.context).op).read_volatile() }
    }

    #[inline(always)]
    fn new_state(&self) -> u32 {
        // SAFETY: as in `operation`.
        unsafe { (&raw const (*self.context).__bindgen_anon_1.args[1]).read_volatile() }
    }

    #[inline(always)]
    pub(crate) fn socket(&self) -> Option<Socket> {
        // SAFETY: as in `operation`.
        Socket::new(unsafe { (*self.context).__bindgen_anon_2.sk })
    }

    /// What others asked for stays asked for.
    #[inline(always)]
    fn ask_for_states(&self) {
        // SAFETY: as in `operation`.
        let asked = unsafe { (&raw const (*self.context).bpf_sock_ops_cb_flags).read_volatile() };
        // SAFETY: takes the hook's context and any flags.
        unsafe { bpf_sock_ops_cb_flags_set(self.context, (asked | ASK_FOR_STATES) as i32) };
    }

    /// The flow as the packets show it that this side sends: over a socket of IPv6 they are of
    /// IPv4 where its addresses are IPv4-mapped.
    ///
    /// The addresses of both families are loaded whatever the family: of loads in two branches
    /// LLVM makes one whose address it selects before.
    #[inline(always)]
    fn key(&self) -> Option<FlowKey> {
        let ipv4 = (mapped(self.local4()), mapped(self.remote4()));
        let ipv6 = (self.local6(), self.remote6());
        let (source, destination) = match self.family() {
            AF_INET => ipv4,
            AF_INET6 => ipv6,
            _ => return None,
        };
        let version = if is_mapped(destination) { 4 } else { 6 };
        Some(FlowKey::new(
            version,
            TCP,
            (source, self.local_port()),
            (destination, self.remote_port()),
        ))
    }

    /// `setsockopt` with a value of four bytes; the hook names the socket by its context.
    #[inline(always)]
    pub(crate) fn set_option(&self, level: i32, name: i32, value: u32) -> Result<(), i32> {
        let mut value = value;
        // SAFETY: the value points to four bytes of the stack, as its length says.
        let result = unsafe {
            bpf_setsockopt(
                self.context.cast(),
                level,
                name,
                (&raw mut value).cast(),
                size_of::<u32>() as i32,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(result as i32)
        }
    }

    #[inline(always)]
    pub(crate) fn family(&self) -> u32 {
        // SAFETY: as in `operation`.
        unsafe { (&raw const (*self.context).family).read_volatile() }
    }

    #[inline(always)]
    fn local4(&self) -> u32 {
        // SAFETY: as in `operation`.
        unsafe { (&raw const (*self.context).local_ip4).read_volatile() }
    }

    #[inline(always)]
    fn remote4(&self) -> u32 {
        // SAFETY: as in `operation`.
        unsafe { (&raw const (*self.context).remote_ip4).read_volatile() }
    }

    #[inline(always)]
    fn local6(&self) -> [u64; 2] {
        // SAFETY: as in `operation`.
        unsafe {
            address([
                (&raw const (*self.context).local_ip6[0]).read_volatile(),
                (&raw const (*self.context).local_ip6[1]).read_volatile(),
                (&raw const (*self.context).local_ip6[2]).read_volatile(),
                (&raw const (*self.context).local_ip6[3]).read_volatile(),
            ])
        }
    }

    #[inline(always)]
    fn remote6(&self) -> [u64; 2] {
        // SAFETY: as in `operation`.
        unsafe {
            address([
                (&raw const (*self.context).remote_ip6[0]).read_volatile(),
                (&raw const (*self.context).remote_ip6[1]).read_volatile(),
                (&raw const (*self.context).remote_ip6[2]).read_volatile(),
                (&raw const (*self.context).remote_ip6[3]).read_volatile(),
            ])
        }
    }

    /// As on the wire; the context has it as a plain number.
    #[inline(always)]
    fn local_port(&self) -> u16 {
        // SAFETY: as in `operation`.
        let port = unsafe { (&raw const (*self.context).local_port).read_volatile() };
        (port as u16).to_be()
    }

    /// As on the wire; the context has its two bytes in the upper half of a number, which on
    /// little-endian machines are the last two.
    #[inline(always)]
    fn remote_port(&self) -> u16 {
        // SAFETY: as in `operation`.
        let port = unsafe { (&raw const (*self.context).remote_port).read_volatile() };
        (u32::from_be(port) as u16).to_be()
    }
}

/// Words as they stand in memory.
#[inline(always)]
fn address(words: [u32; 4]) -> [u64; 2] {
    let [a, b, c, d] = words.map(|word| u64::from(u32::from_le(word)));
    [(a | b << 32).to_le(), (c | d << 32).to_le()]
}

/// `::ffff:0:0/96`.
#[inline(always)]
fn is_mapped(address: [u64; 2]) -> bool {
    let [high, low] = address.map(u64::from_le);
    high == 0 && low as u32 == 0xffff_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_told_from_others() {
        assert!(is_mapped(mapped(0x0100_007f)));
        assert!(!is_mapped([0, 1_u64.to_be()]));
        assert!(!is_mapped([0, 0]));
        let words = [0, 0, 0xffff_0000_u32.to_le(), 0x0100_007f];
        assert_eq!(address(words), mapped(0x0100_007f));
    }
}

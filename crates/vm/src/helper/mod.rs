//! Helper functions: which there are, and what every kind of program may call. Those that work
//! on a frame stand in [`skb`], those that work on a socket in [`socket`], those that find one in
//! [`lookup`], those that say whose it is in [`cgroup`].
//!
//! An argument that the verifier would have refused is a fault; what the kernel refuses at run
//! time is a negative errno in r0, as there.

mod cgroup;
mod lookup;
mod skb;
mod socket;

use crate::checksum;
use crate::context::is_context;
use crate::fault::FaultKind;
use crate::interpreter::Helpers;
use crate::map::Map;
use crate::memory::{Memory, map_of_handle};
use crate::socket::Sockets;
use lookup::Search;

/// Which hook a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Tc,
    SetOption,
    GetOption,
    SocketCreate,
    SocketOps,
    /// `cgroup_skb/ingress`.
    Arrived,
}

/// Where a frame goes instead of on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The device.
    pub ifindex: u32,
    /// Which end of it.
    pub direction: Direction,
}

/// How a redirected frame meets the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It is sent, link-layer header and all (`bpf_redirect`).
    Egress,
    /// It comes in there (`bpf_redirect` with `BPF_F_INGRESS`).
    Ingress,
    /// It is sent with the link-layer header that routing and neighbours give
    /// (`bpf_redirect_neigh`).
    Neighbour,
}

/// All that helpers reach besides guest memory.
pub(crate) struct Host<'a> {
    pub(crate) hook: Hook,
    pub(crate) maps: &'a mut [Map],
    pub(crate) sockets: &'a mut Sockets,
    /// Nanoseconds since boot.
    pub(crate) clock: u64,
    /// State of the pseudo-random numbers.
    pub(crate) random: &'a mut u64,
    /// Where `bpf_redirect` sends the frame.
    pub(crate) redirect: Option<Redirect>,
    /// Slots of the sockets that were looked up and not given back yet.
    pub(crate) references: &'a mut Vec<u32>,
    /// The cgroup of the task at work: ids from the root on.
    pub(crate) task_cgroup: &'a [u64],
    /// The socket that `cgroup/sock_create` and `sock_ops` programs are about.
    pub(crate) subject: Option<u32>,
    /// What `cgroup/sock_create` returns besides its verdict.
    pub(crate) retval: i32,
}

/// What a helper gives: a value, an errno, or a reason why the verifier would have refused.
enum Refusal {
    Errno(i32),
    Argument(&'static str),
    Unknown,
}

type Answer = Result<u64, Refusal>;

const EINVAL: i32 = 22;
/// `sizeof` of the kernel's scratch space for `bpf_csum_diff`, up to Linux 6.12; later ones have
/// no such limit.
const MAX_CSUM_DIFF: u64 = 512;
const MAX_TRACE_FORMAT: u64 = 512;
/// `BPF_F_INGRESS`.
const F_INGRESS: u64 = 1;
/// `sizeof(struct bpf_redir_neigh)`.
const REDIR_NEIGH_LEN: u64 = 20;
const TC_ACT_SHOT: u64 = 2;
pub(crate) const TC_ACT_REDIRECT: u64 = 7;

impl Helpers for Host<'_> {
    fn call(
        &mut self,
        helper: i32,
        arguments: &[u64; 5],
        memory: &mut Memory,
    ) -> Result<u64, FaultKind> {
        match self.dispatch(helper, arguments, memory) {
            Ok(value) => Ok(value),
            Err(Refusal::Errno(errno)) => Ok(negative(errno)),
            Err(Refusal::Argument(reason)) => Err(FaultKind::HelperArgument { helper, reason }),
            Err(Refusal::Unknown) => Err(FaultKind::UnknownHelper { helper }),
        }
    }
}

fn negative(errno: i32) -> u64 {
    i64::from(-errno).cast_unsigned()
}

impl Host<'_> {
    fn dispatch(&mut self, helper: i32, a: &[u64; 5], memory: &mut Memory) -> Answer {
        match helper {
            1 => self.map_lookup(a, memory),
            2 => self.map_update(a, memory),
            3 => self.map_delete(a, memory),
            // bpf_ktime_get_ns, bpf_ktime_get_boot_ns, bpf_ktime_get_coarse_ns
            5 | 125 | 160 => Ok(self.clock),
            6 => trace_printk(a, memory),
            7 => Ok(u64::from(self.next_random())),
            // bpf_get_smp_processor_id: one CPU is emulated.
            8 => Ok(0),
            107 => socket::sk_storage_get(self, a, memory),
            _ => match self.hook {
                Hook::Tc => self.tc(helper, a, memory),
                Hook::SetOption | Hook::GetOption => self.option(helper, a, memory),
                Hook::SocketCreate => self.socket_create(helper, a),
                Hook::SocketOps => self.socket_ops(helper, a, memory),
                Hook::Arrived => self.arrived(helper, a, memory),
            },
        }
    }

    /// `tc_cls_act_func_proto`.
    fn tc(&mut self, helper: i32, a: &[u64; 5], memory: &mut Memory) -> Answer {
        match helper {
            9 => skb::store_bytes(a, memory),
            10 => skb::l3_csum_replace(a, memory),
            11 => skb::l4_csum_replace(a, memory),
            23 => Ok(self.redirect(a[0], a[1])),
            26 => skb::load_bytes(a, memory),
            28 => csum_diff(a, memory),
            38 => skb::change_tail(a, memory),
            39 => skb::pull_data(a, memory),
            41 => skb::set_hash_invalid(a),
            43 => skb::change_head(a, memory),
            50 => skb::adjust_room(a, memory),
            68 => skb::load_bytes_relative(a, memory),
            79 => cgroup::frame(self, a, memory),
            83 => cgroup::frame_ancestor(self, a, memory),
            84 => lookup::lookup(self, Search::Tcp, a, memory),
            85 => lookup::lookup(self, Search::Udp, a, memory),
            86 => lookup::release(self, a[0]),
            95 => lookup::sk_fullsock(self, a[0]),
            96 => lookup::tcp_sock(self, a[0]),
            98 => lookup::listener(self, a[0]),
            99 => lookup::lookup(self, Search::TcpCommon, a, memory),
            108 => socket::sk_storage_delete(self, a),
            152 => self.redirect_neighbour(a, memory),
            _ => Err(Refusal::Unknown),
        }
    }

    /// `cg_sockopt_func_proto`.
    fn option(&mut self, helper: i32, a: &[u64; 5], memory: &mut Memory) -> Answer {
        match helper {
            49 if self.hook == Hook::SetOption => socket::setsockopt(self, a, memory),
            57 if self.hook == Hook::SetOption => socket::getsockopt(self, a, memory),
            80 => cgroup::current(self),
            96 => lookup::tcp_sock(self, a[0]),
            108 => socket::sk_storage_delete(self, a),
            123 => cgroup::current_ancestor(self, a[0]),
            186 => Ok(socket::retval(memory)),
            187 => Ok(socket::set_retval(a[0], memory)),
            _ => Err(Refusal::Unknown),
        }
    }

    /// `sock_filter_func_proto`.
    fn socket_create(&mut self, helper: i32, a: &[u64; 5]) -> Answer {
        match helper {
            80 => cgroup::current(self),
            123 => cgroup::current_ancestor(self, a[0]),
            186 => Ok(i64::from(self.retval).cast_unsigned()),
            187 => {
                self.retval = a[0] as i32;
                Ok(0)
            }
            _ => Err(Refusal::Unknown),
        }
    }

    /// `sock_ops_func_proto`.
    fn socket_ops(&mut self, helper: i32, a: &[u64; 5], memory: &mut Memory) -> Answer {
        match helper {
            49 => socket::setsockopt(self, a, memory),
            57 => socket::getsockopt(self, a, memory),
            59 => socket::cb_flags_set(self, a, memory),
            96 => lookup::tcp_sock(self, a[0]),
            108 => socket::sk_storage_delete(self, a),
            _ => Err(Refusal::Unknown),
        }
    }

    /// `cg_skb_func_proto`.
    fn arrived(&mut self, helper: i32, a: &[u64; 5], memory: &mut Memory) -> Answer {
        match helper {
            26 => skb::load_bytes(a, memory),
            68 => skb::load_bytes_relative(a, memory),
            79 => cgroup::frame(self, a, memory),
            83 => cgroup::frame_ancestor(self, a, memory),
            84 => lookup::lookup(self, Search::Tcp, a, memory),
            85 => lookup::lookup(self, Search::Udp, a, memory),
            86 => lookup::release(self, a[0]),
            95 => lookup::sk_fullsock(self, a[0]),
            96 => lookup::tcp_sock(self, a[0]),
            98 => lookup::listener(self, a[0]),
            99 => lookup::lookup(self, Search::TcpCommon, a, memory),
            108 => socket::sk_storage_delete(self, a),
            _ => Err(Refusal::Unknown),
        }
    }

    /// `bpf_redirect`: flags that are not known leave everything as it was.
    fn redirect(&mut self, ifindex: u64, flags: u64) -> u64 {
        let direction = match flags {
            0 => Direction::Egress,
            F_INGRESS => Direction::Ingress,
            _ => return TC_ACT_SHOT,
        };
        self.redirect = Some(Redirect {
            ifindex: ifindex as u32,
            direction,
        });
        TC_ACT_REDIRECT
    }

    /// `bpf_redirect_neigh`; the next hop that a program may name is not modelled beyond its
    /// length.
    fn redirect_neighbour(&mut self, a: &[u64; 5], memory: &Memory) -> Answer {
        let len = a[2] & 0xffff_ffff;
        readable(memory, a[1], len).or_else(|refusal| match len {
            0 => Ok(&[][..]),
            _ => Err(refusal),
        })?;
        if a[3] != 0 || (1..REDIR_NEIGH_LEN).contains(&len) {
            return Ok(TC_ACT_SHOT);
        }
        self.redirect = Some(Redirect {
            ifindex: a[0] as u32,
            direction: Direction::Neighbour,
        });
        Ok(TC_ACT_REDIRECT)
    }

    /// The slot of the open socket that an argument points at.
    fn socket(&self, address: u64) -> Result<u32, Refusal> {
        Memory::socket_slot(address)
            .filter(|slot| self.sockets.get(*slot).is_some())
            .ok_or(Refusal::Argument("not a socket"))
    }

    /// As [`Host::socket`], or the one that the context stands for.
    fn socket_or_context(&self, address: u64) -> Result<u32, Refusal> {
        match self.subject {
            Some(slot) if is_context(address) => Ok(slot),
            _ => self.socket(address),
        }
    }

    fn map(&mut self, handle: u64) -> Result<&mut Map, Refusal> {
        map_of_handle(handle)
            .and_then(|index| self.maps.get_mut(index))
            .ok_or(Refusal::Argument("not a map"))
    }

    /// A map that takes keys from programs, and the key.
    fn map_and_key<'m>(
        &mut self,
        handle: u64,
        key: u64,
        memory: &'m Memory,
    ) -> Result<(&mut Map, &'m [u8]), Refusal> {
        let map = self.map(handle)?;
        if map.is_socket_storage() {
            return Err(Refusal::Argument("socket storage has no keys"));
        }
        let key = readable(memory, key, map.key_len as u64)?;
        Ok((map, key))
    }

    fn map_lookup(&mut self, a: &[u64; 5], memory: &Memory) -> Answer {
        let (map, key) = self.map_and_key(a[0], a[1], memory)?;
        Ok(map.lookup(key).map_or(0, |slot| map.address(slot)))
    }

    fn map_update(&mut self, a: &[u64; 5], memory: &mut Memory) -> Answer {
        let (map, key) = self.map_and_key(a[0], a[1], memory)?;
        let key = key.to_vec();
        let value = readable(memory, a[2], map.value_len as u64)?.to_vec();
        map.update(&key, &value, a[3], memory)
            .map(|()| 0)
            .map_err(Refusal::Errno)
    }

    fn map_delete(&mut self, a: &[u64; 5], memory: &Memory) -> Answer {
        let (map, key) = self.map_and_key(a[0], a[1], memory)?;
        map.delete(key).map(|()| 0).map_err(Refusal::Errno)
    }

    /// SplitMix64: deterministic from the seed that was set.
    fn next_random(&mut self) -> u32 {
        *self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as u32
    }
}

fn context(address: u64) -> Result<(), Refusal> {
    if is_context(address) {
        Ok(())
    } else {
        Err(Refusal::Argument("not the context"))
    }
}

/// Memory that a helper reads.
fn readable(memory: &Memory, address: u64, len: u64) -> Result<&[u8], Refusal> {
    usize::try_from(len)
        .ok()
        .and_then(|len| memory.read(address, len))
        .ok_or(Refusal::Argument("cannot read there"))
}

/// Memory that a helper writes.
fn writable(memory: &mut Memory, address: u64, len: u64) -> Result<&mut [u8], Refusal> {
    usize::try_from(len)
        .ok()
        .and_then(|len| memory.write(address, len))
        .ok_or(Refusal::Argument("cannot write there"))
}

fn trace_printk(a: &[u64; 5], memory: &Memory) -> Answer {
    if a[1] > MAX_TRACE_FORMAT {
        return Err(Refusal::Argument("format too long"));
    }
    readable(memory, a[0], a[1])?;
    Ok(a[1])
}

/// The ones' complement sum of `to` less `from`, in the byte order of the data.
fn csum_diff(a: &[u64; 5], memory: &Memory) -> Answer {
    let (from_size, to_size) = (a[1] & 0xffff_ffff, a[3] & 0xffff_ffff);
    if (from_size | to_size) & 3 != 0 || from_size + to_size > MAX_CSUM_DIFF {
        return Err(Refusal::Errno(EINVAL));
    }
    let seed = (a[4] as u32).to_be();
    let mut sum = u64::from(seed >> 16) + u64::from(seed & 0xffff);
    if from_size > 0 {
        let from = readable(memory, a[0], from_size)?;
        let words = from_size / 2;
        // The complement of each word is added.
        sum += words * 0xffff - checksum::sum(from, 0);
    }
    if to_size > 0 {
        sum = checksum::sum(readable(memory, a[2], to_size)?, sum);
    }
    // Which of the congruent 32-bit values the kernel gives depends on its architecture; the
    // folded one is among them.
    Ok(u64::from(checksum::fold(sum).to_be()))
}

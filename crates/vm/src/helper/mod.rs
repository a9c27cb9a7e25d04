//! Helper functions: which there are, and what every kind of program may call. Those that work
//! on a frame stand in [`skb`], those that work on a socket in [`socket`].
//!
//! An argument that the verifier would have refused is a fault; what the kernel refuses at run
//! time is a negative errno in r0, as there.

mod skb;
mod socket;

use crate::checksum;
use crate::fault::FaultKind;
use crate::interpreter::Helpers;
use crate::map::Map;
use crate::memory::{Memory, map_of_handle};
use crate::socket::Sockets;

/// Which hook a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Tc,
    SetOption,
    GetOption,
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
    pub(crate) redirect: Option<u32>,
}

/// What a helper gives: a value, an errno, or a reason why the verifier would have refused.
enum Refusal {
    Errno(i32),
    Argument(&'static str),
    Unknown,
}

type Answer = Result<u64, Refusal>;

const EINVAL: i32 = 22;
/// `sizeof` of the kernel's scratch space for `bpf_csum_diff`.
const MAX_CSUM_DIFF: u64 = 512;
const MAX_TRACE_FORMAT: u64 = 512;

impl Helpers for Host<'_> {
    fn call(
        &mut self,
        helper: i32,
        arguments: [u64; 5],
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
    fn dispatch(&mut self, helper: i32, a: [u64; 5], memory: &mut Memory) -> Answer {
        let is_tc = self.hook == Hook::Tc;
        let is_sockopt = !is_tc;
        match helper {
            1 => self.map_lookup(a, memory),
            2 => self.map_update(a, memory),
            3 => self.map_delete(a, memory),
            // bpf_ktime_get_ns, bpf_ktime_get_boot_ns
            5 | 125 => Ok(self.clock),
            6 => trace_printk(a, memory),
            7 => Ok(u64::from(self.next_random())),
            // bpf_get_smp_processor_id: one CPU is emulated.
            8 => Ok(0),
            28 => csum_diff(a, memory),
            95 => socket::sk_fullsock(self, a[0]),
            107 => socket::sk_storage_get(self, a, memory),
            108 => socket::sk_storage_delete(self, a),
            49 if self.hook == Hook::SetOption => socket::setsockopt(self, a, memory),
            57 if self.hook == Hook::SetOption => socket::getsockopt(self, a, memory),
            186 if is_sockopt => Ok(socket::retval(memory)),
            187 if is_sockopt => Ok(socket::set_retval(a[0], memory)),
            9 if is_tc => skb::store_bytes(a, memory),
            10 if is_tc => skb::l3_csum_replace(a, memory),
            11 if is_tc => skb::l4_csum_replace(a, memory),
            23 if is_tc => {
                self.redirect = Some(a[0] as u32);
                // TC_ACT_REDIRECT, or TC_ACT_SHOT for flags that are not known.
                Ok(if a[1] & !1 == 0 { 7 } else { 2 })
            }
            26 if is_tc => skb::load_bytes(a, memory),
            38 if is_tc => skb::change_tail(a, memory),
            39 if is_tc => skb::pull_data(a, memory),
            41 if is_tc => skb::set_hash_invalid(a),
            43 if is_tc => skb::change_head(a, memory),
            50 if is_tc => skb::adjust_room(a, memory),
            68 if is_tc => skb::load_bytes_relative(a, memory),
            _ => Err(Refusal::Unknown),
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

    fn map_lookup(&mut self, a: [u64; 5], memory: &Memory) -> Answer {
        let (map, key) = self.map_and_key(a[0], a[1], memory)?;
        Ok(map.lookup(key).map_or(0, |slot| map.address(slot)))
    }

    fn map_update(&mut self, a: [u64; 5], memory: &mut Memory) -> Answer {
        let (map, key) = self.map_and_key(a[0], a[1], memory)?;
        let key = key.to_vec();
        let value = readable(memory, a[2], map.value_len as u64)?.to_vec();
        map.update(&key, &value, a[3], memory)
            .map(|()| 0)
            .map_err(Refusal::Errno)
    }

    fn map_delete(&mut self, a: [u64; 5], memory: &Memory) -> Answer {
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

fn trace_printk(a: [u64; 5], memory: &Memory) -> Answer {
    if a[1] > MAX_TRACE_FORMAT {
        return Err(Refusal::Argument("format too long"));
    }
    readable(memory, a[0], a[1])?;
    Ok(a[1])
}

/// The ones' complement sum of `to` less `from`, in the byte order of the data.
fn csum_diff(a: [u64; 5], memory: &Memory) -> Answer {
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

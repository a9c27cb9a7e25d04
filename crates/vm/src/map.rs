//! Emulated maps: which key has which value slot, with the kernel's errnos. The values' bytes
//! stand in guest memory ([`crate::memory`]), where a program can point at them.
//!
//! One CPU is emulated, so a per-CPU array is an array. A full LRU map evicts exactly the entry
//! that was least recently updated, or looked up by a program; the kernel's choice is only near
//! that, and a run here can be repeated.

use crate::fault::LoadError;
use crate::key::KeyState;
use crate::memory::{Memory, Protection};
use crate::prefix::{Prefix, prefix_bits, prefix_len};
use std::collections::{BTreeMap, HashMap};

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PERCPU_ARRAY: u32 = 6;
const LRU_HASH: u32 = 9;
const LPM_TRIE: u32 = 11;
const SK_STORAGE: u32 = 24;

/// `BPF_F_NO_PREALLOC`: tries and socket storages must have it.
const F_NO_PREALLOC: u32 = 1;
/// `BPF_F_CLONE`: a child socket gets a copy of the listener's storage.
const F_CLONE: u32 = 0x200;
/// Keys and values longer than this are a mistake of the object.
const MAX_SIZE: u32 = 1 << 20;

const ENOENT: i32 = 2;
const E2BIG: i32 = 7;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;

/// What the object says of a map.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) ty: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
    pub(crate) data: Vec<u8>,
}

/// How keys find values.
#[derive(Clone, Debug)]
enum Index {
    Array,
    Hash(Table),
    Lru {
        table: Table,
        /// When each slot was last used, and the other way round.
        used: Vec<u64>,
        oldest: BTreeMap<u64, u32>,
        now: u64,
    },
    Lpm {
        table: Table,
        /// How many prefixes there are of each length.
        lengths: BTreeMap<u32, u32>,
    },
    SocketStorage {
        /// By the socket's slot.
        slots: Vec<Option<u32>>,
        free: Vec<u32>,
        made: u32,
    },
}

/// Keys and their slots.
#[derive(Clone, Debug)]
struct Table {
    slots: HashMap<Box<[u8]>, u32, KeyState>,
    keys: Vec<Box<[u8]>>,
    free: Vec<u32>,
}

impl Table {
    fn new(entries: u32) -> Self {
        Self {
            slots: HashMap::default(),
            keys: vec![Box::default(); entries as usize],
            free: (0..entries).rev().collect(),
        }
    }

    fn insert(&mut self, key: &[u8], slot: u32) {
        self.slots.insert(key.into(), slot);
        self.keys[slot as usize] = key.into();
    }

    fn remove(&mut self, key: &[u8]) -> Option<u32> {
        let slot = self.slots.remove(key)?;
        self.free.push(slot);
        Some(slot)
    }
}

/// Whether an update may make or replace an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UpdateMode {
    Any,
    NoExist,
    Exist,
}

impl UpdateMode {
    fn from_flags(flags: u64) -> Option<Self> {
        match flags {
            0 => Some(Self::Any),
            1 => Some(Self::NoExist),
            2 => Some(Self::Exist),
            _ => None,
        }
    }

    fn admits(self, exists: Option<u32>) -> Result<(), i32> {
        match (self, exists) {
            (Self::NoExist, Some(_)) => Err(EEXIST),
            (Self::Exist, None) => Err(ENOENT),
            _ => Ok(()),
        }
    }
}

/// A map without its values.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    pub(crate) name: String,
    pub(crate) key_len: usize,
    pub(crate) value_len: usize,
    pub(crate) entries: u32,
    /// Its index among the maps, which is its region's.
    number: usize,
    clones: bool,
    index: Index,
}

impl Map {
    /// Makes the map and its region in `memory`.
    pub(crate) fn create(
        definition: Definition,
        number: usize,
        memory: &mut Memory,
    ) -> Result<Self, LoadError> {
        let refuse = |definition: &Definition| LoadError::Map {
            map: definition.name.clone(),
            ty: definition.ty,
            key_size: definition.key_size,
            value_size: definition.value_size,
            max_entries: definition.max_entries,
        };
        let entries = definition.max_entries;
        let lazy = definition.flags & F_NO_PREALLOC != 0;
        let sound = definition.key_size <= MAX_SIZE
            && (1..=MAX_SIZE).contains(&definition.value_size)
            && u64::from(entries) * u64::from(definition.value_size) <= 1 << 28;
        let index = match (definition.ty, definition.key_size) {
            (ARRAY | PERCPU_ARRAY, 4) if entries > 0 => Index::Array,
            (HASH, 1..) if entries > 0 => Index::Hash(Table::new(entries)),
            (LRU_HASH, 1..) if entries > 0 => Index::Lru {
                table: Table::new(entries),
                used: vec![0; entries as usize],
                oldest: BTreeMap::new(),
                now: 0,
            },
            (LPM_TRIE, 5..=260) if entries > 0 && lazy => Index::Lpm {
                table: Table::new(entries),
                lengths: BTreeMap::new(),
            },
            (SK_STORAGE, 4) if entries == 0 && lazy => Index::SocketStorage {
                slots: Vec::new(),
                free: Vec::new(),
                made: 0,
            },
            _ => return Err(refuse(&definition)),
        };
        if !sound {
            return Err(refuse(&definition));
        }
        let value_len = definition.value_size as usize;
        let protection = if definition.name.starts_with(".rodata") {
            Protection::ReadOnly
        } else {
            Protection::ReadWrite
        };
        memory.add_map(value_len, entries as usize, protection);
        let initial = memory.map_value_mut(number, value_len, 0);
        let len = initial.len().min(definition.data.len());
        initial[..len].copy_from_slice(&definition.data[..len]);
        Ok(Self {
            name: definition.name,
            key_len: definition.key_size as usize,
            value_len,
            entries,
            number,
            clones: definition.flags & F_CLONE != 0,
            index,
        })
    }

    pub(crate) fn is_socket_storage(&self) -> bool {
        matches!(self.index, Index::SocketStorage { .. })
    }

    /// The guest address of a slot's value.
    pub(crate) fn address(&self, slot: u32) -> u64 {
        Memory::map_value_address(self.number, self.value_len, slot)
    }

    /// The value's slot, as `bpf_map_lookup_elem` finds it.
    pub(crate) fn lookup(&mut self, key: &[u8]) -> Option<u32> {
        let slot = self.find(key)?;
        self.touch(slot);
        Some(slot)
    }

    /// As [`Map::lookup`], without counting as use.
    pub(crate) fn find(&self, key: &[u8]) -> Option<u32> {
        match &self.index {
            Index::Array => array_slot(key, self.entries),
            Index::Hash(table) | Index::Lru { table, .. } => table.slots.get(key).copied(),
            Index::Lpm { table, lengths } => longest_prefix(table, lengths, key),
            Index::SocketStorage { .. } => None,
        }
    }

    fn find_exact(&self, key: &[u8]) -> Option<u32> {
        match &self.index {
            Index::Lpm { table, .. } => {
                let prefix = Prefix::of(key, prefix_len(key))?;
                table.slots.get(prefix.key()).copied()
            }
            _ => self.find(key),
        }
    }

    fn touch(&mut self, slot: u32) {
        if let Index::Lru {
            used, oldest, now, ..
        } = &mut self.index
        {
            *now += 1;
            oldest.remove(&used[slot as usize]);
            used[slot as usize] = *now;
            oldest.insert(*now, slot);
        }
    }

    /// `bpf_map_update_elem`; the error is an errno.
    pub(crate) fn update(
        &mut self,
        key: &[u8],
        value: &[u8],
        flags: u64,
        memory: &mut Memory,
    ) -> Result<(), i32> {
        let mode = UpdateMode::from_flags(flags).ok_or(EINVAL)?;
        let found = self.find_exact(key);
        let slot = match (&mut self.index, found) {
            (Index::SocketStorage { .. }, _) => return Err(EINVAL),
            // Every element of an array exists.
            (Index::Array, None) => return Err(E2BIG),
            (_, Some(slot)) => {
                mode.admits(found)?;
                slot
            }
            (Index::Hash(table), None) => {
                mode.admits(found)?;
                let slot = table.free.pop().ok_or(E2BIG)?;
                table.insert(key, slot);
                slot
            }
            (Index::Lpm { table, lengths }, None) => {
                let prefix = Prefix::of(key, prefix_len(key)).ok_or(EINVAL)?;
                mode.admits(found)?;
                let slot = table.free.pop().ok_or(ENOSPC)?;
                table.insert(prefix.key(), slot);
                *lengths.entry(prefix_len(key)).or_default() += 1;
                slot
            }
            (Index::Lru { table, oldest, .. }, None) => {
                mode.admits(found)?;
                let slot = match table.free.pop() {
                    Some(slot) => slot,
                    None => {
                        let (_, slot) = oldest.pop_first().ok_or(E2BIG)?;
                        let evicted = std::mem::take(&mut table.keys[slot as usize]);
                        table.slots.remove(&evicted);
                        slot
                    }
                };
                table.insert(key, slot);
                slot
            }
        };
        self.touch(slot);
        memory
            .map_value_mut(self.number, self.value_len, slot)
            .copy_from_slice(value);
        Ok(())
    }

    /// `bpf_map_delete_elem`; the error is an errno.
    pub(crate) fn delete(&mut self, key: &[u8]) -> Result<(), i32> {
        match &mut self.index {
            Index::Array | Index::SocketStorage { .. } => Err(EINVAL),
            Index::Hash(table) => table.remove(key).map(drop).ok_or(ENOENT),
            Index::Lpm { table, lengths } => {
                let prefix = Prefix::of(key, prefix_len(key)).ok_or(EINVAL)?;
                table.remove(prefix.key()).ok_or(ENOENT)?;
                if let Some(count) = lengths.get_mut(&prefix_len(key)) {
                    *count -= 1;
                    if *count == 0 {
                        lengths.remove(&prefix_len(key));
                    }
                }
                Ok(())
            }
            Index::Lru {
                table,
                used,
                oldest,
                ..
            } => {
                let slot = table.remove(key).ok_or(ENOENT)?;
                oldest.remove(&used[slot as usize]);
                Ok(())
            }
        }
    }

    /// Keys and slots, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Vec<u8>, u32)> {
        let (array, table) = match &self.index {
            Index::Array => (0..self.entries, None),
            Index::Hash(table) | Index::Lru { table, .. } | Index::Lpm { table, .. } => {
                (0..0, Some(table))
            }
            Index::SocketStorage { .. } => (0..0, None),
        };
        let keyed = table.into_iter().flat_map(|table| &table.slots);
        array
            .map(|slot| (slot.to_le_bytes().to_vec(), slot))
            .chain(keyed.map(|(key, slot)| (key.to_vec(), *slot)))
    }

    /// The slot of a socket's storage.
    #[inline]
    pub(crate) fn storage(&self, socket: u32) -> Option<u32> {
        match &self.index {
            Index::SocketStorage { slots, .. } => slots.get(socket as usize).copied().flatten(),
            _ => None,
        }
    }

    /// The slot of a socket's storage, made if there is none, filled with `initial` or zero.
    pub(crate) fn make_storage(
        &mut self,
        socket: u32,
        initial: Option<&[u8]>,
        memory: &mut Memory,
    ) -> Option<u32> {
        let Index::SocketStorage { slots, free, made } = &mut self.index else {
            return None;
        };
        let index = socket as usize;
        if slots.len() <= index {
            slots.resize(index + 1, None);
        }
        if let Some(slot) = slots[index] {
            return Some(slot);
        }
        let slot = free.pop().unwrap_or_else(|| {
            *made += 1;
            *made - 1
        });
        slots[index] = Some(slot);
        let value = memory.map_value_mut(self.number, self.value_len, slot);
        match initial {
            Some(initial) => value.copy_from_slice(initial),
            None => value.fill(0),
        }
        Some(slot)
    }

    /// Removes a socket's storage; the error is an errno.
    pub(crate) fn drop_storage(&mut self, socket: u32) -> Result<(), i32> {
        let Index::SocketStorage { slots, free, .. } = &mut self.index else {
            return Err(EINVAL);
        };
        let slot = slots.get_mut(socket as usize).and_then(Option::take);
        free.push(slot.ok_or(ENOENT)?);
        Ok(())
    }

    /// Copies a listener's storage to its child, if the map is of that kind.
    pub(crate) fn clone_storage(&mut self, listener: u32, child: u32, memory: &mut Memory) {
        if let (true, Some(slot)) = (self.clones, self.storage(listener)) {
            let value = memory.map_value(self.number, self.value_len, slot).to_vec();
            self.make_storage(child, Some(&value), memory);
        }
    }

    pub(crate) fn value<'a>(&self, slot: u32, memory: &'a Memory) -> &'a [u8] {
        memory.map_value(self.number, self.value_len, slot)
    }

    pub(crate) fn value_mut<'a>(&self, slot: u32, memory: &'a mut Memory) -> &'a mut [u8] {
        memory.map_value_mut(self.number, self.value_len, slot)
    }
}

fn array_slot(key: &[u8], entries: u32) -> Option<u32> {
    let index = u32::from_le_bytes(key.try_into().ok()?);
    (index < entries).then_some(index)
}

fn longest_prefix(table: &Table, lengths: &BTreeMap<u32, u32>, key: &[u8]) -> Option<u32> {
    let wanted = prefix_len(key);
    if wanted > prefix_bits(key) {
        return None;
    }
    lengths.range(..=wanted).rev().find_map(|(len, _)| {
        let prefix = Prefix::of(key, *len)?;
        table.slots.get(prefix.key()).copied()
    })
}

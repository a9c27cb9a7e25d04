//! A machine's maps from outside, as the `bpf(2)` system call reads and writes them.

use super::Machine;
use crate::fault::MapError;

/// A key and its value.
pub type MapEntry = (Vec<u8>, Vec<u8>);

impl Machine {
    fn map_and_key(&mut self, name: &str, key: &[u8]) -> Result<usize, MapError> {
        let index = self.map_index(name)?;
        check_len(name, self.maps[index].key_len, key.len())?;
        Ok(index)
    }

    pub(super) fn map_index(&self, name: &str) -> Result<usize, MapError> {
        self.maps
            .iter()
            .position(|map| map.name == name)
            .ok_or_else(|| MapError::NoMap {
                map: name.to_owned(),
            })
    }

    /// Sets an entry, as `bpf(BPF_MAP_UPDATE_ELEM, BPF_ANY)` does.
    ///
    /// # Errors
    /// No such map, wrong lengths, or the map's refusal.
    pub fn update_map(&mut self, map: &str, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        let index = self.map_and_key(map, key)?;
        check_len(map, self.maps[index].value_len, value.len())?;
        self.maps[index]
            .update(key, value, 0, &mut self.memory)
            .map_err(|errno| refused(map, errno))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// No such map, or a key of the wrong length.
    pub fn map_value(&self, map: &str, key: &[u8]) -> Result<Option<Vec<u8>>, MapError> {
        let entry = &self.maps[self.map_index(map)?];
        check_len(map, entry.key_len, key.len())?;
        Ok(entry
            .find(key)
            .map(|slot| entry.value(slot, &self.memory).to_vec()))
    }

    /// Removes an entry.
    ///
    /// # Errors
    /// No such map, wrong lengths, or the map's refusal (`ENOENT`: no such entry).
    pub fn delete_map_entry(&mut self, map: &str, key: &[u8]) -> Result<(), MapError> {
        let index = self.map_and_key(map, key)?;
        self.maps[index]
            .delete(key)
            .map_err(|errno| refused(map, errno))
    }

    /// All values of an array of `u64`.
    ///
    /// # Errors
    /// No such map, or values of another size.
    pub fn counters(&self, map: &str) -> Result<Vec<u64>, MapError> {
        let entry = &self.maps[self.map_index(map)?];
        check_len(map, 8, entry.value_len)?;
        Ok((0..entry.entries)
            .map(|slot| entry.value(slot, &self.memory))
            .map(|value| value.first_chunk().copied().map_or(0, u64::from_le_bytes))
            .collect())
    }

    /// As [`Machine::counters`], into a buffer of the caller's: as many values as it holds.
    ///
    /// # Errors
    /// As [`Machine::counters`].
    pub fn read_counters(&self, map: &str, into: &mut [u64]) -> Result<(), MapError> {
        let entry = &self.maps[self.map_index(map)?];
        check_len(map, 8, entry.value_len)?;
        for (slot, counter) in (0..entry.entries).zip(into) {
            let value = entry.value(slot, &self.memory);
            *counter = value.first_chunk().copied().map_or(0, u64::from_le_bytes);
        }
        Ok(())
    }

    /// From now on, remembers which values of this array of `u64` are written, by whomever, for
    /// [`Machine::take_written`]; one map at a time.
    ///
    /// # Errors
    /// As [`Machine::counters`].
    pub fn watch_counters(&mut self, map: &str) -> Result<(), MapError> {
        let index = self.map_index(map)?;
        check_len(map, 8, self.maps[index].value_len)?;
        self.memory.watch(index);
        self.watched = Some(index);
        Ok(())
    }

    /// A value of the map under watch that was written since it was last taken, and its index;
    /// in no order, each once.
    #[inline]
    pub fn take_written(&mut self) -> Option<(usize, u64)> {
        let slot = self.memory.take_written()?;
        let value = self.maps.get(self.watched?)?.value(slot, &self.memory);
        let value = value.first_chunk().copied().map_or(0, u64::from_le_bytes);
        Some((slot as usize, value))
    }

    /// All entries, keys ascending byte by byte. An array has all its elements, a socket storage
    /// none. Bits of a trie's key behind its prefix are zero.
    ///
    /// # Errors
    /// No such map.
    pub fn map_entries(&self, map: &str) -> Result<Vec<MapEntry>, MapError> {
        let entry = &self.maps[self.map_index(map)?];
        let mut entries: Vec<_> = entry
            .entries()
            .map(|(key, slot)| (key, entry.value(slot, &self.memory).to_vec()))
            .collect();
        entries.sort();
        Ok(entries)
    }
}

fn check_len(map: &str, expected: usize, len: usize) -> Result<(), MapError> {
    if expected == len {
        return Ok(());
    }
    Err(MapError::Length {
        map: map.to_owned(),
        expected,
        len,
    })
}

fn refused(map: &str, errno: i32) -> MapError {
    MapError::Refused {
        map: map.to_owned(),
        errno,
    }
}

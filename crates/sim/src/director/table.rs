//! The flow table: bounded, and the flow idle longest makes room.
//!
//! Every packet uses it, so that a use writes one number. The order of idleness is made up for
//! when room is needed: a heap has each flow under a use of it, its last or one before, and what
//! comes out first is put back under its last. A linked list, which knows the order at any time,
//! moves three entries for every packet.

use super::key::{FlowHash, TableKey};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Values by flow.
pub(super) struct Table<V> {
    capacity: usize,
    places: HashMap<TableKey, Place, FlowHash>,
    slots: Vec<Slot<V>>,
    /// Slots whose flow made room.
    free: Vec<Place>,
    /// Each flow's slot once, under a use of it.
    idle: BinaryHeap<Reverse<(u64, Place)>>,
    /// Uses so far.
    clock: u64,
}

/// Of a flow, as long as it is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(usize);

struct Slot<V> {
    used: u64,
    key: TableKey,
    value: Option<V>,
}

impl<V> Table<V> {
    /// An empty table for so many flows.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            places: HashMap::with_hasher(FlowHash),
            slots: Vec::new(),
            free: Vec::new(),
            idle: BinaryHeap::new(),
            clock: 0,
        }
    }

    /// Uses a flow.
    #[inline]
    pub(super) fn find(&mut self, key: &TableKey) -> Option<Place> {
        let place = *self.places.get(key)?;
        let slot = self.slots.get_mut(place.0)?;
        self.clock += 1;
        slot.used = self.clock;
        Some(place)
    }

    /// The value at a place.
    #[inline]
    pub(super) fn at(&mut self, place: Place) -> Option<&mut V> {
        self.slots.get_mut(place.0)?.value.as_mut()
    }

    /// A flow's value, which stays as idle as it is.
    pub(super) fn peek(&self, key: &TableKey) -> Option<&V> {
        let place = self.places.get(key)?;
        self.slots.get(place.0)?.value.as_ref()
    }

    /// Where the table is full, takes out the flow idle longest.
    pub(super) fn make_room(&mut self) -> Option<V> {
        if self.places.len() < self.capacity {
            return None;
        }
        while let Some(Reverse((recorded, place))) = self.idle.pop() {
            let slot = self.slots.get_mut(place.0)?;
            // No other's last use is before what is recorded of it.
            if slot.used == recorded {
                self.places.remove(&slot.key);
                self.free.push(place);
                return slot.value.take();
            }
            self.idle.push(Reverse((slot.used, place)));
        }
        None
    }

    /// Puts a flow in that is not there, which is used thereby.
    pub(super) fn put(&mut self, key: TableKey, value: V) -> Place {
        self.clock += 1;
        let slot = Slot {
            used: self.clock,
            key,
            value: Some(value),
        };
        let free = self.free.pop();
        let place = free.unwrap_or(Place(self.slots.len()));
        match self.slots.get_mut(place.0) {
            Some(old) => *old = slot,
            None => self.slots.push(slot),
        }
        self.places.insert(key, place);
        self.idle.push(Reverse((self.clock, place)));
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dynencap_abi::FlowKey;
    use proptest::prelude::*;

    fn flow(number: u8) -> TableKey {
        let key = FlowKey {
            source: [number; 16],
            destination: [0; 16],
            source_port: [0; 2],
            destination_port: [0; 2],
            protocol: 6,
            version: 6,
            reserved: [0; 2],
        };
        TableKey::of(&key).0
    }

    proptest! {
        /// A list with the one used last at its end does the same.
        #[test]
        fn the_flow_idle_longest_makes_room(
            capacity in 1usize..6,
            steps in prop::collection::vec((0u8..9, 0u8..2), 0..200),
        ) {
            let mut table = Table::new(capacity);
            let mut list: Vec<(u8, usize)> = Vec::new();
            for (step, (number, what)) in steps.into_iter().enumerate() {
                let key = flow(number);
                let at = list.iter().position(|(other, _)| *other == number);
                match what {
                    0 => {
                        let expected = at.map(|at| list[at].1);
                        prop_assert_eq!(table.peek(&key).copied(), expected);
                    }
                    _ if at.is_some() => {
                        let used = at.map(|at| list.remove(at));
                        list.extend(used);
                        let place = table.find(&key);
                        let found = place.and_then(|place| table.at(place).copied());
                        prop_assert_eq!(found, used.map(|(_, value)| value));
                    }
                    _ => {
                        prop_assert_eq!(table.find(&key), None);
                        let full = list.len() == capacity;
                        let out = full.then(|| list.remove(0).1);
                        prop_assert_eq!(table.make_room(), out);
                        list.push((number, step));
                        let place = table.put(key, step);
                        prop_assert_eq!(table.at(place).copied(), Some(step));
                    }
                }
            }
        }
    }
}

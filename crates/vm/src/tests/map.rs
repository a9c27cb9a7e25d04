//! Emulated maps against the kernel's rules.

use super::{add_map, machine};
use crate::fault::MapError;
use crate::machine::Machine;
use crate::socket::SocketKind;

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const LRU: u32 = 9;
const LPM: u32 = 11;
const TCP: SocketKind = SocketKind {
    family: 10,
    ty: 1,
    protocol: 6,
};

fn with(ty: u32, key: u32, value: u32, entries: u32) -> Machine {
    let mut machine = machine(&[]);
    add_map(&mut machine, ty, key, value, entries);
    machine
}

fn errno<T: std::fmt::Debug>(result: Result<T, MapError>) -> i32 {
    match result.unwrap_err() {
        MapError::Refused { errno, .. } => errno,
        other => panic!("{other}"),
    }
}

#[test]
fn a_hash_holds_as_much_as_it_says() {
    let mut machine = with(HASH, 2, 1, 2);
    machine.update_map("map0", b"aa", b"1").unwrap();
    machine.update_map("map0", b"bb", b"2").unwrap();
    assert_eq!(errno(machine.update_map("map0", b"cc", b"3")), 7);
    machine.update_map("map0", b"aa", b"4").unwrap();
    machine.delete_map_entry("map0", b"bb").unwrap();
    assert_eq!(errno(machine.delete_map_entry("map0", b"bb")), 2);
    machine.update_map("map0", b"cc", b"3").unwrap();
    assert_eq!(
        machine.map_value("map0", b"aa").unwrap(),
        Some(b"4".to_vec())
    );
    assert_eq!(machine.map_value("map0", b"bb").unwrap(), None);
    assert_eq!(
        machine.map_value("map0", b"cc").unwrap(),
        Some(b"3".to_vec())
    );
}

#[test]
fn an_array_has_all_its_elements_and_no_more() {
    let mut machine = with(ARRAY, 4, 8, 2);
    machine
        .update_map("map0", &1u32.to_le_bytes(), &7u64.to_le_bytes())
        .unwrap();
    assert_eq!(machine.counters("map0").unwrap(), [0, 7]);
    assert_eq!(
        errno(machine.update_map("map0", &2u32.to_le_bytes(), &[0; 8])),
        7
    );
    assert_eq!(
        errno(machine.delete_map_entry("map0", &0u32.to_le_bytes())),
        22
    );
}

#[test]
fn an_lru_hash_evicts_the_one_unused_for_longest() {
    let mut machine = with(LRU, 1, 1, 2);
    machine.update_map("map0", b"a", b"1").unwrap();
    machine.update_map("map0", b"b", b"2").unwrap();
    assert!(machine.maps[0].lookup(b"a").is_some());
    machine.update_map("map0", b"c", b"3").unwrap();
    assert_eq!(machine.map_value("map0", b"b").unwrap(), None);
    assert_eq!(
        machine.map_value("map0", b"a").unwrap(),
        Some(b"1".to_vec())
    );
    machine.delete_map_entry("map0", b"a").unwrap();
    machine.update_map("map0", b"d", b"4").unwrap();
    machine.update_map("map0", b"e", b"5").unwrap();
    assert_eq!(machine.map_value("map0", b"c").unwrap(), None);
    assert_eq!(
        machine.map_value("map0", b"d").unwrap(),
        Some(b"4".to_vec())
    );
}

#[test]
fn a_trie_finds_the_longest_prefix() {
    let mut machine = with(LPM, 8, 1, 8);
    let key = |len: u32, address: [u8; 4]| [len.to_le_bytes(), address].concat();
    for (len, address, value) in [
        (8, [10, 0, 0, 0], 8),
        (20, [10, 1, 0x10, 0], 20),
        (0, [0; 4], 0),
    ] {
        machine
            .update_map("map0", &key(len, address), &[value])
            .unwrap();
    }
    for (address, value) in [
        ([10, 1, 0x1f, 9], 20),
        ([10, 1, 0x20, 9], 8),
        ([11, 0, 0, 1], 0),
    ] {
        assert_eq!(
            machine.map_value("map0", &key(32, address)).unwrap(),
            Some(vec![value])
        );
    }
    assert_eq!(
        errno(machine.update_map("map0", &key(33, [0; 4]), &[0])),
        22
    );
    assert!(matches!(
        machine.update_map("map0", b"x", b"y"),
        Err(MapError::Length {
            expected: 8,
            len: 1,
            ..
        })
    ));
}

#[test]
fn a_trie_forgets_a_prefix_and_ignores_bits_behind_it() {
    let mut machine = with(LPM, 8, 1, 2);
    let key = |len: u32, address: [u8; 4]| [len.to_le_bytes(), address].concat();
    let find = |machine: &Machine, address| machine.map_value("map0", &key(32, address)).unwrap();
    machine
        .update_map("map0", &key(8, [10, 9, 9, 9]), b"a")
        .unwrap();
    machine
        .update_map("map0", &key(12, [10, 0x1f, 0, 0]), b"b")
        .unwrap();
    // The same prefix again, not a third.
    machine
        .update_map("map0", &key(8, [10, 0, 0, 0]), b"c")
        .unwrap();
    assert_eq!(
        errno(machine.update_map("map0", &key(9, [10, 0, 0, 0]), b"d")),
        28
    );
    let entries = machine.map_entries("map0").unwrap();
    let prefix = |len, address, value: &[u8]| (key(len, address), value.to_vec());
    assert_eq!(
        entries,
        [
            prefix(8, [10, 0, 0, 0], b"c"),
            prefix(12, [10, 0x10, 0, 0], b"b")
        ]
    );
    assert_eq!(find(&machine, [10, 0x1a, 1, 1]), Some(b"b".to_vec()));
    // A question for a prefix is not answered by a longer one.
    let wide = machine
        .map_value("map0", &key(11, [10, 0x1a, 1, 1]))
        .unwrap();
    assert_eq!(wide, Some(b"c".to_vec()));
    assert_eq!(
        machine.map_value("map0", &key(33, [10, 0, 0, 0])).unwrap(),
        None
    );
    assert_eq!(
        errno(machine.delete_map_entry("map0", &key(33, [10, 0, 0, 0]))),
        22
    );
    assert_eq!(
        errno(machine.delete_map_entry("map0", &key(16, [10, 0x10, 0, 0]))),
        2
    );
    machine
        .delete_map_entry("map0", &key(12, [10, 0x1f, 7, 7]))
        .unwrap();
    assert_eq!(find(&machine, [10, 0x1a, 1, 1]), Some(b"c".to_vec()));
    machine
        .delete_map_entry("map0", &key(8, [10, 0, 0, 0]))
        .unwrap();
    assert_eq!(find(&machine, [10, 0x1a, 1, 1]), None);
    machine.update_map("map0", &key(0, [1; 4]), b"z").unwrap();
    assert_eq!(find(&machine, [255; 4]), Some(b"z".to_vec()));
}

#[test]
fn entries_are_listed_by_key() {
    let mut hash = with(HASH, 8, 2, 4);
    for id in [300u64, 7, 1] {
        let value = (id as u16).to_le_bytes();
        hash.update_map("map0", &id.to_be_bytes(), &value).unwrap();
    }
    hash.delete_map_entry("map0", &7u64.to_be_bytes()).unwrap();
    let entry = |id: u64| {
        (
            id.to_be_bytes().to_vec(),
            (id as u16).to_le_bytes().to_vec(),
        )
    };
    assert_eq!(hash.map_entries("map0").unwrap(), [entry(1), entry(300)]);
    let array = with(ARRAY, 4, 1, 2);
    let keys: Vec<_> = array
        .map_entries("map0")
        .unwrap()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, [[0, 0, 0, 0], [1, 0, 0, 0]]);
    assert!(with(24, 4, 8, 0).map_entries("map0").unwrap().is_empty());
    assert!(matches!(
        array.map_entries("none"),
        Err(MapError::NoMap { .. })
    ));
}

#[test]
fn maps_that_the_kernel_would_not_make_do_not_load() {
    use crate::map::{Definition, Map};
    const NO_PREALLOC: u32 = 1;
    // Type, key, value, entries, flags.
    let table = [
        (HASH, 8, 4, 16, 0, true),
        (HASH, 0, 4, 16, 0, false),
        (HASH, 8, 4, 0, 0, false),
        (ARRAY, 8, 4, 1, 0, false),
        (LPM, 24, 4, 16, NO_PREALLOC, true),
        (LPM, 24, 4, 16, 0, false),
        (LPM, 4, 4, 16, NO_PREALLOC, false),
        (LPM, 261, 4, 16, NO_PREALLOC, false),
        (24, 4, 8, 0, NO_PREALLOC, true),
        (24, 4, 8, 0, 0, false),
        (24, 4, 8, 1, NO_PREALLOC, false),
        (24, 8, 8, 0, NO_PREALLOC, false),
        (27, 4, 8, 1, 0, false),
    ];
    for (ty, key_size, value_size, max_entries, flags, ok) in table {
        let definition = Definition {
            name: "map0".to_owned(),
            ty,
            key_size,
            value_size,
            max_entries,
            flags,
            data: Vec::new(),
        };
        let made = Map::create(definition, 0, &mut machine(&[]).memory);
        assert_eq!(made.is_ok(), ok, "{ty} {key_size} {max_entries} {flags}");
    }
}

#[test]
fn a_child_gets_the_listeners_mark_and_no_closed_socket_keeps_one() {
    let mut machine = machine(&[]);
    let listener = machine.open_socket(TCP);
    machine.set_mark(listener, 5);
    let child = machine.clone_socket(listener);
    assert_eq!(machine.mark(child), 5);
    machine.close_socket(child);
    let next = machine.open_socket(TCP);
    assert_eq!((machine.mark(child), machine.mark(next)), (0, 0));
    assert_ne!(child, next);
}

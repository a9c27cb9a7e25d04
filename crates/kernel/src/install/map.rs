//! The object's maps, made and pinned, or taken over from the pins: what sockets and operators
//! have put into them outlives every program.

use super::{Error, pin::Pins};
use crate::{Loaded, object::map_error, object::not_loaded};
use aya::{EbpfLoader, VerifierLogLevel, maps::MapInfo};
use aya_obj::Object;
use dynencap_abi::object;
use std::fmt;

/// Those that are pinned: all but the lab's.
const PINNED: [&str; 13] = [
    object::SOCKETS,
    object::CONFIG,
    object::COUNTERS,
    object::TUNNELS,
    object::EVENTS,
    object::POLICIES,
    object::POLICY_EXITS,
    object::CLOSING,
    object::REFLECTED,
    object::STAGED,
    object::STAGED_COUNT,
    object::PATHS,
    object::PATHS_LEARNED,
];

/// Those that another build may have in another shape: counters start anew.
pub(super) const REPLACEABLE: [&str; 2] = [object::COUNTERS, object::EVENTS];

/// What must be equal for programs to share a map.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            key,
            value,
            entries,
        } = self;
        write!(
            f,
            "type {kind}, key {key} bytes, value {value} bytes, {entries} entries"
        )
    }
}

/// Creates every map of `object` that is not pinned yet, pins it, and takes over those that are.
/// Where `REFLECTED` is made it gets so many entries. No program is loaded.
pub(super) fn open(object: &[u8], pins: &Pins, reflected: u32) -> Result<Loaded, Error> {
    if let Some((map, installed, built)) = differing(object, pins)?.into_iter().next() {
        return Err(Error::Shape {
            map: map.to_owned(),
            installed: installed.to_string(),
            built: built.to_string(),
        });
    }
    let mut loader = EbpfLoader::new();
    loader
        .verifier_log_level(VerifierLogLevel::DEBUG | VerifierLogLevel::STATS)
        .map_max_entries(
            object::REFLECTED,
            reflected_entries(pins)?.unwrap_or(reflected),
        );
    for name in PINNED {
        loader.map_pin_path(name, pins.map(name));
    }
    let ebpf = loader.load(object).map_err(not_loaded)?;
    Ok(Loaded { ebpf })
}

/// How many captured exits the pinned map holds, if there is one.
pub(super) fn reflected_entries(pins: &Pins) -> Result<Option<u32>, Error> {
    let path = pins.map(object::REFLECTED);
    let exists = path
        .try_exists()
        .map_err(Error::file("looking at", &path))?;
    if !exists {
        return Ok(None);
    }
    let info = MapInfo::from_pin(path).map_err(map_error(object::REFLECTED))?;
    Ok(Some(info.max_entries()))
}

/// Names of the pinned maps whose shape is not the object's.
pub(super) fn incompatible(object: &[u8], pins: &Pins) -> Result<Vec<&'static str>, Error> {
    let differing = differing(object, pins)?;
    Ok(differing.into_iter().map(|(name, ..)| name).collect())
}

/// Names of the maps that are pinned now.
pub(super) fn pinned(pins: &Pins) -> Result<Vec<&'static str>, Error> {
    let mut there = Vec::new();
    for name in PINNED {
        let path = pins.map(name);
        let exists = path
            .try_exists()
            .map_err(Error::file("looking at", &path))?;
        if exists {
            there.push(name);
        }
    }
    Ok(there)
}

fn differing(object: &[u8], pins: &Pins) -> Result<Vec<(&'static str, Shape, Shape)>, Error> {
    let object = Object::parse(object).map_err(|error| not_loaded(error.into()))?;
    let mut differing = Vec::new();
    for name in pinned(pins)? {
        let Some(map) = object.maps.get(name) else {
            continue;
        };
        let info = MapInfo::from_pin(pins.map(name)).map_err(map_error(name))?;
        let built = Shape {
            kind: map.map_type(),
            key: map.key_size(),
            value: map.value_size(),
            // The operator's choice: any number serves.
            entries: if name == object::REFLECTED {
                info.max_entries()
            } else {
                map.max_entries()
            },
        };
        let installed = Shape {
            kind: info.map_type().map_err(map_error(name))? as u32,
            key: info.key_size(),
            value: info.value_size(),
            entries: info.max_entries(),
        };
        if installed != built {
            differing.push((name, installed, built));
        }
    }
    Ok(differing)
}

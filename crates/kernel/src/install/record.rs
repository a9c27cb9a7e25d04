//! What is known of an installation beyond its pins. It lies in a BPF map of one value, pinned
//! beside them: so it lives and goes with them, and no file elsewhere can contradict it.

use super::{Error, pin::Pins};
use crate::object::map_error;
use aya::maps::{Array, Map, MapData};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Raised when a field changes its meaning.
const FORMAT: u32 = 1;
/// Length of the map's value: 4 bytes of length, then JSON.
const CAPACITY: usize = 8192;
const NAME: &str = "record";

/// A device, as it was when programs were attached to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its interface index.
    pub index: u32,
}

/// How TC programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// By links (Linux 6.6).
    Tcx,
    /// By filters of a clsact qdisc, which live without links.
    Clsact,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    format: u32,
    pub(super) uplink: Device,
    /// The far end of the segmenting pair.
    pub(super) segment: Option<Device>,
    pub(super) hook: Hook,
    /// Devices whose clsact qdisc is ours.
    pub(super) qdiscs: Vec<String>,
    pub(super) cgroup: PathBuf,
    pub(super) cgroup_id: u64,
    /// Inode of the network namespace.
    pub(super) namespace: u64,
    /// Hash of the object.
    pub(super) build: String,
    /// Of whoever installs; not looked at.
    pub(super) note: String,
}

impl Record {
    pub(super) fn new(
        uplink: Device,
        hook: Hook,
        cgroup: (PathBuf, u64),
        namespace: u64,
        build: String,
    ) -> Self {
        let (cgroup, cgroup_id) = cgroup;
        Self {
            format: FORMAT,
            uplink,
            segment: None,
            hook,
            qdiscs: Vec::new(),
            cgroup,
            cgroup_id,
            namespace,
            build,
            note: String::new(),
        }
    }

    /// `None` where there is none.
    pub(super) fn read(pins: &Pins) -> Result<Option<Self>, Error> {
        let path = pins.record();
        if !path
            .try_exists()
            .map_err(Error::file("looking at", &path))?
        {
            return Ok(None);
        }
        let unreadable = || Error::Record { path: path.clone() };
        let map = open(pins)?;
        let value = map.get(&0, 0).map_err(map_error(NAME))?;
        let (length, text) = value.split_first_chunk::<4>().ok_or_else(unreadable)?;
        let text = text
            .get(..u32::from_ne_bytes(*length) as usize)
            .ok_or_else(unreadable)?;
        let record: Self = serde_json::from_slice(text).map_err(|_| unreadable())?;
        if record.format != FORMAT {
            return Err(unreadable());
        }
        Ok(Some(record))
    }

    /// Makes the map where there is none.
    pub(super) fn write(&self, pins: &Pins) -> Result<(), Error> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let max = CAPACITY - 4;
        let mut value = [0; CAPACITY];
        let (length, rest) = value.split_at_mut(4);
        let place = rest.get_mut(..text.len()).ok_or(Error::RecordLength {
            length: text.len(),
            max,
        })?;
        place.copy_from_slice(&text);
        length.copy_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_ne_bytes());
        let path = pins.record();
        let there = path
            .try_exists()
            .map_err(Error::file("looking at", &path))?;
        let mut map = if there {
            open(pins)?
        } else {
            Array::create(1, 0).map_err(map_error(NAME))?
        };
        map.set(0, value, 0).map_err(map_error(NAME))?;
        if !there {
            map.pin(&path)
                .map_err(|source| Error::Pin { path, source })?;
        }
        Ok(())
    }
}

fn open(pins: &Pins) -> Result<Array<MapData, [u8; CAPACITY]>, Error> {
    let data = MapData::from_pin(pins.record()).map_err(map_error(NAME))?;
    Array::try_from(Map::Array(data)).map_err(|error| map_error(NAME)(error).into())
}

/// FNV-1a (64 bits) of an object, in hexadecimal: tells builds apart, no more.
pub(super) fn build_of(object: &[u8]) -> String {
    let hash = object.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_told_apart_by_the_published_hash() {
        assert_eq!(build_of(b""), "cbf29ce484222325");
        assert_eq!(build_of(b"a"), "af63dc4c8601ec8c");
        assert_eq!(build_of(b"foobar"), "85944171f73967e8");
    }
}

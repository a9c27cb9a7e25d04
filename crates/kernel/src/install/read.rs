//! What the maps of an installation hold, as values.

use crate::{Error, Loaded, object::map_error};
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError};
use dynencap_abi::{Config, Exit, PathKey, PathState, Policy, PolicyExitKey, PortRange, object};
use std::mem::size_of;

/// Policy and address; the prefix's length is aya's.
type ExitKey = [u8; size_of::<PolicyExitKey>() - size_of::<u32>()];

impl Loaded {
    /// The host's configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn config(&self) -> Result<Config, Error> {
        let map: Array<&MapData, [u8; size_of::<Config>()]> = self.map_ref(object::CONFIG)?;
        let value = map.get(&0, 0).map_err(map_error(object::CONFIG))?;
        let mut bytes = Fields(&value);
        Ok(Config {
            source: bytes.array(),
            source4: bytes.array(),
            uplink_mtu: bytes.word(),
            flags: bytes.word(),
            policy_generation: bytes.word(),
            hop_limit: bytes.word(),
            segmenter: bytes.word(),
            uplink: bytes.word(),
            reserved: bytes.word(),
        })
    }

    /// Every policy, by the id of its cgroup, in the order of the ids.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn policies(&self) -> Result<Vec<(u64, Policy)>, Error> {
        let map: HashMap<&MapData, u64, [u8; size_of::<Policy>()]> =
            self.map_ref(object::POLICIES)?;
        let mut policies = Vec::new();
        for entry in map.iter() {
            let (cgroup, value) = entry.map_err(map_error(object::POLICIES))?;
            policies.push((cgroup, policy(&value)));
        }
        policies.sort_by_key(|(cgroup, _)| *cgroup);
        Ok(policies)
    }

    /// Every prefix of every policy, and whether it allows, in the order of the keys.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn policy_exits(&self) -> Result<Vec<(PolicyExitKey, bool)>, Error> {
        let map: LpmTrie<&MapData, ExitKey, u32> = self.map_ref(object::POLICY_EXITS)?;
        let mut exits = Vec::new();
        for entry in map.iter() {
            let (key, value) = entry.map_err(map_error(object::POLICY_EXITS))?;
            let data = key.data();
            let mut bytes = Fields(&data);
            let key = PolicyExitKey {
                prefix_len: key.prefix_len(),
                policy: bytes.word(),
                address: bytes.array(),
            };
            exits.push((key, value == 1));
        }
        exits.sort();
        Ok(exits)
    }

    /// What is known of the ways to exits, in the order of the keys.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn paths(&self) -> Result<Vec<(PathKey, PathState)>, Error> {
        let map: HashMap<&MapData, [u8; size_of::<PathKey>()], [u8; size_of::<PathState>()]> =
            self.map_ref(object::PATHS)?;
        let mut paths = Vec::new();
        for entry in map.iter() {
            let (key, state) = entry.map_err(map_error(object::PATHS))?;
            let mut key = Fields(&key);
            let mut state = Fields(&state);
            paths.push((
                PathKey {
                    gateway: key.array(),
                    destination_port: key.array(),
                    flags: key.array::<1>()[0],
                    reserved: 0,
                },
                PathState {
                    learned: u64::from_ne_bytes(state.array()),
                    mtu: state.word(),
                    header_len: state.word(),
                },
            ));
        }
        paths.sort_by_key(|(key, _)| *key);
        Ok(paths)
    }

    fn map_ref<'a, T>(&'a self, name: &'static str) -> Result<T, Error>
    where
        T: TryFrom<&'a Map, Error = MapError>,
    {
        let map = self.ebpf.map(name);
        let map = map.ok_or(Error::Missing { kind: "map", name })?;
        T::try_from(map).map_err(map_error(name))
    }
}

fn policy(value: &[u8; size_of::<Policy>()]) -> Policy {
    let mut bytes = Fields(value);
    let source = bytes.array();
    let source4 = bytes.array();
    let [id, flags, reserve, port_count, reflect] = [(); 5].map(|()| bytes.word());
    let ports = [(); Policy::MAX_PORTS].map(|()| PortRange {
        first: u16::from_ne_bytes(bytes.array()),
        last: u16::from_ne_bytes(bytes.array()),
    });
    Policy {
        source,
        source4,
        id,
        flags,
        reserve,
        port_count,
        reflect,
        ports,
        default_exit: Exit {
            gateway: bytes.array(),
            source: bytes.array(),
            header: bytes.array(),
            source_port: bytes.array(),
            destination_port: bytes.array(),
            flags: bytes.array::<1>()[0],
            header_len: bytes.array::<1>()[0],
            reserved: bytes.array(),
        },
    }
}

/// Takes fields off the front of a value whose length its type says.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// The next `N` bytes; zero past the end, which no caller reaches.
    fn array<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }

    fn word(&mut self) -> u32 {
        u32::from_ne_bytes(self.array())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_it_was_written() {
        let mut written = Policy {
            source: [1; 16],
            source4: [2; 4],
            id: 3,
            flags: Policy::REQUIRED | Policy::DEFAULT_EXIT,
            reserve: 56,
            port_count: 2,
            reflect: 0,
            ports: [PortRange::default(); Policy::MAX_PORTS],
            default_exit: Exit {
                gateway: [4; 16],
                source_port: [5, 6],
                destination_port: [7, 8],
                flags: Exit::GATEWAY | Exit::UDP,
                header_len: 9,
                header: [10; 32],
                ..Exit::NONE
            },
        };
        written.ports[1] = PortRange {
            first: 4789,
            last: 6100,
        };
        assert_eq!(policy(&written.to_bytes()), written);
    }
}

//! What the maps of an installation hold, as values.

use crate::{Error, Loaded, object::map_error};
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError};
use dynencap_abi::{
    Config, Exit, FlowKey, PathKey, PathState, Policy, PolicyExitKey, PortRange, Reflected,
    TunnelKey, TunnelSpec, object,
};
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

    /// Every prefix of every policy, and its bits `POLICY_EXIT_…`, in the order of the keys.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn policy_exits(&self) -> Result<Vec<(PolicyExitKey, u32)>, Error> {
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
            exits.push((key, value));
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
                    flags: key.byte(),
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

    /// Every tunnel that ends here, in the order of the keys.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn tunnels(&self) -> Result<Vec<(TunnelKey, TunnelSpec)>, Error> {
        type Tunnels<'a> =
            HashMap<&'a MapData, [u8; size_of::<TunnelKey>()], [u8; size_of::<TunnelSpec>()]>;
        let map: Tunnels<'_> = self.map_ref(object::TUNNELS)?;
        let mut tunnels = Vec::new();
        for entry in map.iter() {
            let (key, spec) = entry.map_err(map_error(object::TUNNELS))?;
            let mut key = Fields(&key);
            let [header_len, flags, format, reserved] = spec;
            tunnels.push((
                TunnelKey {
                    address: key.array(),
                    protocol: key.byte(),
                    reserved: key.byte(),
                    port: key.array(),
                },
                TunnelSpec {
                    header_len,
                    flags,
                    format,
                    reserved,
                },
            ));
        }
        tunnels.sort_by_key(|(key, _)| *key);
        Ok(tunnels)
    }

    /// Every captured exit that waits for its connection, and those of UDP peers, in the order of
    /// the keys. The map changes meanwhile: what is evicted or taken while it is read may be
    /// missing. (Captured less taken less those that are there were evicted: `Event`.)
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn reflected(&self) -> Result<Vec<(FlowKey, Reflected)>, Error> {
        type Entries<'a> =
            HashMap<&'a MapData, [u8; size_of::<FlowKey>()], [u8; size_of::<Reflected>()]>;
        let map: Entries<'_> = self.map_ref(object::REFLECTED)?;
        let mut entries = Vec::new();
        for entry in map.iter() {
            let (key, value) = match entry {
                Ok(entry) => entry,
                // It went while it was read.
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(map_error(object::REFLECTED)(error)),
            };
            entries.push((flow(&key), reflected(&value)));
        }
        entries.sort_by_key(|(key, _)| *key);
        Ok(entries)
    }

    /// How many captured exits there can be at once.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn reflected_capacity(&self) -> Result<u32, Error> {
        let name = object::REFLECTED;
        let missing = Error::Missing { kind: "map", name };
        match self.ebpf.map(name).ok_or(missing)? {
            Map::LruHashMap(map) => Ok(map.info().map_err(map_error(name))?.max_entries()),
            _ => Err(Error::Missing { kind: "map", name }),
        }
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
        default_exit: exit(&mut bytes),
    }
}

fn exit(bytes: &mut Fields<'_>) -> Exit {
    Exit {
        gateway: bytes.array(),
        source: bytes.array(),
        header: bytes.array(),
        source_port: bytes.array(),
        destination_port: bytes.array(),
        flags: bytes.byte(),
        header_len: bytes.byte(),
        reserved: bytes.array(),
    }
}

fn flow(key: &[u8; size_of::<FlowKey>()]) -> FlowKey {
    let mut bytes = Fields(key);
    FlowKey {
        source: bytes.array(),
        destination: bytes.array(),
        source_port: bytes.array(),
        destination_port: bytes.array(),
        protocol: bytes.byte(),
        version: bytes.byte(),
        reserved: bytes.array(),
    }
}

fn reflected(value: &[u8; size_of::<Reflected>()]) -> Reflected {
    let mut bytes = Fields(value);
    Reflected {
        exit: exit(&mut bytes),
        cgroup: u64::from_ne_bytes(bytes.array()),
        mark: bytes.word(),
        flags: bytes.word(),
        class: bytes.byte(),
        reserved: bytes.array(),
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

    fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
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

    #[test]
    fn a_captured_exit_is_read_as_it_was_written() {
        let written = Reflected {
            exit: Exit {
                gateway: [4; 16],
                source: [5; 16],
                flags: Exit::GATEWAY | Exit::REFLECTED,
                ..Exit::NONE
            },
            cgroup: 6 << 40,
            mark: 7 << 24,
            flags: 7,
            class: 0xb8,
            reserved: [0; 7],
        };
        assert_eq!(reflected(&written.to_bytes()), written);
    }
}

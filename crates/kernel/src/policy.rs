//! The operator's side of policies, and what closing connections left: maps of a [`Loaded`]
//! beside configuration and counters. What a policy means stands in docs/datapath.md.
//!
//! A change holds for options from then on; for the packets of live sockets once
//! `Config::policy_generation` has been raised ([`Loaded::raise_policy_generation`]).

use crate::{Error, Loaded, object::map_error};
use aya::maps::{Array, HashMap, LpmTrie, MapData, MapError, lpm_trie::Key};
use dynencap_abi::{Config, Exit, FlowKey, Policy, PolicyExitKey, object};
use std::mem::{offset_of, size_of};

type Policies<'a> = HashMap<&'a mut MapData, u64, [u8; size_of::<Policy>()]>;
/// Policy and address; the prefix's length is aya's.
type ExitKey = [u8; size_of::<PolicyExitKey>() - size_of::<u32>()];
type Exits<'a> = LpmTrie<&'a mut MapData, ExitKey, u32>;
type Closing<'a> = HashMap<&'a mut MapData, [u8; size_of::<FlowKey>()], [u8; size_of::<Exit>()]>;

impl Loaded {
    /// Gives the cgroup with this id (the inode number of its directory) a policy, in place of
    /// the one that it had. Its prefixes are written before with [`Loaded::set_policy_exit`]:
    /// until then it allows no gateway.
    pub fn set_policy(&mut self, cgroup: u64, policy: &Policy) -> Result<(), Error> {
        let mut map: Policies<'_> = self.map(object::POLICIES)?;
        map.insert(cgroup, policy.to_bytes(), 0)
            .map_err(map_error(object::POLICIES))
    }

    /// Takes the cgroup's policy away, if it has one; its prefixes stay until they are removed.
    pub fn remove_policy(&mut self, cgroup: u64) -> Result<(), Error> {
        let mut map: Policies<'_> = self.map(object::POLICIES)?;
        absent_is_fine(map.remove(&cgroup)).map_err(map_error(object::POLICIES))
    }

    /// Writes a prefix of gateways: of the bits `POLICY_EXIT_…`; 0 denies.
    pub fn set_policy_exit(&mut self, key: &PolicyExitKey, value: u32) -> Result<(), Error> {
        let mut map: Exits<'_> = self.map(object::POLICY_EXITS)?;
        map.insert(&prefix(key), value, 0)
            .map_err(map_error(object::POLICY_EXITS))
    }

    /// Takes a prefix away, if it is there.
    pub fn remove_policy_exit(&mut self, key: &PolicyExitKey) -> Result<(), Error> {
        let mut map: Exits<'_> = self.map(object::POLICY_EXITS)?;
        absent_is_fine(map.remove(&prefix(key))).map_err(map_error(object::POLICY_EXITS))
    }

    /// Has every socket's exit checked anew with its next packet; the new generation, which a
    /// later [`Loaded::set_config`] must not fall behind.
    pub fn raise_policy_generation(&mut self) -> Result<u32, Error> {
        const AT: usize = offset_of!(Config, policy_generation);
        let mut map: Array<&mut MapData, [u8; size_of::<Config>()]> = self.map(object::CONFIG)?;
        let mut config = map.get(&0, 0).map_err(map_error(object::CONFIG))?;
        let mut word = [0; size_of::<u32>()];
        word.copy_from_slice(&config[AT..AT + size_of::<u32>()]);
        let generation = u32::from_ne_bytes(word).wrapping_add(1);
        config[AT..AT + size_of::<u32>()].copy_from_slice(&generation.to_ne_bytes());
        map.set(0, config, 0).map_err(map_error(object::CONFIG))?;
        Ok(generation)
    }

    /// The bytes of the [`Exit`] that a connection left which is gone, by the flow of the
    /// packets that it sent.
    pub fn closing_exit(
        &mut self,
        flow: &FlowKey,
    ) -> Result<Option<[u8; size_of::<Exit>()]>, Error> {
        let mut key = [0; size_of::<FlowKey>()];
        key[..16].copy_from_slice(&flow.source);
        key[16..32].copy_from_slice(&flow.destination);
        key[32..34].copy_from_slice(&flow.source_port);
        key[34..36].copy_from_slice(&flow.destination_port);
        key[36] = flow.protocol;
        key[37] = flow.version;
        let map: Closing<'_> = self.map(object::CLOSING)?;
        match map.get(&key, 0) {
            Ok(exit) => Ok(Some(exit)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(map_error(object::CLOSING)(error)),
        }
    }
}

fn prefix(key: &PolicyExitKey) -> Key<ExitKey> {
    let mut data: ExitKey = [0; size_of::<ExitKey>()];
    data.copy_from_slice(&key.to_bytes()[size_of::<u32>()..]);
    Key::new(key.prefix_len, data)
}

pub(crate) fn absent_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        other => other,
    }
}

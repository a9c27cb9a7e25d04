//! A socket as the option hooks see it (section 1): kind, mark and cgroup, and how the options
//! change its storage. The options' values are left to `option`, policy to `policy`.

use crate::option::{self, Accepted, Errno, OptionValue, REFLECT_BITS};
use crate::policy::{Judge, Policies};
use crate::storage::{Reflecting, Storage};
use crate::{mtu, wire};
use dynencap_abi::option::{
    AF_INET, AF_INET6, AF_PACKET, EAFNOSUPPORT, EINVAL, ENCAP_GW, ENCAP_INFO, ENCAP_REFLECT,
    ENCAP_UDP, ENOPROTOOPT, EOPNOTSUPP, EPERM, IPPROTO_MPTCP, SOCK_RAW,
};
use dynencap_abi::{
    Config, Exit, Info, MARK_DONE, MARK_MASK, MARK_OVERHEAD_MASK, MARK_OVERHEAD_SHIFT,
    MARK_SENTINEL, Policy, SocketState,
};
use std::cell::Cell;

/// What `socket(2)` was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketKind {
    /// Address family.
    pub family: u32,
    /// Type, without flags.
    pub ty: u32,
    /// Protocol.
    pub protocol: u32,
}

/// The id of the root cgroup.
pub(crate) const ROOT_CGROUP: u64 = 1;
/// `SOCK_STREAM`.
const SOCK_STREAM: u32 = 1;
/// `SOCK_DGRAM`.
const SOCK_DGRAM: u32 = 2;

/// What the data path tells apart of `sk_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// `TCP_CLOSE`: where every socket begins, of whatever family.
    Close,
    /// `TCP_LISTEN`.
    Listen,
    /// `TCP_SYN_SENT` or `TCP_SYN_RECV`: not established yet.
    Connecting,
    /// `TCP_ESTABLISHED`, also of a connected UDP socket, and what follows it up to
    /// `TCP_LAST_ACK`.
    Open,
}

/// One socket.
#[derive(Clone, Debug)]
pub struct Socket {
    kind: SocketKind,
    mark: u32,
    /// `IP_TOS` or `IPV6_TCLASS`, by the family.
    traffic_class: u8,
    state: TcpState,
    /// Ids from the root's on.
    cgroup: Box<[u64]>,
    storage: Option<Storage>,
}

impl Socket {
    /// A socket of the root cgroup, without storage, its mark 0.
    #[must_use]
    pub fn new(kind: SocketKind) -> Self {
        Self::in_cgroup(kind, &[])
    }

    /// A socket made in a cgroup, given as ids from the root's on. Its default exit is left
    /// to [`crate::Host::create_socket`].
    #[must_use]
    pub fn in_cgroup(kind: SocketKind, cgroup: &[u64]) -> Self {
        Self {
            kind,
            mark: 0,
            traffic_class: 0,
            state: TcpState::Close,
            cgroup: cgroup.into(),
            storage: None,
        }
    }

    /// What it was opened as.
    #[must_use]
    pub fn kind(&self) -> SocketKind {
        self.kind
    }

    /// The cgroup in which it was made: ids from the root's on.
    #[must_use]
    pub fn cgroup(&self) -> &[u64] {
        &self.cgroup
    }

    /// The id of that cgroup itself.
    pub(crate) fn cgroup_id(&self) -> u64 {
        self.cgroup.last().copied().unwrap_or(ROOT_CGROUP)
    }

    /// `sk_state`.
    #[must_use]
    pub fn state(&self) -> TcpState {
        self.state
    }

    /// What the kernel's state machine makes of it.
    pub fn set_state(&mut self, state: TcpState) {
        self.state = state;
    }

    /// `SO_MARK`.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// The application's own `SO_MARK`: the kernel lets it overwrite our bits too.
    pub fn set_mark(&mut self, mark: u32) {
        self.mark = mark;
    }

    /// `IP_TOS` or `IPV6_TCLASS`.
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        self.traffic_class
    }

    pub(crate) fn set_traffic_class(&mut self, class: u8) {
        self.traffic_class = class;
    }

    /// Whether it is an IP socket of this protocol, chosen or implied.
    pub(crate) fn speaks(&self, protocol: u8) -> bool {
        let chosen = match (self.kind.protocol, self.kind.ty) {
            (0, SOCK_STREAM) => u32::from(wire::TCP),
            (0, SOCK_DGRAM) => u32::from(wire::UDP),
            (chosen, _) => chosen,
        };
        self.kind.family != AF_PACKET && chosen == u32::from(protocol)
    }

    /// What reflection keeps in the socket's storage; none without storage.
    #[must_use]
    pub fn reflecting(&self) -> Option<&Reflecting> {
        self.storage.as_ref().map(|storage| &storage.reflecting)
    }

    /// The exit in the socket's storage; none without storage.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        self.storage.as_ref().map(|storage| &storage.exit)
    }

    /// Puts an exit into the storage, as reflection does for an accepted connection, and
    /// marks the socket accordingly.
    pub fn set_exit(&mut self, exit: Exit) {
        self.storage_or_new().write(exit);
        self.remark(&exit);
    }

    /// What `accept(2)` returns from this listener: storage, mark and cgroup are cloned.
    #[must_use]
    pub fn accept(&self) -> Self {
        Self {
            state: TcpState::Open,
            ..self.clone()
        }
    }

    /// `setsockopt` at our level on a host without policies; [`crate::Host::set_option`] is
    /// the whole call. A refused call changes nothing.
    pub fn set_option(&mut self, config: &Config, name: i32, value: &[u8]) -> Result<(), Errno> {
        let none = Policies::default();
        self.set_option_under(&none.judge(config, &[]), config, name, value)
    }

    /// `getsockopt` at our level, into a buffer of `capacity` bytes, on a host that learned no
    /// path MTU; [`crate::Host::option`] is the whole call.
    pub fn option(
        &self,
        config: &Config,
        name: i32,
        capacity: usize,
    ) -> Result<OptionValue, Errno> {
        let none = Policies::default();
        let judge = none.judge(config, &[]);
        self.option_with(&judge, config, config.uplink_mtu, name, capacity)
    }

    pub(crate) fn storage(&self) -> Option<&Storage> {
        self.storage.as_ref()
    }

    pub(crate) fn storage_mut(&mut self) -> Option<&mut Storage> {
        self.storage.as_mut()
    }

    pub(crate) fn storage_or_new(&mut self) -> &mut Storage {
        self.storage.get_or_insert_with(Storage::new)
    }

    /// Steps 1 to 5, then the writing. No allocation fails here, and no mark is refused.
    pub(crate) fn set_option_under(
        &mut self,
        judge: &Judge<'_>,
        config: &Config,
        name: i32,
        value: &[u8],
    ) -> Result<(), Errno> {
        if !matches!(name, ENCAP_GW | ENCAP_UDP | ENCAP_REFLECT) {
            return Err(Errno(ENOPROTOOPT));
        }
        self.permit(config)?;
        let accepted = match name {
            ENCAP_GW => Accepted::gateway(value)?,
            ENCAP_UDP => Accepted::udp(value)?,
            _ => return self.set_reflection(judge, option::reflection(value)?),
        };
        let (allowed, source) = match accepted {
            Accepted::ClearGateway => (judge.allows_clearing_gateway(), [0; 16]),
            Accepted::ClearUdp => (true, [0; 16]),
            Accepted::Gateway { gateway, family } => {
                (judge.allows_gateway(gateway), judge.source(family))
            }
            Accepted::Udp {
                destination_port,
                header_len,
                ..
            } => (judge.allows_udp(destination_port, header_len), [0; 16]),
        };
        if !allowed {
            return Err(Errno(EPERM));
        }
        let mut exit = match (self.exit(), &accepted) {
            (None, Accepted::ClearGateway | Accepted::ClearUdp) => {
                self.remark(&Exit::NONE);
                return Ok(());
            }
            (stored, _) => stored.copied().unwrap_or(Exit::NONE),
        };
        accepted.apply(&mut exit, source);
        self.set_exit(exit);
        Ok(())
    }

    /// `ENCAP_REFLECT`: neither exit nor mark changes.
    fn set_reflection(&mut self, judge: &Judge<'_>, bits: Option<u32>) -> Result<(), Errno> {
        if !judge.allows_reflecting(bits.unwrap_or(0)) {
            return Err(Errno(EPERM));
        }
        let own = SocketState::REFLECT_SET | REFLECT_BITS;
        match (bits, &mut self.storage) {
            (None, None) => {}
            (None, Some(storage)) => storage.reflecting.flags &= !own,
            (Some(bits), _) => {
                let flags = &mut self.storage_or_new().reflecting.flags;
                *flags = *flags & !own | SocketState::REFLECT_SET | bits;
            }
        }
        Ok(())
    }

    /// The bits of `ENCAP_REFLECT` in force: the socket's own, else those of the policy.
    pub(crate) fn reflection(&self, judge: &Judge<'_>) -> u32 {
        let own = self.reflecting().map_or(0, |reflecting| reflecting.flags);
        let bits = if own & SocketState::REFLECT_SET == 0 {
            judge.policy.map_or(0, |policy| policy.reflect)
        } else {
            own
        };
        bits & REFLECT_BITS
    }

    /// `path_mtu` is the lesser of the uplink's and what was learned for the socket's exit.
    pub(crate) fn option_with(
        &self,
        judge: &Judge<'_>,
        config: &Config,
        path_mtu: u32,
        name: i32,
        capacity: usize,
    ) -> Result<OptionValue, Errno> {
        if !matches!(name, ENCAP_GW | ENCAP_UDP | ENCAP_REFLECT | ENCAP_INFO) {
            return Err(Errno(ENOPROTOOPT));
        }
        self.permit(config)?;
        let exit = self.exit().unwrap_or(&Exit::NONE);
        let value = match name {
            ENCAP_GW => OptionValue::gateway(exit),
            ENCAP_UDP => OptionValue::udp(exit),
            ENCAP_REFLECT => OptionValue::reflection(self.reflection(judge)),
            _ => OptionValue::info(&self.info(path_mtu)),
        };
        if value.len() > capacity {
            return Err(Errno(EINVAL));
        }
        Ok(value)
    }

    fn info(&self, path_mtu: u32) -> Info {
        let storage = self.storage.as_ref();
        let count = |cell: fn(&Storage) -> &Cell<u64>| storage.map_or(0, |s| cell(s).get());
        let exit = self.exit().filter(|exit| exit.flags & Exit::GATEWAY != 0);
        let overhead = exit.map_or(0, |exit| mtu::overhead(exit) as u32);
        Info {
            encapsulated: count(|storage| &storage.encapsulated),
            dropped: count(|storage| &storage.dropped),
            last_drop: storage.map_or(0, |storage| storage.last_drop.get()),
            overhead,
            mtu: exit.map_or(0, |_| path_mtu.saturating_sub(overhead)),
            reserved: 0,
        }
    }

    /// Checks 2 and 3: may this socket have our options?
    fn permit(&self, config: &Config) -> Result<(), Errno> {
        let packet_sockets = config.flags & Config::ALLOW_PACKET_SOCKETS != 0;
        let SocketKind {
            family,
            ty,
            protocol,
        } = self.kind;
        match family {
            AF_INET | AF_INET6 => {
                let refused = ty == SOCK_RAW && !packet_sockets || protocol == IPPROTO_MPTCP;
                if refused {
                    return Err(Errno(EOPNOTSUPP));
                }
                Ok(())
            }
            AF_PACKET if packet_sockets => Ok(()),
            _ => Err(Errno(EAFNOSUPPORT)),
        }
    }

    /// The largest overhead that the mark's routes were planned for; 0 where the mark says
    /// something else.
    fn planned(&self) -> u32 {
        match self.mark & MARK_OVERHEAD_MASK {
            MARK_DONE => 0,
            planned => planned,
        }
    }

    /// Our part of the mark follows the exit; the application's bits stay.
    pub(crate) fn remark(&mut self, exit: &Exit) {
        let planned = self.planned();
        let ours = if exit.flags & Exit::GATEWAY == 0 {
            planned
        } else {
            let overhead = (mtu::overhead(exit) as u32) << MARK_OVERHEAD_SHIFT;
            MARK_SENTINEL | planned.max(overhead)
        };
        self.mark = self.mark & !MARK_MASK | ours;
    }

    /// Step 3 of socket creation: routes are planned for `Policy::reserve` from the start.
    pub(crate) fn reserve(&mut self, policy: &Policy) {
        if policy.reserve > 0 {
            let planned = policy.reserve << MARK_OVERHEAD_SHIFT & MARK_OVERHEAD_MASK;
            self.mark = self.mark & !MARK_MASK | planned;
        }
    }
}
